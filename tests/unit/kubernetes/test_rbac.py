"""Kinds -> rules. Whether a collector can live with them is asked in tests/integration/test_rbac.py."""

from __future__ import annotations

import importlib.resources
import json

import pytest
import yaml

from clusterinfo.kubernetes import rbac
from clusterinfo.kubernetes.discovery import ApiGroup, Selection, aggregated_groups, choose
from clusterinfo.kubernetes.election import LeaseName
from clusterinfo.model import GroupVersionResource

PODS = GroupVersionResource("", "v1", "pods", "Pod", namespaced=True)
SECRETS = GroupVersionResource("", "v1", "secrets", "Secret", namespaced=True)
NODES = GroupVersionResource("", "v1", "nodes", "Node", namespaced=False)
NAMESPACES = GroupVersionResource("", "v1", "namespaces", "Namespace", namespaced=False)
JOBS = GroupVersionResource("batch", "v1", "jobs", "Job", namespaced=True)
KUBE_SYSTEM = {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["kube-system"], "verbs": ["get"]}


def test_the_built_in_kinds_are_those_that_a_server_lists() -> None:
    catalog = (importlib.resources.files("clusterinfo.sandbox.kubernetes") / "catalog.json").read_text()
    document = json.dumps({"kind": "APIGroupDiscoveryList", "items": json.loads(catalog)}).encode()

    def listed(groups: list[ApiGroup]) -> set[tuple[str, str, bool]]:
        return {(one.group, one.resource, one.namespaced) for one in choose(groups, Selection()).resources}

    assert listed(rbac.built_in_groups()) == listed(aggregated_groups(document))


@pytest.mark.parametrize(
    ("include", "secrets"),
    [
        ([], False),
        (["*"], False),
        (["pods"], False),
        (["*.apps"], False),
        (["secrets"], True),
        (["*", "secrets"], True),
        (["s*"], False),
        (["secret?"], False),
        (["*crets"], False),
        (["s*", "secrets"], True),
    ],
)
def test_secrets_are_granted_to_who_names_them(include: list[str], secrets: bool) -> None:
    assert (SECRETS in rbac.granted([PODS, SECRETS], include)) is secrets


def test_one_rule_a_group_and_nothing_but_reading() -> None:
    role, binding = rbac.manifests([PODS, NAMESPACES, JOBS, NODES], [], rbac.Account("ns", "account"))
    assert role["kind"] == "ClusterRole"
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["namespaces", "nodes", "pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list", "watch"]},
    ]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "account", "namespace": "ns"}]


def test_the_identity_of_the_cluster_can_always_be_read() -> None:
    role, _ = rbac.manifests([PODS], [], rbac.Account())
    assert role["rules"][-1] == KUBE_SYSTEM


def test_with_a_cluster_id_only_what_is_listed_can_be_read() -> None:
    role, _ = rbac.manifests([PODS], [], rbac.Account(), identify=False)
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": rbac.VERBS}]
    within = rbac.manifests([PODS], ["a"], rbac.Account(), identify=False)
    assert [one["kind"] for one in within] == ["Role", "RoleBinding"], "no role without a rule"


def test_namespaces_divide_the_rules() -> None:
    found = rbac.manifests([PODS, NODES], ["a", "b", "a"], rbac.Account())
    assert [(one["kind"], one["metadata"].get("namespace")) for one in found] == [
        ("ClusterRole", None), ("ClusterRoleBinding", None), ("Role", "a"), ("RoleBinding", "a"),
        ("Role", "b"), ("RoleBinding", "b"),
    ]  # fmt: skip
    assert found[0]["rules"] == [{"apiGroups": [""], "resources": ["nodes"], "verbs": rbac.VERBS}, KUBE_SYSTEM]
    assert found[2]["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": rbac.VERBS}]


def test_without_kinds_in_namespaces_there_are_no_roles_in_them() -> None:
    assert [one["kind"] for one in rbac.manifests([NODES], ["a"], rbac.Account())] == [
        "ClusterRole",
        "ClusterRoleBinding",
    ]


def test_the_document_is_the_manifests() -> None:
    found = rbac.manifests([PODS, JOBS], ["a", "b"], rbac.Account())
    text = rbac.document(found)
    assert list(yaml.safe_load_all(text)) == found
    assert text.startswith("# ")
    assert "&id" not in text
    assert "*id" not in text


def test_a_lease_may_be_made_and_only_the_one_that_is_named_be_changed() -> None:
    role, binding = rbac.lease_manifests(LeaseName("ops", "lead"), rbac.Account("ns", "account"))
    assert (role["kind"], role["metadata"]) == ("Role", {"name": "cluster-info-collector-lease", "namespace": "ops"})
    leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    assert role["rules"] == [
        {**leases, "resourceNames": ["lead"], "verbs": ["get", "update"]},
        {**leases, "verbs": ["create"]},
    ]
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == ("Role", role["metadata"]["name"])
    assert binding["metadata"] == role["metadata"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "account", "namespace": "ns"}]
