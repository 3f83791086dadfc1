"""The merge is what it promises, over histories: always the same ones here, any others by hand.

Half of them are drawn by hypothesis, which makes short what fails and likes extremes; the others evenly, so that
whatever can happen does.

`python -m tests.model --histories 1000 --seed 1` runs others; CLUSTERINFO_MODEL_HISTORIES says how many run here.
"""

from __future__ import annotations

import os

import pytest

from tests.model.bench import Bench
from tests.model.hunting import numbered, play, run_drawn

HISTORIES = int(os.environ.get("CLUSTERINFO_MODEL_HISTORIES", "300"))
FEWEST_FOR_ALL = 300
"""With fewer histories not all of `MUST_OCCUR` need have occurred."""

MUST_OCCUR = (
    "API versions changed", "alarms raised over a silent restore",
    "clusters of one name", "clusters renamed", "connections ended",
    "crash after commit", "crash before commit", "dead letters", "deliveries side by side", "kinds excluded",
    "kinds gone", "lanes begun again", "lanes lost to another owner", "lists cut", "lists expired", "lists failed",
    "lists forbidden", "lists late", "lists lost", "lists of one namespace", "lists overtaken", "lists pages",
    "lists proven", "lists swapped", "lists twice", "lists under newer rules", "lists unproven",
    "lists whose versions are numbers", "lists whose versions are opaque", "lists whose versions are standing",
    "lists with stubs", "lock waits", "objects deleted", "objects recreated", "offsets reset",
    "one partition, two owners at once", "pages", "records sent again", "records spread over partitions",
    "restored backwards, epoch raised", "restored backwards in silence", "restored forwards", "rows deleted by absence",
    "rows deleted with their kind", "slow lists", "snapshots", "snapshots of an incomplete discovery",
    "snapshots that come late",
    "statements interleaved", "strangers' messages", "tombstones dropped", "topics made to repartition",
    "topics made to scatter", "two collectors at once", "watched deletions", "watched objects",
)  # fmt: skip
"""What each run of this size has to have met."""


@pytest.mark.timeout(1800)
def test_the_database_becomes_the_truth(bench: Bench) -> None:
    bench.counts.clear()
    run_drawn(bench, HISTORIES // 2)
    for number in range(HISTORIES // 2):
        play(bench, numbered(0, number))
    print(*(f"{name}: {count}" for name, count in sorted(bench.counts.items())), sep="\n")
    if HISTORIES >= FEWEST_FOR_ALL:
        assert [what for what in MUST_OCCUR if not bench.counts[what]] == []
