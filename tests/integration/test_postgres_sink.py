"""PostgresSink on a real server: what becomes of batches, in order, out of order, repeated, and refused."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import re
import string
from collections.abc import AsyncIterator
from itertools import chain
from typing import Any

import asyncpg
import orjson
import pytest
from msgspec.structs import replace

from clusterinfo.errors import ConfigError, LostError, RestartError
from clusterinfo.model import CLOCK, Batch, PartitionLane, Record, RecordType, Rejected
from clusterinfo.observations import BatchStored, Observation, UnitFailed, UnitGone, UnitVerified, Warned
from clusterinfo.postgres import sink
from clusterinfo.postgres.merge.offsets import forget_offsets
from clusterinfo.postgres.sink import PostgresSink
from clusterinfo.postgres.sql import statements
from tests.conftest import Database
from tests.support.records import CLUSTER, LANE, NOON, Feed, Listing, page

MINUTE = dt.timedelta(minutes=1)


class Bench:
    """A sink on a database, a partition that feeds it, and a look at what is stored."""

    def __init__(self, sink: PostgresSink, connection: asyncpg.Connection, seen: list[Observation]) -> None:
        self.sink, self.connection, self.seen, self.feed = sink, connection, seen, Feed()

    async def store(self, *records: Record, rejected: tuple[Rejected, ...] = ()) -> Batch:
        batch = self.feed.batch(*records, rejected=rejected)
        receipt = await self.sink.write(batch)
        assert receipt.position == batch.end
        return batch

    async def live(self) -> dict[str, str]:
        """Name -> resourceVersion of the live rows."""
        rows = await self.connection.fetch("select name, resource_version from resource where not deleted order by 1")
        return {row["name"]: row["resource_version"] for row in rows}

    async def history(self) -> list[tuple[str, str, bool]]:
        """(name, resourceVersion, ended by deletion) of the history, oldest first."""
        rows = await self.connection.fetch(
            "select name, resource_version, deleted from resource_history order by valid_to, valid_from, name"
        )
        return [(row["name"], row["resource_version"], row["deleted"]) for row in rows]

    async def states(self) -> dict[str, str]:
        """Resource -> what is known of the kind, by the newest statement about it."""
        rows = await self.connection.fetch(
            "select u.resource, coalesce(u.state, (select f.state from unit_floor f where f.unit_id = u.id"
            " order by f.state_at desc, f.reach limit 1), 'unverified') as state from unit u"
        )
        return {row["resource"]: row["state"] for row in rows}

    def last(self, kind: type[Any]) -> Any:
        return next(seen for seen in reversed(self.seen) if isinstance(seen, kind))


@pytest.fixture
async def bench(database: Database, connection: asyncpg.Connection) -> AsyncIterator[Bench]:
    seen: list[Observation] = []
    async with PostgresSink.connect(database.settings(), seen.append) as sink:
        assert await sink.open(LANE) is None
        yield Bench(sink, connection, seen)


async def test_a_list_is_stored_and_verified(bench: Bench) -> None:
    listing = Listing("100")
    await bench.store(*[listing.item(f"a{i}", str(i), {"k": i}) for i in range(10)], listing.completed())
    assert len(await bench.live()) == 10
    assert await bench.states() == {"configmaps": "verified"}
    assert bench.last(UnitVerified) == UnitVerified(
        cluster=CLUSTER, resource="configmaps", reach="", objects=10, deleted=0, cluster_name="test"
    )
    row = await bench.connection.fetchrow("select * from resource where name = 'a3'")
    assert (row["uid"], row["live_at"], row["fidelity"], row["created"]) == ("uid-a3", 100, 3, True)
    assert orjson.loads(row["body"])["data"] == {"k": 3}
    assert await bench.connection.fetchval("select next_offset from kafka_offset") == 11


async def test_a_verified_list_deletes_what_it_does_not_name(bench: Bench) -> None:
    first = Listing("100")
    await bench.store(first.item("a", "1"), first.item("b", "2"), first.completed())
    second = Listing("200", NOON + MINUTE)
    await bench.store(second.item("a", "1"), second.completed())
    assert await bench.live() == {"a": "1"}
    assert await bench.history() == [("b", "2", True)]
    assert bench.last(UnitVerified).deleted == 1
    assert bench.last(BatchStored).rows_unchanged == 1


async def test_an_unproven_list_deletes_nothing(bench: Bench) -> None:
    first = Listing("100")
    await bench.store(first.item("a", "1"), first.item("b", "2"), first.completed())
    second = Listing("200", NOON + MINUTE)
    lost = second.item("a", "3")
    completed = second.completed()
    await bench.store(completed)
    assert await bench.live() == {"a": "1", "b": "2"}
    assert await bench.states() == {"configmaps": "unverified"}
    await bench.store(lost)
    assert await bench.live() == {"a": "3"}, "a completion that overtook its items is looked at again"
    assert await bench.states() == {"configmaps": "verified"}


async def test_a_late_item_proves_its_list_even_after_it_was_called_unproven(bench: Bench) -> None:
    listing = Listing("100")
    item = listing.item("a", "1")
    completed = replace(listing.completed(), observed_at=NOON + MINUTE)
    await bench.store(completed)
    assert await bench.states() == {"configmaps": "unverified"}
    await bench.store(item)
    assert await bench.states() == {"configmaps": "verified"}


async def test_a_replayed_list_stays_proven(bench: Bench) -> None:
    listing = Listing("100")
    records = [listing.item("a", "1"), listing.completed()]
    await bench.store(*records)
    await bench.store(*records)
    assert await bench.states() == {"configmaps": "verified"}
    assert await bench.connection.fetchval("select count from list_progress") == 1


async def test_what_a_proven_list_overtook_has_nothing_to_prove(bench: Bench) -> None:
    slow, quick = Listing("100"), Listing("100", NOON + MINUTE)
    await bench.store(slow.item("a", "1"))
    await bench.store(quick.item("a", "1"), quick.completed())
    await bench.store(replace(slow.completed(), observed_at=NOON + 2 * MINUTE))
    assert await bench.states() == {"configmaps": "verified"}


async def test_absence_is_dated_by_the_first_list_that_shows_it(bench: Bench) -> None:
    first = Listing("100")
    await bench.store(first.item("a", "1"), first.item("b", "2"), first.completed())
    later: list[Record] = []
    for minute in (1, 2, 3):
        listing = Listing(str(100 + minute), NOON + minute * MINUTE)
        later += [listing.item("b", "2"), listing.completed()]
    await bench.store(*later)
    assert await bench.connection.fetchval("select valid_to from resource_history") == NOON + MINUTE


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_object_that_came_back_was_gone_in_between(bench: Bench, at_once: bool) -> None:
    first, second, third = (Listing(str(100 + minute), NOON + minute * MINUTE) for minute in range(3))
    batches = [
        [first.item("a", "1", uid="one"), first.completed()],
        [second.completed()],
        [third.item("a", "102", uid="two"), third.completed()],
    ]
    for batch in [list(chain(*batches))] if at_once else batches:
        await bench.store(*batch)
    rows = await bench.connection.fetch("select uid, deleted, valid_to from resource_history")
    assert [tuple(row) for row in rows] == [("one", True, NOON + MINUTE)]
    row = await bench.connection.fetchrow("select uid, created, valid_from from resource")
    assert tuple(row) == ("two", True, NOON + 2 * MINUTE)


async def test_an_older_sighting_in_better_shape_changes_the_body_alone(bench: Bench) -> None:
    first = Listing("100")
    await bench.store(first.item("a", "1", "x"), first.completed())
    second = Listing("200", NOON + 2 * MINUTE)
    await bench.store(second.item("a", "2", "y"), second.completed())
    late = Listing("150", NOON + MINUTE, normalization=2)
    await bench.store(late.item("a", "2", "z"))
    row = await bench.connection.fetchrow("select created, valid_from, normalization, live_at from resource")
    assert tuple(row) == (False, NOON + 2 * MINUTE, 2, 200)
    assert await bench.connection.fetchval("select valid_to from resource_history") == NOON + 2 * MINUTE


async def test_a_kind_first_heard_of_by_a_deletion_is_ordered_by_versions(bench: Bench) -> None:
    listing = Listing("200", NOON + MINUTE)
    await bench.store(listing.deleted("a", "120"), listing.item("a", "150"), listing.completed())
    assert await bench.live() == {"a": "150"}
    assert await bench.connection.fetchval("select by_clock from unit") is False


async def test_a_failed_list_deletes_nothing(bench: Bench) -> None:
    first = Listing("100")
    await bench.store(first.item("a", "1"), first.completed())
    await bench.store(Listing("200", NOON + MINUTE).failed(403, "Forbidden"))
    assert await bench.live() == {"a": "1"}
    assert await bench.states() == {"configmaps": "forbidden"}
    await bench.store(Listing("150", NOON + MINUTE / 2).failed(500, "InternalError"))
    assert await bench.states() == {"configmaps": "forbidden"}, "an older statement changes nothing"
    await bench.store(Listing("300", NOON + 2 * MINUTE).failed(500, "InternalError"))
    assert await bench.states() == {"configmaps": "failed"}


async def test_versions_go_into_history_only_when_content_changed(bench: Bench) -> None:
    for number, content in enumerate(["x", "x", "y", "z", "z"], start=1):
        listing = Listing(str(number * 100), NOON + number * MINUTE)
        await bench.store(listing.item("a", str(number), content), listing.completed())
    assert await bench.history() == [("a", "2", False), ("a", "3", False)]
    row = await bench.connection.fetchrow("select resource_version, valid_from, created from resource")
    assert (row["resource_version"], row["valid_from"], row["created"]) == ("5", NOON + 4 * MINUTE, False)
    spans = await bench.connection.fetch("select valid_from, valid_to, created from resource_history order by 1")
    assert [tuple(span) for span in spans] == [
        (NOON + 1 * MINUTE, NOON + 3 * MINUTE, True),
        (NOON + 3 * MINUTE, NOON + 4 * MINUTE, False),
    ]


async def test_one_batch_holds_the_same_history_as_many(bench: Bench) -> None:
    records = []
    for number, content in enumerate(["x", "x", "y", "z", "z"], start=1):
        listing = Listing(str(number * 100), NOON + number * MINUTE)
        records += [listing.item("a", str(number), content), listing.completed()]
    await bench.store(*records)
    assert await bench.history() == [("a", "2", False), ("a", "3", False)]
    row = await bench.connection.fetchrow("select resource_version, valid_from, created from resource")
    assert (row["resource_version"], row["valid_from"], row["created"]) == ("5", NOON + 4 * MINUTE, False)
    bodies = await bench.connection.fetch("select body from resource_history order by valid_from")
    assert [orjson.loads(body["body"])["data"] for body in bodies] == ["x", "y"]


async def test_an_object_recreated_under_its_name_is_another_version(bench: Bench) -> None:
    first = Listing("100")
    await bench.store(first.item("a", "1", "x", uid="one"), first.completed())
    second = Listing("200", NOON + MINUTE)
    await bench.store(second.item("a", "150", "x", uid="two"), second.completed())
    assert await bench.history() == [("a", "1", True)]
    row = await bench.connection.fetchrow("select uid, created, first_observed_at from resource")
    assert tuple(row) == ("two", True, NOON + MINUTE)


async def test_order_does_not_matter(bench: Bench) -> None:
    old, new = Listing("100"), Listing("200", NOON + MINUTE)
    await bench.store(new.item("a", "5", "new"), new.completed())
    await bench.store(old.item("a", "1", "old"), old.item("gone", "2"), old.completed())
    assert await bench.live() == {"a": "5"}, "an older list neither overwrites nor brings back"
    assert bench.last(BatchStored).rows_ignored == 2


async def test_an_idle_cluster_is_seen_again(bench: Bench) -> None:
    for minute in range(2):
        listing = Listing("100", NOON + minute * MINUTE)
        await bench.store(listing.item("a", "1", "x"), listing.completed())
    assert bench.last(BatchStored).rows_unchanged == 1
    assert await bench.connection.fetchval("select last_observed_at from resources") == NOON + MINUTE


@pytest.mark.parametrize(("name", "parameters", "lookups"), [("merge_rows", 15, 1), ("stage_elements", 0, 2)])
async def test_no_plan_made_of_an_empty_table_reads_it_whole_once_it_is_full(
    bench: Bench, name: str, parameters: int, lookups: int
) -> None:
    """Plans are made once: a consumer that begins on an empty database keeps them until that is analyzed."""
    given = f"({', '.join(['null'] * parameters)})" if parameters else ""
    async with bench.sink.transaction() as connection:
        await connection.execute(statements()["begin_chain"])
        await connection.execute(f"prepare merge as {statements()[name]}")
        plan = "\n".join(row["QUERY PLAN"] for row in await connection.fetch(f"explain execute merge{given}"))
    assert "Seq Scan on resource" not in plan
    assert len(re.findall(r"Index Cond: .*\(name = ", plan)) == lookups, plan


@pytest.mark.parametrize("contents", [("x", "y"), ("y", "x")])
async def test_two_contents_of_one_version_and_moment_end_the_same(bench: Bench, contents: tuple[str, str]) -> None:
    for content in contents:
        listing = Listing("100")
        await bench.store(listing.item("a", "1", content))
    assert orjson.loads(await bench.connection.fetchval("select body from resource"))["data"] == "y"
    assert await bench.history() == []


async def test_a_watched_deletion_is_a_tombstone_until_a_list_covers_it(bench: Bench) -> None:
    first = Listing("100")
    await bench.store(first.item("a", "1"), first.completed(), first.deleted("a", "120"))
    assert await bench.live() == {}
    assert await bench.history() == [("a", "1", True)]
    late = Listing("110", NOON + MINUTE)
    await bench.store(late.item("a", "1"))
    assert await bench.live() == {}, "what was seen before the deletion does not undo it"
    second = Listing("200", NOON + 2 * MINUTE)
    await bench.store(second.completed())
    assert await bench.connection.fetchval("select count(*) from resource") == 0


async def test_reaches_prove_only_their_namespace(bench: Bench) -> None:
    everything = Listing("100")
    await bench.store(
        everything.item("a", "1", namespace="one"), everything.item("b", "2", namespace="two"), everything.completed()
    )
    narrow = Listing("200", NOON + MINUTE, reach="one")
    await bench.store(narrow.completed())
    assert await bench.live() == {"b": "2"}


@pytest.mark.parametrize("reaches", [("one", "two"), ("", "one"), ("", "one", "two")])
async def test_a_row_is_counted_as_deleted_once_however_many_reaches_complete(
    bench: Bench, reaches: tuple[str, ...]
) -> None:
    everything = Listing("100")
    await bench.store(
        everything.item("a", "1", namespace="one"), everything.item("b", "2", namespace="two"), everything.completed()
    )
    await bench.store(*[Listing("200", NOON + MINUTE, reach=reach).completed() for reach in reaches])
    assert await bench.live() == {}
    assert bench.last(BatchStored).rows_deleted == 2
    verified = [seen for seen in bench.seen if isinstance(seen, UnitVerified)][1:]
    assert sorted(seen.reach for seen in verified) == list(reaches)
    assert sum(seen.deleted for seen in verified) == 2


async def test_what_is_proven_everywhere_needs_no_word_on_one_namespace(bench: Bench) -> None:
    """NAMESPACES widened: what was listed alone before would age for ever."""
    narrow = Listing("100", reach="one")
    await bench.store(narrow.item("a", "1", namespace="one"), narrow.completed())
    wide = Listing("200", NOON + MINUTE)
    await bench.store(wide.item("a", "1", namespace="one"), wide.completed())
    freshness = "select reach, state from freshness"
    assert [tuple(row) for row in await bench.connection.fetch(freshness)] == [("", "verified")]
    late = narrow.item("late", "50", namespace="one")
    await bench.store(late)
    assert await bench.live() == {"a": "1"}


async def test_two_collectors_of_different_speed_raise_no_alarm(bench: Bench) -> None:
    """The slow one's list began earlier, at a lower version, and is complete later."""
    slow, quick = Listing("100"), Listing("200", NOON + MINUTE)
    await bench.store(quick.item("a", "1"), quick.completed())
    late = [slow.item("a", "1"), slow.item("b", "2")]
    await bench.store(*late, replace(slow.completed(), observed_at=NOON + 2 * MINUTE))
    assert await bench.live() == {"a": "1"}
    assert await bench.states() == {"configmaps": "verified"}


