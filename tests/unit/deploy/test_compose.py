"""What compose/ says must be true of the program, and of the guide's names.

Reads the files as they are. Whether Docker Compose accepts them is asked in .ci/run.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml

from clusterinfo.durations import parse_duration
from clusterinfo.postgres.admin.grants import READER, WRITER
from clusterinfo.sandbox.kubernetes.__main__ import arguments
from clusterinfo.settings import Settings, load
from tests.support.deployed import COMPOSE, KNOWN, ROOT, plain
from tests.support.dockerfile import lineage, stages

SERVICES = COMPOSE["services"]
TEXT = (ROOT / "compose/compose.yaml").read_text()
OURS = ("collector", "consumer", "collector-demo")
"""The services whose environment is ours; the others have that of their images."""
ENDING = ("migrate", "consumer-login", "grafana-login")
"""Those that do something once, and end."""
GRACE_S = Settings.model_fields["shutdown_grace_s"].default


def profile(name: str) -> set[str]:
    """The services of a profile; "" for those that are always there."""
    return {service for service, given in SERVICES.items() if given.get("profiles", [""]) == [name]}


# Names


def test_the_services_of_the_guide_are_there_without_a_profile() -> None:
    assert profile("") == {"postgres", "kafka", "collector", "consumer", "migrate", "consumer-login"}
    assert profile("demo") == {"cluster", "collector-demo"}
    assert profile("monitoring") == {"prometheus", "grafana", "grafana-login"}
    assert SERVICES["consumer"]["deploy"]["replicas"] == 2


def test_what_is_scaled_has_no_name_and_no_port_of_its_own() -> None:
    assert not [name for name, service in SERVICES.items() if "container_name" in service]
    assert not [name for name in OURS if "ports" in SERVICES[name]]


def test_the_top_of_the_repository_includes_it() -> None:
    top = yaml.safe_load((ROOT / "compose.yaml").read_text())
    assert top == {"name": COMPOSE["name"], "include": ["compose/compose.yaml"]}


def test_files_that_are_mounted_exist() -> None:
    mounted = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    paths = [volume.split(":")[0] for volume in mounted if isinstance(volume, str) and volume.startswith(".")]
    assert len(paths) == 5
    assert all((ROOT / "compose" / path).exists() for path in paths)
    named = {volume.split(":")[0] for volume in mounted if isinstance(volume, str)} - set(paths)
    assert named == set(COMPOSE["volumes"])


# Variables


@pytest.mark.parametrize("service", OURS)
def test_every_variable_is_one_the_program_reads(service: str) -> None:
    assert set(SERVICES[service]["environment"]) <= KNOWN


@pytest.mark.parametrize("service", OURS)
def test_the_program_accepts_the_values(service: str) -> None:
    settings = load(plain(SERVICES[service]["environment"]))
    assert settings.kafka_enabled is True
    assert settings.kafka_partition == "auto"
    assert settings.kafka_topic == "cluster-info"
    assert settings.kafka_topic_partitions == 12


def test_consumer_group_is_the_default_one() -> None:
    assert not [service for service in OURS if "KAFKA_GROUP_ID" in SERVICES[service]["environment"]]


def test_the_superusers_password_is_a_secret_of_those_who_need_it() -> None:
    having = {name for name, service in SERVICES.items() if "postgres-password" in service.get("secrets", [])}
    assert having == {*ENDING}
    for name in ENDING:
        assert "/run/secrets/postgres-password" in SERVICES[name]["environment"].values()
    assert {secret["environment"] for secret in COMPOSE["secrets"].values()} == {"POSTGRES_PASSWORD"}


def test_consumers_store_as_one_who_may_make_nothing() -> None:
    consumer, login, migration = (SERVICES[name] for name in ("consumer", "consumer-login", "migrate"))
    assert consumer["command"] == ["consume", "--no-migrate"]
    assert (login["environment"]["ROLE"], login["environment"]["LOGIN"]) == (WRITER, consumer["environment"]["DB_USER"])
    assert consumer["environment"]["DB_PASSWORD_FILE"] == login["environment"]["LOGIN_PASSWORD_FILE"]
    assert SERVICES["grafana-login"]["environment"]["ROLE"] == READER
    assert migration["command"] == ["migrate"]
    assert (migration["image"], migration["build"]) == (consumer["image"], consumer["build"])
    assert login["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}


def test_every_variable_that_compose_asks_for_is_explained() -> None:
    asked = set(re.findall(r"\$\{(\w+)", TEXT)) - {"HOME"}
    assert asked == set(re.findall(r"^#?(\w+)=", (ROOT / "compose/.env.example").read_text(), re.MULTILINE))


FILLING_IN = re.compile(r"^#? *cp compose/\.env\.example (\S+) +# (.*)$", re.MULTILINE)
"""How the documents have people make the file of passwords: its path, and what to set there."""


@pytest.mark.parametrize("document", ["README.md", "docs/DEPLOYMENT.md", "compose/compose.yaml"])
def test_whoever_fills_it_in_reads_what_the_collector_needs(document: str) -> None:
    """Without COLLECTOR_UID it runs as 65532, who may not read a kubeconfig."""
    ((path, steps),) = FILLING_IN.findall((ROOT / document).read_text())
    assert path == "compose/.env"
    assert {"POSTGRES_PASSWORD", "COLLECTOR_UID", "id -u"} == set(re.findall(r"[A-Z]+_[A-Z]+|id -u", steps)) - {
        "KUBECONFIG_FILE"
    }


@pytest.mark.parametrize(("path", "ignored"), [("compose/.env", True), ("compose/.env.example", False)])
def test_passwords_are_never_committed(path: str, ignored: bool) -> None:
    assert is_ignored(path) == ignored


def is_ignored(path: str) -> bool:
    """By git; where there is none, by those lines of .gitignore that name a file wherever it is."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        lines = (ROOT / ".gitignore").read_text().splitlines()
        return any(PurePosixPath(path).match(line) for line in lines if line and not line.startswith("#"))
    asked = ["git", "-c", "safe.directory=*", "check-ignore", "--quiet", "--no-index", path]
    code = subprocess.run(asked, cwd=ROOT, timeout=150, check=False).returncode
    assert code in (0, 1), "git could not say"
    return code == 0


