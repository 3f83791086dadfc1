"""Epochs and versions that leap: what no cluster has is dead-lettered, what passes is cured as `status` says."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from clusterinfo.model import CLOCK, MAX_VERSION, Record
from clusterinfo.postgres.merge.admission import MAX_EPOCH_STEP
from tests.conftest import Database
from tests.integration.test_postgres_sink import MINUTE, Bench, bench
from tests.support.programs import run
from tests.support.records import NOON, Listing

__all__ = ["bench"]

pytestmark = pytest.mark.embedded_only


async def _stored(bench: Bench, minute: int, version: str, epoch: int = 0) -> Listing:
    """A run of lists: its start, one list, one object."""
    listing = Listing(version, NOON + minute * MINUTE, epoch=epoch)
    await bench.store(listing.snapshot_started(), listing.item("a", version), listing.completed())
    return listing


async def _told(bench: Bench, database: Database, minute: int, version: str, epoch: int) -> str:
    """What `status` prints once that list is stored."""
    await _stored(bench, minute, version, epoch)
    return (await run("status", "--stale", "36500d", env=database.env)).stdout


STATEMENTS: dict[str, Callable[[Listing], Record]] = {
    "an object": lambda listing: listing.item("a", "9"),
    "a deletion": lambda listing: listing.deleted("a", "9"),
    "a list": lambda listing: listing.completed(),
    "a failure": lambda listing: listing.failed(500, "forged"),
    "the start of a snapshot": lambda listing: listing.snapshot_started(),
    "the end of a snapshot": lambda listing: listing.snapshot_completed({("", "pods"): "excluded"}),
}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS.keys())
async def test_an_epoch_that_leaps_changes_nothing(bench: Bench, statement: Callable[[Listing], Record]) -> None:
    await _stored(bench, 0, "100", epoch=5)
    leap = statement(Listing("50", NOON + MINUTE, epoch=5 + MAX_EPOCH_STEP + 1))
    between = Listing("150", NOON + MINUTE, epoch=5)
    await bench.store(between.item("a", "150"), leap, between.completed())
    letters = await bench.connection.fetch("select reason, record_offset from dead_letter")
    assert [letter["record_offset"] for letter in letters] == [4]
    assert "its epoch is 1006, more than 1000 above 5" in letters[0]["reason"]
    assert await bench.live() == {"a": "150"}
    assert await bench.states() == {"configmaps": "verified"}
    assert await bench.connection.fetchval("select max(epoch) from cluster") == 5


async def test_a_cluster_that_is_new_begins_near_0(bench: Bench) -> None:
    await bench.store(Listing("50", epoch=2**31 - 1).item("a", "1"))
    assert await bench.connection.fetchval("select count(*) from cluster") == 0
    assert await bench.connection.fetchval("select count(*) from dead_letter") == 1
    await _stored(bench, 1, "100", epoch=MAX_EPOCH_STEP)
    assert await bench.states() == {"configmaps": "verified"}


async def test_what_status_says_cures_the_farthest_leap_that_passes(bench: Bench, database: Database) -> None:
    await _stored(bench, 0, "100")
    await _stored(bench, 1, str(MAX_VERSION), epoch=MAX_EPOCH_STEP)

    told = await _told(bench, database, 2, "200", epoch=0)
    lowered = re.search(r"set it to (\d+) for every collector", told)
    assert lowered, told
    told = await _told(bench, database, 3, "300", epoch=int(lowered[1]))
    assert "raise CLUSTER_EPOCH of its collector by one" in told
    told = await _told(bench, database, 4, "400", epoch=int(lowered[1]) + 1)
    assert "CLUSTER_EPOCH" not in told
    assert await bench.live() == {"a": "400"}
    assert await bench.states() == {"configmaps": "verified"}


async def test_a_list_by_the_clock_may_have_any_version(bench: Bench) -> None:
    listing = Listing("9" * 4301, ordering=CLOCK)
    await bench.store(listing.item("a", "1"), listing.completed())
    assert await bench.states() == {"configmaps": "verified"}
