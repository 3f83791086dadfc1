"""What Dockerfile, compose/ and k8s/ say must be true of the program: its variables, ports, paths, commands and names.

Reads files only. Whether Docker Compose, kubectl and the Kubernetes schemas accept them is asked in .ci/run.
"""

from __future__ import annotations

import fnmatch
import importlib.resources
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterinfo.sandbox.kubernetes.__main__ import arguments
from clusterinfo.settings import DEFAULT_EXCLUDE, SECRET_FIELDS, Settings, load, parse_duration
from tests.support.dockerfile import argv, stages

ROOT = Path(__file__).parents[3]
COMPOSE = yaml.safe_load((ROOT / "compose/compose.yaml").read_text())["services"]
MANIFESTS = [one for path in sorted((ROOT / "k8s").glob("*.yaml")) for one in yaml.safe_load_all(path.read_text())]

# The services of compose/ whose environment is ours; `postgres` and `kafka` have that of their images.
OURS = ("collector", "consumer", "collector-demo")
DEPLOYMENTS = ("cluster-info-collector", "cluster-info-consumer")
GRACE_S = Settings.model_fields["shutdown_grace_s"].default
SERVED = Settings.model_fields["metrics_address"]


def manifest(kind: str, name: str) -> Any:
    """The one manifest of that kind and name."""
    (found,) = [one for one in MANIFESTS if (one["kind"], one.get("metadata", {}).get("name")) == (kind, name)]
    return found


def pod(deployment: str) -> Any:
    return manifest("Deployment", deployment)["spec"]["template"]["spec"]


def container(deployment: str) -> Any:
    (found,) = pod(deployment)["containers"]
    return found


def container_environment(deployment: str) -> dict[str, str]:
    """The container's variables: the ConfigMap's, then its own; a Secret's value is `from-secret`."""
    found: dict[str, str] = {}
    for source in container(deployment)["envFrom"]:
        found |= manifest("ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {one["name"]: one.get("value", "from-secret") for one in container(deployment)["env"]}


def environments() -> list[tuple[str, dict[str, str]]]:
    """(where it stands, variable -> value) of everything that runs the program."""
    composed = [(f"compose {service}", COMPOSE[service]["environment"]) for service in OURS]
    return composed + [(f"k8s {deployment}", container_environment(deployment)) for deployment in DEPLOYMENTS]


def commands() -> set[str]:
    """Every command of the program that a shipped file names."""
    named = {container(deployment)["args"][0] for deployment in DEPLOYMENTS}
    return named | {argv(stage, "CMD")[0] for stage in ("collector", "consumer", "sandbox")}


# Variables


@pytest.mark.parametrize(("where", "environment"), environments())
def test_every_variable_is_one_the_program_reads(where: str, environment: dict[str, str]) -> None:
    known = {name.upper() for name in Settings.model_fields} | {f"{name.upper()}_FILE" for name in SECRET_FIELDS}
    assert set(environment) <= known, where


@pytest.mark.parametrize(("where", "environment"), environments())
def test_the_program_accepts_the_values(where: str, environment: dict[str, str], monkeypatch: Any) -> None:
    """Compose's own `${...}` and the files of secrets are not there to be read."""
    given = {name: value for name, value in environment.items() if not name.endswith("_FILE") and "$" not in value}
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load(given)
    assert settings.kafka_enabled is True, where
    assert settings.kafka_partition == "auto", where
    assert settings.kafka_topic == "cluster-info", where


def test_a_password_file_is_a_secret_that_the_service_has() -> None:
    consumer = COMPOSE["consumer"]
    assert consumer["environment"]["DB_PASSWORD_FILE"].removeprefix("/run/secrets/") in consumer["secrets"]


def test_every_variable_that_compose_asks_for_is_explained() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (ROOT / "compose/compose.yaml").read_text())) - {"HOME"}
    assert asked == set(re.findall(r"^#?(\w+)=", (ROOT / "compose/.env.example").read_text(), re.MULTILINE))


# Names


