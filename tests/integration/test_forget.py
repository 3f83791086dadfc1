"""Forgetting on a real server: all of it goes, nothing comes back in part, and consumers may go on meanwhile."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from clusterinfo.errors import ConfigError, RecordError, TransientError
from clusterinfo.model import Record
from clusterinfo.postgres.admin import clusters, forget
from clusterinfo.postgres.admin.forget import Deleted, delete_hidden, hide
from clusterinfo.postgres.admin.replay import replay
from clusterinfo.postgres.sink import PostgresSink
from tests.conftest import Database
from tests.support.records import CLUSTER, LANE, Feed, Listing, page

SCHEMA = "clusterinfo"
OTHER = "9a3b8c1d-0000-4e30-81ab-2135c8f2a0e5"
MINUTE = dt.timedelta(minutes=1)
PAST = dt.datetime.now(dt.UTC) - 60 * MINUTE
FUTURE = PAST + 120 * MINUTE
TABLES = "cluster", "cluster_name", "unit", "unit_floor", "list_progress", "snapshot", "resource", "resource_history"


class Keeper:
    """A sink fed by a partition, and a connection of the command's."""

    def __init__(self, sink: PostgresSink, connection: asyncpg.Connection) -> None:
        self.sink, self.connection, self.feed = sink, connection, Feed()

    async def store(self, *records: Record) -> None:
        await self.sink.write(self.feed.batch(*records))

    async def forget(self, cluster: str, kind: str | None = None) -> Deleted:
        await hide(self.connection, SCHEMA, cluster, kind)
        return await delete_hidden(self.connection, SCHEMA)

    async def rows(self) -> dict[str, int]:
        return {table: await self.connection.fetchval(f"select count(*) from {table}") for table in TABLES}

    async def live(self) -> list[str]:
        rows = await self.connection.fetch(
            "select u.resource || '/' || r.name as what from resource r join unit u on u.id = r.unit_id order by 1"
        )
        return [row["what"] for row in rows]

    async def states(self) -> dict[str, str]:
        return {row["resource"]: row["state"] for row in await self.connection.fetch("select * from freshness")}


@pytest.fixture
async def keeper(database: Database, connection: asyncpg.Connection) -> AsyncIterator[Keeper]:
    async with PostgresSink.connect(database.settings(), lambda _: None) as sink:
        await sink.open(LANE)
        yield Keeper(sink, connection)


def two_lists(**attributes: Any) -> list[Record]:
    """Two runs: an object that stays, one that changes, one that goes."""
    first = Listing("100", PAST, **attributes)
    second = Listing("200", PAST + MINUTE, **attributes)
    return [
        first.snapshot_started(),
        *(first.item(name, "1") for name in "abc"),
        first.completed(),
        second.snapshot_started(),
        second.item("a", "1"),
        second.item("b", "2", "new"),
        second.completed(),
    ]


async def test_a_cluster_is_forgotten_and_no_other(keeper: Keeper) -> None:
    await keeper.store(*two_lists(cluster=OTHER, cluster_name="other"))
    before = await keeper.rows()
    await keeper.store(*two_lists(), *two_lists(resource="pods"))
    assert await keeper.forget("test") == Deleted(units=2, objects=4, versions=4)
    assert await keeper.rows() == before
    assert await keeper.connection.fetchval("select uid from cluster") == OTHER


@pytest.mark.parametrize("name", [CLUSTER, "test"])
async def test_one_kind_is_forgotten_and_no_other(keeper: Keeper, name: str) -> None:
    await keeper.store(*two_lists(), *two_lists(resource="deployments", group="apps"))
    assert await keeper.forget(name, "deployments.apps") == Deleted(units=1, objects=2, versions=2)
    assert await keeper.live() == ["configmaps/a", "configmaps/b"]
    assert await keeper.states() == {"configmaps": "verified"}
    assert await keeper.connection.fetchval("select count(*) from cluster") == 1


