"""How far a run is, as it is said while it goes on."""

from __future__ import annotations

from typing import Any

import pytest

from clusterinfo import observations as seen
from clusterinfo.observations import Observation
from clusterinfo.telemetry.tally import Tally

MIB = 1 << 20
DISCOVERED = seen.Discovered(cluster="prod", units=3, excluded=0)
PAGE = seen.PageListed(resource="pods", reach="", items=1500, size_bytes=2 * MIB)
LISTED = seen.ListEnded(resource="pods", reach="", outcome="completed", objects=1, size_bytes=1, seconds=1)
SCHEDULED = seen.RunScheduled(cluster="prod", wait_s=299)
FOLLOWED = seen.WatchOpened(resource="pods", reach="", version=7)
CHANGES = seen.EventsRead(resource="pods", reach="", events=1200, size_bytes=MIB)
LOST = seen.WatchLost(resource="pods", reach="", reason="410 Gone")
ASSIGNED = seen.PartitionsAssigned(partitions=("t-0", "t-1"))


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tally(clock: Clock) -> Tally:
    return Tally(clock)


def lagging(partition: int, records: int) -> seen.Lagging:
    return seen.Lagging(topic="t", partition=partition, records=records)


def stored(lane: str, records: int) -> seen.BatchStored:
    nothing: dict[str, Any] = dict.fromkeys(
        ("rows_written", "rows_unchanged", "rows_ignored", "rows_deleted", "history_rows", "dead_letters"), 0
    )
    return seen.BatchStored(lane=lane, records=records, size_bytes=1, copy_s=0, merge_s=0, commit_s=0, **nothing)


@pytest.mark.parametrize(
    ("observations", "words", "bar"),
    [
        ([], "connecting", None),
        ([DISCOVERED], "listing prod: 0/3 kinds, 0 objects, 0.0 MiB", (0, 3)),
        ([DISCOVERED, PAGE, PAGE, LISTED], "listing prod: 1/3 kinds, 3,000 objects, 4.0 MiB", (1, 3)),
        ([DISCOVERED, PAGE, LISTED, stored("prod/pods", 9)], "listing prod: 1/3 kinds, 1,500 objects, 2.0 MiB", (1, 3)),
        ([DISCOVERED, PAGE, LISTED, SCHEDULED], "prod: next run of lists in 4m", None),
        ([DISCOVERED, PAGE, LISTED, SCHEDULED, DISCOVERED], "listing prod: 0/3 kinds, 0 objects, 0.0 MiB", (0, 3)),
        ([DISCOVERED, FOLLOWED, PAGE, LISTED], "listing prod: 1/3 kinds, 1,500 objects, 2.0 MiB", (1, 3)),
        (
            [DISCOVERED, FOLLOWED, CHANGES, SCHEDULED],
            "prod: 1 kinds followed, 1,200 changes",
            None,
        ),
        (
            [DISCOVERED, FOLLOWED, CHANGES, SCHEDULED, DISCOVERED],
            "prod: 1 kinds followed, 1,200 changes",
            None,
        ),
        ([DISCOVERED, FOLLOWED, SCHEDULED, LOST], "prod: next run of lists in 4m", None),
        ([seen.RunFailed(cluster="prod", error="away", wait_s=7)], "prod: next run of lists in 7s", None),
    ],
)
def test_a_collector_says(
    tally: Tally, observations: list[Observation], words: str, bar: tuple[int, int] | None
) -> None:
    for observation in observations:
        tally.note(observation)
    assert (tally.words(), tally.bar) == (words, bar)


def test_the_next_run_comes_nearer_without_being_told(tally: Tally, clock: Clock) -> None:
    tally.note(SCHEDULED)
    clock.now_s += 260
    assert tally.words() == "prod: next run of lists in 39s"
    clock.now_s += 60
    assert tally.words() == "prod: next run of lists in 0s"


def test_a_consumer_says_what_waits_how_fast_it_is_and_how_long_it_takes(tally: Tally, clock: Clock) -> None:
    tally.note(seen.PartitionsAssigned(partitions=()))
    assert tally.words() == "no partition: other consumers have them all"
    tally.note(ASSIGNED)
    assert (tally.words(), tally.bar) == ("2 partitions, lag unknown yet, 0/s", None)
    tally.note(lagging(0, 30_000))
    tally.note(lagging(1, 10_000))
    assert (tally.words(), tally.bar) == ("2 partitions, lag 40,000, 0/s", (0, 40_000))
    clock.now_s += 10
    tally.note(stored("t-0", 5_000))
    tally.note(stored("t-1", 5_000))
    assert (tally.words(), tally.bar) == ("2 partitions, lag 30,000, 1,000/s, 30s to the end", (10_000, 40_000))
    clock.now_s += 14.9
    assert tally.words().startswith("2 partitions, lag 30,000, 667/s")
    clock.now_s += 0.2
    assert tally.words() == "2 partitions, lag 30,000, 0/s", "for as long nothing was stored"


def test_what_was_caught_up_with_begins_anew(tally: Tally) -> None:
    for observation in (ASSIGNED, lagging(0, 100), stored("t-0", 90)):
        tally.note(observation)
    assert tally.bar == (90, 100)
    tally.note(stored("t-0", 15))
    assert tally.bar is None
    tally.note(lagging(0, 7))
    assert tally.bar == (0, 7)


def test_what_others_have_now_is_not_ours_to_store(tally: Tally) -> None:
    for observation in (ASSIGNED, lagging(0, 100), lagging(1, 10), seen.PartitionsAssigned(partitions=("t-1",))):
        tally.note(observation)
    assert tally.words() == "1 partition, lag 10, 0/s"