def test_compose_has_the_services_of_the_guide() -> None:
    always = {name for name, service in COMPOSE.items() if "profiles" not in service}
    assert always == {"postgres", "kafka", "collector", "consumer"}
    assert COMPOSE["consumer"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize(("role", "replicas"), [("collector", 1), ("consumer", 2)])
def test_deployments_have_the_names_of_the_guide(role: str, replicas: int) -> None:
    name = f"cluster-info-{role}"
    spec = manifest("Deployment", name)["spec"]
    assert spec["replicas"] == replicas
    assert spec["selector"]["matchLabels"] == {"app": name}
    assert spec["template"]["metadata"]["labels"]["app"] == name
    assert (container(name)["name"], container(name)["image"]) == (role, f"{name}:latest")
    assert COMPOSE[role]["image"] == f"{name}:latest"
    assert container_environment(name)["KAFKA_BROKERS"] == "kafka-service:9092"


def test_consumer_finds_database_and_password_under_the_names_of_the_guide() -> None:
    environment = {one["name"]: one for one in container("cluster-info-consumer")["env"]}
    assert environment["DB_HOST"]["value"] == "postgres-service"
    assert environment["DB_PASSWORD"]["valueFrom"]["secretKeyRef"] == {"name": "postgres-secret", "key": "password"}
    assert "password" in manifest("Secret", "postgres-secret")["stringData"]


def test_consumer_group_is_the_default_one() -> None:
    assert Settings.model_fields["kafka_group_id"].default == "cluster-info-consumer"
    assert not [where for where, environment in environments() if "KAFKA_GROUP_ID" in environment]


def test_example_secret_is_not_applied() -> None:
    resources = yaml.safe_load((ROOT / "k8s/kustomization.yaml").read_text())["resources"]
    present = {path.name for path in (ROOT / "k8s").glob("*.yaml")}
    assert set(resources) == present - {"kustomization.yaml", "postgres-secret.example.yaml"}


# Kafka's addresses


def test_kafka_is_advertised_where_the_services_look_for_it() -> None:
    kafka = COMPOSE["kafka"]["environment"]
    advertised = dict(entry.split("://") for entry in kafka["KAFKA_ADVERTISED_LISTENERS"].split(","))
    listening = dict(entry.split("://") for entry in kafka["KAFKA_LISTENERS"].split(","))
    assert {COMPOSE[service]["environment"]["KAFKA_BROKERS"] for service in OURS} == {advertised["INSIDE"]}
    assert advertised["HOST"] == "localhost:9092"
    assert COMPOSE["kafka"]["ports"] == [f"127.0.0.1{listening['HOST']}:9092"]
    assert listening.keys() == {*advertised, kafka["KAFKA_CONTROLLER_LISTENER_NAMES"]}


def test_kafka_is_the_version_that_the_tests_run_on() -> None:
    pom = (ROOT / "tests/kafka/pom.xml").read_text()
    (version,) = re.findall(r"<kafka.version>(.*)</kafka.version>", pom)
    assert COMPOSE["kafka"]["image"] == f"apache/kafka:{version}"


# Ports, paths, times


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_probes_ask_what_is_served(deployment: str) -> None:
    (port,) = container(deployment)["ports"]
    assert SERVED.default == f":{port['containerPort']}"
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container(deployment)[probe]["httpGet"] == {"path": path, "port": port["name"]}
        assert f"`{path}`" in (SERVED.description or "")
    annotations = manifest("Deployment", deployment)["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])


@pytest.mark.parametrize("service", OURS)
def test_health_checks_ask_what_is_served(service: str) -> None:
    assert f"http://127.0.0.1{SERVED.default}/healthz" in COMPOSE[service]["healthcheck"]["test"][-1]


def test_nobody_is_killed_before_the_batch_in_hand_is_stored() -> None:
    assert all(parse_duration(COMPOSE[service]["stop_grace_period"]) > GRACE_S for service in OURS)
    assert all(pod(deployment)["terminationGracePeriodSeconds"] > GRACE_S for deployment in DEPLOYMENTS)


# Commands


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_is_one_the_program_has(command: str) -> None:
    asked = [sys.executable, "-m", "clusterinfo", command, "--help"]
    result = subprocess.run(asked, capture_output=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr.decode()


def test_the_simulated_cluster_takes_its_arguments() -> None:
    cluster = COMPOSE["cluster"]
    assert cluster["entrypoint"] == ["python", "-m", "clusterinfo.sandbox.kubernetes"]
    options = arguments(cluster["command"])
    assert options.advertise == "cluster"
    assert f"http://127.0.0.1:{options.port}/" in cluster["healthcheck"]["test"][-1]
    assert str(options.kubeconfig) == COMPOSE["collector-demo"]["environment"]["KUBECONFIG"]
    assert cluster["volumes"] == [f"cluster-kubeconfig:{options.kubeconfig.parent}"]


# Rights


def test_the_role_reads_every_builtin_kind_but_secrets_and_what_is_left_out_by_default() -> None:
    left_out = [*DEFAULT_EXCLUDE, "secrets"]
    catalog = json.loads((importlib.resources.files("clusterinfo.sandbox.kubernetes") / "catalog.json").read_text())
    listable = {
        (group["metadata"].get("name", ""), entry["resource"])
        for group in catalog
        for version in group["versions"]
        for entry in version["resources"]
        if "list" in entry["verbs"]
    }
    wanted = {
        (group, resource)
        for group, resource in listable
        if not any(fnmatch.fnmatchcase(f"{resource}.{group}".rstrip("."), pattern) for pattern in left_out)
    }
    rules = manifest("ClusterRole", "cluster-info-collector")["rules"]
    granted = [(group, resource) for rule in rules for group in rule["apiGroups"] for resource in rule["resources"]]
    assert len(granted) == len(set(granted))
    assert set(granted) == wanted
    assert all(rule["verbs"] == ["get", "list", "watch"] for rule in rules)


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_containers_are_restricted(deployment: str) -> None:
    assert pod(deployment)["securityContext"]["runAsNonRoot"] is True
    assert pod(deployment)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(deployment)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    manifest("ServiceAccount", pod(deployment)["serviceAccountName"])


def test_only_the_collector_may_ask_the_api_server() -> None:
    (subject,) = manifest("ClusterRoleBinding", "cluster-info-collector")["subjects"]
    assert subject["name"] == pod("cluster-info-collector")["serviceAccountName"]
    assert pod("cluster-info-consumer")["automountServiceAccountToken"] is False


# Images


def test_compose_builds_targets_that_exist() -> None:
    built = {service["build"]["target"] for service in COMPOSE.values() if "build" in service}
    assert built == {"collector", "consumer", "sandbox"}
    assert built < stages().keys()