async def test_it_goes_in_steps(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forget, "ROWS_AT_ONCE", 3)
    for number in range(1, 4):
        listing = Listing(str(number), PAST + number * MINUTE)
        items = [listing.item(f"n{i}", str(number), number, namespace=f"ns{i % 3}") for i in range(10)]
        await keeper.store(*items, listing.completed())
    assert await keeper.forget("test") == Deleted(units=1, objects=10, versions=20)
    assert set((await keeper.rows()).values()) == {0}


@pytest.mark.parametrize("kind", [None, "configmaps"])
async def test_late_records_of_an_old_list_bring_nothing_back(keeper: Keeper, kind: str | None) -> None:
    listing = Listing("100", PAST)
    items = [listing.item(name, "1") for name in "abcd"]
    await keeper.store(listing.snapshot_started(), *items[:2])
    await keeper.forget("test", kind)
    assert await keeper.live() == []
    await keeper.store(*items[2:], listing.completed())
    assert await keeper.live() == []
    assert await keeper.states() == {}


@pytest.mark.parametrize("kind", [None, "configmaps"])
async def test_a_list_cut_in_two_proves_nothing_although_its_collectors_clock_is_ahead(
    keeper: Keeper, kind: str | None
) -> None:
    listing = Listing("100", FUTURE)
    await keeper.store(listing.item("a", "1"), listing.item("b", "1"))
    await hide(keeper.connection, SCHEMA, "test", kind)
    await keeper.store(listing.item("c", "1"), listing.completed())
    states = await keeper.connection.fetch("select state from freshness")
    assert [row["state"] for row in states] == ["unverified", "unverified"]


@pytest.mark.parametrize("kind", [None, "configmaps"])
async def test_an_old_list_that_comes_whole_afterwards_proves_nothing(keeper: Keeper, kind: str | None) -> None:
    await keeper.store(*two_lists())
    await keeper.forget("test", kind)
    await keeper.store(*two_lists())
    assert await keeper.live() == []
    assert await keeper.states() == {}


@pytest.mark.parametrize("kind", [None, "configmaps"])
async def test_a_collector_that_still_runs_brings_it_back_whole(keeper: Keeper, kind: str | None) -> None:
    old, new = Listing("100", PAST), Listing("100", FUTURE)
    await keeper.store(old.item("a", "1"))
    await keeper.forget("test", kind)
    await keeper.store(new.snapshot_started(), new.item("a", "1"), old.item("b", "2"), new.completed(), old.completed())
    assert await keeper.live() == ["configmaps/a"]
    assert await keeper.states() == {"configmaps": "verified"}
    last = Listing("300", FUTURE + MINUTE)
    await keeper.store(last.completed())
    assert await keeper.live() == [], "and what is proven afterwards deletes as ever"


async def test_the_rest_of_a_list_that_is_written_page_by_page_is_ignored(keeper: Keeper) -> None:
    listing = Listing("100", PAST)
    await keeper.sink.write(page(listing, 0, listing.item("a", "1")))
    await keeper.forget("test")
    await keeper.sink.write(page(listing, 1, listing.item("b", "1")))
    await keeper.sink.write(page(listing, 2, listing.completed()))
    assert set((await keeper.rows()).values()) == {0}


async def test_it_waits_for_the_batch_under_way(keeper: Keeper, database: Database) -> None:
    await keeper.store(*two_lists())
    listing = Listing("300", PAST + 2 * MINUTE)
    blocker = await database.connect()
    async with blocker.transaction():
        await blocker.execute("select from unit for update")
        writing = asyncio.create_task(keeper.store(listing.item("d", "1")))
        await _waiting(blocker, 1)
        forgetting = asyncio.create_task(keeper.forget("test"))
        await _waiting(blocker, 2)
    await writing
    assert (await forgetting).objects == 3, "what the batch stored is forgotten with the rest"
    assert set((await keeper.rows()).values()) == {0}
    await blocker.close()


