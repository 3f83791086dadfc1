"""What k8s/ says must be true of the program, and of the guide's names.

Reads the files as they are. What kustomize makes of them is asked in tests/deploy, with the real tools.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from clusterinfo.settings import Settings, load, parse_size
from tests.support.deployed import COMPOSE, K8S, KNOWN, ROOT, environment, find, manifests, plain, programs
from tests.support.dockerfile import argv
from tests.support.monitoring import promql
from tests.support.pod_security import pod_spec, violations

BASE = manifests("base")
EVERYWHERE = BASE + manifests("overlays/dev") + manifests("components")
ROLES = ("collector", "consumer")
GRACE_S = Settings.model_fields["shutdown_grace_s"].default
SERVED = Settings.model_fields["metrics_address"]
KUSTOMIZATION = yaml.safe_load((K8S / "base/kustomization.yaml").read_text())
LEASE = "cluster-info/cluster-info-collector"
"""What components/leader-election names."""
PEAK_MIB = {"collector": 111, "consumer": 94}
"""Peak memory at 50,000 objects, by `python -m tests.growth size 50000`."""


def deployment(role: str) -> Any:
    return find(BASE, "Deployment", f"cluster-info-{role}")


def pod(role: str) -> Any:
    return pod_spec(deployment(role))


def container(role: str) -> Any:
    (found,) = pod(role)["containers"]
    return found


# Variables


@pytest.mark.parametrize("place", ["base", "overlays/dev", "overlays/prod", "components"])
def test_every_variable_is_one_the_program_reads(place: str) -> None:
    among = manifests(place)
    named = {name for one in among if one["kind"] == "ConfigMap" for name in one["data"]}
    named |= {one["name"] for _, owner in programs(among) for one in owner.get("env") or []}
    assert named <= KNOWN


@pytest.mark.parametrize("role", ROLES)
def test_the_program_accepts_the_values(role: str) -> None:
    settings = load(plain(environment(container(role), BASE)))
    assert settings.kafka_enabled is True
    assert settings.kafka_partition == "auto"
    assert settings.kafka_topic == "cluster-info"
    assert settings.kafka_topic_partitions == 12


# Names of the guide


@pytest.mark.parametrize(("role", "replicas"), [("collector", 1), ("consumer", 2)])
def test_deployments_have_the_names_of_the_guide(role: str, replicas: int) -> None:
    name, spec = f"cluster-info-{role}", deployment(role)["spec"]
    assert spec["replicas"] == replicas
    assert (container(role)["name"], container(role)["image"]) == (role, f"{name}:latest")
    assert COMPOSE["services"][role]["image"] == f"{name}:latest"
    assert environment(container(role), BASE)["KAFKA_BROKERS"] == "kafka-service:9092"


def test_consumer_finds_database_and_password_under_the_names_of_the_guide() -> None:
    assert environment(container("consumer"), BASE)["DB_HOST"] == "postgres-service"
    assert container("consumer")["env"] == [
        {"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "postgres-secret", "key": "password"}}}
    ]
    (secret,) = [one for one in manifests("overlays/dev") if one["kind"] == "Secret"]
    assert secret["metadata"]["name"] == "postgres-secret"
    assert "password" in secret["stringData"]


def test_consumer_group_is_the_default_one() -> None:
    assert Settings.model_fields["kafka_group_id"].default == "cluster-info-consumer"
    assert not [one for one in EVERYWHERE if "KAFKA_GROUP_ID" in json.dumps(one)]


@pytest.mark.parametrize(("service", "port"), [("kafka-service", 9092), ("postgres-service", 5432)])
def test_the_development_servers_are_where_they_are_looked_for(service: str, port: int) -> None:
    spec = find(manifests("overlays/dev"), "Service", service)["spec"]
    assert [one["port"] for one in spec["ports"]] == [port]
    name = spec["selector"]["app.kubernetes.io/name"]
    server = find(manifests("overlays/dev"), "StatefulSet", name)["spec"]
    assert spec["selector"].items() <= server["template"]["metadata"]["labels"].items()
    (serving,) = server["template"]["spec"]["containers"]
    assert [one["containerPort"] for one in serving["ports"]] == [port]
    assert serving["image"] == COMPOSE["services"][name]["image"]


def test_the_development_kafka_is_called_what_keda_resolves() -> None:
    """From its own namespace: the broker answers with the name that all later requests go to."""
    (kafka,) = find(manifests("overlays/dev"), "StatefulSet", "kafka")["spec"]["template"]["spec"]["containers"]
    (advertised,) = [one["value"] for one in kafka["env"] if one["name"] == "KAFKA_ADVERTISED_LISTENERS"]
    (trigger,) = find(manifests("components/keda"), "ScaledObject", "cluster-info-consumer")["spec"]["triggers"]
    assert advertised == f"INSIDE://{trigger['metadata']['bootstrapServers']}"


def test_example_secret_is_not_applied() -> None:
    for path in (path for path in K8S.rglob("kustomization.yaml") if "prod" not in path.parts):
        resources = set(yaml.safe_load(path.read_text()).get("resources", [])) - {"../../base"}
        present = {other.name for other in path.parent.glob("*.yaml")} - {"kustomization.yaml"}
        assert resources == present - {"postgres-secret.example.yaml"}


# Ports, paths, times, commands


@pytest.mark.parametrize("role", ROLES)
def test_probes_ask_what_is_served(role: str) -> None:
    (port,) = container(role)["ports"]
    assert SERVED.default == f":{port['containerPort']}"
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        assert container(role)[probe]["httpGet"] == {"path": path, "port": port["name"]}
        assert f"`{path}`" in (SERVED.description or "")
    annotations = deployment(role)["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])


def monitored() -> Any:
    """The one endpoint that Prometheus' operator is told of."""
    (endpoint,) = find(manifests("components/podmonitor"), "PodMonitor", "cluster-info")["spec"]["podMetricsEndpoints"]
    return endpoint


