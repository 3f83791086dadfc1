"""What is followed: numbers with holes and repetitions, whose word counts, and intervals that miss nothing."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest
from msgspec.structs import replace

from clusterinfo.model import CLOCK, Batch, ListLane, PartitionLane, Record, RecordType, Unit, WatchLane
from clusterinfo.observations import BatchStored, Drifted, UnitsFollowed
from clusterinfo.postgres.admin import clusters, forget
from clusterinfo.postgres.admin.history import maintain_history
from clusterinfo.postgres.admin.overview import read_overview
from clusterinfo.postgres.admin.replay import replay
from clusterinfo.statements import WatchedUnit, WatchEnded, WatchProgress
from clusterinfo.telemetry.logs import MESSAGES
from tests.integration.test_postgres_gaps import replace_lane, store_after_a_gap, waiting
from tests.integration.test_postgres_sink import MINUTE, Bench, bench
from tests.integration.test_troubleshooting import ENTRIES
from tests.support.records import CLUSTER, LANE, NOON, SESSION, Listing, watched

pytestmark = pytest.mark.embedded_only

__all__ = ["bench"]

FAR = 60 * 24 * 365 * 100
"""Minutes."""
OTHER = SESSION.replace("7abc", "7abd")
S = dt.timedelta(seconds=1)


def at(minutes: float) -> dt.datetime:
    """So many minutes after noon."""
    return NOON + minutes * MINUTE


def event(
    number: int, name: str, version: str, minute: float = 0, session: str = SESSION, uid: str = "", **more: Any
) -> Record:
    listing = Listing(version, at(minute), **more)
    return watched(listing.item(name, version, version, uid=uid), number, session)


def gone(number: int, name: str, version: str, minute: float = 0, session: str = SESSION) -> Record:
    return watched(Listing(version, at(minute)).deleted(name, version), number, session)


def unit(minute: float, resource: str = "configmaps", reach: str = "") -> WatchedUnit:
    return WatchedUnit("", resource, at(minute), reach)


def progress(
    number: int, minute: float, behind: Sequence[WatchedUnit] = (), session: str = SESSION, said: float | None = None
) -> Record:
    said_at = at(minute if said is None else said)
    statement = WatchProgress(at(minute), list(behind))
    return Listing("0", said_at).watch(RecordType.WATCH_PROGRESS, number, statement, session)


def ended(number: int, *units: WatchedUnit, session: str = SESSION) -> Record:
    return Listing("0", at(0)).watch(RecordType.WATCH_ENDED, number, WatchEnded(list(units), "410 Gone"), session)


def first_list(
    version: str = "100", minute: float = 0, from_: int = 1, session: str = SESSION, seen: dt.datetime | None = None,
    **more: Any,
) -> list[Record]:  # fmt: skip
    """A list of one object from which on a session follows its kind."""
    listing = Listing(version, at(minute), **more)
    return [listing.item("a", "7", "7"), listing.completed(from_, session, seen)]


async def heard(bench: Bench, resource: str = "configmaps") -> dt.datetime | None:
    """Up to when the kind is verified, by the view; None: it is not."""
    row = await bench.connection.fetchrow("select * from freshness where resource = $1 and reach = ''", resource)
    return row["verified_at"] if row and row["state"] == "verified" else None


async def intervals(bench: Bench, resource: str = "configmaps") -> list[tuple[float, float]]:
    """Minutes after noon at which intervals begin and end, those that are open included."""
    rows = await bench.connection.fetch(
        "select begins_at, coalesce(ends_at, heard_until(s, from_number, u.api_group, u.resource, c.reach)) as ends_at"
        " from coverage c join watch_session s on s.id = c.session_id join unit u on u.id = c.unit_id"
        " join cluster l on l.id = u.cluster_id where u.resource = $1 and l.uid not like 'forgotten %' order by 1, 2",
        resource,
    )
    whole = [row for row in rows if None not in tuple(row) and row["ends_at"] >= row["begins_at"]]
    return [((row["begins_at"] - NOON) / MINUTE, (row["ends_at"] - NOON) / MINUTE) for row in whole]


async def is_open(bench: Bench) -> int:
    return int(await bench.connection.fetchval("select count(*) from coverage where is_open"))


# --- numbers ---------------------------------------------------------------------------------------------------------


async def test_a_kind_that_is_followed_is_as_fresh_as_its_session_was_heard(bench: Bench) -> None:
    await bench.store(*first_list())
    assert await heard(bench) == at(0)
    await bench.store(event(1, "a", "105", 1), progress(2, 2))
    assert await heard(bench) == at(2)
    assert await bench.live() == {"a": "105"}
    await bench.store(progress(3, 9))
    assert await heard(bench) == at(9)
    assert await intervals(bench) == [(0, 9)]
    stored = [one.is_news for one in bench.seen if isinstance(one, BatchStored)]
    assert stored == [True, False, False], "what is watched comes by the second"


async def test_a_kind_is_followed_while_its_session_is_heard(bench: Bench) -> None:
    """Two minutes of silence, and two progresses that are late, are no reason to believe that it is gone."""
    now = dt.datetime.now(dt.UTC)
    await bench.store(*first_list())
    for number, (ago_s, following) in enumerate(((145, True), (155, False)), 1):
        statement = WatchProgress(now - ago_s * S, interval_s=15)
        await bench.store(Listing("0", now).watch(RecordType.WATCH_PROGRESS, number, statement))
        assert await bench.connection.fetchval("select following from freshness") is following
        (kind,) = (await read_overview(bench.connection, "clusterinfo")).kinds
        assert (kind.state, kind.following, kind.old_s) == ("verified", following, kind.age_s)
        assert ago_s <= (kind.followed_s or 0) < ago_s + 5
    given_up = WatchEnded([WatchedUnit("", "configmaps", now - 140 * S, "")], "410 Gone")
    await bench.store(Listing("0", now).watch(RecordType.WATCH_ENDED, 3, given_up))
    (kind,) = (await read_overview(bench.connection, "clusterinfo")).kinds
    assert (kind.following, kind.verified_at) == (False, NOON), "by its list alone"
    assert 140 <= (kind.old_s or 0) < 145, "it was followed for longer"


@pytest.mark.parametrize("late", [True, False])
async def test_a_hole_ends_what_is_followed_until_it_closes(bench: Bench, late: bool) -> None:
    await bench.store(*first_list(), progress(1, 1))
    await bench.store(event(3, "b", "106", 2), progress(4, 2))
    assert await heard(bench) == at(0), "by the list alone"
    assert await intervals(bench) == [(0, 1)]
    if late:
        await bench.store(event(2, "a", "105", 2))
        assert await heard(bench) == at(2)
        assert await intervals(bench) == [(0, 1)], "what came too late may have been too old"
    await bench.store(progress(5, 5, said=6))
    assert await heard(bench) == (at(5) if late else at(0))
    await bench.store(progress(6, 7))
    assert await intervals(bench) == ([(0, 1), (6, 7)] if late else [(0, 1)])


async def test_a_hole_in_the_same_batch_as_what_closes_it_cuts_as_well(bench: Bench) -> None:
    await bench.store(*first_list())
    await bench.store(progress(1, 1), progress(3, 2), event(2, "a", "105", 2), progress(4, 4))
    assert await heard(bench) == at(4)
    await bench.store(progress(5, 6))
    assert await intervals(bench) == [(0, 1), (4, 6)]


async def test_a_number_that_comes_again_changes_nothing(bench: Bench) -> None:
    records = [*first_list(), event(1, "a", "105", 1), event(2, "a", "106", 1), progress(3, 2)]
    await bench.store(*records)
    await bench.store(*records[2:], progress(1, 99))
    assert await heard(bench) == at(2)
    assert await intervals(bench) == [(0, 2)]
    assert await bench.connection.fetchval("select next_number from watch_session") == 4


async def test_an_end_that_comes_again_takes_no_number_back(bench: Bench) -> None:
    """What is sent again may begin anywhere: here where the numbers were due, and then with all that came before."""
    end, fourth, fifth = ended(3, unit(2)), event(4, "a", "107"), event(5, "a", "108")
    await bench.store(*first_list(), event(1, "a", "105"), event(2, "a", "106"), end, fourth)
    await bench.store(fifth, end, fourth, fifth, event(6, "a", "109"))
    assert await bench.connection.fetchval("select next_number from watch_session") == 7


async def test_a_progress_that_comes_again_begins_no_interval_that_a_hole_has_cut(bench: Bench) -> None:
    await bench.store(*first_list(), progress(1, 1))
    await bench.store(event(3, "c", "106", 2))
    await bench.store(progress(1, 1))
    await bench.store(ended(4, unit(5)))
    assert await intervals(bench) == [(0, 1)]


async def test_the_first_number_of_a_session_is_one(bench: Bench) -> None:
    await bench.store(*first_list(), progress(2, 2))
    assert await heard(bench) == at(0)


async def test_each_partition_and_each_session_counts_for_itself(bench: Bench) -> None:
    await bench.store(*first_list(), progress(1, 1))
    await bench.store(progress(7, 8, session=OTHER))
    other = replace_lane(bench, 1)
    await bench.sink.open(other.feed.lane)
    await other.store(progress(9, 9))
    assert await heard(bench) == at(1)
    await bench.store(progress(2, 2))
    assert await heard(bench) == at(2)


async def test_a_number_that_is_due_moves_no_other_session(bench: Bench) -> None:
    await bench.store(*first_list(), event(1, "a", "105"), event(1, "b", "106", session=OTHER))
    await bench.store(event(2, "b", "107", session=OTHER))
    rows = await bench.connection.fetch("select next_number from watch_session order by session")
    assert [row["next_number"] for row in rows] == [2, 3]


async def test_what_comes_too_late_of_a_kind_that_was_never_heard_of_cuts_as_well(bench: Bench) -> None:
    """Its number comes for the first time, although the kind has to be made before anything is locked."""
    await bench.store(*first_list(), progress(1, 1), Listing("100", at(5)).snapshot_completed({}))
    await bench.store(event(2, "a", "105", 2, resource="pods"))
    row = await bench.connection.fetchrow("select next_number, cut_number from watch_session")
    assert tuple(row) == (3, 2)


async def test_each_topic_counts_for_itself(bench: Bench) -> None:
    """A cluster that was moved is followed by no session of its old topic, whatever that says."""
    await bench.store(*first_list(), progress(1, 1))
    other = replace_lane(bench, 0)
    other.feed.lane = PartitionLane("kafka-1", "another", 0, "cluster-info-consumer")
    await bench.sink.open(other.feed.lane)
    await other.store(progress(2, 5))
    assert await heard(bench) == at(1)
    assert await bench.connection.fetchval("select count(*) from dead_letter") == 1
    assert await bench.connection.fetchval("select count(*) from watch_session") == 1, "it makes no session either"


@pytest.mark.parametrize(
    ("kafka", "topic"), [("kafka-1", "another"), ("kafka-2", "cluster-info")], ids=["topic", "kafka"]
)
async def test_what_came_elsewhere_has_not_come_here(bench: Bench, kafka: str, topic: str) -> None:
    """Whoever writes under the name of a session elsewhere says nothing for it."""
    await bench.store(*first_list(), progress(1, 1))
    await bench.connection.execute("update cluster set topic = $1", topic)
    other = replace_lane(bench, 0)
    other.feed.lane = PartitionLane(kafka, topic, 0, "cluster-info-consumer")
    await bench.sink.open(other.feed.lane)
    await other.store(*first_list("200", 3), progress(2, 5))
    assert await heard(bench) == at(3), "by the list alone: number 1 is missing"


@pytest.mark.parametrize(
    "said",
    [
        [*first_list(), progress(1, FAR)],
        [*first_list(), progress(1, 1, [unit(FAR)])],
        [*first_list(), progress(1, 1), ended(2, unit(FAR))],
        [*first_list(seen=at(FAR)), progress(1, FAR)],
        [*first_list(), event(2, "b", "102"), event(1, "c", "101"), progress(3, 1, said=FAR), progress(4, FAR)],
    ],
    ids=["heard", "behind", "ended", "seen", "said after a hole"],
)
async def test_what_is_said_is_not_after_the_present(bench: Bench, said: list[Record]) -> None:
    """Nor does it grow with that."""
    for record in said:
        await bench.store(record)
    stored_at = await bench.connection.fetchval("select now()")
    [(begins, ends)] = await intervals(bench)
    assert begins <= ends <= (stored_at - NOON) / MINUTE


async def test_gaps_that_are_too_many_become_one(bench: Bench) -> None:
    await bench.store(*first_list(), progress(1, 1))
    await bench.store(*[progress(number, 2) for number in range(3, 200, 2)])
    assert await bench.connection.fetchval("select count(*) from watch_session, unnest(missing)") == 64
    assert await heard(bench) == at(0)


@pytest.mark.parametrize(("name", "moves"), [("n" * 600, False), ("b", True)], ids=["dead letter", "identity alone"])
async def test_what_is_set_aside_moves_no_number(bench: Bench, name: str, moves: bool) -> None:
    """What is stored by its identity alone does."""
    await bench.store(*first_list())
    body = b'{"a":1e' if moves else b"{}"
    await bench.store(replace(event(1, name, "105"), body=body), progress(2, 2))
    assert await bench.connection.fetchval("select count(*) from dead_letter") == 1
    assert await heard(bench) == (at(2) if moves else at(0))


# --- lists that open, and what closes --------------------------------------------------------------------------------


async def test_what_was_said_before_a_list_may_be_missing(bench: Bench) -> None:
    await bench.store(event(3, "a", "50"), *first_list(from_=4), progress(4, 4))
    assert await heard(bench) == at(4)


@pytest.mark.parametrize("comes", ["before", "after", "never"])
async def test_a_list_heals_no_hole_in_what_was_said_while_it_ran(bench: Bench, comes: str) -> None:
    listed = Listing("100", at(3))
    item, completed = listed.item("a", "7"), listed.completed(1)
    await bench.store(item, event(2, "a", "106", 3), *([event(1, "b", "105", 3)] if comes == "before" else []))
    await bench.store(completed, *([event(1, "b", "105", 3)] if comes == "after" else []), progress(3, 5))
    assert await heard(bench) == (at(5) if comes == "before" else at(5) if comes == "after" else None)
    if comes == "never":
        error = await bench.connection.fetchval("select last_error from freshness")
        assert "has not come" in error
        await bench.store(event(1, "b", "105", 3))
        assert await heard(bench) == at(5), "what comes after all heals it"


async def test_the_next_list_heals_a_hole(bench: Bench) -> None:
    await bench.store(event(2, "a", "106"), *first_list(), progress(3, 2))
    assert await heard(bench) is None
    await bench.store(*first_list("200", 6, from_=4), progress(4, 7))
    assert await heard(bench) == at(7)


async def test_a_list_that_a_late_item_completes_opens_what_it_names(bench: Bench) -> None:
    item, completed = first_list()
    await bench.store(completed, progress(1, 1))
    assert await heard(bench) is None
    await bench.store(item)
    assert await heard(bench) == at(1)


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_list_that_raises_no_floor_is_followed(bench: Bench, at_once: bool) -> None:
    """It is the first session's as much, or another one's list was faster."""
    third = OTHER.replace("7abd", "7abe")
    slow = [replace(record, observed_at=at(4)) for record in first_list("90", -1, session=third)]
    batches = [first_list("100"), first_list("100", 1, session=OTHER), slow]
    for batch in [[*chain(*batches)]] if at_once else batches:
        await bench.store(*batch)
    assert await is_open(bench) == 3
    await bench.store(progress(1, 5, session=OTHER))
    assert await heard(bench) == at(5)
    await bench.store(progress(1, 6, session=third))
    assert await heard(bench) == at(6)


async def test_nobody_is_followed_who_speaks_of_an_epoch_that_is_over(bench: Bench) -> None:
    await bench.store(*first_list(), *first_list("50", 1, epoch=1, session=OTHER), progress(1, 5))
    assert await heard(bench) == at(1)
    slow = [replace(record, observed_at=at(4)) for record in first_list("90", -1)]
    await bench.store(*slow, progress(2, 7))
    assert await heard(bench) == at(4), "as a list that shows what is older"
    await bench.store(progress(1, 8, session=OTHER))
    assert await heard(bench) == at(8)


@pytest.mark.parametrize("goes_on", [True, False])
async def test_an_end_closes_what_was_followed_before_it(bench: Bench, goes_on: bool) -> None:
    """And not what a later list began, whichever of the two comes first."""
    await bench.store(*first_list(), progress(1, 1))
    again = first_list("200", 4, from_=4 if goes_on else 2)
    await bench.store(event(2, "a", "105"), ended(3, unit(3)), *again, progress(4, 6))
    assert await intervals(bench) == ([(0, 3), (4, 6)] if goes_on else [(0, 3)])
    assert await heard(bench) == (at(6) if goes_on else at(4))


async def test_an_end_that_comes_late_closes_nothing_that_began_since(bench: Bench) -> None:
    await bench.store(*first_list(), progress(1, 1), *first_list("200", 4, from_=3), progress(3, 6))
    assert await heard(bench) == at(6)
    await bench.store(ended(2, unit(3)))
    assert await heard(bench) == at(6)


async def test_an_end_closes_its_own_kinds_reaches_and_sessions(bench: Bench) -> None:
    pods = first_list(resource="pods")
    shop, till = first_list("110", reach="shop"), first_list("110", reach="till")
    await bench.store(*first_list(), *shop, *till, *pods, *first_list(session=OTHER))
    await bench.store(ended(1, unit(1, reach="shop")))
    assert await is_open(bench) == 4
    await bench.store(ended(2, unit(1)))
    assert await is_open(bench) == 2
    rows = await bench.connection.fetch(
        "select u.resource, s.session::text from coverage c join watch_session s on s.id = c.session_id"
        " join unit u on u.id = c.unit_id where c.is_open order by 1"
    )
    assert [tuple(row) for row in rows] == [("configmaps", OTHER), ("pods", SESSION)]


async def test_one_session_goes_on_when_another_ends(bench: Bench) -> None:
    await bench.store(
        *first_list(), *first_list("101", 1, session=OTHER), progress(1, 2), progress(1, 2, session=OTHER)
    )
    await bench.store(ended(2, unit(2)), Listing("0", at(3)).failed(500, "gone wrong"), progress(2, 5, session=OTHER))
    assert await heard(bench) == at(5)
    assert await bench.connection.fetchval("select last_error from freshness") is None


async def test_a_failure_counts_once_nobody_is_heard_any_more(bench: Bench) -> None:
    await bench.store(*first_list(), progress(1, 1), Listing("0", at(3)).failed(500, "gone wrong"))
    row = await bench.connection.fetchrow("select state, following, last_error from freshness")
    assert tuple(row) == ("failed", False, "500 gone wrong")


async def test_a_kind_that_is_behind_is_fresh_as_of_then(bench: Bench) -> None:
    await bench.store(*first_list(), *first_list(resource="pods"), *first_list("110", reach="shop", resource="pods"))
    await bench.store(progress(1, 9, [unit(4), unit(5, "pods", "shop")]))
    assert (await heard(bench), await heard(bench, "pods")) == (at(4), at(9))
    ends = await intervals(bench, "pods")
    assert ends == [(0, 5), (0, 9)]


async def test_what_was_not_heard_since_it_began_leaves_no_interval(bench: Bench) -> None:
    await bench.store(*first_list("100", 5), progress(1, 3))
    await bench.store(event(3, "a", "105"), progress(4, 9))
    assert await bench.connection.fetchval("select count(*) from coverage where ends_at is not null") == 0


async def test_a_list_again_begins_no_second_interval(bench: Bench) -> None:
    await bench.store(*first_list(), progress(1, 1))
    await bench.store(*first_list("200", 2, from_=2), progress(2, 4))
    assert await intervals(bench) == [(0, 4)]


async def test_a_hole_of_one_session_breaks_no_list_of_another(bench: Bench) -> None:
    await bench.store(event(5, "a", "50", session=OTHER), event(1, "a", "105"), *first_list(), progress(2, 1))
    assert await bench.states() == {"configmaps": "verified"}


async def _resynced(bench: Bench, *items: Record, listing: Listing, from_: int) -> int:
    """What a list again counts as drift."""
    bench.seen.clear()
    await bench.store(*items, listing.completed(from_))
    return sum(seen.objects for seen in bench.seen if isinstance(seen, Drifted))


@pytest.mark.parametrize("reborn", [False, True])
async def test_what_a_list_lacks_was_there_until_its_first_page_came(bench: Bench, reborn: bool) -> None:
    """Another session, which follows the kind, has not yet said when it was deleted; or that it is there again."""
    await bench.store(*first_list(), event(1, "b", "105", 1), progress(2, 3.5))
    listing = Listing("200", at(3))
    item, completed = listing.item("a", "7", "7"), listing.completed(1, OTHER, at(4))
    again = [event(1, "b", "210", 6, OTHER, uid="another")] if reborn else []
    await bench.store(item, replace(completed, observed_at=at(5)), *again)
    (row,) = await bench.connection.fetch("select deleted, valid_to from resource_history where name = 'b'")
    assert tuple(row) == (True, at(4))
    await bench.store(progress(2 if reborn else 1, 7, session=OTHER))
    assert await intervals(bench) == [(0, 3.5), (4, 7)], "as well an interval begins when the first page had come"


async def test_what_a_list_again_corrects_is_drift_and_was_not_followed(bench: Bench) -> None:
    """What came, what changed and what went unnoticed since the list before; of other kinds nothing did."""
    await bench.store(*first_list("90", -20), *first_list(resource="secrets"), progress(1, -15))
    await bench.store(ended(2, unit(-14)))
    first = Listing("100")
    await bench.store(first.item("a", "7", 7), first.item("gone", "8", 8), first.completed(3), event(3, "b", "105"))
    await bench.store(gone(4, "gone", "110", 7), progress(5, 7))
    listing = Listing("200", at(8))
    items = [listing.item("a", "7", 7), listing.item("b", "105", "105")]
    assert await _resynced(bench, *items, listing=listing, from_=6) == 0
    await bench.store(*first_list("210", 9, from_=6, resource="pods"), progress(6, 12))
    assert await intervals(bench) == [(-20, -14), (0, 12)]

    pods, listing = Listing("310", at(21), resource="pods"), Listing("300", at(20))
    await bench.store(pods.item("a", "7", "7"))
    await bench.store(listing.item("a", "250", "missed"), listing.item("c", "251", "new"))
    assert await _resynced(bench, listing=listing, from_=7) == 3
    assert await _resynced(bench, listing=pods, from_=7) == 0
    await bench.store(progress(7, 25))
    assert await intervals(bench) == [(-20, -14), (0, 8), (20, 25)]
    assert (await intervals(bench, "pods"), await intervals(bench, "secrets")) == ([(9, 25)], [(0, 25)])

    entry = ENTRIES["A list corrects what was followed"]
    (query,) = re.findall(r"```sql\n(.*?)```", entry, re.DOTALL)
    assert f"`{MESSAGES[Drifted][1]}`" in entry
    assert {row["resource"] for row in await bench.connection.fetch(query)} == {"configmaps", "pods", "secrets"}


async def test_what_a_list_brings_of_what_was_not_followed_is_no_drift(bench: Bench) -> None:
    """The first one of another session, or one after a hole."""
    await bench.store(*first_list(), progress(1, 1))
    listing = Listing("200", at(2))
    item = listing.item("a", "150", 2)
    bench.seen.clear()
    await bench.store(item, listing.completed(1, OTHER))
    await bench.store(event(3, "b", "210", 3))
    listing = Listing("300", at(5))
    assert await _resynced(bench, listing.item("a", "250", 3), listing=listing, from_=4) == 0


async def test_what_a_list_brought_while_a_number_was_missing_is_no_drift(bench: Bench) -> None:
    await bench.store(*first_list(), progress(1, 1))
    await bench.store(event(3, "c", "106", 2))
    listing = Listing("200", at(3))
    items = [listing.item(name, version, version) for name, version in (("a", "7"), ("b", "105"), ("c", "106"))]
    await bench.store(*items)
    await bench.store(event(2, "b", "105", 2), progress(4, 6))
    await bench.store(progress(5, 7))
    assert await _resynced(bench, listing=listing, from_=2) == 0


async def test_a_replay_counts_no_number(bench: Bench) -> None:
    """A dead letter has moved none either; its place among the others is long gone."""
    await bench.store(*first_list(), replace(event(1, "b", "105"), body=b'{"a":1e'), progress(2, 2))
    letter_id = await bench.connection.fetchval("select id from dead_letter")
    record = replace(event(1, "b", "105"), body=b'{"a":1}')
    assert await replay(bench.sink, letter_id, record, LANE.topic)
    assert await bench.connection.fetchval("select count(*) from watch_session") == 1


# --- unverified -------------------------------------------------------------------------------------------------------


async def _gone(bench: Bench) -> None:
    await bench.store(Listing("0", at(5)).snapshot_completed({("", "pods"): "completed"}))


async def _contested(bench: Bench) -> None:
    for number, name in enumerate("ABAB"):
        await bench.store(Listing("0", at(1 + number), cluster_name=name).snapshot_started())


async def _by_clock(bench: Bench) -> None:
    await bench.store(Listing("0", at(5), ordering=CLOCK).item("b", "1"))


async def _stalled(bench: Bench) -> None:
    listing = Listing("100", at(5))
    await bench.store(listing.item("b", "8"), listing.completed())


async def _backwards(bench: Bench) -> None:
    listing = Listing("90", at(5))
    await bench.store(listing.item("b", "8"), listing.completed())


async def _moved(bench: Bench) -> None:
    await clusters.move(bench.connection, "clusterinfo", "test", "another")


async def _forgotten(bench: Bench) -> None:
    await forget.hide(bench.connection, "clusterinfo", "test", "configmaps")


UNVERIFIES = {
    "gone": _gone, "contested": _contested, "by clock": _by_clock, "stalled": _stalled, "backwards": _backwards,
    "moved": _moved, "forgotten": _forgotten,
}  # fmt: skip


@pytest.mark.parametrize("unverify", UNVERIFIES.values(), ids=UNVERIFIES.keys())
async def test_whatever_marks_a_kind_unverified_ends_its_following(bench: Bench, unverify: Any) -> None:
    await bench.store(*first_list(), progress(1, 1))
    await unverify(bench)
    await bench.store(progress(2, 9))
    query = "select verified_at from freshness where resource = 'configmaps' and cluster not like '%forgotten%'"
    row = await bench.connection.fetchrow(query)
    assert row is None or row["verified_at"] is None or row["verified_at"] < at(6)
    assert await intervals(bench) in ([(0, 1)], [])


async def test_a_kind_marked_unverified_ends_no_other(bench: Bench) -> None:
    await bench.store(*first_list(), *first_list(resource="pods"))
    await _gone(bench)
    assert await is_open(bench) == 1
    await bench.store(ended(1, unit(1, "pods")), *first_list("200", 4, from_=2, resource="pods"))
    await bench.store(*first_list("300", 4, from_=2, resource="pods"))
    assert await is_open(bench) == 1


async def test_an_older_mark_takes_no_newer_one_back(bench: Bench) -> None:
    await bench.store(*first_list())
    for minute in (9, 5):
        await bench.store(Listing("0", at(minute)).snapshot_completed({("", "pods"): "completed"}))
    await bench.store(*[replace(one, observed_at=at(11)) for one in first_list("200", 7, from_=1)])
    assert await is_open(bench) == 0


@pytest.mark.parametrize(
    ("resource", "is_over", "corrected"),
    [("configmaps", False, 1), ("secrets", False, 0), ("configmaps", True, 0)],
    ids=["followed", "another", "over"],
)
async def test_a_list_corrects_only_what_is_followed(
    bench: Bench, resource: str, is_over: bool, corrected: int
) -> None:
    await bench.store(*first_list())
    if is_over:
        await bench.store(ended(1, unit(1)))
    listing = Listing("200", at(2), resource=resource)
    await bench.store(listing.item("b", "150", "x"))
    counted = await bench.connection.fetchval("select corrected from list_progress where list = $1", listing.id)
    assert counted == corrected


@pytest.mark.parametrize("minute", [4, 6])
async def test_only_a_list_begun_after_the_mark_is_followed(bench: Bench, minute: int) -> None:
    await bench.store(*first_list(), progress(1, 1))
    await _gone(bench)
    await bench.store(*[replace(one, observed_at=at(7)) for one in first_list("200", minute, from_=2)], progress(2, 9))
    assert await is_open(bench) == (minute == 6)


async def test_what_is_watched_of_a_kind_that_the_clock_orders_is_ignored(bench: Bench) -> None:
    for moment in (at(0), dt.datetime.now(dt.UTC) + S):
        listing = Listing("0", moment, ordering=CLOCK)
        await bench.store(listing.item("a", "7"), listing.completed(1))
        assert await is_open(bench) == 0
    later = (moment + S - NOON) / MINUTE
    await bench.store(event(1, "b", "105", later), gone(2, "a", "106", later), progress(3, 3))
    assert await bench.live() == {"a": "7"}
    assert await bench.connection.fetchval("select next_number from watch_session") == 4


@pytest.mark.parametrize("lost", [True, False])
async def test_a_gap_marks_what_is_followed_until_the_next_number(bench: Bench, lost: bool) -> None:
    await bench.store(*first_list(), progress(1, 3))
    await store_after_a_gap(bench, Listing("0", at(2), resource="pods").item("p", "1"))
    assert await heard(bench) is None
    await bench.store(progress(3 if lost else 2, 4))
    assert await heard(bench) == (None if lost else at(4))


async def test_a_number_that_comes_with_a_gap_proves_its_session_and_no_other(bench: Bench) -> None:
    await bench.store(*first_list(), event(1, "a", "105"), *first_list("101", resource="pods", session=OTHER))
    await store_after_a_gap(bench, event(2, "a", "106"), *first_list("110", 1, 2, resource="pods", session=OTHER))
    rows = await bench.connection.fetch("select is_unverified from watch_session order by session")
    assert [row["is_unverified"] for row in rows] == [False, True]


async def test_a_gap_marks_nothing_that_is_said_on_other_partitions(bench: Bench) -> None:
    await bench.store(*first_list(), progress(1, 1))
    other = replace_lane(bench, 1)
    await bench.sink.open(other.feed.lane)
    await other.store(progress(1, 1))
    await store_after_a_gap(other, progress(2, 2))
    assert await heard(bench) == at(1)


@pytest.mark.parametrize("left", ["an interval", "nothing"])
async def test_a_list_below_what_was_watched_before_it_began_runs_backwards(bench: Bench, left: str) -> None:
    """A cluster was restored from a backup, whatever is left of what was watched."""
    await bench.store(*first_list(resource="pods"), event(1, "p", "950", resource="pods"))
    await bench.store(*(first_list() if left == "an interval" else first_list()[:1]), event(2, "a", "900", 1))
    await bench.store(*first_list("500", 10, session=OTHER))
    assert (await bench.states())["configmaps"] == "failed"


async def test_of_what_lists_alone_have_seen_the_floor_tells_what_runs_backwards(bench: Bench) -> None:
    """Nor does it count that another cluster is watched."""
    await bench.store(Listing("900", at(1)).item("a", "900"))
    other: dict[str, Any] = {"cluster": "another", "resource": "pods"}
    await bench.store(*first_list(**other), event(1, "p", "950", **other))
    listing = Listing("500", at(10))
    await bench.store(listing.item("a", "8"), listing.completed())
    assert (await bench.states())["configmaps"] == "verified"


async def test_what_was_watched_of_others_refutes_no_list(bench: Bench) -> None:
    """Of another kind, or in another namespace."""
    await bench.store(*first_list(resource="pods"), event(1, "p", "950", resource="pods"))
    await bench.store(*first_list())
    await bench.store(*first_list("500", 10))
    assert (await bench.states())["configmaps"] == "verified"
    await bench.store(event(2, "a", "900", 11))
    await bench.store(Listing("600", at(20), reach="elsewhere").completed())
    await bench.store(Listing("600", at(21), reach="ns").completed())
    rows = await bench.connection.fetch("select reach, state from unit_floor where reach <> '' order by 1")
    assert [tuple(row) for row in rows] == [("elsewhere", "verified"), ("ns", "failed")]


async def test_a_list_below_what_was_watched_meanwhile_does_not(bench: Bench) -> None:
    await bench.store(*first_list(), event(1, "a", "900", 9.5))
    await bench.store(*first_list("500", 10, from_=2))
    assert (await bench.states())["configmaps"] == "verified"


# --- intervals -------------------------------------------------------------------------------------------------------


async def test_what_came_too_late_before_its_list_was_complete_cuts_as_well(bench: Bench) -> None:
    item, completed = first_list()
    await bench.store(item, event(2, "a", "106", 1))
    await bench.store(event(1, "a", "105", 1))
    await bench.store(completed, progress(3, 3))
    await bench.store(progress(4, 4))
    await bench.store(progress(5, 6))
    assert await intervals(bench) == [(4, 6)]


async def test_what_another_overtook_before_a_list_was_complete_cuts_as_well(bench: Bench) -> None:
    """Without any hole: it came in order, and too late."""
    listing = Listing("200", at(2))
    await bench.store(listing.item("a", "110", "110"), listing.completed(1, OTHER))
    await bench.store(event(1, "a", "105", 1))
    await bench.store(*first_list())
    for number, minute in ((2, 4), (3, 6)):
        await bench.store(progress(number, minute))
    assert await intervals(bench) == [(4, 6)]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("kept", [True, False])
async def test_what_comes_too_late_to_be_kept_cuts_an_interval(bench: Bench, kept: bool, times: int) -> None:
    """Another one's list overtakes two versions that were watched; the rows are right, the history lacks one."""
    await bench.store(*first_list(), *first_list(resource="pods"), progress(1, 1))
    listing = Listing("200", at(2))
    await bench.store(listing.item("a", "110", "110"), listing.completed(1, OTHER))
    version = "110" if kept else "105"
    await bench.store(*[event(2, "a", version, 2)] * times)
    await bench.store(progress(3, 4, said=5), progress(4, 8))
    assert await heard(bench) == at(8)
    assert await intervals(bench) == ([(0, 8)] if kept else [(0, 1), (8, 8)])
    assert await intervals(bench, "pods") == [(0, 8)]


