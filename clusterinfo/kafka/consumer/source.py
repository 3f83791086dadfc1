"""PartitionSource: one assigned partition as batches, the next one gathered while this one is written.

A `pump.Source`. It decides when a batch is gathered, holds the one in hand until it is acked, and gives everything back
when its lane ends; the reading itself is the `Batcher`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer

from clusterinfo.budget import ByteBudget
from clusterinfo.errors import FatalError
from clusterinfo.kafka.aiokafka_patches.stopping import end_tasks
from clusterinfo.kafka.consumer.batching import POLL_S, Batcher, Limits, PartialBatch
from clusterinfo.kafka.consumer.partition import AssignedPartition
from clusterinfo.model import Batch, Lane, PartitionLane, Position, Receipt
from clusterinfo.observations import Observe
from clusterinfo.waiting import unless

CLOSE_TIMEOUT_S = 2 * POLL_S


class PartitionSource:
    """The batches of one partition, for one assignment of it. Made by the `ConsumerGroup`, closed by its pump.

    Attributes: `position`, the offset after the last acked message (-1: not opened); `written`, set unless a
    batch is being written.
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
        self.written = asyncio.Event()
        self.written.set()
        self._stopping = stopping
        self._on_progress = on_progress
        self._partition = AssignedPartition(consumer, lane, observe=observe, stopping=stopping)
        self._batcher = Batcher(
            self._partition,
            limits=limits,
            budget=budget,
            observe=observe,
            on_progress=on_progress,
            written=self.written,
        )
        self._current: PartialBatch | None = None
        self._gathering: asyncio.Task[PartialBatch | None] | None = None

    # --- pump.Source -------------------------------------------------------------------------------------------

    async def open(self, lane: Lane, position: Position) -> None:
        """Seek to `position` (None: the oldest message) and have messages fetched.

        Waits until the partition's offsets are known, or the lane must stop. Raises FatalError for a position
        beyond the end. A position older than the oldest message is observed as a gap.
        """
        bounds = await self._partition.bounds()
        if bounds is None:
            return
        oldest, end = bounds
        if position is not None and position > end:
            raise FatalError(
                f"{lane}: the database has stored up to offset {position}, but the partition ends at {end}: the topic "
                "was created again; run `clusterinfo offsets reset` to read it from its beginning"
            )
        self.position = oldest if position is None else position
        self._batcher.open(self.position, oldest)

    async def read(self) -> Batch | None:
        """The next batch, the same one until it is acked; None once the lane must stop.

        Raises RestartError if the partition's offsets went back, FatalError if reading is refused.
        """
        if self._stopping.is_set() or self._batcher.next_offset < 0:
            return None
        if self._current is None:
            self._current = await self._gathered()
        if self._current is None:
            return None
        self._gather_ahead()
        self.written.clear()
        return self._batch(self._current)

    async def restart(self) -> None:
        """Forget what was read and not acked."""
        await self._abandon()
        self.written.set()

    async def ack(self, receipt: Receipt) -> None:
        """The batch is stored: go on after it."""
        self.position = receipt.position
        if self._current is not None:
            self._batcher.taken -= len(self._current)
            self._batcher.release(self._current)
            self._current = None
        self.written.set()
        self._on_progress()

    async def close(self) -> None:
        """Stop gathering and give the bytes back; takes 2 s at most. It may be opened again."""
        await self.restart()

    # --- for the group -----------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """True if the lane is open and every message taken from Kafka is acked."""
        return self._batcher.next_offset >= 0 and self._batcher.taken == 0

    @property
    def next_offset(self) -> int:
        """Offset that the next message is expected to have; -1: not opened."""
        return self._batcher.next_offset

    @property
    def waits_since_s(self) -> float | None:
        """When the present wait for something from Kafka began (loop time); None while it waits for nothing."""
        return self._partition.waits_since_s

    # --- gathering ahead ---------------------------------------------------------------------------------------

    def _gather_ahead(self) -> None:
        if self._gathering is None:
            self._gathering = asyncio.create_task(self._batcher.gather(), name=f"gather {self.lane}")

    async def _gathered(self) -> PartialBatch | None:
        """What the gathering task returns; None if the lane must stop first."""
        self._gather_ahead()
        assert self._gathering is not None
        task = self._gathering
        await unless(self._stopping, asyncio.shield(task))
        if not task.done():
            return None
        self._gathering = None
        return task.result()

    async def _abandon(self) -> None:
        """End the gathering task, within 2 s; it holds nothing afterwards. Cancelled, it may be called again."""
        self._partition.is_given_up = True
        if (task := self._gathering) is not None:
            await asyncio.wait({task}, timeout=CLOSE_TIMEOUT_S)
            if not task.done():  # a rebalance that does not end keeps it in getmany
                await end_tasks(task)
            elif not task.cancelled() and task.exception() is None:
                self._batcher.release(task.result())
            self._gathering = None  # only now: until it has ended, nothing else may gather
        self._batcher.release(self._current)
        self._current = None
        self._batcher.close()
        self._partition.is_given_up = False

    def _batch(self, gathered: PartialBatch) -> Batch:
        return Batch(
            lane=self.lane,
            start=gathered.start,
            end=gathered.end,
            records=gathered.records,
            rejected=gathered.rejected,
            size_bytes=gathered.size_bytes,
            gap=gathered.gap,
        )
