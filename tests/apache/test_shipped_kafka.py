"""The Kafka that compose/ and k8s/overlays/dev configure, started with those settings: collector and consumer use it.

Only names and ports are others: what other containers would be called by cannot be resolved here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import asyncpg
import pytest

from clusterinfo.sandbox.processes import free_port
from tests.conftest import Database
from tests.kafka.apache import ApacheKafka
from tests.support.deployed import COMPOSE, find, manifests
from tests.support.pod_security import containers, pod_spec
from tests.support.programs import QUIET, run, simulated_api

NOT_PROPERTIES = {"KAFKA_HEAP_OPTS"}


def of_compose() -> dict[str, str]:
    return {name: str(value) for name, value in COMPOSE["services"]["kafka"]["environment"].items()}


def of_kubernetes() -> dict[str, str]:
    (kafka,) = containers(pod_spec(find(manifests("overlays/dev"), "StatefulSet", "kafka")) or {})
    return {one["name"]: one["value"] for one in kafka["env"]}


class ShippedKafka(ApacheKafka):
    """Kafka as the image `apache/kafka` would configure it from these variables."""

    is_formatted_alike = False

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__()
        self._variables = variables

    def _config(self) -> str:
        """The image's rule: `KAFKA_LOG_DIRS` is the property `log.dirs`."""
        given = {name: value for name, value in self._variables.items() if name not in NOT_PROPERTIES}
        assert all(name.startswith("KAFKA_") for name in given)
        ours = {name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in given.items()}
        ports = {"9092": str(self.port), "29092": str(free_port()), "29093": str(free_port())}
        text = "\n".join(f"{name}={value}" for name, value in ours.items())
        text = re.sub(r"(?<=:)(\d{4,5})\b", lambda found: ports[found[1]], text)
        text = re.sub(r"//kafka[\w.-]*:", "//localhost:", text)
        return text.replace(ours["log.dirs"], str(self.directory / "data")) + "\n"


@pytest.mark.parametrize("variables", [of_compose(), of_kubernetes()], ids=["compose", "kubernetes"])
async def test_it_starts_and_serves_the_pipeline(
    variables: dict[str, str], database: Database, connection: asyncpg.Connection
) -> None:
    async with ShippedKafka(variables) as kafka, simulated_api(100) as api:
        env = {"KAFKA_ENABLED": "true", "KAFKA_BROKERS": f"localhost:{kafka.port}", "KAFKA_PARTITION": "auto"} | QUIET
        (await run("collect", "--once", env=env | api.env)).expect(0)
        (await run("consume", "--until-idle", "2s", env=env | database.env)).expect(0)
    assert await connection.fetchval("select count(distinct partition) from kafka_offset") == 12
    states = await connection.fetch("select distinct state from freshness where state <> 'excluded'")
    assert [row["state"] for row in states] == ["verified"]
