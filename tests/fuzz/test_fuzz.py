"""The small version: every target, on a fresh seed each time; and that the judge notices what is wrong."""

from __future__ import annotations

import random
import re

import pytest

from clusterinfo import json_repair, wire
from clusterinfo.kafka.aiokafka_patches import message
from clusterinfo.kubernetes import pages as splitter
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from tests.fuzz.__main__ import accepted, planned
from tests.fuzz.chunks import SHARES, Chunk, run_chunk
from tests.fuzz.outcome import Outcome

EXECUTIONS = 20_000
SEED = random.SystemRandom().randrange(10**9)


@pytest.mark.parametrize("target", SHARES)
async def test_what_is_accepted_is_what_it_should_be(postgres: EmbeddedPostgres, target: str) -> None:
    chunks = [chunk for chunk in planned(EXECUTIONS, SEED) if chunk.target == target]
    outcome = Outcome()
    for chunk in chunks:
        outcome.add(await run_chunk(chunk, postgres.dsn()))

    failures = [f"{one.reason[:500]} (--seed {SEED} --target {target} --chunk {one.chunk})" for one in outcome.failures]
    assert failures == []
    assert accepted(target, outcome) > sum(chunk.size for chunk in chunks) / 4


BROKEN = {
    "batches": (message, "_too_much", lambda number, size_bytes: None),
    "messages": (wire, "_integer", lambda name, text, most=0: int(text or b"0")),
    "pages": (splitter, "_TOKEN", re.compile(rb'"[^"]*+"|[{}\[\],:"]')),
    "bodies": (json_repair, "_CONTROL", re.compile(rb"[\x01-\x1e]")),
}


@pytest.mark.parametrize("target", BROKEN)
async def test_the_judge_notices_a_fault(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr(*BROKEN[target])

    outcome = await run_chunk(Chunk(target, 1, 0, 1000), postgres.dsn())

    assert outcome.failures