@pytest.mark.parametrize("kept", [True, False])
async def test_of_objects_shown_more_than_once_those_that_come_too_late_cut(bench: Bench, kept: bool) -> None:
    """A version with the content of the one after it is in no history, and missed by nobody."""
    await bench.store(*first_list(), progress(1, 1))
    await bench.store(*first_list("200", 2, from_=2))
    listing = Listing("0", at(2))
    same = [watched(listing.item("b", version, "same"), number) for number, version in ((2, "210"), (3, "211"))]
    late = [] if kept else [event(4, "a", "105", 2)] * 2
    await bench.store(*same, *late)
    await bench.store(progress(4 if kept else 5, 4))
    assert await intervals(bench) == ([(0, 4)] if kept else [(0, 1), (4, 4)])


async def test_a_deletion_that_comes_too_late_cuts_an_interval(bench: Bench) -> None:
    await bench.store(*first_list(), progress(1, 1))
    await bench.store(*first_list("200", 2, from_=2))
    await bench.store(gone(2, "b", "105", 2))
    await bench.store(progress(3, 4))
    await bench.store(progress(4, 8))
    assert await intervals(bench) == [(0, 1), (4, 8)]


async def test_what_was_superseded_and_is_in_the_history_cuts_nothing(bench: Bench) -> None:
    await bench.store(*first_list(), *first_list("101", session=OTHER))
    mine = [event(1, "a", "105", 1), event(2, "a", "106", 1)]
    theirs = [event(1, "a", "105", 1, OTHER), event(2, "a", "106", 1, OTHER)]
    await bench.store(*mine)
    await bench.store(*theirs, progress(3, 5, session=OTHER), progress(3, 4))
    assert await intervals(bench) == [(0, 4), (0, 5)]


