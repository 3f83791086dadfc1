"""The matrix in small: every fault FAULTS_ROUNDS times (1), one test a system."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from tests.faults.matrix import FAULTS, Fault, Round, play_all
from tests.faults.matrix_rig import Ends, ends

ROUNDS = int(os.environ.get("FAULTS_ROUNDS", "1"))
OBJECTS = 150
"""All are listed every two seconds, all the while; of 150, pods still take two pages."""
SYSTEMS = sorted({fault.system for fault in FAULTS})


@pytest.fixture(scope="module")
async def on() -> AsyncIterator[Ends]:
    async with ends(OBJECTS) as started:
        yield started


@pytest.mark.timeout(300 + 600 * ROUNDS)
@pytest.mark.parametrize("system", SYSTEMS)
async def test_the_database_equals_the_api_again_after_every_fault(on: Ends, system: str) -> None:
    plan = sorted((fault for fault in FAULTS if fault.system == system), key=lambda fault: fault.partitions) * ROUNDS
    problems: list[str] = []

    def done(fault: Fault, result: Round) -> None:
        problems.extend(f"{fault.name}: {problem}" for problem in result.problems)

    await play_all(plan, on, is_small=True, done=done)
    assert problems == []
