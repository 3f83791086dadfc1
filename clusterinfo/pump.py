"""The Source and Sink protocols, the loop that joins them, and the only retry of the program.

A lane is what is ordered in itself: one unit's list, or one topic partition. One pump drives one lane: read, write,
ack. It knows nothing of Kubernetes, Kafka or PostgreSQL. The pump pulls: the call stack is the back-pressure and
one batch is all there is to drain.

Errors name the next step: `TransientError` does the same step again, `RestartError` opens the lane again at the sink's
position, `LostError` ends the pump quietly; any other ends it with that error.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

from clusterinfo.errors import LostError, RestartError, TransientError
from clusterinfo.model import Batch, Lane, Position, Receipt
from clusterinfo.observations import LaneEnded, LaneLost, LaneRestarted, Observe, Recovered, Retrying

T = TypeVar("T")

FIRST_WAIT_S = 0.25
MAX_WAIT_S = 30.0


class Source(Protocol):
    """Where one lane's batches come from. One object serves one lane; its methods are never called side by side."""

    async def open(self, lane: Lane, position: Position) -> None:
        """Begin at `position` (None: at the lane's beginning). Called before the first read and after a restart."""

    async def read(self) -> Batch | None:
        """Return the next batch, or None when the lane has ended.

        Gives the same batch until it is acked and fetches the next one meanwhile. Waits for data, each wait with a
        deadline of its own. Raises TransientError (call again), RestartError, LostError or FatalError.
        """

    async def restart(self) -> None:
        """Forget what was read and not acked; `open` follows."""

    async def ack(self, receipt: Receipt) -> None:
        """Learn that the batch last read is stored."""


class Sink(Protocol):
    """Where batches are stored. One object serves all lanes, side by side."""

    async def open(self, lane: Lane) -> Position:
        """Claim the lane and return where it goes on (None: from its beginning)."""

    async def write(self, batch: Batch) -> Receipt:
        """Store the whole batch or nothing of it; storing it again does no harm.

        Raises TransientError (call again), RestartError (open again), LostError (let go) or FatalError.
        """


class Backoff:
    """Waits that double from 0.25 s to 30 s with full jitter, or what the other side asked for."""

    def __init__(self, first_s: float = FIRST_WAIT_S, most_s: float = MAX_WAIT_S) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._ceiling_s = first_s

    def next_s(self, error: TransientError) -> float:
        """Seconds to wait after `error`; at least half the ceiling, so that a quick run of failures still spreads."""
        if error.retry_after_s is not None:
            return min(error.retry_after_s, self._most_s)
        ceiling = self._ceiling_s
        self._ceiling_s = min(self._most_s, ceiling * 2)
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - jitter needs no secrecy

    def reset(self) -> None:
        """Begin again at the first wait: the step succeeded."""
        self._ceiling_s = self._first_s


async def retried(
    step: Callable[[], Awaitable[T]], *, lane: Lane, name: str, observe: Observe, stopping: asyncio.Event | None = None
) -> T:
    """Call `step` until it raises no TransientError; every failure is observed.

    Once `stopping` is set there is no next attempt: the TransientError is raised.
    """
    backoff = Backoff()
    failures = 0
    while True:
        try:
            result = await step()
        except TransientError as error:
            failures += 1
            wait_s = backoff.next_s(error)
            observe(Retrying(lane=str(lane), step=name, error=str(error), wait_s=round(wait_s, 3)))
            if await _is_set_within(stopping, wait_s):
                raise
        else:
            if failures:
                observe(Recovered(lane=str(lane), step=name, attempts=failures + 1))
            return result


async def _is_set_within(stopping: asyncio.Event | None, seconds: float) -> bool:
    if stopping is None:
        await asyncio.sleep(seconds)
        return False
    try:
        async with asyncio.timeout(seconds):
            return await stopping.wait()
    except TimeoutError:
        return False


async def pump(source: Source, sink: Sink, lane: Lane, observe: Observe, stopping: asyncio.Event | None = None) -> None:
    """Move one lane from source to sink until it ends, is lost, or `stopping` is set between two batches.

    Told to stop while a step fails, it raises that step's TransientError: the batch in hand is not stored.
    """
    backoff = Backoff()
    try:
        while True:
            try:
                return await _run(source, sink, lane, observe, stopping=stopping, backoff=backoff)
            except RestartError as error:
                wait_s = backoff.next_s(TransientError(str(error)))
                observe(LaneRestarted(lane=str(lane), error=str(error), wait_s=round(wait_s, 3)))
                await source.restart()
                if await _is_set_within(stopping, wait_s):
                    return None
            except LostError as error:
                observe(LaneLost(lane=str(lane), error=str(error)))
                return None
    finally:
        observe(LaneEnded(lane=str(lane)))


async def _run(
    source: Source, sink: Sink, lane: Lane, observe: Observe, *, stopping: asyncio.Event | None, backoff: Backoff
) -> None:
    async def persist(name: str, step: Callable[[], Awaitable[T]]) -> T:
        return await retried(step, lane=lane, name=name, observe=observe, stopping=stopping)

    if stopping and stopping.is_set():
        return  # a claim now would take the lane from whoever owns it next
    position = await persist("open", lambda: sink.open(lane))
    await source.open(lane, position)
    while not (stopping and stopping.is_set()):
        batch = await persist("read", source.read)
        if batch is None:
            return
        receipt = await persist("write", partial(sink.write, batch))
        await source.ack(receipt)
        del batch  # or its bytes, which were given back, would stay until the next one is there
        backoff.reset()