async def test_what_was_not_observed_is_what_no_interval_covers(bench: Bench) -> None:
    await bench.store(*first_list("100", 10), progress(1, 20))
    await bench.store(event(3, "a", "105"))
    await bench.store(*first_list("200", 30, from_=4), progress(4, 40))
    query = "select begins_at, ends_at from not_observed($1, $2) where resource = 'configmaps' order by 1"
    rows = await bench.connection.fetch(query, at(0), at(60))
    assert [tuple(row) for row in rows] == [(at(0), at(10)), (at(20), at(30)), (at(40), at(60))]
    assert await bench.connection.fetch(query, at(12), at(18)) == []
    assert [tuple(row) for row in await bench.connection.fetch(query, at(12), at(25))] == [(at(20), at(25))]
    assert await bench.connection.fetch(query, at(5), at(4)) == []


async def test_what_lists_alone_saw_was_not_observed_in_between(bench: Bench) -> None:
    for minute in (10, 20):
        listing = Listing(str(100 + minute), at(minute))
        await bench.store(listing.item("a", "7"), listing.completed())
    rows = await bench.connection.fetch(
        "select cluster, api_group, resource, reach, begins_at from not_observed($1, $2)", at(0), at(60)
    )
    assert [tuple(row) for row in rows] == [("test", "", "configmaps", "", at(0))]


