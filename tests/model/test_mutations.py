"""The mutation gate: each guard that is taken out of the merge is missed, by the model or by a test of the merge.

Otherwise their silence about the merge as it is would say nothing. The tests named in `mutations.py` are run by
`gate.py`.
"""

from __future__ import annotations

import asyncpg
import pytest

from clusterinfo.postgres.sql import statements
from tests.model.bench import Bench
from tests.model.code_guards import CODE_GUARDS
from tests.model.gate import ROOT
from tests.model.hunting import Bias, find, numbered, play
from tests.model.mutations import Mutation, all_guards, listed, mutations

MOST_HISTORIES = 20
"""Of histories with their scene, nearly each misses its guard; the one that takes longest, every other one."""

PASSED: set[tuple[str, int]] = set()
"""Scene and number of the histories that pass with every guard in place."""


def test_every_guard_is_known_to_be_missed() -> None:
    assert sorted(set(all_guards()) - set(listed())) == [], "who misses them? python -m tests.model.survey STATEMENT"
    assert sorted(set(listed()) - set(all_guards())) == [], "there are no such guards any more"
    assert len(set(listed())) == len(listed()), "each once"


def test_the_documents_say_how_many_guards_there_are() -> None:
    text = " ".join((ROOT / "docs/FAULTS.md").read_text(encoding="utf-8").split())
    scenes = sum(mutation.is_missed_by_a_scene for mutation in mutations())
    guards, missed = len(all_guards()), len(mutations())
    assert f"Each of the {guards} guards" in text
    assert f"a scene of these histories ({scenes}) or a test of the merge ({missed - scenes})" in text
    assert f"for the {guards - missed} others" in text
    assert f"{len(CODE_GUARDS)} are in Python" in text


async def test_postgresql_takes_each_statement_without_a_guard(connection: asyncpg.Connection) -> None:
    """What fails since it is no SQL any more would be missed by anybody."""
    await connection.execute(statements()["begin_chain"])
    for mutation in mutations():
        for part in mutation.guard.without.split(";\n"):
            if part.strip():
                await connection.prepare(part)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "mutation", [one for one in mutations() if one.is_missed_by_a_scene], ids=lambda mutation: mutation.guard.name
)
def test_a_guard_that_is_gone_is_missed(bench: Bench, mutation: Mutation) -> None:
    scene = mutation.missed_by
    histories = find(bench, mutation.guard, scene, range(MOST_HISTORIES))
    assert histories, f"{MOST_HISTORIES} histories with the scene {scene!r} passed"
    print(f"missed after {histories} histories")
    for number in range(histories):
        if (scene, number) not in PASSED:
            play(bench, numbered(0, number), Bias((scene,), steps=1))
            PASSED.add((scene, number))
