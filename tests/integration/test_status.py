"""`clusterinfo status`: a table for people, JSON for scripts, an exit code by health."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest

from clusterinfo.sandbox.processes import free_port
from tests.conftest import Database
from tests.support.programs import run, simulated_api

pytestmark = pytest.mark.embedded_only

QUICK = {"BATCH_WAIT": "100ms"}


async def test_an_empty_database_is_not_healthy(database: Database) -> None:
    ended = (await run("status", env=database.env)).expect(3)
    assert "no cluster is stored here yet" in ended.stdout


async def test_a_cluster_that_is_stored_is_healthy_until_a_kind_fails(
    database: Database, kafka_env: dict[str, str]
) -> None:
    async with simulated_api(60, 12) as api:
        env = api.env | database.env | kafka_env | QUICK
        (await run("collect", "--once", env=env)).expect(0)
        waiting = orjson.loads((await run("status", "--output", "json", env=env)).expect(3).stdout)
        assert sum(partition["lag"] for partition in waiting["partitions"]) > 60

        (await run("consume", "--until-idle", "1s", env=env)).expect(0)
        said = orjson.loads((await run("status", "--output", "json", env=env)).expect(0).stdout)
        assert said["healthy"] is True
        assert [partition["lag"] for partition in said["partitions"]] == [0] * 6
        (cluster,) = said["clusters"]
        assert cluster["uid"] == api.uid
        assert cluster["objects_last_hour"] == sum(kind["objects"] or 0 for kind in said["kinds"])
        assert "configmaps" not in (await run("status", env=env)).expect(0).stdout
        listed = (await run("status", "--kinds", env=env)).expect(0).stdout
        assert [kind["resource"] for kind in said["kinds"] if kind["resource"] not in listed] == []
        assert re.search(rf"configmaps +verified +{_objects(said, 'configmaps')} +\d+s ago", listed)

        await api.control("fail", resource="services", status=500)
        (await run("collect", "--once", env=env)).expect(3)
        (await run("consume", "--until-idle", "1s", env=env)).expect(0)
        shown = (await run("status", env=env)).expect(3)
        assert "services" in shown.stdout
        assert shown.stdout.rstrip().endswith("needs attention")
        assert shown.stderr == "", "results go to stdout, and nothing else was to be said"


async def test_a_kafka_that_is_away_hides_nothing_else(database: Database) -> None:
    async with simulated_api(60, 12) as api:
        env = api.env | database.env | QUICK
        (await run("legacy", "--once", env=env)).expect(0)
        kafka = {"KAFKA_ENABLED": "true", "KAFKA_BROKERS": f"127.0.0.1:{free_port()}"}
        ended = (await run("status", env=env | kafka)).expect(1)
    assert "lag unknown" in ended.stdout
    assert api.uid[:8] in ended.stdout or "sandbox" in ended.stdout


async def test_what_was_not_verified_for_long_is_said(database: Database) -> None:
    async with simulated_api(60, 12) as api:
        (await run("legacy", "--once", env=api.env | database.env)).expect(0)
    (await run("status", "--stale", "1h", env=database.env)).expect(0)
    ended = (await run("status", "--stale", "1ms", env=database.env)).expect(3)
    assert "not verified again for" in ended.stdout


def _objects(said: dict[str, Any], resource: str) -> int:
    (found,) = [kind["objects"] for kind in said["kinds"] if kind["resource"] == resource]
    return int(found)
