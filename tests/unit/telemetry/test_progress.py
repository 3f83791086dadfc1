"""What a person at a terminal reads of a run."""

from __future__ import annotations

import pytest

from clusterinfo import observations as seen
from clusterinfo.observations import Observation
from clusterinfo.telemetry.progress import line_of, shown

ENDED = seen.SnapshotEnded(cluster="prod", kinds=58, failed=0, forbidden=0, objects=5005, size_bytes=1 << 20, seconds=1)
LISTED = seen.ListEnded(resource="pods", reach="", outcome="completed", objects=1, size_bytes=1, seconds=1)


@pytest.mark.parametrize(
    ("observation", "line"),
    [
        (ENDED, "prod: 5,005 objects of 58 kinds, 1.0 MiB, in 1.0 s"),
        (seen.Warned(message="odd", remedy="do this"), "odd; do this"),
        (seen.Noted(message="applied"), "applied"),
        (LISTED, ""),
        (
            seen.AllStored(
                batches=12,
                records=5005,
                rows_written=5000,
                rows_unchanged=4,
                rows_ignored=0,
                rows_deleted=1,
                dead_letters=2,
                size_bytes=1 << 21,
                seconds=3.14159,
            ),
            "all is stored: 5,005 records in 12 batches, 2.0 MiB, in 3.1 s: 5,000 rows written, 4 unchanged, "
            "1 deleted, 2 dead letters",
        ),
        (
            seen.WatchLost(resource="pods", reach="", reason="410 Gone"),
            "pods: its watch cannot be continued: 410 Gone; it is listed again",
        ),
        (seen.DeadLettered(lane="t-0", offset=7, reason="no ce_type"), "t-0, offset 7 was dead-lettered: no ce_type"),
        (
            seen.DeadLettered(lane="t-0", offset=7, reason="no", letters=5),
            "t-0, offset 7 and 4 more was dead-lettered: no",
        ),
    ],
)
def test_lines(observation: Observation, line: str) -> None:
    assert line_of(observation) == line


def test_kinds_that_failed_are_printed() -> None:
    failed = seen.ListEnded(
        resource="secrets", reach="", outcome="forbidden", objects=0, size_bytes=0, seconds=1, error="Forbidden"
    )
    assert line_of(failed) == "secrets: forbidden: Forbidden"


def test_everything_passes_and_the_summary_stays(capsys: pytest.CaptureFixture[str]) -> None:
    with shown() as observe:
        observe(seen.Discovered(cluster="prod", units=2, excluded=0))
        observe(seen.PageListed(resource="pods", reach="", items=500, size_bytes=1 << 20))
        observe(LISTED)
        observe(ENDED)
    assert "5,005 objects" in (captured := capsys.readouterr()).err
    assert captured.out == ""
