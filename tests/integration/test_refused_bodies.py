"""What PostgreSQL refuses, or takes and blows up: stored repaired with its bytes beside it, once, however it came."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest

from clusterinfo.json_repair import MAX_DEPTH
from clusterinfo.model import Batch, Record
from clusterinfo.observations import BatchStored, Observation
from clusterinfo.postgres.sink import PostgresSink
from tests.conftest import Database
from tests.support.records import LANE, NOON, Feed, Listing, page

MINUTE = dt.timedelta(minutes=1)

REFUSED: dict[str, tuple[bytes, object]] = {
    "a number beyond numeric": (b'{"n":1e131072}', {"n": "1e131072"}),
    "a number too small": (b'{"n":1e-16384}', {"n": "1e-16384"}),
    "a number of too many digits": (b'{"n":%s}' % (b"7" * 131_073), {"n": "7" * 131_073}),
    "a short number that reads back as 131 kB": (b'{"n":[1e131071,1]}', {"n": ["1e131071", 1]}),
    "tokens of JavaScript": (b'{"n":[NaN,-Infinity]}', {"n": ["NaN", "-Infinity"]}),
    "a raw NUL": (b'{"n":"a\0b"}', {"n": "a\ufffdb"}),
    "a raw line break": (b'{"n":"a\nb"}', {"n": "a\nb"}),
    "bytes that are no UTF-8": (b'{"n":"a\xff"}', {"n": "a\ufffd"}),
    "a byte order mark": (b'\xef\xbb\xbf{"n":1}', {"n": 1}),
    "an escape nobody knows": (rb'{"n":"\x41"}', {"n": "\ufffd41"}),
    "an escaped NUL": (rb'{"n":"\u0000"}', {"n": "\ufffd"}),
    "half a surrogate pair": (rb'{"n":"\ud800"}', {"n": "\ufffd"}),
    "everything at once": (b'\xef\xbb\xbf{"\xff":"\\u0000","n":1e9999}', {"\ufffd": "\ufffd", "n": "1e9999"}),
}


class Store:
    """A sink, and batches as one of the two ways gives them: a partition's, or pages of a list."""

    def __init__(self, sink: PostgresSink, connection: asyncpg.Connection, seen: list[Observation], way: str) -> None:
        self.sink, self.connection, self.seen, self.way, self.feed = sink, connection, seen, way, Feed()

    async def store(self, listing: Listing, *records: Record) -> BatchStored:
        await self.sink.write(self._batch(listing, [*records, listing.completed()]))
        return next(seen for seen in reversed(self.seen) if isinstance(seen, BatchStored))

    def _batch(self, listing: Listing, records: list[Record]) -> Batch:
        return page(listing, 0, *records) if self.way == "pages" else self.feed.batch(*records)

    async def row(self, name: str = "bad") -> asyncpg.Record:
        return await self.connection.fetchrow("select * from resource where name = $1", name)

    async def letters(self) -> int:
        return int(await self.connection.fetchval("select count(*) from dead_letter"))


@pytest.fixture(params=["partition", "pages"])
async def to(
    request: pytest.FixtureRequest, database: Database, connection: asyncpg.Connection
) -> AsyncIterator[Store]:
    seen: list[Observation] = []
    async with PostgresSink.connect(database.settings(), seen.append) as sink:
        if request.param == "partition":
            await sink.open(LANE)
        yield Store(sink, connection, seen, request.param)


@pytest.mark.parametrize("name", REFUSED)
async def test_it_is_stored_repaired_with_its_bytes_and_proven_with_its_list(to: Store, name: str) -> None:
    body, expected = REFUSED[name]
    listing = Listing("100")

    await to.store(listing, listing.item("a", "1"), listing.item("bad", "2", body=body), listing.item("z", "3"))

    row = await to.row()
    assert (orjson.loads(row["body"]), row["original"], row["fidelity"]) == (expected, body, 2)
    assert await to.connection.fetch("select name, fidelity from resource where name <> 'bad' order by 1") == [
        ("a", 3),
        ("z", 3),
    ]
    assert await to.connection.fetchval("select state from freshness") == "verified"
    assert await to.letters() == 0


ODD = "\t\r\n \\ \N{SNOWMAN} \N{FAMILY}" * 40_000
LARGE = orjson.dumps({"odd": ODD}).replace(b'":', b'"\t\r\n:')
"""Of 1 MiB; what has a meaning in COPY's text format is in there, as JSON writes it and as it is between tokens."""