async def test_a_restored_cluster_is_noticed_by_a_list_of_one_namespace(bench: Bench) -> None:
    before = Listing("1000")
    await bench.store(before.item("a", "900"), before.completed())
    after = Listing("500", NOON + MINUTE, reach="ns")
    await bench.store(after.item("a", "400"), after.completed())
    assert await bench.states() == {"configmaps": "failed"}


async def test_a_higher_epoch_beats_a_higher_version(bench: Bench) -> None:
    before = Listing("1000")
    await bench.store(before.item("a", "900", "before"), before.item("b", "901"), before.completed())
    backwards = Listing("500", NOON + MINUTE)
    await bench.store(backwards.item("a", "400", "restored"), backwards.completed())
    assert await bench.live() == {"a": "900", "b": "901"}
    assert await bench.states() == {"configmaps": "failed"}
    raised = Listing("510", NOON + 2 * MINUTE, epoch=1)
    await bench.store(raised.item("a", "400", "restored"), raised.completed())
    assert await bench.live() == {"a": "400"}
    assert await bench.states() == {"configmaps": "verified"}


async def test_a_restored_cluster_is_noticed_within_one_batch(bench: Bench) -> None:
    before, after = Listing("1000"), Listing("500", NOON + MINUTE)
    await bench.store(before.item("a", "900"), before.completed(), after.item("a", "400"), after.completed())
    assert await bench.live() == {"a": "900"}
    assert await bench.states() == {"configmaps": "failed"}