def test_monitors_ask_what_is_served() -> None:
    assert monitored()["path"] == "/metrics"
    ports = [one for role in ROLES for one in container(role)["ports"] if one["name"] == monitored()["port"]]
    assert {f":{one['containerPort']}" for one in ports} == {SERVED.default}
    assert len(ports) == len(ROLES)


def test_prometheus_calls_programs_what_alerts_and_dashboards_call_them() -> None:
    """By the names of their containers."""
    relabelling = {"sourceLabels": ["__meta_kubernetes_pod_container_name"], "targetLabel": "job"}
    assert monitored()["relabelings"] == [relabelling]
    named = {job for _, query in promql() for group in re.findall(r'job=~"([^"]*)"', query) for job in group.split("|")}
    assert named == {container(role)["name"] for role in ROLES}


def test_nobody_is_killed_before_the_batch_in_hand_is_stored() -> None:
    assert programs(EVERYWHERE)
    for manifest, _ in programs(EVERYWHERE):
        assert (pod_spec(manifest) or {})["terminationGracePeriodSeconds"] > GRACE_S


@pytest.mark.parametrize(("role", "flags"), [("collector", []), ("consumer", ["--no-migrate"])])
def test_a_deployment_runs_what_its_image_does_by_itself(role: str, flags: list[str]) -> None:
    """The schema is made by a Job, as its owner."""
    assert container(role)["args"] == [*argv(role, "CMD"), *flags]


def test_every_command_is_one_the_program_has() -> None:
    for _, owner in programs(EVERYWHERE):
        command, *flags = owner["args"]
        asked = [sys.executable, "-m", "clusterinfo", command, "--help"]
        helped = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True)
        assert all(flag in helped.stdout for flag in flags)


@pytest.mark.parametrize("role", ROLES)
def test_memory_has_headroom_over_what_was_measured(role: str) -> None:
    resources = container(role)["resources"]
    limit = parse_size(f"{resources['limits']['memory']}B") / 2**20
    request = parse_size(f"{resources['requests']['memory']}B") / 2**20
    assert PEAK_MIB[role] < request < 2 * PEAK_MIB[role] < limit
    composed = parse_size(COMPOSE["services"][role]["mem_limit"].upper().replace("M", "MiB")) / 2**20
    assert composed == limit


