"""From direct storage to Kafka on one database, step by step as docs/MIGRATING.md says: nothing twice, nothing lost."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import orjson
import pytest

from tests.conftest import Database
from tests.support import checker
from tests.support.programs import Api, run, simulated_api

pytestmark = pytest.mark.embedded_only

DOCUMENT = Path(__file__).parents[2] / "docs/MIGRATING.md"
OBJECTS, KINDS = 600, 12
QUICK = {"BATCH_WAIT": "100ms"}


async def everything(connection: asyncpg.Connection) -> tuple[list[tuple[object, ...]], int]:
    """Every row, and how many versions history has."""
    rows = await checker.rows(connection)
    return rows, await connection.fetchval("select count(*) from resource_history")


async def test_legacy_first_then_kafka_on_the_same_database(database: Database, kafka_env: dict[str, str]) -> None:
    async with simulated_api(OBJECTS, KINDS) as api:
        direct = api.env | database.env | QUICK
        collecting = api.env | kafka_env | QUICK  # step 5: nothing of the database is left
        consuming = database.env | kafka_env | QUICK
        (await run("legacy", "--once", env=direct)).expect(0)
        connection = await checker.connect(database.dsn)
        try:
            before = await everything(connection)
            assert await checker.check(api.url, api.token, database.dsn) == []

            (await run("collect", "--once", env=collecting)).expect(0)
            assert await everything(connection) == before, "the database does not change until consumers are there"
            (await run("consume", "--until-idle", "1s", env=consuming)).expect(0)
            await _data_flows(connection, consuming)
            assert _without_live_at(await everything(connection)) == _without_live_at(before)
            assert await connection.fetchval("select count(*) from cluster") == 1

            changed = await _change_something(api)
            (await run("collect", "--once", env=collecting)).expect(0)
            (await run("consume", "--until-idle", "1s", env=consuming)).expect(0)
            assert await checker.check(api.url, api.token, database.dsn) == []
            _, versions = await everything(connection)
            assert versions == before[1] + changed, "each change is one version, whoever stored the one before"

            (await run("legacy", "--once", env=direct)).expect(0)
            assert await checker.check(api.url, api.token, database.dsn) == [], "and back again, if need be"
            assert (await everything(connection))[1] == versions
        finally:
            await connection.close()


async def _data_flows(connection: asyncpg.Connection, env: dict[str, str]) -> None:
    """What the document tells to look at, when all is well."""
    report = orjson.loads((await run("status", "--output", "json", env=env)).expect(0).stdout)
    assert {partition["lag"] for partition in report["partitions"]} == {0}
    (query,) = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert await connection.fetch(query) == []


def _without_live_at(found: tuple[list[tuple[object, ...]], int]) -> tuple[list[tuple[object, ...]], int]:
    """A list that changes what is stored in no other way may move live_at."""
    place = 14  # of live_at, see checker.ROWS
    return [row[:place] + row[place + 1 :] for row in found[0]], found[1]


async def _change_something(api: Api) -> int:
    """One ConfigMap deleted, one changed: two versions for history."""
    first, second = (await api.get("/api/v1/configmaps"))["items"][:2]
    for op, item in (("delete", first), ("update", second)):
        meta = item["metadata"]
        await api.control(op, resource="configmaps", namespace=meta["namespace"], name=meta["name"])
    return 2
