"""The Kubernetes side: what to list, how to read it, what may leave the cluster. Knows no Kafka, no PostgreSQL."""
