"""Waiting: for time to pass, for a step to succeed, or to be asked to stop.

The only retry of the program and its only race against stopping. Ground floor: it knows errors and observations, and
nothing of what is waited for.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from clusterinfo.errors import TransientError
from clusterinfo.observations import Observe, Recovered, Retrying

T = TypeVar("T")

FIRST_WAIT_S = 0.25
MAX_WAIT_S = 30.0


class Backoff:
    """Waits that double from `first_s` to `most_s` seconds with jitter, or that the other side asked for."""

    def __init__(self, first_s: float = FIRST_WAIT_S, most_s: float = MAX_WAIT_S) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._ceiling_s = first_s

    def next_s(self, error: TransientError | None = None) -> float:
        """Seconds to wait after `error`; at least half the ceiling, so that a quick run of failures still spreads."""
        if error is not None and error.retry_after_s is not None:
            return min(error.retry_after_s, self._most_s)
        ceiling = self._ceiling_s
        self._ceiling_s = min(self._most_s, ceiling * 2)
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - jitter needs no secrecy

    def reset(self) -> None:
        """Begin again at the first wait: the step succeeded."""
        self._ceiling_s = self._first_s


async def unless(stopping: asyncio.Event, work: Awaitable[T]) -> T | None:
    """The result of `work`; None if `stopping` is set first: `work` is then cancelled, and has ended.

    Work that is to go on is passed as `asyncio.shield(task)`: only the waiting for it is cancelled then.
    """
    task = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        stopped.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def sleep_unless(stopping: asyncio.Event | None, seconds: float) -> bool:
    """Sleep, or return as soon as `stopping` is set; True if it is set."""
    if stopping is None:
        await asyncio.sleep(max(0.0, seconds))
        return False
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            return await stopping.wait()
    except TimeoutError:
        return stopping.is_set()


async def retried(
    step: Callable[[], Awaitable[T]],
    *,
    lane: str,
    name: str,
    observe: Observe,
    stopping: asyncio.Event | None = None,
    backoff: Backoff | None = None,
) -> T:
    """Call `step` until it raises no TransientError; every failure is observed, under `lane` and `name`.

    Once `stopping` is set there is no next attempt: the TransientError is raised.
    """
    backoff = backoff or Backoff()
    failures = 0
    while True:
        try:
            result = await step()
        except TransientError as error:
            failures += 1
            wait_s = backoff.next_s(error)
            observe(Retrying(lane=lane, step=name, error=str(error), wait_s=round(wait_s, 3)))
            if await sleep_unless(stopping, wait_s):
                raise
        else:
            if failures:
                observe(Recovered(lane=lane, step=name, attempts=failures + 1))
            return result


async def retried_within(seconds: float, step: Callable[[], Awaitable[T]], *, pause_s: float) -> T:
    """Call `step` every `pause_s` until it raises no TransientError, for `seconds` in all: for first connections.

    Raises what else `step` raises, at once; after `seconds` a TimeoutError, whose cause is the last TransientError
    (None: no attempt ended).
    """
    last: TransientError | None = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    return await step()
                except TransientError as error:
                    last = error
                    await asyncio.sleep(pause_s)
    except TimeoutError:
        raise TimeoutError(f"not done within {seconds:g} s") from last
