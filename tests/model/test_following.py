"""What is claimed of a followed cluster is never more than is true: always the same histories here, others by hand."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.conftest import Database
from tests.model.following import Consumers, play

HISTORIES = int(os.environ.get("CLUSTERINFO_MODEL_FOLLOWING", "12"))
MUST_OCCUR = (
    "claims of freshness", "claims of an interval", "clusters restored", "collectors killed", "consumers killed",
    "kinds followed in the end", "moments looked back at", "moments nobody looked", "offsets reset", "oversize",
    "partitions moved", "second collectors",
)  # fmt: skip
"""What each run of this size has to have met."""


@pytest.fixture
async def consumers(database: Database) -> AsyncIterator[Consumers]:
    async with Consumers.on(database.settings()) as consumers:
        yield consumers


@pytest.mark.timeout(1800)
async def test_no_more_is_claimed_than_is_true(consumers: Consumers, connection: asyncpg.Connection) -> None:
    counts = Counter[str]()
    for number in range(HISTORIES):
        counts += await play(consumers, connection, 0, number)
    print(*(f"{name}: {count}" for name, count in sorted(counts.items())), sep="\n")
    assert [what for what in MUST_OCCUR if not counts[what]] == []
