"""The Source and Sink protocols, and the loop that joins them.

A lane is what is ordered in itself: one unit's list, or one topic partition. One pump drives one lane: read, write,
ack. It knows nothing of Kubernetes, Kafka or PostgreSQL. The pump pulls: the call stack is the back-pressure and
one batch is all there is to drain.

Errors name the next step: `TransientError` does the same step again, `RestartError` opens the lane again at the sink's
position, `LostError` ends the pump quietly; any other ends it with that error. However it ends, the source is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

from clusterinfo.errors import LostError, RestartError
from clusterinfo.model import Batch, Lane, Position, Receipt
from clusterinfo.observations import LaneEnded, LaneLost, LaneRestarted, Observe
from clusterinfo.waiting import Backoff, retried, sleep_unless

T = TypeVar("T")


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
        """Take note that the batch last read is stored."""

    async def close(self) -> None:
        """Release what is held: tasks, bytes, permits. Called when the pump ends; another pump may open it again."""


class Sink(Protocol):
    """Where batches are stored. One object serves all lanes, side by side."""

    async def open(self, lane: Lane) -> Position:
        """Claim the lane and return where it goes on (None: from its beginning)."""

    async def write(self, batch: Batch) -> Receipt:
        """Store the whole batch or nothing of it; storing it again does no harm.

        Raises TransientError (call again), RestartError (open again), LostError (release the lane) or FatalError.
        """


async def pump(source: Source, sink: Sink, lane: Lane, observe: Observe, stopping: asyncio.Event | None = None) -> None:
    """Move one lane from source to sink until it ends, is lost, or `stopping` is set between two batches.

    Asked to stop while a step fails, it raises that step's TransientError: the batch in hand is not stored. The source
    is closed at the end, also after an error or a cancellation.
    """
    backoff = Backoff()
    move = partial(_move, source, sink, lane, observe, stopping=stopping, backoff=backoff)
    try:
        await _restarting(move, lane, observe, backoff=backoff, stopping=stopping, before_again=source.restart)
    finally:
        try:
            await source.close()
        finally:
            observe(LaneEnded(lane=str(lane)))


async def deliver(sink: Sink, batch: Batch, observe: Observe) -> None:
    """Store one batch that is its whole lane, such as a statement: by the pump's rules, without a source."""
    lane = batch.lane

    async def write() -> None:
        await retried(partial(sink.open, lane), lane=str(lane), name="open", observe=observe)
        await retried(partial(sink.write, batch), lane=str(lane), name="write", observe=observe)

    try:
        await _restarting(write, lane, observe, backoff=Backoff())
    finally:
        observe(LaneEnded(lane=str(lane)))


async def _restarting(
    run: Callable[[], Awaitable[None]],
    lane: Lane,
    observe: Observe,
    *,
    backoff: Backoff,
    stopping: asyncio.Event | None = None,
    before_again: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """`run`, again after every RestartError; a LostError ends it quietly."""
    while True:
        try:
            return await run()
        except RestartError as error:
            wait_s = backoff.next_s()
            observe(LaneRestarted(lane=str(lane), error=str(error), wait_s=round(wait_s, 3)))
            if before_again is not None:
                await before_again()
            if await sleep_unless(stopping, wait_s):
                return None
        except LostError as error:
            observe(LaneLost(lane=str(lane), error=str(error)))
            return None


async def _move(
    source: Source, sink: Sink, lane: Lane, observe: Observe, *, stopping: asyncio.Event | None, backoff: Backoff
) -> None:
    """Every batch of the lane from where it goes on; a stored batch resets `backoff`."""

    async def persist(name: str, step: Callable[[], Awaitable[T]]) -> T:
        return await retried(step, lane=str(lane), name=name, observe=observe, stopping=stopping)

    if stopping and stopping.is_set():
        return  # a claim now would take the lane from whoever owns it next
    position = await persist("open", partial(sink.open, lane))
    await source.open(lane, position)
    while not (stopping and stopping.is_set()):
        batch = await persist("read", source.read)
        if batch is None:
            return
        receipt = await persist("write", partial(sink.write, batch))
        await source.ack(receipt)
        del batch  # or its bytes, which were given back, would stay until the next one is there
        backoff.reset()
