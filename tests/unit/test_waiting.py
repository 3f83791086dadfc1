"""Waits grow, spread, and obey the other side; whoever is asked to stop waits for nothing."""

from __future__ import annotations

import asyncio

import pytest

from clusterinfo.errors import FatalError, TransientError
from clusterinfo.observations import Observation, Recovered, Retrying
from clusterinfo.waiting import FIRST_WAIT_S, MAX_WAIT_S, Backoff, retried, retried_within, sleep_unless, unless


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


# --- unless ----------------------------------------------------------------------------------------------------------


async def _gives(result: int) -> int:
    await asyncio.sleep(0)
    return result


async def test_unless_returns_what_the_work_came_to() -> None:
    assert await unless(asyncio.Event(), _gives(3)) == 3


async def test_unless_raises_what_the_work_raises() -> None:
    async def fail() -> None:
        raise FatalError("broken")

    with pytest.raises(FatalError, match="broken"):
        await unless(asyncio.Event(), fail())


async def test_unless_cancels_the_work_and_waits_for_its_end_when_stopped() -> None:
    stopping, ended = asyncio.Event(), []

    async def work() -> int:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            ended.append(True)
        return 1

    asyncio.get_running_loop().call_later(0.02, stopping.set)
    async with asyncio.timeout(60):
        assert await unless(stopping, work()) is None
    assert ended == [True]


async def test_unless_leaves_shielded_work_running() -> None:
    stopping = asyncio.Event()
    task = asyncio.create_task(asyncio.Event().wait())
    asyncio.get_running_loop().call_later(0.01, stopping.set)
    async with asyncio.timeout(60):
        assert await unless(stopping, asyncio.shield(task)) is None
    assert not task.done()
    task.cancel()


async def test_cancelled_itself_unless_cancels_the_work() -> None:
    work = asyncio.ensure_future(asyncio.sleep(60))
    waiting = asyncio.create_task(unless(asyncio.Event(), work))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait({waiting}, timeout=60)
    assert waiting.cancelled()
    assert work.cancelled()


async def test_sleep_unless_ends_with_the_time_or_when_stopped() -> None:
    stopping = asyncio.Event()
    assert await sleep_unless(stopping, 0.01) is False
    assert await sleep_unless(None, 0.01) is False
    asyncio.get_running_loop().call_later(0.01, stopping.set)
    async with asyncio.timeout(60):
        assert await sleep_unless(stopping, 60) is True
        assert await sleep_unless(stopping, 0) is True


# --- retried ---------------------------------------------------------------------------------------------------------


class Step:
    """A step that fails with each of `failures` in turn, then returns 7."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0

    async def __call__(self) -> int:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return 7


QUICK = Backoff(0.001, 0.002)


async def test_retried_observes_every_failure_and_the_recovery() -> None:
    seen: list[Observation] = []
    step = Step(TransientError("away"), TransientError("still away"))
    assert await retried(step, lane="pods", name="write", observe=seen.append, backoff=QUICK) == 7
    assert [type(one) for one in seen] == [Retrying, Retrying, Recovered]
    assert [one.error for one in seen if isinstance(one, Retrying)] == ["away", "still away"]


async def test_retried_passes_other_errors_on() -> None:
    step = Step(ValueError("bug"))
    with pytest.raises(ValueError, match="bug"):
        await retried(step, lane="pods", name="x", observe=lambda _: None)
    assert step.calls == 1


async def test_retried_makes_no_further_attempt_once_stopped() -> None:
    stopping = asyncio.Event()
    stopping.set()
    step = Step(TransientError("away"))
    with pytest.raises(TransientError, match="away"):
        await retried(step, lane="pods", name="x", observe=lambda _: None, stopping=stopping)
    assert step.calls == 1


async def test_retried_within_gives_up_with_the_last_error_as_the_cause() -> None:
    step = Step(*[TransientError(f"away {n}") for n in range(10_000)])
    with pytest.raises(TimeoutError) as raised:
        await retried_within(0.05, step, pause_s=0.001)
    assert str(raised.value.__cause__) == f"away {step.calls - 1}"
    assert step.calls < 10_000


async def test_retried_within_gives_up_an_attempt_that_does_not_end() -> None:
    with pytest.raises(TimeoutError) as raised:
        await retried_within(0.02, asyncio.Event().wait, pause_s=0.001)
    assert raised.value.__cause__ is None


async def test_retried_within_returns_the_result_and_passes_other_errors_on() -> None:
    assert await retried_within(5, Step(TransientError("away")), pause_s=0.001) == 7
    with pytest.raises(FatalError, match="refused"):
        await retried_within(5, Step(FatalError("refused")), pause_s=0.001)
