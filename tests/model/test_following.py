"""What is claimed of a followed cluster is never more than is true: always the same histories here, others by hand."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.conftest import Database
from tests.model.following import Consumer, play

HISTORIES = int(os.environ.get("CLUSTERINFO_MODEL_FOLLOWING", "12"))
MUST_OCCUR = (
    "claims of freshness", "claims of an interval", "collectors killed", "kinds followed in the end", "offsets reset",
    "second collectors",
)  # fmt: skip
"""What each run of this size has to have met."""


@pytest.fixture
async def consumer(database: Database) -> AsyncIterator[Consumer]:
    async with Consumer.on(database.settings()) as consumer:
        yield consumer


@pytest.mark.timeout(1800)
async def test_no_more_is_claimed_than_is_true(consumer: Consumer, connection: asyncpg.Connection) -> None:
    counts = Counter[str]()
    for number in range(HISTORIES):
        counts += await play(consumer, connection, 0, number)
    print(*(f"{name}: {count}" for name, count in sorted(counts.items())), sep="\n")
    assert [what for what in MUST_OCCUR if not counts[what]] == []