async def test_a_stub_is_replaced_by_the_whole_object_and_not_the_other_way(bench: Bench) -> None:
    stub = b'{"size_bytes":9000000,"sha256":"00"}'
    first = Listing("100")
    await bench.store(first.item("a", "1", "x", body=stub, state="oversize"), first.completed())
    assert await bench.connection.fetchval("select fidelity from resource") == 1
    second = Listing("200", NOON + MINUTE)
    await bench.store(second.item("a", "1", "x"), second.completed())
    assert await bench.connection.fetchval("select fidelity from resource") == 3
    third = Listing("300", NOON + 2 * MINUTE)
    await bench.store(third.item("a", "1", "x", body=stub, state="oversize"), third.completed())
    row = await bench.connection.fetchrow("select fidelity, live_at from positioned()")
    assert tuple(row) == (3, 300)
    assert await bench.history() == []


async def test_better_redaction_rewrites_the_body_and_adds_no_history(bench: Bench) -> None:
    first = Listing("100")
    await bench.store(first.item("a", "1", "secret"), first.completed())
    second = Listing("200", NOON + MINUTE, normalization=2)
    await bench.store(second.item("a", "1", "redacted"), second.completed())
    row = await bench.connection.fetchrow("select body, normalization from resource")
    assert (orjson.loads(row["body"])["data"], row["normalization"]) == ("redacted", 2)
    assert await bench.history() == []
    third = Listing("300", NOON + 2 * MINUTE, normalization=1)
    await bench.store(third.item("a", "1", "secret"), third.completed())
    assert orjson.loads(await bench.connection.fetchval("select body from resource"))["data"] == "redacted"


