"""Waits grow, spread, and obey the other side."""

from clusterinfo.errors import TransientError
from clusterinfo.pump import FIRST_WAIT_S, MAX_WAIT_S, Backoff


def test_waits_double_up_to_a_ceiling_with_jitter() -> None:
    backoff = Backoff()
    waits = [backoff.next_s(TransientError("x")) for _ in range(12)]
    ceilings = [min(MAX_WAIT_S, FIRST_WAIT_S * 2**n) for n in range(12)]
    assert all(ceiling / 2 <= wait <= ceiling for wait, ceiling in zip(waits, ceilings, strict=True))
    assert len(set(waits)) == 12


def test_what_the_other_side_asks_for_is_done_within_reason() -> None:
    assert Backoff().next_s(TransientError("x", retry_after_s=7)) == 7
    assert Backoff().next_s(TransientError("x", retry_after_s=3600)) == MAX_WAIT_S


def test_reset_begins_again() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.next_s(TransientError("x"))
    backoff.reset()
    assert backoff.next_s(TransientError("x")) <= FIRST_WAIT_S
