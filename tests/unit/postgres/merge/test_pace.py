"""How fast a partition is stored."""

from __future__ import annotations

import datetime as dt

import pytest

from clusterinfo.model import Batch, PartitionLane
from clusterinfo.postgres.merge.pace import PAUSE_S, WINDOW_S, Pace
from tests.support.records import NOON, Listing

LANE = PartitionLane("kafka", "t", 0, "g")


def paced(*batches: tuple[float, int]) -> Pace:
    """After batches of (second, first offset)."""
    pace = Pace()
    for now_s, start in batches:
        pace.note(Batch(lane=LANE, start=start, end=start + 1, records=[]), now_s)
    return pace


def test_one_batch_tells_nothing() -> None:
    assert paced((100, 0)).rate is None
    assert paced((100, 0), (100.5, 400)).rate is None


def test_the_rate_is_that_of_the_work() -> None:
    assert paced((100, 0), (101, 500), (104, 2000)).rate == 500


def test_a_pause_is_no_work() -> None:
    before = [(100.0, 0), (110.0, 1000)]
    assert paced(*before, (111 + PAUSE_S, 1100)).rate == 100, "still that of before"
    assert paced(*before, (111 + PAUSE_S, 1100), (113 + PAUSE_S, 1500)).rate == 200


def test_what_is_long_ago_does_not_count() -> None:
    fast = [(100.0 + n, 10 * n) for n in range(60)]
    slow = [(160.0 + n, 600 + n) for n in range(int(WINDOW_S) + 1)]
    assert paced(*fast, *slow).rate == 1


@pytest.mark.parametrize("batches_a_second", [1, 50])
def test_little_is_remembered_of_many_batches(batches_a_second: int) -> None:
    pace = paced(*((100 + n / batches_a_second, n) for n in range(200 * batches_a_second)))
    assert len(pace._samples) <= WINDOW_S + 1
    assert pace.rate == pytest.approx(batches_a_second)


def test_a_batch_without_records_leaves_when_the_last_was_observed() -> None:
    listing, pace = Listing("100", NOON + dt.timedelta(minutes=1)), Pace()
    pace.note(Batch(lane=LANE, start=0, end=1, records=[listing.item("a", "1")]), 1)
    pace.note(Batch(lane=LANE, start=1, end=2, records=[]), 2)
    assert pace.observed_at == listing.at