async def test_list_versions_that_are_no_numbers_are_ordered_by_time(bench: Bench) -> None:
    first = Listing("abc")
    await bench.store(first.item("a", "x1"), first.item("b", "x2"), first.completed())
    second = Listing("aab", NOON + MINUTE)
    await bench.store(second.item("a", "x3"), second.completed())
    assert await bench.live() == {"a": "x3"}
    assert await bench.connection.fetchval("select by_clock from unit") is True


async def test_a_list_version_that_stands_still_gives_way_to_time(bench: Bench) -> None:
    for minute, names in enumerate([("a", "b"), ("a",), ("a",)]):
        listing = Listing("7", NOON + minute * MINUTE)
        await bench.store(*[listing.item(name, "1") for name in names], listing.completed())
        if minute == 1:
            assert await bench.states() == {"configmaps": "unverified"}, "what does not move proves nothing"
    assert "stalled" in next(seen.message for seen in bench.seen if isinstance(seen, Warned))
    assert await bench.live() == {"a": "1"}
    assert await bench.states() == {"configmaps": "verified"}


@pytest.mark.parametrize("at_once", [True, False])
async def test_two_lists_of_one_version_with_other_contents_prove_nothing(bench: Bench, at_once: bool) -> None:
    """The alarm for a server whose versions stall, which its collector could not see: `collect --once`."""
    batches: list[list[Record]] = []
    for minute, version in enumerate(("2", "3")):
        listing = Listing("100", NOON + minute * MINUTE)
        batches.append([listing.item("a", "1"), listing.item("b", version), listing.completed()])
    for batch in [list(chain(*batches))] if at_once else batches:
        await bench.store(*batch)
    assert await bench.states() == {"configmaps": "unverified"}
    truth = Listing("100", NOON + 5 * MINUTE)
    await bench.store(truth.item("a", "1"), truth.item("b", "3"), truth.completed())
    assert await bench.live() == {"a": "1", "b": "3"}
    assert await bench.states() == {"configmaps": "verified"}
    assert await bench.connection.fetchval("select by_clock from unit") is True


async def test_a_kind_is_ordered_by_the_clock_from_when_its_collector_says_so(bench: Bench) -> None:
    first = Listing("9")
    await bench.store(first.item("a", "1", "x"), first.item("b", "1"), first.completed())
    under_way = Listing("10", NOON + MINUTE)
    await bench.store(under_way.item("a", "1", "x"))
    second = Listing("7", NOON + 2 * MINUTE)
    records = [second.item("a", "2", "y"), second.completed()]
    await bench.store(*[replace(record, ordering=CLOCK) for record in records])
    assert await bench.live() == {"a": "2"}, "its version is lower, its date is not"
    assert await bench.states() == {"configmaps": "verified"}
    await bench.store(under_way.completed())
    assert await bench.live() == {"a": "2"}, "a list from before proves nothing any more"
    assert await bench.states() == {"configmaps": "verified"}
    third = Listing("8", NOON + 3 * MINUTE)
    await bench.store(third.completed())
    assert await bench.live() == {}, "it stays so, whatever is said later"


async def test_a_list_that_comes_again_when_a_newer_one_of_a_namespace_is_proven_contradicts_nothing(
    bench: Bench,
) -> None:
    everything = Listing("100")
    item = everything.item("a", "1")
    await bench.store(item, everything.completed())
    await bench.store(Listing("101", NOON + MINUTE, reach="ns").completed())
    assert await bench.live() == {}
    await bench.store(item)
    assert await bench.connection.fetchval("select by_clock from unit") is False
    assert await bench.states() == {"configmaps": "verified"}


async def test_one_version_seen_by_lists_of_all_and_of_one_namespace_stands_for_one_state(bench: Bench) -> None:
    for minute, reach in enumerate(("", "ns", "", "ns")):
        listing = Listing("100", NOON + minute * MINUTE, reach=reach)
        await bench.store(listing.item("a", "1"), listing.item("b", "2"), listing.completed())
        assert await bench.states() == {"configmaps": "verified"}
    assert await bench.connection.fetchval("select by_clock from unit") is False