def test_passwords_enter_no_image() -> None:
    assert "**/.env" in (ROOT / ".dockerignore").read_text().splitlines()


# Kafka


def test_kafka_is_advertised_where_the_services_look_for_it() -> None:
    kafka = SERVICES["kafka"]["environment"]
    advertised = dict(entry.split("://") for entry in kafka["KAFKA_ADVERTISED_LISTENERS"].split(","))
    listening = dict(entry.split("://") for entry in kafka["KAFKA_LISTENERS"].split(","))
    assert {SERVICES[service]["environment"]["KAFKA_BROKERS"] for service in OURS} == {advertised["INSIDE"]}
    assert advertised["HOST"] == "localhost:9092"
    assert SERVICES["kafka"]["ports"] == [f"127.0.0.1{listening['HOST']}:9092"]
    assert listening.keys() == {*advertised, kafka["KAFKA_CONTROLLER_LISTENER_NAMES"]}


def test_kafka_has_no_zookeeper_and_is_the_version_that_the_tests_run_on() -> None:
    pom = (ROOT / "tests/kafka/pom.xml").read_text()
    (version,) = re.findall(r"<kafka.version>(.*)</kafka.version>", pom)
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{version}"
    assert SERVICES["kafka"]["environment"]["KAFKA_PROCESS_ROLES"] == "broker,controller"
    assert not [name for name, service in SERVICES.items() if "zookeeper" in str(service).lower()]


# Order, health, ends


def test_everything_that_stays_has_a_health_check() -> None:
    """Of the program's own, the image has it."""
    staying = SERVICES.keys() - {*ENDING}
    for name in staying:
        target = SERVICES[name].get("build", {}).get("target")
        in_image = target is not None and any(keyword == "HEALTHCHECK" for keyword, _ in lineage(target))
        assert in_image or "healthcheck" in SERVICES[name], name


@pytest.mark.parametrize("service", SERVICES)
def test_it_starts_after_what_it_needs(service: str) -> None:
    once = dict.fromkeys(ENDING, "service_completed_successfully")
    for needed, how in SERVICES[service].get("depends_on", {}).items():
        assert how["condition"] == once.get(needed, "service_healthy")
    needs = {
        "collector": {"kafka"},
        "consumer": {"kafka", "postgres", "consumer-login"},
        "collector-demo": {"kafka", "cluster"},
    }
    assert needs.get(service, set()) <= SERVICES[service].get("depends_on", {}).keys()


@pytest.mark.parametrize("service", SERVICES)
def test_it_is_limited_and_comes_back(service: str) -> None:
    assert re.fullmatch(r"\d+[mg]", SERVICES[service]["mem_limit"])
    if service not in ENDING:
        assert SERVICES[service]["restart"] == "unless-stopped"


@pytest.mark.parametrize("service", [*OURS, *ENDING, "cluster", "prometheus"])
def test_it_is_locked_down(service: str) -> None:
    given = SERVICES[service]
    assert given["read_only"] is True
    assert given["cap_drop"] == ["ALL"]
    assert given["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("service", OURS)
def test_nobody_is_killed_before_the_batch_in_hand_is_stored(service: str) -> None:
    assert parse_duration(SERVICES[service]["stop_grace_period"]) > GRACE_S


# What is built, and the simulated cluster


def test_targets_that_are_built_exist() -> None:
    built = {service["build"]["target"]: service["image"] for service in SERVICES.values() if "build" in service}
    assert built == {name: f"cluster-info-{name}:latest" for name in ("collector", "consumer", "sandbox")}
    assert built.keys() < stages().keys()


def test_the_simulated_cluster_takes_its_arguments() -> None:
    cluster: Any = SERVICES["cluster"]
    assert cluster["entrypoint"] == ["python", "-m", "clusterinfo.sandbox.kubernetes"]
    options = arguments(cluster["command"])
    assert options.advertise == "cluster"
    assert f"http://127.0.0.1:{options.port}/" in cluster["healthcheck"]["test"][-1]
    assert str(options.kubeconfig) == SERVICES["collector-demo"]["environment"]["KUBECONFIG"]
    assert cluster["volumes"] == [f"cluster-kubeconfig:{options.kubeconfig.parent}"]
