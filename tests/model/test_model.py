"""The merge is what it promises, over histories that hypothesis chooses: always the same ones here, any others by hand.

`python -m tests.model --seed 1` runs others; CLUSTERINFO_MODEL_HISTORIES says how many run here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.model.bench import Bench, Violation
from tests.model.hunting import Hunt, on_a_server
from tests.model.mutations import MUTATIONS, Mutation

HISTORIES = int(os.environ.get("CLUSTERINFO_MODEL_HISTORIES", "300"))

MUST_OCCUR = (
    "clusters known by name alone", "clusters of one name", "deliveries side by side", "kinds excluded", "kinds gone",
    "lanes begun again", "lanes lost to another owner", "lists cut", "lists expired", "lists failed", "lists forbidden",
    "lists late", "lists lost", "lists of one namespace", "lists overtaken", "lists pages", "lists swapped",
    "lists twice", "lists under newer rules", "lists with stubs", "lists whose versions are opaque", "lock waits",
    "objects deleted", "objects recreated", "offsets reset", "records sent again", "restored backwards, epoch raised",
    "restored backwards in silence", "restored forwards", "slow lists", "strangers' messages", "two collectors at once",
    "watched deletions", "connections ended", "crash after commit", "crash before commit", "topics made to repartition",
)  # fmt: skip
"""What each run of this size has to have met."""


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """A PostgreSQL with two sinks, for all histories of this module."""
    with on_a_server() as bench:
        yield bench


@pytest.mark.timeout(1800)
def test_the_database_becomes_the_truth(bench: Bench) -> None:
    bench.counts.clear()
    Hunt(bench).run(HISTORIES)
    if HISTORIES >= 300:
        assert [what for what in MUST_OCCUR if not bench.counts[what]] == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.guard)
def test_without_this_guard_the_model_fails(bench: Bench, mutation: Mutation) -> None:
    with mutation.applied(), pytest.raises(Violation) as caught:
        Hunt(bench).run(HISTORIES)
    assert caught.value.sort in mutation.sorts, caught.value
