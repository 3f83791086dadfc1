"""The guide the project began from, kept as it was in guide.md: its names, defaults and fields are the program's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterinfo.observations import Produced
from clusterinfo.settings import Settings, load
from clusterinfo.telemetry import logs
from tests.support.dockerfile import argv

ROOT = Path(__file__).parents[3]
GUIDE = (Path(__file__).parent / "guide.md").read_text(encoding="utf-8")
COMPOSE = yaml.load((ROOT / "compose/compose.yaml").read_text(), yaml.CSafeLoader)["services"]
DEFAULTS = re.findall(r"- `([A-Z_]+)`: .*\(default: (.+)\)", GUIDE)
DEPLOYMENTS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)]
(LOG_LINE,) = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)

PLACES = {
    "Overview": (
        "README.md",
        "Kubernetes API ──▶ clusterinfo collect ──▶ Kafka ──▶ clusterinfo consume ──▶ PostgreSQL",
    ),
    "Architecture": ("ARCHITECTURE.md", "## The walk"),
    "Components": ("README.md", "consumer group that stores it"),
    "Configuration": ("docs/SETTINGS.md", "# Settings"),
    "Environment Variables": ("docs/SETTINGS.md", "| variable | default | meaning |"),
    "Kafka Configuration": ("docs/TUNING.md", "## Kafka"),
    "Database Configuration (Consumer only)": ("docs/SETTINGS.md", "| `DB_HOST` | `localhost` |"),
    "Deployment": ("docs/DEPLOYMENT.md", "# Deployment"),
    "Using Docker Compose": ("docs/DEPLOYMENT.md", "## Docker Compose"),
    "Kubernetes Deployment": ("docs/DEPLOYMENT.md", "## Kubernetes"),
    "Collector Deployment": ("README.md", "cluster-info-collector:latest"),
    "Consumer Deployment": ("README.md", "cluster-info-consumer:latest"),
    "Benefits": ("README.md", "## What is promised"),
    "Scalability": ("docs/SCALING.md", "## The rule"),
    "Reliability": ("docs/FAULTS.md", "# What was broken on purpose"),
    "Monitoring": ("docs/DEPLOYMENT.md", "## Monitoring"),
    "Kafka Consumer Lag": ("docs/MAINTENANCE.md", "kafka-consumer-groups --bootstrap-server localhost:9092"),
    "Application Logs": ("docs/MONITORING.md", '"msg":"Cluster info sent to Kafka"'),
    "Troubleshooting": ("docs/TROUBLESHOOTING.md", "# Troubleshooting"),
    "Common Issues": ("docs/TROUBLESHOOTING.md", "## Kafka cannot be reached"),
    "Development Mode": (
        "docs/MIGRATING.md",
        "`clusterinfo legacy`, and `clusterinfo collect` without",
    ),
    "Migration from Direct Storage": ("docs/MIGRATING.md", "1. **Deploy Kafka**"),
    "Performance Tuning": ("docs/TUNING.md", "# Tuning"),
    "Consumer Configuration": ("docs/TUNING.md", "## Consumers"),
}
"""Section of the guide -> the document that has its matter, and where in it."""


def field(variable: str) -> Any:
    return Settings.model_fields[variable.lower()]


def test_every_section_has_its_place() -> None:
    headings = set(re.findall(r"^#{2,4} (.+)$", GUIDE, re.MULTILINE))
    assert headings == set(PLACES)
    assert [where for where in PLACES.values() if where[1] not in (ROOT / where[0]).read_text(encoding="utf-8")] == []


@pytest.mark.parametrize(("variable", "default"), DEFAULTS)
def test_defaults_are_the_guides(variable: str, default: str) -> None:
    assert len(DEFAULTS) == 9
    assert field(variable).default == getattr(load({variable: default}), variable.lower())


@pytest.mark.parametrize("variable", sorted(set(re.findall(r"\b(?:KAFKA|DB)_[A-Z_]+\b", GUIDE))))
def test_every_variable_is_a_setting(variable: str) -> None:
    assert field(variable).description


def test_its_compose_services_are_ours() -> None:
    asked = set(re.findall(r"docker-compose logs -f (\w+)", GUIDE)) | {"postgres"}
    assert asked == {"collector", "consumer", "kafka", "postgres"}
    assert asked <= set(COMPOSE)
    assert (ROOT / "compose.yaml").is_file(), "docker-compose up -d, from the top"
    assert any("9092:9092" in port for port in COMPOSE["kafka"]["ports"]), "the guide looks at localhost:9092"


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: str(one["metadata"]["name"]))
def test_its_deployments_run_as_printed(deployment: Any) -> None:
    """They pass no command: the image of that name brings it. What they set, the program reads."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    image = container["image"].removesuffix(":latest")
    assert image == deployment["metadata"]["name"]
    assert argv(container["name"], "CMD") == {"collector": ["collect"], "consumer": ["consume"]}[container["name"]]
    assert image in {str(service.get("image", "")).removesuffix(":latest") for service in COMPOSE.values()}
    given = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    settings = load(given)
    assert settings.kafka_enabled
    assert settings.kafka_topic == "cluster-info"
    assert {one["name"].lower() for one in container["env"]} <= set(Settings.model_fields)


@pytest.mark.parametrize(
    "name", ["cluster-info-collector", "cluster-info-consumer", "kafka-service", "postgres-service"]
)
def test_its_names_are_those_of_our_manifests(name: str) -> None:
    assert name in GUIDE
    text = "\n".join(path.read_text() for path in (ROOT / "k8s").rglob("*.yaml"))
    assert re.search(rf"\b{name}\b", text)


def test_its_secret_is_the_manifests() -> None:
    (reference,) = [
        one["valueFrom"]["secretKeyRef"]
        for deployment in DEPLOYMENTS
        for one in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
        if "valueFrom" in one
    ]
    assert reference == {"name": "postgres-secret", "key": "password"}
    text = "\n".join(path.read_text() for path in (ROOT / "k8s").rglob("*.yaml"))
    assert "postgres-secret" in text


def test_its_consumer_group_is_the_default() -> None:
    assert set(re.findall(r"--group (\S+)", GUIDE)) == {field("KAFKA_GROUP_ID").default}


def test_its_log_line_is_ours() -> None:
    wanted = yaml.safe_load(LOG_LINE)
    level, message = logs.MESSAGES[Produced]
    assert (wanted["level"], wanted["msg"]) == (level, message)
    produced = Produced(topic="cluster-info", partition=0, offset=1, size_bytes=2, records=3, resource="pods")
    assert set(wanted) - {"level", "msg", "timestamp"} <= set(logs._fields(produced))


def test_legacy_mode_is_there_under_its_name() -> None:
    assert "export KAFKA_ENABLED=false" in GUIDE
    assert load({"KAFKA_ENABLED": "false"}).kafka_enabled is False
    assert "deprecated" in field("KAFKA_ENABLED").description
