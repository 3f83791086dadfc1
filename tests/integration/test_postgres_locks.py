"""Units are locked one after the other by their ids, whatever else would put them in order: so no two batches deadlock.

Here everything else puts them the other way round: their names, where their rows lie, and the order of the records; and
PostgreSQL reads tables as they lie. A batch that waits for the first of them must not hold the second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from tests.conftest import Database, unsorted
from tests.integration.test_postgres_sink import MINUTE, Bench, bench
from tests.support.records import NOON, Listing

__all__ = ["bench"]

RESOURCES = ("zebras", "apples")
"""In the order of their ids."""


@pytest.fixture
async def blocker(bench: Bench, database: Database) -> AsyncIterator[asyncpg.Connection]:
    """Holds the first unit."""
    for resource in RESOURCES:
        await bench.store(_listing(resource, 0).item("a", "1"))
    # A new version of the row lies behind the others.
    await bench.connection.execute("update unit set kind = kind where resource = 'zebras'")
    for plan in ("indexscan", "bitmapscan", "nestloop"):
        await bench.connection.execute(f"alter database {database.name} set enable_{plan} = off")
    bench.sink._settings = unsorted(bench.sink._settings)
    await bench.sink._pool.expire_connections()
    connection = await database.connect()
    async with connection.transaction():
        await connection.execute("select from unit where resource = 'zebras' for update")
        yield connection
    await connection.close()


def _listing(resource: str, minute: int) -> Listing:
    return Listing(str(100 + minute), NOON + minute * MINUTE, resource=resource)


async def _holds_none(
    bench: Bench, blocker: asyncpg.Connection, writing: Coroutine[Any, Any, Any], free: Sequence[str] = ("apples",)
) -> None:
    """While it waits for the first unit, or for what else is blocked, these are free."""
    task = asyncio.create_task(writing)
    try:
        async with asyncio.timeout(60):
            while not await blocker.fetchval("select count(*) from pg_locks where not granted"):
                assert not task.done(), "it waits for nobody"
                await asyncio.sleep(0.01)
        rows = await bench.connection.fetch("select resource from unit for update skip locked")
        assert sorted(row["resource"] for row in rows) == sorted(free)
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_batch_waits_for_its_first_unit_and_holds_none(bench: Bench, blocker: asyncpg.Connection) -> None:
    later = [_listing(resource, 1).item("a", "2") for resource in reversed(RESOURCES)]
    await _holds_none(bench, blocker, bench.store(*later))


async def test_a_completed_snapshot_waits_for_its_first_unit_and_holds_none(
    bench: Bench, blocker: asyncpg.Connection
) -> None:
    later = _listing("apples", 1)
    await _holds_none(bench, blocker, bench.store(later.snapshot_completed({("", "apples"): "completed"})))


async def test_a_gap_waits_for_the_first_unit_of_its_partition_and_holds_none(
    bench: Bench, blocker: asyncpg.Connection
) -> None:
    bench.feed.next_offset += 10
    batch = bench.feed.batch(_listing("pears", 1).snapshot_started())
    await _holds_none(bench, blocker, bench.sink.write(replace(batch, start=batch.start - 10, gap=True)))


async def test_an_alarm_waits_for_the_first_unit_of_its_cluster_and_holds_none(
    bench: Bench, blocker: asyncpg.Connection
) -> None:
    starts = [replace(_listing("apples", n).snapshot_started(), cluster_name=name) for n, name in enumerate("ABAB")]
    await _holds_none(bench, blocker, bench.store(*starts))


async def test_a_completed_snapshot_and_kinds_of_another_cluster_are_locked_in_one_order(
    bench: Bench, blocker: asyncpg.Connection
) -> None:
    await bench.store(replace(_listing("pears", 0).item("p", "1"), cluster="other", cluster_name="other"))
    ended = replace(_listing("pears", 1).snapshot_completed({}), cluster="other", cluster_name="other")
    item = _listing("zebras", 1).item("a", "2")
    await _holds_none(bench, blocker, bench.store(ended, item), free=["apples", "pears"])


async def test_a_completed_snapshot_waits_for_no_kind_that_it_is_not_about(
    bench: Bench, blocker: asyncpg.Connection
) -> None:
    ended = replace(_listing("pears", 1).snapshot_completed({}), cluster="other", cluster_name="other")
    async with asyncio.timeout(60):
        await bench.store(ended, _listing("apples", 1).item("a", "2"))


async def test_no_unit_is_held_while_another_is_made(
    bench: Bench, blocker: asyncpg.Connection, database: Database
) -> None:
    other = await database.connect()
    async with other.transaction():
        await other.execute("select from cluster for update")
        await blocker.execute("rollback")
        await blocker.execute("begin")
        new = _listing("pears", 1).item("a", "1")
        later = _listing("zebras", 1).item("a", "2")
        await _holds_none(bench, other, bench.store(new, later), free=["apples", "zebras"])
    await other.close()
