"""`clusterinfo status`: a table for people, JSON for scripts, an exit code by health."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import asyncpg
import orjson
import pytest

from clusterinfo.commands import status
from clusterinfo.commands.output import Output
from clusterinfo.errors import TransientError
from clusterinfo.observations import unobserved
from clusterinfo.postgres.admin import overview
from clusterinfo.postgres.admin.overview import Overview
from clusterinfo.sandbox.processes import free_port
from tests.conftest import Database
from tests.support.programs import NO_KAFKA, QUIET, run, running, simulated_api

pytestmark = pytest.mark.embedded_only

QUICK = {"BATCH_WAIT": "100ms"}
JSON = ("status", "-o", "json")


async def test_an_empty_database_is_not_healthy(database: Database) -> None:
    ended = (await run("status", env=database.env)).expect(3)
    assert "no cluster is stored here yet" in ended.stdout


async def test_a_cluster_that_is_stored_is_healthy_until_a_kind_fails(
    database: Database, kafka_env: dict[str, str]
) -> None:
    async with simulated_api(60, 12) as api:
        env = api.env | database.env | kafka_env | QUICK
        (await run("collect", "--once", env=env)).expect(0)
        waiting = orjson.loads((await run(*JSON, env=env)).expect(3).stdout)
        assert sum(partition["lag"] for partition in waiting["partitions"]) > 60
        assert "lag: " in (await run("status", env=env)).stdout

        (await run("consume", "--until-idle", "1s", env=env)).expect(0)
        report = orjson.loads((await run(*JSON, env=env)).expect(0).stdout)
        assert report["healthy"] is True
        assert [partition["lag"] for partition in report["partitions"]] == [0] * 6
        (cluster,) = report["clusters"]
        assert cluster["uid"] == api.uid
        assert cluster["objects_last_hour"] == sum(kind["objects"] or 0 for kind in report["kinds"])
        assert "configmaps" not in (await run("status", env=env)).expect(0).stdout
        listed = (await run("status", "--kinds", env=env)).expect(0).stdout
        assert [kind["resource"] for kind in report["kinds"] if kind["resource"] not in listed] == []
        assert re.search(rf" verified +\d+s +{_objects(report, 'configmaps')} +configmaps\n", listed)

        await api.control("fail", resource="services", status=500)
        (await run("collect", "--once", env=env)).expect(3)
        (await run("consume", "--until-idle", "1s", env=env)).expect(0)
        shown = (await run("status", env=env)).expect(3)
        assert re.match(r"needs attention\n  services of sandbox failed: ", shown.stdout)
        assert shown.stderr == "", "results go to stdout, and nothing else was to be reported"


async def test_what_waits_for_no_consumer_needs_attention(
    database: Database, connection: asyncpg.Connection, kafka_env: dict[str, str]
) -> None:
    async with simulated_api(60, 12) as api:
        await api.control("forbid", resource="services")
        env = api.env | database.env | kafka_env | QUICK
        (await run("collect", "--once", env=env)).expect(0)
        (await run("consume", "--until-idle", "1s", env=env)).expect(0)
        idle = await reported(env, 0)
        assert (idle["consumers"]["members"], idle["attention"]) == (0, []), "jobs consume now and then"
        assert idle["clusters"][0]["server_version"], "known after the first run"
        assert idle["clusters"][0]["states"]["forbidden"] == 1
        assert idle["lag"]["messages"] == 0

        (await run("collect", "--once", env=env)).expect(0)
        await connection.execute("update kafka_offset set moved_at = moved_at - interval '1000 s'")
        waiting = await reported(env, 3)
        lag = sum(partition["lag"] for partition in waiting["partitions"])
        assert lag == waiting["lag"]["messages"] > 60
        assert waiting["lag"]["behind_s"] < 900 < waiting["lag"]["idle_s"], "it waits since the last run of lists"
        no_consumer = f"no consumer in group {env['KAFKA_GROUP_ID']}: {lag} messages waiting, nothing stored for "
        (reason,) = waiting["reasons"]
        assert reason.startswith(no_consumer)
        assert waiting["attention"] == [{"about": "consumers", "why": reason}]
        shown = (await run("status", env=env)).expect(3).stdout
        assert re.match(f"needs attention\n  {no_consumer}", shown)

        async with running("consume", env=env | QUIET):
            async with asyncio.timeout(60):
                expected = [f"{env['KAFKA_TOPIC']}-{number}" for number in range(6)]
                while (held := orjson.loads((await run(*JSON, env=env)).stdout))["consumers"]["held"] != expected:
                    await asyncio.sleep(0.1)
            assert (held["consumers"]["state"], held["consumers"]["members"]) == ("Stable", 1)
            assert "consumers" not in [one["about"] for one in held["attention"]]
            assert "6 of 6 partitions held" in (await run("status", env=env)).stdout


async def test_rows_of_a_kind_that_turned_forbidden_need_attention_when_they_are_stale(
    database: Database, connection: asyncpg.Connection
) -> None:
    async with simulated_api(60, 12) as api:
        env = api.env | database.env
        (await run("legacy", "--once", env=env)).expect(0)
        await api.control("forbid", resource="services")
        (await run("legacy", "--once", env=env)).expect(0)
        (await run("legacy", "--once", env=env | {"EXCLUDE": "configmaps"})).expect(0)
    report = await reported(env, 0)
    stored = dict(await connection.fetch("select resource, count(*) from resources group by 1"))
    assert {kind["state"] for kind in report["kinds"]} == {"verified", "forbidden", "excluded"}
    assert {kind["resource"]: kind["objects"] for kind in report["kinds"] if kind["objects"]} == stored, (
        "in every state"
    )
    await connection.execute("update unit_floor set verified_at = verified_at - interval '2 days'")
    report = orjson.loads((await run(*JSON, "--stale", "1d", env=env)).expect(3).stdout)
    why = {one["resource"]: one["why"] for one in report["attention"]}
    assert why["pods"].startswith("not verified for 2d")
    for resource in ("services", "configmaps"):
        rows = await connection.fetchval("select count(*) from resources where resource = $1", resource)
        assert rows == _objects(report, resource) > 0
        assert why[resource] == f"{rows} rows, 2d old"


async def test_a_kafka_that_is_away_hides_nothing_else(database: Database) -> None:
    async with simulated_api(60, 12) as api:
        env = api.env | database.env | QUICK
        (await run("legacy", "--once", env=env)).expect(0)
        kafka = {"KAFKA_ENABLED": "true", "KAFKA_BROKERS": f"127.0.0.1:{free_port()}"}
        ended = (await run("status", env=env | kafka | NO_KAFKA)).expect(1)
    assert "lag unknown" in ended.stdout
    assert api.uid[:8] in ended.stdout or "sandbox" in ended.stdout


async def test_what_was_not_verified_for_long_is_reported(database: Database) -> None:
    async with simulated_api(60, 12) as api:
        (await run("legacy", "--once", env=api.env | database.env)).expect(0)
    (await run("status", "--stale", "1h", env=database.env)).expect(0)
    ended = (await run("status", "--stale", "1ms", env=database.env)).expect(3)
    assert re.match(r"needs attention\n  \d\d kinds of sandbox not verified for ", ended.stdout)
    listed = (await run("status", "--stale", "1ms", "--kinds", env=database.env)).expect(3).stdout
    assert re.search(r" verified +\d+[sm] +\d+ +widgets.shop.example.com +not verified for \d+[sm]\n", listed)


async def test_who_watches_sees_it_go_and_come_back(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors, read = [TransientError("PostgreSQL is away")], overview.read_overview

    async def away_once(*args: Any) -> Overview:
        if errors:
            raise errors.pop()
        return await read(*args)

    monkeypatch.setattr(status, "read_overview", away_once)
    monkeypatch.setattr(status, "WATCH_S", 0.01)
    settings, form = database.settings(), Output.TABLE
    watching = asyncio.create_task(
        status.show_status(settings, unobserved, stale_after_s=None, every_kind=False, output=form, watch=True)
    )
    printed = ""
    async with asyncio.timeout(60):
        while printed.count("no cluster is stored here yet") < 2:
            await asyncio.sleep(0.05)
            printed += capsys.readouterr().out
    watching.cancel()
    assert printed.startswith("unknown: PostgreSQL is away\nneeds attention\n")


async def reported(env: dict[str, str], code: int) -> dict[str, Any]:
    """What scripts read, with this exit code."""
    report = orjson.loads((await run(*JSON, env=env)).expect(code).stdout)
    assert isinstance(report, dict)
    return report


def _objects(report: dict[str, Any], resource: str) -> int:
    (found,) = [kind["objects"] for kind in report["kinds"] if kind["resource"] == resource]
    return int(found)