@pytest.mark.parametrize("end", [b"}", b',"n":"\\u0000"}'])
async def test_a_large_body_is_stored_as_a_small_one_is(to: Store, end: bytes) -> None:
    listing, large = Listing("100"), LARGE[:-1] + end
    refused = b'{"n":NaN}'

    await to.store(
        listing,
        listing.item("a", "1"),
        listing.item("large", "2", body=large),
        listing.item("bad", "3", body=refused),
    )

    row, bad, small = await to.row("large"), await to.row(), await to.row("a")
    assert orjson.loads(row["body"])["odd"] == ODD
    assert (row["fidelity"], row["original"]) == ((3, None) if end == b"}" else (2, large))
    assert (bad["fidelity"], bad["original"]) == (2, refused)
    assert [row[name] for name in ("deleted", "last_observed_at")] == [small["deleted"], small["last_observed_at"]]
    assert await to.connection.fetchval("select state from freshness") == "verified"


async def test_what_nests_deeper_than_the_server_can_follow_is_cut(to: Store) -> None:
    listing = Listing("100")
    body = b'{"a":' * 50_000 + b"1" + b"}" * 50_000

    await to.store(listing, listing.item("bad", "2", body=body))

    row = await to.row()
    assert (row["body"].count(b"{"), row["original"], row["fidelity"]) == (MAX_DEPTH, body, 2)


@pytest.mark.parametrize("name", ["a number beyond numeric", "a short number that reads back as 131 kB", "a raw NUL"])
async def test_what_was_found_out_late_is_not_written_again_by_every_list(to: Store, name: str) -> None:
    body, _ = REFUSED[name]
    first = Listing("100")
    await to.store(first, first.item("bad", "2", "x", body=body))
    for minute in (1, 2):
        again = Listing(f"{minute + 1}00", NOON + minute * MINUTE)

        stored = await to.store(again, again.item("bad", "2", "x", body=body))

        assert (stored.rows_written, stored.rows_unchanged, stored.history_rows) == (0, 1, 0)
        row, seen = await to.row(), await to.connection.fetchval("select live_at from positioned()")
        assert (row["fidelity"], seen, row["original"]) == (2, (minute + 1) * 100, body)
    assert await to.connection.fetchval("select count(*) from resource_history") == 0


async def test_no_body_is_sent_again_for_what_was_found_out_late(to: Store) -> None:
    first, again = Listing("100"), Listing("200", NOON + MINUTE)
    await to.store(first, first.item("bad", "2", "x", body=REFUSED["a raw NUL"][0]))
    # A trigger that refuses every body: nothing may come by it.
    await to.connection.execute(
        "create function refuse() returns trigger language plpgsql as 'begin raise exception ''a body''; end'"
    )
    await to.connection.execute("create trigger refuse before insert on resource execute function refuse()")

    await to.store(again, again.item("bad", "2", "x", body=REFUSED["a raw NUL"][0]))

    assert await to.connection.fetchval("select live_at from positioned()") == 200


async def test_a_stub_that_had_to_be_repaired_stays_a_stub(to: Store) -> None:
    listing = Listing("100")

    await to.store(listing, listing.item("bad", "2", body=b'{"size_bytes":1e9999}', state="oversize"))

    assert (await to.row())["fidelity"] == 1


@pytest.mark.parametrize("late_first", [True, False])
async def test_less_of_a_version_never_replaces_more_of_it_in_any_order(to: Store, late_first: bool) -> None:
    """Two contents of one version: the one that must be repaired is found out only when it is copied."""
    whole, bad = Listing("100"), Listing("200", NOON + MINUTE)
    stores = [(whole, whole.item("bad", "2", "whole")), (bad, bad.item("bad", "2", "bad", body=b'{"n":NaN}'))]
    for listing, record in reversed(stores) if late_first else stores:
        await to.store(listing, record)

    row = await to.row()
    assert (row["fidelity"], orjson.loads(row["body"])["data"], row["live_at"]) == (3, "whole", 200)


async def test_a_version_between_two_good_ones_is_in_the_history_as_it_could_be_stored(to: Store) -> None:
    body = REFUSED["a number beyond numeric"][0]
    versions: list[dict[str, Any]] = [{}, {"body": body}, {}]
    for number, attributes in enumerate(versions, start=1):
        listing = Listing(f"{number}00", NOON + number * MINUTE)
        await to.store(listing, listing.item("bad", str(number), number, **attributes))

    found = await to.connection.fetch("select resource_version, fidelity, original from resource_history order by 1")
    assert [tuple(row) for row in found] == [("1", 3, None), ("2", 2, body)]


async def test_many_bad_bodies_of_one_batch_are_all_repaired(to: Store) -> None:
    listing = Listing("100")
    count = 250
    records = [listing.item(f"bad-{i:03}", "1", i, body=b'{"n":[NaN,%d]}' % i) for i in range(count)]

    stored = await to.store(listing, *records)

    assert (stored.rows_written, stored.dead_letters) == (count, 0)
    assert await to.connection.fetchval("select count(*) from resource where fidelity = 2") == count
