"""Dead letters are bounded in number and in bytes: whoever may write to the topic cannot fill the disk."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from clusterinfo.model import Rejected
from clusterinfo.observations import DeadLettered, DeadLettersDropped, Observation
from clusterinfo.postgres.merge import dead_letters
from clusterinfo.postgres.sink import LOCK_TIMEOUT, PostgresSink
from tests.conftest import Database, unsorted
from tests.support.records import LANE, Feed, Listing

pytestmark = pytest.mark.embedded_only

MIB = 1024 * 1024


class Flood:
    """A sink with small limits, and strangers' messages into it; what remains of them, by offset."""

    def __init__(self, sink: PostgresSink, connection: asyncpg.Connection, seen: list[Observation]) -> None:
        self.sink, self.connection, self.seen, self.feed = sink, connection, seen, Feed()

    async def send(self, count: int, size_bytes: int = 10) -> None:
        noise = random.Random(1)
        letters = [
            Rejected(offset=self.feed.next_offset + number, reason="no", headers=[], value=noise.randbytes(size_bytes))
            for number in range(count)
        ]
        await self.sink.write(self.feed.batch(rejected=tuple(letters)))

    async def kept(self) -> list[int]:
        rows = await self.connection.fetch("select record_offset from dead_letter order by id")
        return [row["record_offset"] for row in rows]

    @property
    def dropped(self) -> int:
        return sum(seen.letters for seen in self.seen if isinstance(seen, DeadLettersDropped))


@asynccontextmanager
async def flood(database: Database, connection: asyncpg.Connection, **limits: int) -> AsyncIterator[Flood]:
    seen: list[Observation] = []
    async with PostgresSink.connect(database.settings(**limits), seen.append) as sink:
        sink._settings = unsorted(sink._settings)
        await sink.open(LANE)
        yield Flood(sink, connection, seen)


async def test_the_newest_rows_stay(database: Database, connection: asyncpg.Connection) -> None:
    async with flood(database, connection, dead_letter_rows=50) as strangers:
        for _ in range(4):
            await strangers.send(30)
        assert await strangers.kept() == [*range(40, 120)], "over by no more than the last batch"
        await strangers.send(1)
        assert await strangers.kept() == [*range(70, 121)]
        assert strangers.dropped == 70


async def test_the_newest_bytes_stay(database: Database, connection: asyncpg.Connection) -> None:
    async with flood(database, connection, dead_letter_bytes=4 * MIB) as strangers:
        for _ in range(9):
            await strangers.send(1, MIB)
        assert await strangers.kept() == [5, 6, 7, 8], "three fit in, and the last came after"
        assert strangers.dropped == 5
        size = await connection.fetchval("select sum(pg_column_size(value)) from dead_letter where record_offset < 8")
        assert size <= 4 * MIB


async def test_what_is_stored_waits_for_no_letter_and_no_letter_for_a_replay(
    database: Database, connection: asyncpg.Connection
) -> None:
    async with flood(database, connection, dead_letter_rows=2) as strangers:
        await strangers.send(5)
        strangers.sink._settings = strangers.sink._settings.replace(LOCK_TIMEOUT, "5s")  # without the guard: in vain
        async with connection.transaction():
            await connection.execute("select from dead_letter where record_offset = 1 for update")
            listing = Listing("100")
            await strangers.sink.write(strangers.feed.batch(listing.item("a", "1"), listing.completed()))
        assert await strangers.kept() == [1, 3, 4]


async def test_a_large_surplus_goes_in_small_steps(
    database: Database, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "MAX_DROPPED", 3)
    async with flood(database, connection, dead_letter_rows=1) as strangers:
        await strangers.send(8)
        await connection.execute("update dead_letter set reason = 'x' where record_offset = 0")  # it lies last now
        left = []
        for _ in range(4):
            await strangers.sink.write(strangers.feed.batch(Listing("100").failed(500, "away")))
            left.append(await strangers.kept())
        assert left == [[3, 4, 5, 6, 7], [6, 7], [7], [7]]


async def test_thousands_are_stored_in_parts_and_reported_in_few_lines(
    database: Database, connection: asyncpg.Connection
) -> None:
    async with flood(database, connection) as strangers:
        await strangers.send(1234)
        assert await strangers.kept() == [*range(1234)]
        reported = [seen for seen in strangers.seen if isinstance(seen, DeadLettered)]
        assert [(one.offset, one.letters) for one in reported] == [*((offset, 1) for offset in range(10)), (10, 1224)]
        await strangers.send(5, MIB)
        assert len(await strangers.kept()) == 1239


async def test_one_process_at_a_time(database: Database, connection: asyncpg.Connection) -> None:
    async with flood(database, connection, dead_letter_rows=2) as strangers:
        await strangers.send(5)
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", dead_letters.LOCK_KEY)
            await strangers.send(1)
            assert len(await strangers.kept()) == 6
        await strangers.send(1)
        assert await strangers.kept() == [4, 5, 6]


async def test_what_was_there_before_a_start_counts(database: Database, connection: asyncpg.Connection) -> None:
    async with flood(database, connection) as strangers:
        await strangers.send(50)
    async with flood(database, connection, dead_letter_rows=10) as strangers:
        strangers.feed.next_offset = 50
        await strangers.send(1)
        await strangers.send(1)
        assert await strangers.kept() == [*range(41, 52)]
