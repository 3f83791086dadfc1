"""Kinds -> the RBAC manifests that let the collector list them, and no more. Pure: no I/O, no clock, no environment.

Discovery itself (/api, /apis, /version) needs no rule: Kubernetes grants it to every authenticated client, by the
ClusterRoles system:discovery and system:public-info-viewer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from clusterinfo.kubernetes.discovery import SECRETS, ApiGroup, ApiVersion
from clusterinfo.kubernetes.election import LeaseName
from clusterinfo.model import GroupVersionResource

JSON = dict[str, Any]

NAME = "cluster-info-collector"
VERBS = ["get", "list", "watch"]
RBAC = "rbac.authorization.k8s.io"
LINE_WIDTH = 100

HEADER = """\
# What the collector may do: read. Printed by `clusterinfo rbac` for the settings NAMESPACES, INCLUDE, EXCLUDE and
# CLUSTER_ID: unless that is set, the collector has to get the namespace kube-system, by whose uid it knows the cluster.
# A kind that is not here is reported as forbidden, once, and collection goes on. With `--discover` it names the kinds
# that a cluster serves, custom ones too; without, those that are built into Kubernetes 1.36.
# Secrets are granted only where INCLUDE names them in full, as in INCLUDE='*,secrets'.
"""
LEASE_HEADER = """\
# The one thing that a collector writes: the Lease by which replicas elect who works (LEADER_ELECTION).
"""

# group -> its kinds in namespaces, its kinds of the cluster: those built into Kubernetes 1.36 that can be listed, as
# far as they are served by default. Whether the list is whole is tested against a recorded discovery.
BUILT_IN: dict[str, tuple[str, str]] = {
    "": (
        "configmaps endpoints events limitranges persistentvolumeclaims pods podtemplates replicationcontrollers "
        "resourcequotas secrets serviceaccounts services",
        "componentstatuses namespaces nodes persistentvolumes",
    ),
    "admissionregistration.k8s.io": (
        "",
        "mutatingadmissionpolicies mutatingadmissionpolicybindings mutatingwebhookconfigurations "
        "validatingadmissionpolicies validatingadmissionpolicybindings validatingwebhookconfigurations",
    ),
    "apiextensions.k8s.io": ("", "customresourcedefinitions"),
    "apiregistration.k8s.io": ("", "apiservices"),
    "apps": ("controllerrevisions daemonsets deployments replicasets statefulsets", ""),
    "autoscaling": ("horizontalpodautoscalers", ""),
    "batch": ("cronjobs jobs", ""),
    "certificates.k8s.io": ("", "certificatesigningrequests"),
    "coordination.k8s.io": ("leases", ""),
    "discovery.k8s.io": ("endpointslices", ""),
    "events.k8s.io": ("events", ""),
    "flowcontrol.apiserver.k8s.io": ("", "flowschemas prioritylevelconfigurations"),
    "networking.k8s.io": ("ingresses networkpolicies", "ingressclasses ipaddresses servicecidrs"),
    "node.k8s.io": ("", "runtimeclasses"),
    "policy": ("poddisruptionbudgets", ""),
    RBAC: ("rolebindings roles", "clusterrolebindings clusterroles"),
    "resource.k8s.io": ("resourceclaims resourceclaimtemplates", "deviceclasses resourceslices"),
    "scheduling.k8s.io": ("", "priorityclasses"),
    "storage.k8s.io": (
        "csistoragecapacities",
        "csidrivers csinodes storageclasses volumeattachments volumeattributesclasses",
    ),
}


@dataclass(frozen=True, slots=True)
class Account:
    """The ServiceAccount that the roles are bound to."""

    namespace: str = "cluster-info"
    name: str = NAME

    @classmethod
    def parse(cls, text: str) -> Account:
        """`namespace/name`. Raises ValueError with what is allowed."""
        namespace, slash, name = text.partition("/")
        if not (namespace and slash and name) or "/" in name:
            raise ValueError(f"allowed is NAMESPACE/NAME, such as cluster-info/{NAME}")
        return cls(namespace, name)

    def subjects(self) -> list[JSON]:
        """As a binding names it."""
        return [{"kind": "ServiceAccount", "name": self.name, "namespace": self.namespace}]


def built_in_groups() -> list[ApiGroup]:
    """The built-in kinds in the form that discovery has; their versions are left open, since RBAC knows none."""
    return [
        ApiGroup(group, (ApiVersion("", (*_kinds(group, in_namespaces, True), *_kinds(group, of_cluster, False))),))
        for group, (in_namespaces, of_cluster) in BUILT_IN.items()
    ]


def _kinds(group: str, names: str, namespaced: bool) -> list[GroupVersionResource]:
    return [GroupVersionResource(group, "", name, "", namespaced, tuple(VERBS)) for name in names.split()]


def granted(kinds: Iterable[GroupVersionResource], include: Sequence[str]) -> list[GroupVersionResource]:
    """`kinds` without Secrets, unless INCLUDE names them in full."""
    return [kind for kind in kinds if SECRETS in include or kind.dotted != SECRETS]


def manifests(
    kinds: Sequence[GroupVersionResource], namespaces: Sequence[str], account: Account, *, identify: bool = True
) -> list[JSON]:
    """A ClusterRole and its binding; with `namespaces`, what is in them stands in a Role and a binding in each.

    `identify`: the cluster is known by the uid of kube-system, so that namespace can be read in any case.
    """
    within = [kind for kind in kinds if kind.namespaced and namespaces]
    above = [kind for kind in kinds if kind not in within]
    rules = _rules(above) + (_identity(above) if identify else [])
    found = _bound("ClusterRole", rules, account, None) if rules else []
    for namespace in dict.fromkeys(namespaces) if within else ():
        found += _bound("Role", _rules(within), account, namespace)
    return found


def lease_manifests(lease: LeaseName, account: Account) -> list[JSON]:
    """A Role and its binding in the Lease's namespace, which let replicas elect a leader by it.

    A right to create cannot name what may be created.
    """
    kind = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    rules = [{**kind, "resourceNames": [lease.name], "verbs": ["get", "update"]}, {**kind, "verbs": ["create"]}]
    return _bound("Role", rules, account, lease.namespace, name=f"{NAME}-lease")


def _rules(kinds: Iterable[GroupVersionResource]) -> list[JSON]:
    """One rule a group, in alphabetical order."""
    names: dict[str, set[str]] = {}
    for kind in kinds:
        names.setdefault(kind.group, set()).add(kind.resource)
    return [{"apiGroups": [group], "resources": sorted(names[group]), "verbs": VERBS} for group in sorted(names)]


def _identity(kinds: Iterable[GroupVersionResource]) -> list[JSON]:
    """Who may not read namespaces at all may read this one."""
    if any(kind.dotted == "namespaces" for kind in kinds):
        return []
    return [{"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["kube-system"], "verbs": ["get"]}]


def _bound(kind: str, rules: list[JSON], account: Account, namespace: str | None, name: str = NAME) -> list[JSON]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    role = {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": metadata, "rules": rules}
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": f"{kind}Binding",
        "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": name},
        "subjects": account.subjects(),
    }
    return [role, binding]


def name_of(manifest: JSON) -> str:
    """`clusterrole.rbac.authorization.k8s.io/NAME`, as kubectl prints and takes it."""
    return f"{manifest['kind'].lower()}.{RBAC}/{manifest['metadata']['name']}"


class _Plain(yaml.SafeDumper):
    """Without anchors: what comes twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def document(found: Sequence[JSON], elected: Sequence[JSON] = ()) -> str:
    """The manifests as YAML, with a word on what they are, each kind of a rule in a line of its own.

    `elected`: of `lease_manifests`.
    """
    return HEADER + _dumped(found) + (f"---\n{LEASE_HEADER}{_dumped(elected)}" if elected else "")


def _dumped(found: Sequence[JSON]) -> str:
    return str(yaml.dump_all(found, Dumper=_Plain, sort_keys=False, default_flow_style=False, width=LINE_WIDTH))