# Rights


@pytest.mark.parametrize("manifest", [one for one in EVERYWHERE if pod_spec(one)], ids=lambda one: one["kind"])
def test_pods_keep_the_restricted_profile(manifest: Any) -> None:
    """Which the namespace has the API server enforce."""
    assert list(violations(manifest)) == []
    labels = find(BASE, "Namespace", "cluster-info")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_our_root_file_system_is_read_only() -> None:
    assert all(owner["securityContext"]["readOnlyRootFilesystem"] is True for _, owner in programs(EVERYWHERE))


def test_only_the_collector_may_ask_the_api_server() -> None:
    for one in (one for one in EVERYWHERE if one["kind"] == "ClusterRoleBinding"):
        assert [subject["name"] for subject in one["subjects"]] == [pod("collector")["serviceAccountName"]]
    for one in (one for one in EVERYWHERE if pod_spec(one)):
        spec = pod_spec(one) or {}
        if spec.get("serviceAccountName") != pod("collector")["serviceAccountName"]:
            assert spec["automountServiceAccountToken"] is False
    assert find(BASE, "ServiceAccount", pod("consumer")["serviceAccountName"])["automountServiceAccountToken"] is False


def test_the_role_is_what_the_program_prints() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "clusterinfo", "rbac"], capture_output=True, text=True, timeout=60, check=True, env={}
    )
    assert printed.stdout == (ROOT / "k8s/base/rbac.yaml").read_text()
    assert printed.stderr == ""
    rules = find(BASE, "ClusterRole", "cluster-info-collector")["rules"]
    assert not [rule for rule in rules if {"secrets", "*"} & {*rule["resources"], *rule["verbs"], *rule["apiGroups"]}]


def test_the_lease_is_the_one_that_the_program_prints_a_role_for() -> None:
    asked = [sys.executable, "-m", "clusterinfo", "rbac", "--leader-election"]
    printed = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True, env={})
    role, binding = list(yaml.safe_load_all(printed.stdout))[-2:]
    shipped = manifests("components")
    for one in (role, binding):
        found = find(shipped, one["kind"], "cluster-info-collector-lease")
        assert {**found, "metadata": {**found["metadata"], "labels": None}} == {
            **one,
            "metadata": {**one["metadata"], "labels": None},
        }
    namespace, _, name = LEASE.partition("/")
    assert role["metadata"]["namespace"] == namespace
    assert role["rules"][0]["resourceNames"] == [name]


# Policies


def test_budgets_and_policies_select_pods_that_exist() -> None:
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in EVERYWHERE if "template" in one.get("spec", {})]
    selectors = [one["spec"]["selector"]["matchLabels"] for one in EVERYWHERE if one["kind"] == "PodDisruptionBudget"]
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in EVERYWHERE if one["kind"] == "NetworkPolicy"]
    selectors += [one["labelSelector"]["matchLabels"] for one in pod("consumer")["topologySpreadConstraints"]]
    assert len(selectors) == 10
    (added,) = [one["pairs"] for one in KUSTOMIZATION["labels"] if one.get("includeSelectors")]
    for selector in selectors:
        assert any(selector.items() <= (added | one).items() for one in labels), selector


def test_what_scales_the_consumers_stops_where_the_partitions_end() -> None:
    partitions = int(environment(container("consumer"), BASE)["KAFKA_TOPIC_PARTITIONS"])
    hpa = find(manifests("components/hpa"), "HorizontalPodAutoscaler", "cluster-info-consumer")["spec"]
    keda = find(manifests("components/keda"), "ScaledObject", "cluster-info-consumer")["spec"]
    assert hpa["maxReplicas"] == keda["maxReplicaCount"] == partitions
    assert hpa["minReplicas"] == keda["minReplicaCount"] == deployment("consumer")["spec"]["replicas"]
    (trigger,) = keda["triggers"]
    assert trigger["metadata"]["consumerGroup"] == Settings.model_fields["kafka_group_id"].default
    assert trigger["metadata"]["topic"] == Settings.model_fields["kafka_topic"].default