async def test_intervals_and_sessions_are_kept_as_long_as_the_history(bench: Bench) -> None:
    await bench.store(*first_list(), *first_list(resource="pods"))
    await bench.store(progress(1, 60 * 24 * 4), ended(2, unit(60 * 24 * 4)))
    await bench.store(progress(1, 1, session=OTHER))
    await bench.connection.execute("update watch_session set updated_at = now() - interval '2 days'")
    today = dt.datetime.now(dt.UTC).date()
    for retention_s, left in ((1e9, 2), (3600.0, 0)):
        await maintain_history(bench.connection, "clusterinfo", today + dt.timedelta(days=1), retention_s)
        assert len(await intervals(bench)) + len(await intervals(bench, "pods")) == left
        assert await is_open(bench) == 0
        assert await bench.connection.fetchval("select count(*) from watch_session") == (1 if left else 0)


async def test_listeners_hear_of_changed_rows_and_of_nothing_else(bench: Bench) -> None:
    heard_of = asyncio.Queue[str]()
    await bench.connection.add_listener("clusterinfo", lambda *notice: heard_of.put_nowait(notice[3]))
    listing = Listing("100", NOON)
    for version, minute in (("100", 0), ("101", 1), ("102", 2)):
        same = Listing(version, at(minute), id="" if minute else listing.id)
        await bench.store(same.item("a", "7" if minute < 2 else "8", minute == 2), same.completed())
    async with asyncio.timeout(60):
        assert [await heard_of.get() for _ in range(2)] == [f'[["{CLUSTER}","","configmaps"]]'] * 2
    assert heard_of.empty()