async def _waiting(connection: asyncpg.Connection, number: int) -> None:
    """Until so many connections wait for a lock."""
    async with asyncio.timeout(60):
        while await connection.fetchval("select count(distinct pid) from pg_locks where not granted") < number:
            await asyncio.sleep(0.02)


async def test_consumers_go_on_while_it_is_deleted(keeper: Keeper) -> None:
    await keeper.store(*two_lists())
    await hide(keeper.connection, SCHEMA, "test", None)
    new = Listing("300", FUTURE)
    await keeper.store(new.item("a", "1"), new.completed())
    labels = [row["label"] for row in await keeper.connection.fetch("select label from cluster order by id")]
    assert labels[0].startswith("test (forgotten ")
    assert labels[1:] == ["test"]
    with pytest.raises(ConfigError):
        await keeper.forget(labels[0])
    assert await delete_hidden(keeper.connection, SCHEMA) == Deleted(units=1, objects=2, versions=2)
    assert await keeper.live() == ["configmaps/a"]
    assert await keeper.states() == {"configmaps": "verified"}


async def test_what_is_unknown_is_reported_with_what_is_known(keeper: Keeper) -> None:
    with pytest.raises(ConfigError, match=r"--cluster is 'test', but .* stored are: none"):
        await keeper.forget("test")
    await keeper.store(*two_lists(), *two_lists(cluster=OTHER, cluster_name="prod"))
    with pytest.raises(ConfigError, match=r"--cluster is 'tset', but .* did you mean test\?$"):
        await keeper.forget("tset")
    with pytest.raises(ConfigError, match=r"--resource is 'configmap', but .* did you mean configmaps\?$"):
        await keeper.forget("test", "configmap")
    with pytest.raises(ConfigError, match=r"--resource is 'zebras', but .* stored are: configmaps$"):
        await keeper.forget("test", "zebras")


async def test_a_name_that_two_clusters_share_means_the_one_that_is_shown_by_it(keeper: Keeper) -> None:
    await keeper.store(*two_lists(), *two_lists(cluster=OTHER))
    await keeper.forget("test")
    assert await keeper.connection.fetchval("select uid from cluster") == OTHER
    assert await keeper.connection.fetchval("select label from cluster") == f"test-{OTHER[:8]}"


async def test_a_dead_letter_of_before_cannot_be_replayed(keeper: Keeper) -> None:
    record = Listing("100", PAST).item("a", "1", body=b"{")
    await keeper.store(record)
    await keeper.forget("test")
    letter = await keeper.connection.fetchval("select id from dead_letter")
    with pytest.raises(RecordError, match="forgotten"):
        await replay(keeper.sink, letter, record, LANE.topic)
    assert await keeper.connection.fetchval("select replayed_at from dead_letter") is None


async def test_a_change_that_met_a_deadlock_is_tried_again(
    connection: asyncpg.Connection, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "PAUSE_S", 0.0)
    tried: list[str] = []

    async def change() -> str:
        tried.append(await connection.fetchval("select 'in a transaction' where pg_current_xact_id() is not null"))
        if len(tried) < 3:
            raise asyncpg.DeadlockDetectedError("deadlock detected")
        return "changed"

    assert await clusters.alone(connection, SCHEMA, "trying", change) == "changed"
    assert tried == ["in a transaction"] * 3


async def test_a_change_for_which_no_lock_is_to_be_had_says_so_in_the_end(
    connection: asyncpg.Connection, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "PAUSE_S", 0.001)
    monkeypatch.setattr(clusters, "ALONE_WITHIN_S", 0.2)

    async def change() -> str:
        raise asyncpg.LockNotAvailableError("canceling statement due to lock timeout")

    with pytest.raises(TransientError, match="PostgreSQL, trying: "):
        await clusters.alone(connection, SCHEMA, "trying", change)
