"""A simulated Kubernetes API, faithful to what a real kube-apiserver answered (tests/recorded).

`SimulatedCluster` holds the objects, `Faults` what goes wrong, `SimulatedKubernetes` serves both over HTTP;
`python -m clusterinfo.sandbox.kubernetes` does so as a process of its own.
"""

from clusterinfo.sandbox.kubernetes.faults import Faults
from clusterinfo.sandbox.kubernetes.manifests import CANARY_MARKS
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.state import Identity, SimulatedCluster

__all__ = ["CANARY_MARKS", "Faults", "Identity", "SimulatedCluster", "SimulatedKubernetes"]
