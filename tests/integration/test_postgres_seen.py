"""What a list names as it is stored costs no row: what `list_seen` holds, how long, and what is read of it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from clusterinfo.observations import BatchStored
from clusterinfo.postgres.sql import statements
from tests.integration.test_postgres_sink import MINUTE, Bench, bench
from tests.support.records import NOON, Listing

pytestmark = pytest.mark.embedded_only

__all__ = ["bench"]

Entries = list[tuple[int, str]]


async def _entries(bench: Bench) -> Entries:
    """(live_at, names of the rows) of each entry that names any."""
    rows = await bench.connection.fetch(
        "select l.live_at, string_agg(r.name, '' order by r.name) from list_seen l"
        " join resource r on r.unit_id = l.unit_id and l.ids @> r.id group by l.ctid, l.live_at order by 1"
    )
    return [tuple(row) for row in rows]


async def _list(bench: Bench, listing: Listing, *names: str) -> None:
    """A whole list, in which all of these are as they always were."""
    await bench.store(*(listing.item(name, "1", 1) for name in names), listing.completed())


async def test_what_is_unchanged_costs_no_row(bench: Bench) -> None:
    await _list(bench, Listing("100"), "a", "b", "c")
    before = await bench.connection.fetch("select ctid, xmin, * from resource order by name")
    await _list(bench, Listing("200", NOON + MINUTE), "a", "b", "c")
    assert await bench.connection.fetch("select ctid, xmin, * from resource order by name") == before
    assert bench.last(BatchStored).rows_unchanged == 3
    assert await bench.live() == {"a": "1", "b": "1", "c": "1"}
    assert await _entries(bench) == [(200, "abc")]
    assert [row[0] for row in await bench.connection.fetch("select ids::text from list_seen")] == ["{[1,4)}"]
    seen = await bench.connection.fetch("select distinct last_observed_at from resources")
    assert [row[0] for row in seen] == [NOON + MINUTE]


async def test_what_pages_named_is_found_in_one_entry_once_the_list_is_proven(bench: Bench) -> None:
    """Pages are in the order of names: by that of ids an object would lie within the bounds of every page's entry."""
    await _list(bench, Listing("100"), "a", "c", "b", "d")
    second = Listing("200", NOON + MINUTE)
    for page in ("ab", "cd"):
        await bench.store(*(second.item(name, "1", 1) for name in page))
    assert await _entries(bench) == [(200, "ab"), (200, "cd")]
    await bench.store(second.completed())
    assert await _entries(bench) == [(200, "abcd")]


async def test_of_two_lists_that_one_batch_proves_the_overtaken_leaves_no_entry(bench: Bench) -> None:
    await _list(bench, Listing("100"), "a")
    whole, part = Listing("300", NOON + 2 * MINUTE), Listing("200", NOON + MINUTE, reach="ns")
    items = [listing.item("a", "1", 1) for listing in (part, whole)]
    await bench.store(items[0])
    await bench.store(items[1])
    await bench.store(part.completed(), whole.completed())
    assert await _entries(bench) == [(300, "a")]


async def test_what_only_an_older_list_named_is_gone(bench: Bench) -> None:
    await _list(bench, Listing("100"), "a", "b")
    await _list(bench, Listing("200", NOON + MINUTE), "a", "b")
    await _list(bench, Listing("300", NOON + 2 * MINUTE), "a")
    assert await bench.live() == {"a": "1"}
    assert await bench.history() == [("b", "1", True)]
    assert await _entries(bench) == [(300, "a")]


VARIANTS = {
    "a digest alone": ("bury", " and (r.id <@ a.named) is not true", ""),
    "the own list alone": ("bury", "(l.epoch, l.live_at) >= (t.epoch", "(l.epoch, l.live_at) = (t.epoch"),
    "forgetting with a failure": (
        "drop_progress",
        "delete from",
        "with forgotten as (delete from list_seen s using list_progress p where p.list = any ($1)"
        " and (s.unit_id, s.epoch, s.live_at) = (p.unit_id, p.epoch, p.live_at)) delete from",
    ),
    "dropping with age": (
        "drop_stale_progress",
        "delete from",
        "with forgotten as (delete from list_seen s using list_progress p where p.updated_at < now()"
        " and (s.unit_id, s.epoch, s.live_at) = (p.unit_id, p.epoch, p.live_at) and not p.settled) delete from",
    ),
}
"""Rules that look simpler: a statement of the merge, and what would be another in it."""