async def test_what_jsonb_refuses_is_stored_sanitised_with_its_bytes(bench: Bench) -> None:
    listing = Listing("100")
    body = b'{"a":"nul \\u0000 lone \\ud800 pair \\ud83d\\ude00 text \\\\u0000"}'
    await bench.store(listing.item("a", "1", body=body), listing.item("b", "2"), listing.completed())
    row = await bench.connection.fetchrow("select body, original, fidelity from resource where name = 'a'")
    assert orjson.loads(row["body"]) == {"a": "nul � lone � pair 😀 text \\u0000"}
    assert (row["original"], row["fidelity"]) == (body, 2)
    assert await bench.states() == {"configmaps": "verified"}


async def test_a_body_postgresql_refuses_is_set_aside_and_counts(bench: Bench) -> None:
    listing = Listing("100")
    bodies = {"a": b'{"n":hunter2}', "c": b"not json"}
    await bench.store(
        *[listing.item(name, "1", body=bodies.get(name)) for name in ("a", "b", "c", "d", "e")], listing.completed()
    )
    assert await bench.live() == dict.fromkeys("abcde", "1")
    assert await bench.states() == {"configmaps": "verified"}
    letters = await bench.connection.fetch("select * from dead_letter order by record_offset")
    assert [(row["record_offset"], row["sqlstate"], row["value"]) for row in letters] == [
        (0, "22P02", bodies["a"]),
        (2, "22P02", bodies["c"]),
    ]
    assert orjson.loads(letters[0]["headers"])["ce_subject"] == "core/configmaps/ns/a"
    assert orjson.loads(letters[0]["key"]) == [CLUSTER, "", "configmaps", "ns", "a"]
    fidelities = await bench.connection.fetch("select name, fidelity from resource where fidelity < 3 order by 1")
    assert [tuple(row) for row in fidelities] == [("a", 0), ("c", 0)]
    again = Listing("200", NOON + MINUTE)
    await bench.store(
        *[again.item(name, "1", body=bodies.get(name)) for name in ("a", "b", "c", "d", "e")], again.completed()
    )
    assert await bench.connection.fetchval("select count(*) from dead_letter") == 2, "known culprits are not sent again"
    assert await bench.connection.fetchval("select min(live_at) from positioned()") == 200


async def test_a_rejected_message_becomes_a_dead_letter(bench: Bench) -> None:
    stranger = Rejected(offset=0, reason="no ce_type", headers=[("x", b"y")], value=b"hello")
    await bench.store(rejected=(stranger,))
    row = await bench.connection.fetchrow("select topic, partition, record_offset, reason, value from dead_letter")
    assert tuple(row) == ("cluster-info", 0, 0, "no ce_type", b"hello")


POISON: dict[str, Rejected | tuple[RecordType, bytes]] = {
    "a header with NUL": Rejected(offset=0, reason="bad\0", headers=[("ce_name", b"a\0b")], value=b"\0"),
    "units that are no list": (RecordType.SNAPSHOT_COMPLETED, b'{"discovery_complete":true,"units":5}'),
    "a unit without outcome": (RecordType.SNAPSHOT_COMPLETED, b'{"units":[{"group":"","resource":"pods"}]}'),
    "a unit that is no text": (
        RecordType.SNAPSHOT_COMPLETED,
        b'{"units":[{"group":1,"resource":2,"outcome":"failed"}]}',
    ),
    "a count beyond 64 bits": (RecordType.LIST_COMPLETED, b'{"count":9223372036854775808,"digest":"0"}'),
    "a reason that is no text": (RecordType.LIST_FAILED, b'{"http_status":500,"reason":7}'),
}


@pytest.mark.parametrize("name", POISON)
async def test_poison_is_set_aside_and_the_rest_is_stored(bench: Bench, name: str) -> None:
    listing = Listing("100")
    good, poison = listing.item("a", "1"), POISON[name]
    if isinstance(poison, Rejected):
        await bench.store(good, rejected=(replace(poison, offset=1),))
    else:
        kind, body = poison
        await bench.store(good, listing.record(kind, body, **({"resource": ""} if "snapshot" in kind else {})))
    assert await bench.live() == {"a": "1"}
    assert await bench.connection.fetchval("select array_agg(record_offset) from dead_letter") == [1]


async def test_nul_in_what_servers_say_is_replaced(bench: Bench) -> None:
    listing = Listing("100")
    await bench.store(
        listing.failed(500, "a\0b"),
        listing.record(RecordType.SNAPSHOT_STARTED, b'{"server_version":"v1\\u0000"}', resource=""),
    )
    assert await bench.connection.fetchval("select last_error from unit_floor") == "500 a\ufffdb"
    assert await bench.connection.fetchval("select server_version from cluster") == "v1\ufffd"


@pytest.mark.parametrize("attribute", ["name", "namespace", "uid"])
async def test_an_identity_no_index_can_hold_is_set_aside_and_counts(bench: Bench, attribute: str) -> None:
    listing = Listing("100")
    huge = "".join(random.Random(1).choices(string.ascii_letters, k=6000))
    await bench.store(
        listing.item("a", "1"), listing.item(**({"name": "b", "version": "2"} | {attribute: huge})), listing.completed()
    )
    assert await bench.live() == {"a": "1"}
    assert await bench.states() == {"configmaps": "verified"}
    assert await bench.connection.fetchval("select count(*) from dead_letter") == 1


async def test_a_record_that_is_refused_without_its_body_too_is_a_dead_letter_alone(bench: Bench) -> None:
    await bench.connection.execute("alter table resource add check (uid::int > 0)")  # 22P02 for a uid that is no number
    listing = Listing("100")
    names = "abcdefg"
    await bench.store(*[listing.item(name, "1", uid="x" if name == "d" else "1") for name in names])
    assert set(await bench.live()) == set(names) - {"d"}
    letters = await bench.connection.fetch("select record_offset, reason, value is not null as kept from dead_letter")
    assert [(row["record_offset"], row["kept"]) for row in letters] == [(3, True)]
    assert "refused the record" in letters[0]["reason"]
    assert bench.last(BatchStored).rows_written == 6
    assert await bench.connection.fetchval("select next_offset from kafka_offset") == 7


