"""Dead letters on a real server: kept so that nothing is lost, replayed as harmlessly as any duplicate."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator

import asyncpg
import msgspec
import orjson
import pytest

from clusterinfo import wire
from clusterinfo.errors import RecordError
from clusterinfo.model import Batch, ListLane, Record, RecordType, Rejected, Unit
from clusterinfo.observations import DeadLettered, Observation
from clusterinfo.postgres.admin.dead_letters import Letter, drop_letters, open_letter
from clusterinfo.postgres.admin.replay import replay
from clusterinfo.postgres.merge.dead_letters import MAX_VALUE_BYTES
from clusterinfo.postgres.merge.offsets import forget_offsets
from clusterinfo.postgres.sink import PostgresSink
from tests.conftest import Database
from tests.support.records import LANE, NOON, Feed, Listing

MINUTE = dt.timedelta(minutes=1)
BROKEN = b'{"n":hunter2}'


class Desk:
    """A sink fed by a partition, and the dead letters it leaves."""

    def __init__(self, sink: PostgresSink, connection: asyncpg.Connection, seen: list[Observation]) -> None:
        self.sink, self.connection, self.feed, self.seen = sink, connection, Feed(), seen

    async def store(self, *records: Record, rejected: tuple[Rejected, ...] = ()) -> None:
        await self.sink.write(self.feed.batch(*records, rejected=rejected))

    async def letters(self) -> list[Letter]:
        rows = await self.connection.fetch("select id from dead_letter order by id")
        return [await open_letter(self.connection, row["id"]) for row in rows]

    async def letter(self) -> Letter:
        (only,) = await self.letters()
        return only

    async def replay(self, letter: Letter) -> bool:
        letter.check_whole()
        return await replay(self.sink, letter.id, wire.decode(letter.key, letter.value, letter.headers), letter.topic)

    async def repair(self, letter: Letter, body: bytes) -> Letter:
        """As if PostgreSQL took the value now."""
        await self.connection.execute(
            "update dead_letter set value = $2, size_bytes = $3 where id = $1", letter.id, body, len(body)
        )
        return await open_letter(self.connection, letter.id)

    async def everything(self) -> list[list[asyncpg.Record]]:
        """All that is stored but the dead letters."""
        tables = "kafka_offset", "list_progress", "unit", "unit_floor", "resource", "resource_history", "snapshot"
        return [await self.connection.fetch(f"select t.* from {table} t order by t.*::text") for table in tables]


@pytest.fixture
async def desk(database: Database, connection: asyncpg.Connection) -> AsyncIterator[Desk]:
    seen: list[Observation] = []
    async with PostgresSink.connect(database.settings(), seen.append) as sink:
        await sink.open(LANE)
        yield Desk(sink, connection, seen)


async def test_a_record_that_was_refused_is_kept_as_the_message_it_was(desk: Desk) -> None:
    listing = Listing("100")
    record = listing.item("a", "1", body=BROKEN)
    await desk.store(record)
    letter = await desk.letter()
    assert wire.decode(letter.key, letter.value, letter.headers) == record
    assert (letter.sqlstate, letter.size_bytes, letter.is_cut_off) == ("22P02", len(BROKEN), False)


async def test_a_record_that_a_column_refused_is_kept_with_the_servers_message(desk: Desk) -> None:
    await desk.connection.execute("alter table resource add check (uid::int > 0)")
    record = Listing("100").item("a", "1", uid="x")
    await desk.store(record)
    letter = await desk.letter()
    assert wire.decode(letter.key, letter.value, letter.headers) == record
    assert letter.sqlstate == "22P02"
    await desk.connection.execute("alter table resource drop constraint resource_uid_check")
    assert await desk.replay(letter)
    assert await desk.connection.fetchval("select fidelity from resource") == 3


HEADERS: dict[str, list[tuple[str, bytes | None]]] = {
    "none": [],
    "text": [("ce_type", b"x"), ("a", b"\xc3\xa4")],
    "no text": [("a", b"\xff\x00"), ("b", b"nul\0")],
    "null": [("a", None)],
    "twice": [("a", b"1"), ("a", b"2"), ("b", b"\xfe")],
    "names that are no text": [("a\udcff", b"1"), ("a\udcff", None), ("a\udcff", b"\xff"), ("n\0", b"2"), ("", b"3")],
    "a name that looks like one": [("a\\xff", b"1"), ("a\udcff", b"2")],
    "JSON": [("a", b'{"base64":"eA=="}'), ("b", b"[1]")],
}


@pytest.mark.parametrize("name", HEADERS)
async def test_headers_come_back_to_the_byte(desk: Desk, name: str) -> None:
    message = Rejected(offset=0, reason="strange", key=b"\0\xff", headers=HEADERS[name], value=b"\xff")
    await desk.store(rejected=(message,))
    letter = await desk.letter()
    assert (letter.key, sorted(letter.headers, key=str), letter.value) == (
        message.key,
        sorted(HEADERS[name], key=str),
        b"\xff",
    )


async def test_a_replay_gives_the_row_its_body_and_touches_nothing_else(desk: Desk) -> None:
    listing = Listing("100")
    await desk.store(listing.item("a", "1", body=BROKEN), listing.item("b", "2"), listing.completed())
    before = await desk.everything()
    letter = await desk.repair(await desk.letter(), b'{"n": 1}')
    assert await desk.replay(letter)
    row = await desk.connection.fetchrow("select * from resource where name = 'a'")
    assert (orjson.loads(row["body"]), row["fidelity"], row["live_at"]) == ({"n": 1}, 3, 100)
    await desk.connection.execute("update resource set body = null, fidelity = 0 where name = 'a'")
    assert await desk.everything() == before
    assert (await desk.letter()).replayed_at is not None


async def test_a_replay_after_later_lists_keeps_what_they_stored(desk: Desk) -> None:
    first, second = Listing("100"), Listing("200", NOON + MINUTE)
    await desk.store(first.item("a", "1", body=BROKEN), first.completed())
    await desk.store(second.item("a", "1", body=BROKEN), second.completed())
    assert await desk.replay(await desk.repair(await desk.letter(), b'{"n": 1}'))
    row = await desk.connection.fetchrow("select * from resource")
    assert (orjson.loads(row["body"]), row["fidelity"], row["live_at"]) == ({"n": 1}, 3, 200)
    assert row["last_observed_at"] == NOON + MINUTE
    assert await desk.connection.fetchval("select count(*) from resource_history") == 0


async def test_a_replay_gives_a_superseded_version_its_body(desk: Desk) -> None:
    first, second = Listing("100"), Listing("200", NOON + MINUTE)
    await desk.store(first.item("a", "1", body=BROKEN), first.completed())
    await desk.store(second.item("a", "2", "new"), second.completed())
    letter = await desk.repair(await desk.letter(), b'{"n": 1}')
    assert await desk.replay(letter)
    rows = await desk.connection.fetch("select body, fidelity from resource_history")
    assert [(orjson.loads(row["body"]), row["fidelity"]) for row in rows] == [({"n": 1}, 3)]
    assert await desk.connection.fetchval("select resource_version from resource") == "2"
    before = await desk.everything()
    assert not await desk.replay(letter), "a second time there is nothing to do"
    assert await desk.everything() == before


async def test_what_is_refused_again_leaves_everything_as_it_was(desk: Desk) -> None:
    listing = Listing("100")
    await desk.store(listing.item("a", "1", body=BROKEN), listing.completed())
    before = await desk.everything()
    letter = await desk.letter()
    with pytest.raises(RecordError, match="PostgreSQL refused the body"):
        await desk.replay(letter)
    assert await desk.everything() == before
    assert await desk.letter() == letter, "no second letter, and not replayed"


async def test_an_object_that_is_gone_stays_gone(desk: Desk) -> None:
    first, second = Listing("100"), Listing("200", NOON + MINUTE)
    await desk.store(first.item("a", "1", body=BROKEN), first.item("b", "2"), first.completed())
    await desk.store(second.item("b", "2"), second.completed())
    await desk.connection.execute("delete from resource_history")
    before = await desk.everything()
    assert not await desk.replay(await desk.repair(await desk.letter(), b'{"n": 1}'))
    assert await desk.everything() == before


async def test_a_message_that_can_be_read_after_all_is_stored_without_being_counted(desk: Desk) -> None:
    listing = Listing("100")
    first, second = listing.item("a", "1"), listing.item("b", "2")
    key, value, headers = wire.encode(second)
    await desk.store(first, rejected=(Rejected(offset=1, reason="?", key=key, headers=[*headers], value=value),))
    progress = await desk.connection.fetch("select * from list_progress")
    assert await desk.replay(await desk.letter())
    assert await desk.connection.fetchval("select body is not null from resource where name = 'b'")
    assert await desk.connection.fetch("select * from list_progress") == progress
    assert await desk.connection.fetchval("select next_offset from kafka_offset") == 2


async def test_a_statement_is_replayed_too(desk: Desk) -> None:
    listing = Listing("100")
    await desk.store(listing.item("a", "1"))
    key, value, headers = wire.encode(listing.completed())
    await desk.store(rejected=(Rejected(offset=1, reason="?", key=key, headers=[*headers], value=value),))
    assert await desk.replay(await desk.letter())
    assert await desk.connection.fetchval("select state from freshness") == "verified"


async def test_a_statement_that_says_nothing_is_refused_again(desk: Desk) -> None:
    listing = Listing("100")
    await desk.store(listing.record(RecordType.LIST_COMPLETED, b"[]"))
    before = await desk.everything()
    with pytest.raises(RecordError, match=r"list\.completed"):
        await desk.replay(await desk.letter())
    assert await desk.everything() == before


async def test_a_value_that_was_cut_off_cannot_be_replayed(desk: Desk) -> None:
    listing = Listing("100")
    bodies = [b'{"n":"%s"' % (b"x" * MAX_VALUE_BYTES), b'{"n":"%s"' % (b"x" * (MAX_VALUE_BYTES - 7))]
    await desk.store(*(listing.item(name, "1", body=body) for name, body in zip("ab", bodies, strict=True)))
    cut, whole = await desk.letters()
    assert (cut.size_bytes, len(cut.value or b"")) == (MAX_VALUE_BYTES + 7, MAX_VALUE_BYTES)
    with pytest.raises(RecordError, match="cut off"):
        await desk.replay(cut)
    assert len(whole.value or b"") == MAX_VALUE_BYTES
    whole.check_whole()
    assert [letter.is_cut_off for letter in await desk.letters()] == [True, False]


async def test_a_message_whose_headers_were_cut_cannot_be_replayed(desk: Desk) -> None:
    key, value, headers = wire.encode(Listing("100").item("a", "1"))
    cut = Rejected(offset=0, reason="it has too many", key=key, headers=[*headers], value=value, omitted_bytes=7)
    await desk.store(rejected=(cut,))
    letter = await desk.letter()
    assert (letter.value, letter.size_bytes, letter.is_cut_off) == (value, len(value) + 7, True)
    with pytest.raises(RecordError, match="not all were kept"):
        await desk.replay(letter)
    assert await desk.connection.fetchval("select count(*) from resource") == 0


async def test_what_kafka_could_not_give_cannot_be_replayed(desk: Desk) -> None:
    await desk.store(rejected=(Rejected(offset=0, reason="cannot be read from Kafka", headers=[], value=b""),))
    with pytest.raises(RecordError, match="nothing was kept"):
        await desk.replay(await desk.letter())


async def test_a_letter_that_was_dropped_meanwhile_is_not_replayed(desk: Desk) -> None:
    await desk.store(Listing("100").item("a", "1", body=BROKEN))
    letter = await desk.letter()
    await desk.connection.execute("delete from dead_letter")
    with pytest.raises(RecordError, match="dropped"):
        await desk.replay(letter)


# Read again


async def read_again(desk: Desk) -> None:
    """`clusterinfo offsets reset`: the topic comes again, from its beginning."""
    await forget_offsets(desk.connection, "clusterinfo", LANE.topic)
    await desk.sink.open(LANE)
    desk.feed = Feed()


def strange(value: bytes) -> Rejected:
    return Rejected(offset=0, reason="strange", key=b"k", headers=[], value=value)


async def test_what_is_read_again_is_one_dead_letter(desk: Desk) -> None:
    await desk.store(rejected=(strange(b"1"),))
    before = await desk.letter()
    for _ in range(2):
        await read_again(desk)
        await desk.store(rejected=(strange(b"1"),))
    assert await desk.letter() == before
    assert [seen.letters for seen in desk.seen if isinstance(seen, DeadLettered)] == [1], "nor is it told again"


async def test_a_dead_letter_that_was_dropped_stays_dropped(desk: Desk) -> None:
    await desk.store(rejected=(strange(b"1"),))
    assert len(await drop_letters(desk.connection, None, only_replayed=False)) == 1
    await read_again(desk)
    await desk.store(rejected=(strange(b"1"),))
    assert await desk.letters() == []


async def test_another_message_at_its_place_is_another_dead_letter(desk: Desk) -> None:
    """The topic was recreated: offsets begin at 0 again."""
    for value in (b"1", b"2"):
        await desk.store(rejected=(strange(value),))
        await read_again(desk)
    assert [letter.value for letter in await desk.letters()] == [b"1", b"2"]
    await drop_letters(desk.connection, None, only_replayed=False)
    await desk.store(rejected=(strange(b"3"),))
    assert (await desk.letter()).value == b"3", "and what was dropped there keeps none away"


@pytest.mark.parametrize(
    ("column", "other"),
    [("topic", "'t'"), ("partition", "9"), ("record_offset", "9"), ("message_hash", "''")],
    ids=["topic", "partition", "record_offset", "message_hash"],
)
async def test_what_was_dropped_elsewhere_keeps_no_letter_away(desk: Desk, column: str, other: str) -> None:
    await desk.store(rejected=(strange(b"1"),))
    await drop_letters(desk.connection, None, only_replayed=False)
    await desk.connection.execute(f"update dropped_letter set {column} = {other}")
    await read_again(desk)
    await desk.store(rejected=(strange(b"1"),))
    assert (await desk.letter()).value == b"1"


async def test_what_came_without_kafka_has_no_place(desk: Desk) -> None:
    listing = Listing("100")
    for number in range(2):
        batch = Batch(
            lane=ListLane(Unit(listing.cluster, "", listing.resource)),
            start=number,
            end=number + 1,
            records=[],
            list=listing.id,
        )
        await desk.sink.write(msgspec.structs.replace(batch, rejected=[strange(b"1")]))
    assert len(await desk.letters()) == 2
    assert len(await drop_letters(desk.connection, None, only_replayed=False)) == 2
    assert await desk.connection.fetchval("select count(*) from dropped_letter") == 0