async def _two_lists_at_once(bench: Bench) -> dict[str, str]:
    """A newer list names an object, and fails or is given up, before an older one that names it too is complete."""
    await _list(bench, Listing("100"), "a")
    older, newer = Listing("200", NOON + MINUTE), Listing("300", NOON + 2 * MINUTE)
    await bench.store(older.item("a", "1", 1))
    await bench.store(newer.item("a", "1", 1))
    await bench.connection.execute(statements()["drop_stale_progress"])
    await bench.store(newer.failed(500, "InternalError"))
    await bench.store(older.completed())
    return await bench.live()


@pytest.mark.parametrize("variant", [None, *VARIANTS])
async def test_rules_that_look_simpler_lose_rows(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, variant: str | None
) -> None:
    if variant:
        statement, old, new = VARIANTS[variant]
        text = statements()[statement]
        assert text.count(old) == 1
        monkeypatch.setitem(statements(), statement, text.replace(old, new))
    assert await _two_lists_at_once(bench) == ({} if variant else {"a": "1"})


async def test_an_entry_gives_up_what_a_later_list_named(bench: Bench) -> None:
    await _list(bench, Listing("100"), "a", "b")
    first, second = Listing("200", NOON + MINUTE), Listing("300", NOON + 2 * MINUTE)
    await bench.store(first.item("a", "1", 1), first.item("b", "1", 1))
    await bench.store(second.item("a", "1", 1), second.failed(500, "InternalError"))
    assert await _entries(bench) == [(200, "b"), (300, "a")]
    third = Listing("400", NOON + 3 * MINUTE)
    await bench.store(third.item("b", "1", 1), third.failed(500, "InternalError"))
    assert await _entries(bench) == [(300, "a"), (400, "b")]
    assert await bench.connection.fetchval("select count(*) from list_seen") == 2


@pytest.mark.parametrize("fails", [False, True])
async def test_what_was_seen_later_at_an_older_version_is_not_forgotten(bench: Bench, fails: bool) -> None:
    """Of two collectors, one behind the other: when an object was last observed never goes back."""
    await _list(bench, Listing("100"), "a")
    await _list(bench, Listing("200", NOON + 5 * MINUTE), "a")
    ahead = Listing("300", NOON + MINUTE)
    item = ahead.item("a", "1", 1)
    end = ahead.failed(500, "InternalError") if fails else ahead.completed()
    await bench.store(item, replace(end, observed_at=NOON + 6 * MINUTE))
    assert await bench.live() == {"a": "1"}
    assert await bench.connection.fetchval("select last_observed_at from resources") == NOON + 5 * MINUTE
    assert await _entries(bench) == [(200, "a"), (300, "a")]


# --- what comes late is compared with the newest list that named the row ----------------------------------------------


async def _late(bench: Bench, name: str = "a") -> dict[str, str]:
    """A deletion at 150 comes late, of what lists have named since."""
    late = Listing("150", NOON + MINUTE).deleted(name, "150", "ns" if name == "a" else "other", f"uid-{name}")
    await bench.store(late)
    return await bench.live()


@pytest.mark.parametrize("complete", [True, False])
async def test_a_deletion_that_a_list_refutes_is_older(bench: Bench, complete: bool) -> None:
    await _list(bench, Listing("100"), "a")
    listing = Listing("200", NOON + MINUTE)
    await bench.store(listing.item("a", "1", 1), *([listing.completed()] if complete else []))
    assert await _late(bench) == {"a": "1"}


async def test_a_change_of_what_another_was_named_with_is_not(bench: Bench) -> None:
    await _list(bench, Listing("100"), "a", "b")
    await bench.store(Listing("200", NOON + MINUTE).item("a", "1", 1))
    await bench.store(replace(Listing("150", NOON + MINUTE).item("b", "2", 2), list=""))
    assert await bench.live() == {"a": "1", "b": "2"}


async def test_a_list_of_a_lower_epoch_says_nothing_of_a_row_that_was_seen_since(bench: Bench) -> None:
    """The chain writes a row again under its id."""
    await _list(bench, Listing("100"), "a")
    await bench.store(Listing("300", NOON + MINUTE).item("a", "1", 1))
    restored = Listing("10", NOON + 2 * MINUTE, epoch=1)
    await bench.store(restored.item("a", "1", 1), restored.item("a", "1", 1))
    await bench.store(replace(Listing("20", NOON + 3 * MINUTE, epoch=1).item("a", "2", 2), list=""))
    assert await bench.live() == {"a": "2"}


async def test_a_list_that_proves_nothing_yet_drops_no_entry(bench: Bench) -> None:
    await _list(bench, Listing("100"), "a")
    await bench.store(Listing("300", NOON + 2 * MINUTE).item("b", "1", 1))
    await _list(bench, Listing("200", NOON + MINUTE), "a")
    assert await _late(bench) == {"a": "1", "b": "1"}


