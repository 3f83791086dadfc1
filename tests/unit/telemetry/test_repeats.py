"""A collector that follows says what is new, and nothing a second time."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from clusterinfo import observations as seen
from clusterinfo.telemetry.repeats import Repeats

NOTHING: dict[str, Any] = dict.fromkeys(
    ("rows_written", "rows_unchanged", "rows_ignored", "rows_deleted", "history_rows", "dead_letters"), 0
)
DISCOVERED = seen.Discovered(cluster="a", units=58, excluded=3)
LISTED = seen.ListEnded(resource="pods", reach="", outcome="completed", objects=5, size_bytes=9, seconds=0.1)
SENT = seen.Produced(topic="t", partition=0, offset=1, size_bytes=9, records=5, resource="pods")
ENDED = seen.SnapshotEnded(cluster="a", kinds=58, failed=0, forbidden=1, objects=5, size_bytes=9, seconds=1)
WATCHES = seen.WatchesCounted(followed=57, failing=0)
STORED = seen.BatchStored(lane="pods", records=5, size_bytes=9, copy_s=0, merge_s=0, commit_s=0, **NOTHING)


@pytest.mark.parametrize(
    ("first", "same", "other"),
    [
        (DISCOVERED, DISCOVERED, replace(DISCOVERED, units=59)),
        (LISTED, replace(LISTED, objects=6, seconds=0.2), replace(LISTED, outcome="failed", error="500")),
        (LISTED, LISTED, replace(LISTED, reach="shop")),
        (SENT, replace(SENT, offset=9), replace(SENT, resource="nodes")),
        (ENDED, replace(ENDED, objects=0, seconds=0.1), replace(ENDED, forbidden=2)),
        (WATCHES, WATCHES, replace(WATCHES, failing=1)),
        (STORED, replace(STORED, records=1), replace(STORED, dead_letters=1)),
    ],
)
def test_what_is_said_again_is_no_news(first: seen.Repeatable, same: seen.Repeatable, other: seen.Repeatable) -> None:
    told: list[seen.Observation] = []
    repeats = Repeats(told.append)
    for one in (first, same, other, same):
        repeats(one)
    is_back = not isinstance(first, seen.Produced) and getattr(other, "reach", "") == ""
    assert told == [first, replace(same, is_news=False), other, replace(same, is_news=is_back)]


def test_all_else_is_handed_on_as_it_is() -> None:
    told: list[seen.Observation] = []
    repeats = Repeats(told.append)
    lost = seen.WatchLost(resource="pods", reach="", reason="410")
    none = replace(WATCHES, followed=0)
    for one in (lost, lost, none):
        repeats(one)
    assert told == [lost, lost, replace(none, is_news=False)], "before anything is followed there is nothing to say"