async def test_a_batch_that_takes_too_long_is_bisected(bench: Bench) -> None:
    await bench.connection.execute(
        "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.5); return new; end'"
    )
    await bench.connection.execute("create trigger slow before insert on resource for each row execute function slow()")
    bench.sink._settings += "; set local statement_timeout = '2s'"
    listing = Listing("100")
    await bench.store(*[listing.item(name, "1") for name in "abcde"], listing.completed())
    assert set(await bench.live()) == set("abcde")
    assert await bench.states() == {"configmaps": "verified"}
    assert len([seen for seen in bench.seen if isinstance(seen, BatchStored)]) > 1


async def test_a_batch_that_takes_too_long_as_a_whole_is_bisected(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.connection.execute(
        "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.5); return new; end $$;"
        "create trigger slow before insert on resource for each row execute function slow()"
    )
    monkeypatch.setattr(sink, "WRITE_TIMEOUT_S", 3.0)
    listing = Listing("100")
    await bench.store(*[listing.item(name, "1") for name in "abcdefgh"], listing.completed())
    assert set(await bench.live()) == set("abcdefgh")
    assert await bench.states() == {"configmaps": "verified"}


async def _waiting(connection: asyncpg.Connection, number: int) -> None:
    """Until so many connections wait for a lock."""
    async with asyncio.timeout(60):
        while await connection.fetchval("select count(distinct pid) from pg_locks where not granted") < number:
            await asyncio.sleep(0.02)


async def test_a_completed_snapshot_waits_for_its_kinds_while_it_holds_no_later_one(
    bench: Bench, database: Database
) -> None:
    """Two such batches, each with a kind of the other's cluster, would wait for each other."""
    mine, other = Listing("100"), Listing("100", cluster="other", cluster_name="other")
    await bench.store(mine.item("a", "1"))
    await bench.store(other.item("b", "1"))
    blocker = await database.connect()
    async with blocker.transaction():
        await blocker.execute("select from unit order by id limit 1 for update")
        storing = asyncio.create_task(bench.store(mine.snapshot_completed({}), other.completed()))
        await _waiting(bench.connection, 1)
        async with bench.connection.transaction():
            free = await bench.connection.fetch("select id from unit for update skip locked")
        assert len(free) == 1, "the other cluster's kind"
    await storing
    await blocker.close()


async def test_a_snapshot_and_a_new_cluster_never_wait_for_each_other(bench: Bench, database: Database) -> None:
    lane = PartitionLane(LANE.kafka_cluster, LANE.topic, 1, LANE.group_id)
    first, second = Listing("100"), Listing("200", NOON + MINUTE)
    await bench.store(first.item("a", "1"), first.completed())
    new = Listing("5", cluster="new", cluster_name="new")
    blocker = await database.connect()
    async with PostgresSink.connect(database.settings(), lambda _: None) as other:
        await other.open(lane)
        async with blocker.transaction():
            await blocker.execute("select from resource for update")
            storing = asyncio.create_task(bench.store(second.snapshot_started(), second.item("a", "2")))
            await _waiting(bench.connection, 1)
            batch = Feed(lane).batch(new.item("z", "1"), second.item("b", "2"))
            making = asyncio.create_task(other.write(batch))
            await _waiting(bench.connection, 2)
        await asyncio.gather(storing, making)
    await blocker.close()
    assert await bench.live() == {"a": "2", "b": "2", "z": "1"}


async def test_what_postgresql_quotes_of_the_data_is_shown_to_nobody(bench: Bench) -> None:
    await bench.store(Listing("100").item("a", "1", body=b'{"password": hunter2secret}'))
    row = await bench.connection.fetchrow("select reason, headers from dead_letter")
    assert "hunter2secret" not in f"{row['reason']}{row['headers']}{bench.seen}"


async def test_a_batch_stored_before_is_stored_once(bench: Bench) -> None:
    listing = Listing("100")
    batch = await bench.store(listing.item("a", "1"))
    assert (await bench.sink.write(batch)).position == batch.end
    assert await bench.connection.fetchval("select count from list_progress") == 1


async def test_a_batch_from_elsewhere_makes_the_lane_start_again(bench: Bench) -> None:
    listing = Listing("100")
    await bench.store(listing.item("a", "1"), listing.item("b", "2"))
    bench.feed.next_offset = 1
    with pytest.raises(RestartError, match="stored up to offset 2"):
        await bench.store(listing.item("c", "3"), listing.item("d", "4"))
    assert await bench.sink.open(LANE) == 2


async def test_only_the_newest_owner_may_write(bench: Bench, database: Database) -> None:
    async with PostgresSink.connect(database.settings(), lambda _: None) as other:
        assert await other.open(LANE) is None
        with pytest.raises(LostError):
            await bench.store(Listing("100").item("a", "1"))
    assert await bench.live() == {}


async def test_a_claim_the_database_lost_is_made_again(bench: Bench) -> None:
    await bench.connection.execute("update kafka_offset set generation = 0")
    with pytest.raises(RestartError, match="claim"):
        await bench.store(Listing("100").item("a", "1"))


async def test_forgotten_offsets_are_read_again_and_change_nothing(bench: Bench) -> None:
    listing = Listing("100")
    batch = await bench.store(listing.item("a", "1"), listing.completed())
    assert await forget_offsets(bench.connection, "clusterinfo", "cluster-info") == 1
    with pytest.raises(RestartError):
        await bench.sink.write(batch)
    assert await bench.sink.open(LANE) is None
    await bench.sink.write(batch)
    assert await bench.live() == {"a": "1"}
    assert await bench.history() == []


async def test_an_owner_from_before_the_offsets_were_forgotten_may_write_no_more(
    bench: Bench, database: Database
) -> None:
    listing = Listing("100")
    bench.feed.next_offset = 100
    async with PostgresSink.connect(database.settings(), lambda _: None) as other:
        await other.open(LANE)
        await forget_offsets(bench.connection, "clusterinfo", "cluster-info")
        assert await other.open(LANE) is None
        with pytest.raises(LostError):
            await bench.store(listing.item("a", "1"))
        feed = Feed()
        await other.write(feed.batch(listing.item("b", "1")))
    assert await bench.live() == {"b": "1"}
    assert await bench.connection.fetchval("select next_offset from kafka_offset") == 1


async def test_a_second_consumer_group_is_refused(bench: Bench) -> None:
    for topic in ("cluster-info", "other"):
        with pytest.raises(ConfigError, match="KAFKA_GROUP_ID"):
            await bench.sink.open(PartitionLane("kafka-1", topic, 0, "another-group"))


async def test_a_page_of_a_list_that_never_began_begins_none(bench: Bench) -> None:
    listing = Listing("100")
    first, second = page(listing, 0, listing.item("a", "1")), page(listing, 1, listing.item("b", "2"))
    with pytest.raises(RestartError, match="0 pages of its list are stored, this is page 1"):
        await bench.sink.write(second)
    assert await bench.live() == {}
    await bench.sink.write(first)
    await bench.sink.write(second)
    assert await bench.live() == {"a": "1", "b": "2"}


async def test_pages_without_kafka_are_stored_once_and_in_order(bench: Bench) -> None:
    listing = Listing("100")
    first, second = page(listing, 0, listing.item("a", "1")), page(listing, 1, listing.item("b", "2"))
    await bench.sink.write(first)
    await bench.sink.write(first)
    with pytest.raises(RestartError):
        await bench.sink.write(page(listing, 2, listing.completed()))
    await bench.sink.write(second)
    await bench.sink.write(page(listing, 2, listing.completed()))
    assert await bench.states() == {"configmaps": "verified"}


async def test_kinds_that_are_gone_or_excluded(bench: Bench) -> None:
    widgets = Listing("100", resource="widgets", group="shop.example.com", kind="Widget")
    maps = Listing("100")
    await bench.store(
        widgets.snapshot_started(), widgets.item("w", "1"), widgets.completed(), maps.item("a", "2"), maps.completed()
    )
    later = Listing("200", NOON + 5 * MINUTE)
    outcomes = {("", "configmaps"): "failed", ("coordination.k8s.io", "leases"): "excluded"}
    await bench.store(later.snapshot_completed(outcomes, discovery_complete=False))
    assert await bench.live() == {"a": "2", "w": "1"}, "an incomplete discovery proves nothing"
    await bench.store(later.snapshot_completed(outcomes))
    assert await bench.live() == {"a": "2"}
    assert await bench.states() == {"configmaps": "verified", "widgets": "gone", "leases": "excluded"}
    assert await bench.history() == [("w", "1", True)]
    assert bench.last(BatchStored).rows_deleted == 1
    gone = [seen for seen in bench.seen if isinstance(seen, UnitGone | UnitFailed)]
    assert gone == [UnitGone(cluster=CLUSTER, resource="widgets.shop.example.com", deleted=1, cluster_name="test")]
    snapshots = await bench.connection.fetch("select units_completed, units_failed from snapshot order by started_at")
    assert [tuple(row) for row in snapshots] == [(0, 0), (0, 1)]
    assert await bench.connection.fetchval("select server_version from cluster") == "v1.36.0"


async def test_late_records_of_a_kind_that_is_gone_bring_nothing_back(bench: Bench) -> None:
    widgets = Listing("100", resource="widgets", group="shop.example.com", kind="Widget")
    gadgets = Listing("100", resource="gadgets", group="shop.example.com", kind="Gadget")
    await bench.store(widgets.item("w", "1"), widgets.completed())
    later = Listing("200", NOON + 5 * MINUTE)
    await bench.store(later.snapshot_completed({("", "configmaps"): "completed"}))
    late = Listing("110", NOON + MINUTE, resource="widgets", group="shop.example.com", kind="Widget")
    await bench.store(late.item("w", "1"), late.completed(), gadgets.item("g", "1"), gadgets.completed())
    assert await bench.live() == {}
    assert await bench.states() == {"configmaps": "unverified", "widgets": "gone", "gadgets": "gone"}
    back = Listing("300", NOON + 6 * MINUTE, resource="widgets", group="shop.example.com", kind="Widget")
    await bench.store(back.item("w", "9", uid="new"), back.completed())
    assert await bench.live() == {"w": "9"}
    assert (await bench.states())["widgets"] == "verified"


async def test_what_a_gone_kind_lost_stays_lost_although_a_list_ended_later(bench: Bench) -> None:
    early = Listing("100", resource="widgets", group="shop.example.com", kind="Widget")
    slow = Listing("101", NOON + MINUTE, resource="widgets", group="shop.example.com", kind="Widget")
    await bench.store(slow.item("w", "1"), replace(slow.completed(), observed_at=NOON + 9 * MINUTE))
    later = Listing("200", NOON + 5 * MINUTE)
    await bench.store(later.snapshot_completed({("", "configmaps"): "completed"}))
    assert await bench.live() == {}
    assert bench.last(BatchStored).rows_deleted == 1
    other = Listing("102", NOON + 2 * MINUTE, resource="widgets", group="shop.example.com", kind="Widget")
    await bench.store(early.item("w", "1"), other.item("w", "1"))
    assert await bench.live() == {}
    assert await bench.history() == [("w", "1", True)]


async def test_a_group_that_was_left_out_and_did_not_answer_is_not_gone(bench: Bench) -> None:
    widgets = Listing("100", resource="widgets", group="shop.example.com", kind="Widget")
    await bench.store(widgets.item("w", "1"), widgets.completed())
    later = Listing("200", NOON + 5 * MINUTE)
    await bench.store(later.snapshot_completed({("shop.example.com", "*"): "excluded"}))
    assert await bench.live() == {"w": "1"}
    assert await bench.states() == {"widgets": "excluded"}


async def test_a_group_whose_discovery_failed_has_failed_and_lost_nothing(bench: Bench) -> None:
    """The first snapshot is as a collector of today says it, the second without a reason."""
    widgets = Listing("100", resource="widgets", group="shop.example.com", kind="Widget")
    await bench.store(widgets.item("w", "1"), widgets.completed())
    for minute, reason in ((1, "discovery: its server did not answer"), (2, "")):
        ended = Listing("200", NOON + minute * MINUTE).snapshot_completed(
            {("shop.example.com", "*"): "failed"}, discovery_complete=False, reason=reason
        )
        await bench.store(ended)
        row = await bench.connection.fetchrow("select * from freshness")
        assert (row["state"], row["last_error"]) == ("failed", reason or "discovery failed")
        assert (bench.last(UnitFailed).resource, bench.last(UnitFailed).state) == ("widgets.shop.example.com", "failed")
    assert await bench.live() == {"w": "1"}
    assert await bench.connection.fetchval("select sum(units_failed) from snapshot") == 0, "no kind of that name failed"

    again = Listing("300", NOON + 5 * MINUTE, resource="widgets", group="shop.example.com", kind="Widget")
    await bench.store(again.item("w", "1"), again.completed())
    assert await bench.states() == {"widgets": "verified"}


async def test_a_cluster_that_changes_its_name_is_shown_by_the_new_one_and_reported(bench: Bench) -> None:
    old, new = Listing("100", cluster_name="old"), Listing("200", NOON + MINUTE, cluster_name="new")
    await bench.store(old.snapshot_started(), old.item("a", "1"))
    await bench.store(new.snapshot_started(), new.item("a", "1"))
    assert await bench.connection.fetchval("select string_agg(label, ',') from cluster") == "new"
    assert "is called 'new' now" in bench.last(Warned).message
    bench.seen.clear()
    await bench.store(old.snapshot_started())
    assert await bench.connection.fetchval("select name from cluster") == "new", "an older snapshot renames nothing"


async def test_two_clusters_of_one_name_are_separated(bench: Bench) -> None:
    for uid in ("11111111-aaaa", "22222222-bbbb"):
        listing = Listing("100", cluster=uid, cluster_name="prod")
        await bench.store(listing.item("a", "1"), listing.completed())
    labels = await bench.connection.fetch("select label from cluster order by id")
    assert [row["label"] for row in labels] == ["prod", "prod-22222222"]
    assert "prod-22222222" in bench.last(Warned).message
    third = Listing("100", cluster="22222222-cccc", cluster_name="prod")
    await bench.store(third.item("a", "1"))
    assert await bench.connection.fetchval("select max(label) from cluster") == "prod-22222222-cccc"


# --- what a snapshot came to -----------------------------------------------------------------------------------------


async def _snapshot_counts(bench: Bench) -> list[tuple[int, int, int]]:
    rows = await bench.connection.fetch("select units_completed, units_failed, objects from snapshot order by id")
    return [(row["units_completed"], row["units_failed"], row["objects"]) for row in rows]


async def _replay(bench: Bench, *records: Record) -> None:
    """All of it again, as after `clusterinfo offsets reset`."""
    await forget_offsets(bench.connection, "clusterinfo", "cluster-info")
    await bench.sink.open(LANE)
    bench.feed.next_offset = 0
    await bench.store(*records)


async def test_a_snapshot_has_the_figures_of_its_collector_however_often_it_comes(bench: Bench) -> None:
    records: list[Record] = []
    for minute in range(3):
        maps = Listing("100", NOON + minute * MINUTE)  # an idle cluster: one list version all the time
        pods = Listing("100", NOON + minute * MINUTE, resource="pods", snapshot=maps.snapshot)
        records += [maps.snapshot_started(), maps.item("a", "1"), maps.completed(), pods.failed(500, "x")]
        outcomes = {("", "configmaps"): "completed", ("", "pods"): "failed", ("", "nodes"): "forbidden"}
        records.append(maps.snapshot_completed(outcomes | {("", "events"): "excluded"}, counts={("", "configmaps"): 7}))
    await bench.store(*records[:-1])
    assert await _snapshot_counts(bench) == [(1, 2, 7), (1, 2, 7), (0, 0, 0)]
    await bench.store(records[-1])
    await _replay(bench, *records)
    assert await _snapshot_counts(bench) == [(1, 2, 7)] * 3


async def test_a_failure_written_twice_page_by_page_is_stored_once(bench: Bench) -> None:
    for minute in range(3):
        listing = Listing("100", NOON + minute * MINUTE)
        first, failure = page(listing, 0, listing.item("a", "1")), page(listing, 1, listing.failed(500, "x"))
        for batch in (first, failure, failure):
            assert (await bench.sink.write(batch)).position == batch.end
        with pytest.raises(RestartError):
            await bench.sink.write(first)
        nothing = Listing("100", NOON + minute * MINUTE, resource="pods", snapshot=listing.snapshot)
        for batch in [page(nothing, 0, nothing.failed(403, "Forbidden"))] * 2:
            assert (await bench.sink.write(batch)).position == batch.end
    assert await bench.connection.fetchval("select count(*) from list_progress") == 0, "they prove nothing any more"
    proof = Listing("200", NOON + 5 * MINUTE)
    await bench.sink.write(page(proof, 0, proof.item("a", "1"), proof.completed()))
    assert await bench.states() == {"configmaps": "verified", "pods": "forbidden"}


async def test_a_slow_list_dates_an_absence_by_when_it_began(bench: Bench) -> None:
    first = Listing("100")
    await bench.store(first.item("a", "1", uid="one"), first.completed())
    slow, quick = Listing("110", NOON + MINUTE), Listing("120", NOON + 2 * MINUTE)
    await bench.store(replace(slow.completed(), observed_at=NOON + 5 * MINUTE))
    await bench.store(quick.item("a", "115", uid="two"), quick.completed())
    assert await bench.connection.fetchval("select valid_to from resource_history") == NOON + MINUTE
    assert await bench.connection.fetchval("select valid_from from resource") == NOON + 2 * MINUTE
    known = await bench.connection.fetch("select uid from resources_as_of($1)", NOON + 3 * MINUTE)
    assert [row["uid"] for row in known] == ["two"], "not both at once"