async def test_what_cannot_be_told_is_stored(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a batch wait for the disk beside others that are told: NOTIFY is no part of its transaction."""
    monkeypatch.setattr("clusterinfo.postgres.merge.apply.notification_of", lambda _: "select 1 / 0")
    await bench.store(*first_list())
    assert await bench.connection.fetchval("select count(*) from resources") == 1
    assert await bench.connection.fetchval("select count(*) from dead_letter") == 0


async def test_what_is_watched_is_counted_as_fresh_while_nothing_is_missing(bench: Bench) -> None:
    """By the metric that alerts look at: a kind that is followed is not listed for hours."""
    await bench.store(*first_list(), *first_list(resource="pods"), event(1, "a", "105"), progress(2, 2))
    bench.seen.clear()
    await bench.store(progress(3, 3))
    followed = bench.last(UnitsFollowed)
    assert (followed.cluster, sorted(followed.resources)) == (CLUSTER, ["configmaps", "pods"])
    bench.seen.clear()
    await bench.store(progress(5, 5))
    assert not any(isinstance(seen, UnitsFollowed) for seen in bench.seen)


@pytest.mark.parametrize("made", [True, False])
async def test_two_batches_of_one_session_take_turns(bench: Bench, made: bool) -> None:
    """Without Kafka a list and a watch of a kind may be stored at once, and both name it."""
    columns = "kafka_cluster, topic, partition, cluster, session"
    key = ("", "configmaps/", 0, CLUSTER, SESSION)
    insert = f"insert into watch_session ({columns}) values ($1, $2, $3, $4, $5)"
    if made:
        await bench.connection.execute(insert, *key)
    batch = Batch(
        lane=WatchLane(Unit(CLUSTER, "", "configmaps"), "", SESSION), start=3, end=4, records=[progress(3, 1)]
    )
    async with bench.connection.transaction():
        if not made:
            await bench.connection.execute(insert, *key)
        await bench.connection.execute("update watch_session set next_number = 3")
        writing = asyncio.create_task(bench.sink.write(batch))
        await waiting(bench.connection, 1)
    await writing
    row = await bench.connection.fetchrow("select next_number, missing::text from watch_session")
    assert tuple(row) == (4, "{}")


async def test_without_kafka_each_kind_and_reach_counts_for_itself(bench: Bench) -> None:
    for minute, resource in enumerate(("configmaps", "pods"), 3):
        of_unit = Unit(CLUSTER, "", resource)
        item, completed = first_list(resource=resource)
        lane = ListLane(of_unit)
        await bench.sink.write(Batch(lane=lane, start=0, end=1, records=[item, completed], list=completed.list))
        watch = WatchLane(of_unit, "", SESSION)
        assert await bench.sink.open(watch) is None
        records = [event(1, "a", "105", resource=resource), progress(2, minute)]
        await bench.sink.write(Batch(lane=watch, start=1, end=3, records=records))
    assert (await heard(bench), await heard(bench, "pods")) == (at(3), at(4))
