"""How often storing a batch goes to the server: each step that has nothing to do sends nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from clusterinfo.model import PartitionLane, Record, RecordType
from clusterinfo.postgres.pool import open_pool
from clusterinfo.postgres.sink import PostgresSink
from clusterinfo.statements import WatchProgress
from tests.conftest import Database
from tests.support.records import LANE, Feed, Listing
from tests.support.records import watched as numbered

pytestmark = pytest.mark.embedded_only


class CountedConnection:
    """A connection that notes what is sent over it."""

    def __init__(self, connection: Any, sent: list[str]) -> None:
        self._connection, self._sent = connection, sent

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._connection, name)

        async def counted(*arguments: Any, **options: Any) -> Any:
            self._sent.append(name)
            return await method(*arguments, **options)

        return counted


class CountedPool:
    """A pool of such connections."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.sent: list[str] = []

    @asynccontextmanager
    async def acquire(self, *, timeout: float | None = None) -> AsyncIterator[Any]:
        async with self._pool.acquire(timeout=timeout) as connection:
            yield CountedConnection(connection, self.sent)

    async def expire_connections(self) -> None:
        await self._pool.expire_connections()


class Counter:
    """A sink on a counted pool."""

    def __init__(self, sink: PostgresSink, pool: CountedPool) -> None:
        self.sink, self.pool, self.feed = sink, pool, Feed()

    async def sent_for(self, *records: Record) -> list[str]:
        """What is sent to store a batch of these."""
        self.pool.sent.clear()
        await self.sink.write(self.feed.batch(*records))
        return list(self.pool.sent)


@pytest.fixture
async def counter(database: Database) -> AsyncIterator[Counter]:
    settings = database.settings()
    async with open_pool(settings) as pool:
        counted = CountedPool(pool)
        sink = PostgresSink(counted, settings, lambda _: None)  # type: ignore[arg-type]
        await sink.open(LANE)
        yield Counter(sink, counted)


def watched(listing: Listing, name: str, version: str, content: str) -> Record:
    return replace(listing.item(name, version, content), list="", list_version=version)


async def test_an_object_that_changed_takes_seven_round_trips_at_most(
    counter: Counter, connection: asyncpg.Connection
) -> None:
    first = Listing("100")
    await counter.sent_for(first.item("a", "1", "x"), first.item("b", "2", "x"), first.completed())
    by_watch = await counter.sent_for(watched(first, "a", "101", "y"))
    assert by_watch == ["execute", "fetch", "fetch", "fetch", "copy_records_to_table", "execute"]
    page = Listing("200")
    by_list = await counter.sent_for(page.item("a", "150", "z"))
    assert len(by_list) == 7, by_list
    seen = await counter.sent_for(watched(first, "b", "2", "x"))
    assert seen == ["execute", "fetch", "fetch", "fetch", "execute"]
    rows = await connection.fetch("select name, resource_version from resource order by name")
    assert [tuple(row) for row in rows] == [("a", "150"), ("b", "2")]


async def test_what_is_numbered_takes_no_statement_more(counter: Counter) -> None:
    """Its session is locked with its unit, and goes on; a progress is written, and asks what begins with it as well."""
    first = Listing("100")
    await counter.sent_for(first.item("a", "1", "x"), first.completed(1), numbered(first.item("b", "101"), 1))
    by_watch = await counter.sent_for(numbered(first.item("a", "102", "y"), 2))
    assert by_watch == ["execute", *["fetch"] * 3, "copy_records_to_table", "execute"]
    progress = first.watch(RecordType.WATCH_PROGRESS, 3, WatchProgress(first.at))
    assert await counter.sent_for(progress) == ["execute", "fetch", "fetch", "execute", "fetch", "execute"]


async def test_what_another_topic_says_takes_one_statement_more_than_what_it_may(counter: Counter) -> None:
    """That which keeps it: whose a cluster is comes with the admission."""
    listing = Listing("100")
    await counter.sent_for(listing.item("a", "1"), listing.completed())
    theirs = PartitionLane(LANE.kafka_cluster, "theirs", 0, LANE.group_id)
    await counter.sink.open(theirs)
    counter.feed = Feed(theirs)
    sent = await counter.sent_for(watched(listing, "a", "101", "y"))
    assert sent == ["execute", "fetch", "fetch", "execute"]


async def test_a_batch_sent_again_takes_four_statements(counter: Counter) -> None:
    listing = Listing("100")
    await counter.sent_for(listing.item("a", "1"))
    counter.feed.next_offset = 0
    sent = await counter.sent_for(listing.item("a", "1"))
    assert sent == ["execute", "fetch", "fetchrow", "execute"]


async def test_a_connection_that_goes_back_to_the_pool_sends_nothing(database: Database) -> None:
    """What is set or locked ends with its transaction."""
    sent: list[object] = []
    async with open_pool(database.settings(db_pool_size=1)) as pool:
        async with pool.acquire() as connection:
            connection.add_query_logger(sent.append)  # type: ignore[attr-defined]
        async with pool.acquire() as connection:
            assert await connection.fetchval("select 1") == 1
    assert len(sent) == 1, sent
