"""clusterinfo: any number of Kubernetes clusters in one PostgreSQL database that can be trusted."""

__version__ = "0.1.0"
