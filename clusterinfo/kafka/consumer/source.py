"""PartitionSource: one assigned partition as batches, the next one collected while this one is written.

A `pump.Source`. It says when a batch is collected, keeps the one in hand until it is acked, and gives everything back
when its lane ends; the reading itself is the `Collector`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer

from clusterinfo.budget import ByteBudget
from clusterinfo.errors import FatalError
from clusterinfo.kafka import client
from clusterinfo.kafka.consumer.batching import POLL_S, Collected, Collector, Limits
from clusterinfo.kafka.consumer.partition import AssignedPartition
from clusterinfo.model import Batch, Lane, PartitionLane, Position, Receipt
from clusterinfo.observations import Observe
from clusterinfo.waiting import unless

CLOSE_TIMEOUT_S = 2 * POLL_S


class PartitionSource:
    """The batches of one partition, for one assignment of it. Made by the `ConsumerGroup`, closed by its pump.

    Attributes: `position`, the offset after the last acked message (-1: not opened); `settled`, set unless a batch
    is being written.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        lane: PartitionLane,
        *,
        limits: Limits,
        budget: ByteBudget,
        observe: Observe,
        stopping: asyncio.Event,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.lane = lane
        self.position = -1
        self.settled = asyncio.Event()
        self.settled.set()
        self._stopping = stopping
        self._on_progress = on_progress
        self._partition = AssignedPartition(consumer, lane, observe=observe, stopping=stopping)
        self._collector = Collector(
            self._partition, limits=limits, budget=budget, observe=observe, on_progress=on_progress
        )
        self._current: Collected | None = None
        self._collecting: asyncio.Task[Collected | None] | None = None

    # --- pump.Source -------------------------------------------------------------------------------------------

    async def open(self, lane: Lane, position: Position) -> None:
        """Seek to `position` (None: the oldest message) and let messages in.

        Waits until the partition's offsets are known, or the lane is told to stop. Raises FatalError for a position
        beyond the end. A position older than the oldest message is observed as a gap.
        """
        bounds = await self._partition.bounds()
        if bounds is None:
            return
        oldest, end = bounds
        if position is not None and position > end:
            raise FatalError(
                f"{lane}: the database has stored up to offset {position}, but the partition ends at {end}: the topic "
                "was created anew; run `clusterinfo offsets reset` to read it from its beginning"
            )
        self.position = oldest if position is None else position
        self._collector.open(self.position, oldest)

    async def read(self) -> Batch | None:
        """The next batch, the same one until it is acked; None once the lane is told to stop.

        Raises RestartError if the partition's offsets went back, FatalError if reading is refused.
        """
        if self._stopping.is_set() or self._collector.next_offset < 0:
            return None
        if self._current is None:
            self._current = await self._collected()
        if self._current is None:
            return None
        self._collect()
        self.settled.clear()
        return self._batch(self._current)

    async def restart(self) -> None:
        """Forget what was read and not acked."""
        await self._abandon()
        self.settled.set()

    async def ack(self, receipt: Receipt) -> None:
        """The batch is stored: go on after it."""
        self.position = receipt.position
        if self._current is not None:
            self._collector.taken -= len(self._current)
            self._collector.release(self._current)
            self._current = None
        self.settled.set()
        self._on_progress()

    async def close(self) -> None:
        """Stop collecting and give the bytes back; takes 2 s at most. It may be opened again."""
        await self.restart()

    # --- for the group -----------------------------------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """True if the lane is open and every message taken from Kafka is acked."""
        return self._collector.next_offset >= 0 and self._collector.taken == 0

    @property
    def next_offset(self) -> int:
        """Offset that the next message is expected to have; -1: not opened."""
        return self._collector.next_offset

    @property
    def waits_since_s(self) -> float | None:
        """When the present wait for something from Kafka began (loop time); None while it waits for nothing."""
        return self._partition.waits_since_s

    # --- collecting ahead --------------------------------------------------------------------------------------

    def _collect(self) -> None:
        if self._collecting is None:
            self._collecting = asyncio.create_task(self._collector.collect(), name=f"collect {self.lane}")

    async def _collected(self) -> Collected | None:
        """What the collecting task comes up with; None if the lane is told to stop first."""
        self._collect()
        assert self._collecting is not None
        task = self._collecting
        await unless(self._stopping, asyncio.shield(task))
        if not task.done():
            return None
        self._collecting = None
        return task.result()

    async def _abandon(self) -> None:
        """End the collecting task, within 2 s; it holds nothing afterwards."""
        self._partition.is_given_up = True
        task, self._collecting = self._collecting, None
        if task is not None:
            await asyncio.wait({task}, timeout=CLOSE_TIMEOUT_S)
            if not task.done():  # a rebalance that does not end keeps it in getmany
                await client.end_tasks(task)
            elif not task.cancelled() and task.exception() is None:
                self._collector.release(task.result())
        self._collector.release(self._current)
        self._current = None
        self._collector.close()
        self._partition.is_given_up = False

    def _batch(self, collected: Collected) -> Batch:
        return Batch(
            lane=self.lane,
            start=collected.start,
            end=collected.end,
            records=collected.records,
            rejected=collected.rejected,
            size_bytes=collected.size_bytes,
            gap=collected.gap,
        )
