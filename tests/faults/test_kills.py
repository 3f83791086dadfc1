"""The kills, small: every failpoint hit, a consumer stopped beyond its session, and nothing wrong afterwards."""

from __future__ import annotations

import pytest
from rich.console import Console

from tests.faults.kills import FOLLOWING, LISTING, Counts, Goal, kills, table

pytestmark = pytest.mark.timeout(600)  # a machine that is busy takes several times as long

ROUND_S = 20.0


@pytest.mark.parametrize(("follow", "goal"), [(False, Goal(hits=1, stops=1)), (True, Goal(hits=2, stops=1))])
async def test_kills_at_every_failpoint_lose_nothing_and_double_nothing(follow: bool, goal: Goal) -> None:
    counts = Counts.of(FOLLOWING if follow else LISTING)
    async with kills(counts, seed=1, goal=goal, follow=follow) as killing:
        while not killing.is_done:
            await killing.round(ROUND_S)
        verdict = await killing.judge(thoroughly=True)
    Console().print(table(counts))
    assert verdict.words == []
    assert sum(verdict.numbers.values()) == 0
    assert min(counts.hits.values()) >= goal.hits, counts.hits
    assert counts.stops >= goal.stops
