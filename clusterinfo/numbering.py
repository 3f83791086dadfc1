"""NumberingLanes: a sink that numbers what is watched lane by lane, in front of one that stores it at once.

Between a collector and PostgreSQL nothing is lost on the way, so each watch counts for itself. What is numbered is
stored in that order: a batch that cannot be stored now is tried until it is, and what the same watch says meanwhile
waits behind it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial

import msgspec

from clusterinfo.model import Batch, Lane, ListLane, Position, Receipt, WatchLane
from clusterinfo.observations import Observe
from clusterinfo.pump import Sink
from clusterinfo.waiting import retried


@dataclass(slots=True)
class _Count:
    next_number: int = 1
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class NumberingLanes:
    """A `pump.Sink` for the lanes of lists, and of watches of one process."""

    def __init__(self, sink: Sink, observe: Observe) -> None:
        self._sink = sink
        self._observe = observe
        self._counts: dict[WatchLane, _Count] = {}

    async def open(self, lane: Lane) -> Position:
        """As the sink behind has it."""
        return await self._sink.open(lane)

    async def write(self, batch: Batch) -> Receipt:
        """Number what is watched, before anything is waited for; then store it, however often that has to be tried."""
        if not isinstance(batch.lane, WatchLane):
            return await self._sink.write(batch)
        count = self._counts.setdefault(batch.lane, _Count())
        numbered = _numbered(batch, count.next_number)
        count.next_number = numbered.end
        async with count.turn:  # first come, first served
            write = partial(self._sink.write, numbered)
            await retried(write, lane=str(batch.lane), name="write", observe=self._observe)
        return Receipt(lane=batch.lane, position=batch.end)

    def next_number(self, lane: WatchLane) -> int:
        """The number that the next record of this lane will get."""
        return self._counts[lane].next_number if lane in self._counts else 1

    def progress_lane(self, lane: WatchLane) -> tuple[WatchLane, int]:
        """Each watch says of itself until when it was heard."""
        return lane, 0

    def numbers_with(self, lane: WatchLane, listed: ListLane) -> bool:
        """Each watch numbers for itself: what is listed within another reach knows nothing of it."""
        return lane.reach == listed.reach

    async def renewed(self) -> bool:
        """Never: a watch is numbered in one place."""
        return False


def _numbered(batch: Batch, first: int) -> Batch:
    """The batch, its records numbered from `first` on; they are its position."""
    records = [
        msgspec.structs.replace(record, number=number, partition=0 if record.is_of_watches else -1)
        for number, record in enumerate(batch.records, start=first)
    ]
    return msgspec.structs.replace(batch, records=records, start=first, end=first + len(records))
