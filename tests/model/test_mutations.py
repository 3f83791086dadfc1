"""The mutation gate: the model misses each guard that is taken out of the merge, and passes the same histories with it.

Otherwise its silence about the merge as it is would say nothing.
"""

from __future__ import annotations

import pytest

from tests.model.bench import Bench
from tests.model.hunting import Bias, find, numbered, play
from tests.model.mutations import MUTATIONS, Mutation

MOST_HISTORIES = 20
"""Of histories with their scene, the generation is missed in every other one, each other guard in 18 of 20 or more."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.guard)
def test_a_guard_that_is_gone_is_missed(bench: Bench, mutation: Mutation) -> None:
    histories = find(bench, mutation, MOST_HISTORIES)
    assert histories, f"{MOST_HISTORIES} histories passed without {mutation.guard}"
    print(f"{mutation.guard}: missed after {histories} histories")
    for number in range(histories):
        play(bench, numbered(0, number), Bias((mutation.scene,), steps=1))