async def test_a_list_of_another_kind_drops_no_entry(bench: Bench) -> None:
    await _list(bench, Listing("100"), "a")
    await _list(bench, Listing("200", NOON + MINUTE), "a")
    await _list(bench, Listing("300", NOON + 2 * MINUTE, resource="secrets"), "s")
    assert await _late(bench) == {"a": "1", "s": "1"}


async def test_a_list_of_another_namespace_drops_no_entry(bench: Bench) -> None:
    for version in (100, 200):
        listing = Listing(str(version), NOON + MINUTE)
        items = listing.item("a", "1", 1), listing.item("b", "1", 1, namespace="other")
        await bench.store(*items, listing.completed())
    await _list(bench, Listing("300", NOON + 2 * MINUTE, reach="ns"), "a")
    assert await _late(bench, "b") == {"a": "1", "b": "1"}


async def test_what_replaces_a_row_was_observed_when_a_list_named_it(bench: Bench) -> None:
    await _list(bench, Listing("100"), "a")
    await _list(bench, Listing("200", NOON + 5 * MINUTE), "a")
    await bench.store(replace(Listing("300", NOON + 3 * MINUTE).item("a", "2", 2), list=""))
    assert await bench.connection.fetchval("select last_observed_at from resource") == NOON + 5 * MINUTE


async def test_what_is_shown_with_less_of_it_moves_the_row(bench: Bench) -> None:
    await _list(bench, Listing("100", NOON + 5 * MINUTE), "a")
    for version, minute, seen in (("200", 1, 5), ("300", 6, 6)):
        stub = Listing(version, NOON + minute * MINUTE).item("a", "1", 1, state="oversize")
        await bench.store(replace(stub, content_hash="0" * 32))
        row = await bench.connection.fetchrow("select live_at, last_observed_at, fidelity from resource")
        assert tuple(row) == (int(version), NOON + seen * MINUTE, 3)
    assert await _entries(bench) == []


# --- what is gone ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "live"), [(30, {"a": "1"}), (90, {})])
async def test_a_kind_is_gone_unless_a_list_has_named_its_objects_since(
    bench: Bench, seconds: int, live: dict[str, str]
) -> None:
    await _list(bench, Listing("100"), "a")
    await _list(bench, Listing("200", NOON + MINUTE), "a")
    await bench.store(Listing("1", NOON + seconds * (MINUTE / 60)).snapshot_completed({}))
    assert await bench.live() == live


async def test_an_object_was_gone_when_the_first_list_without_it_began(bench: Bench) -> None:
    await _list(bench, Listing("100"), "a", "b", "c")
    first, second = Listing("200", NOON + MINUTE), Listing("300", NOON + 2 * MINUTE)
    await bench.store(first.item("a", "1", 1), first.item("c", "1", 1), second.item("c", "1", 1))
    await bench.store(first.completed(), second.completed())
    rows = await bench.connection.fetch("select name, valid_to from resource_history order by 1")
    assert [tuple(row) for row in rows] == [("a", NOON + 2 * MINUTE), ("b", NOON + MINUTE)]


# --- a contested cluster ---------------------------------------------------------------------------------------------


async def test_what_two_clusters_mixed_is_taken_back_and_no_other(bench: Bench) -> None:
    """Each row keeps when it was last observed."""
    other: dict[str, Any] = {"cluster": "other", "cluster_name": "other"}
    await _list(bench, Listing("100", **other), "o")
    await _list(bench, Listing("200", NOON + MINUTE, **other), "o")
    for number, name in enumerate("ABA"):
        listing = Listing(str(100 + number), NOON + number * MINUTE, cluster_name=name)
        await bench.store(listing.snapshot_started(), listing.item("a", "1", 1), listing.completed())
    await bench.store(Listing("200", NOON + 3 * MINUTE).item("z", "1", 1))
    assert [names for _, names in await _entries(bench)] == ["a", "o"]
    start = Listing("103", NOON + 4 * MINUTE, cluster_name="B").snapshot_started()
    await bench.store(start)
    assert await _entries(bench) == [(200, "o")]
    rows = await bench.connection.fetch(
        'select name, live_at, last_observed_at from resource order by name collate "C"'
    )
    assert [tuple(row) for row in rows] == [
        ("a", -1, NOON + 2 * MINUTE), ("o", 100, NOON), ("z", -1, NOON + 3 * MINUTE),
    ]  # fmt: skip
