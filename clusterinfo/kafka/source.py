"""PartitionSource: one assigned partition as batches, the next one collected while this one is written.

A `pump.Source`. It reads with `getmany`, which is never cancelled (aiokafka then loses count of who polls), always has
a timeout, and takes few messages at a time, so that bytes stay bounded: what is not taken stays compressed in the
consumer's buffer. It trusts no position but its own: whatever looks odd is sought again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import (
    ConsumerStoppedError,
    CorruptRecordException,
    IllegalStateError,
    KafkaError,
    RecordTooLargeError,
)

from clusterinfo.budget import ByteBudget
from clusterinfo.errors import FatalError, RecordError, RestartError
from clusterinfo.kafka import connection, wire
from clusterinfo.model import Batch, Lane, PartitionLane, Position, Receipt, Record, Rejected
from clusterinfo.observations import Observe, OffsetGap, Retrying
from clusterinfo.settings import Settings

POLL_S = 1.0  # longest wait for data before the flags are looked at again
RETRY_S = 0.5
OFFSETS_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2 * POLL_S
STEP_RECORDS = 64  # most messages taken at once; fewer while they are large
STEP_BYTES = 512 * 1024  # what a step aims at
RECORD_OVERHEAD_BYTES = 1024  # a decoded record's attributes and headers in memory, measured
UNREADABLE_TRIES = 2  # a checksum that fails twice is on the disk, not on the wire


@dataclass(frozen=True, slots=True)
class Limits:
    """When a batch is handed over: `records`, about `size_bytes` of values, or `wait_s` after its first record."""

    records: int
    size_bytes: int
    wait_s: float

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(settings.batch_size, settings.batch_bytes, settings.batch_wait)


@dataclass(slots=True)
class _Collected:
    """A batch in the making; `held_bytes` of the budget are its own."""

    start: int
    records: list[Record] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    end: int = -1
    size_bytes: int = 0
    held_bytes: int = 0
    deadline_s: float = 0.0

    def __len__(self) -> int:
        return len(self.records) + len(self.rejected)


class PartitionSource:
    """The batches of one partition, for one assignment of it. Made and closed by the `ConsumerGroup`.

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
        self._consumer = consumer
        self._partition = TopicPartition(lane.topic, lane.partition)
        self._limits = limits
        self._budget = budget
        self._observe = observe
        self._stopping = stopping
        self._on_progress = on_progress
        self._start = -1  # of the next batch
        self._next = -1  # the offset that the next message is expected to have
        self._step = 1
        self._doubted = -1  # offset at which a jump was seen and sought again
        self._unacked = 0  # messages taken and not acked
        self._unreadable = 0  # tries at an offset that cannot be read
        self._current: _Collected | None = None
        self._collecting: asyncio.Task[_Collected | None] | None = None
        self._abandoned = False

    # --- pump.Source -------------------------------------------------------------------------------------------

    async def open(self, lane: Lane, position: Position) -> None:
        """Seek to `position` (None: the oldest message) and let messages in.

        Waits until the partition's offsets are known, or the lane is told to stop. Raises FatalError for a position
        beyond the end. A position older than the oldest message is observed as a gap.
        """
        bounds = await self._bounds()
        if bounds is None:
            return
        beginning, end = bounds
        if position is not None and position > end:
            raise FatalError(
                f"{lane}: the database has stored up to offset {position}, but the partition ends at {end}: the topic "
                "was created anew; run `clusterinfo offsets reset` to read it from its beginning"
            )
        self._start = beginning if position is None else position
        self.position = self._start
        self._next = max(self._start, beginning)
        if self._next > self._start:
            self._observe(OffsetGap(lane=str(lane), expected=self._start, found=self._next))
        self._seek()
        self._let_in()

    async def read(self) -> Batch | None:
        """The next batch, the same one until it is acked; None once the lane is told to stop.

        Raises RestartError if the partition's offsets went back, FatalError if reading is refused.
        """
        if self._stopping.is_set() or self._next < 0:
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
            self._unacked -= len(self._current)
            self._release(self._current)
            self._current = None
        self.settled.set()
        self._on_progress()

    # --- for the group -----------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Stop collecting and give the bytes back; takes 2 s at most."""
        await self._abandon()
        self.settled.set()

    @property
    def is_settled(self) -> bool:
        """True if the lane is open and every message taken from Kafka is acked."""
        return self._next >= 0 and self._unacked == 0

    # --- collecting --------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        if self._collecting is None:
            self._collecting = asyncio.create_task(self._collect_batch(), name=f"collect {self.lane}")

    async def _collected(self) -> _Collected | None:
        """What the collecting task comes up with; None if the lane is told to stop first."""
        self._collect()
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            assert self._collecting is not None
            await asyncio.wait({self._collecting, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
        if not self._collecting.done():
            return None
        task, self._collecting = self._collecting, None
        return task.result()

    async def _collect_batch(self) -> _Collected | None:
        """Take messages until the batch is full or its time is up. None if the lane ends before there are any."""
        batch = _Collected(start=self._start)
        try:
            while not self._is_over() and not self._is_full(batch) and await self._has_room(batch):
                await self._take(batch)
        except BaseException:
            self._release(batch)
            raise
        if self._is_over() or not batch:
            self._release(batch)
            return None
        self._start = batch.end
        return batch

    def _is_over(self) -> bool:
        return self._stopping.is_set() or self._abandoned

    def _is_full(self, batch: _Collected) -> bool:
        if not batch:
            return False
        full = len(batch) >= self._limits.records or batch.size_bytes >= self._limits.size_bytes
        return full or asyncio.get_running_loop().time() >= batch.deadline_s

    async def _has_room(self, batch: _Collected) -> bool:
        """Whether the budget has room for a step. A batch that has messages goes out as it is; an empty one waits."""
        if batch:
            return self._budget.held_bytes + STEP_BYTES <= self._budget.limit_bytes
        while not self._is_over():
            try:
                async with asyncio.timeout(POLL_S):
                    await self._budget.take(0)
                return True
            except TimeoutError:
                continue
        return False

    async def _take(self, batch: _Collected) -> None:
        """One step: messages that are there, or that come within a second."""
        wait_s = POLL_S
        if batch:
            wait_s = max(0.0, min(POLL_S, batch.deadline_s - asyncio.get_running_loop().time()))
        try:
            found = await self._consumer.getmany(
                self._partition, timeout_ms=int(wait_s * 1000), max_records=self._records_to_take(batch)
            )
        except ConsumerStoppedError:
            self._abandoned = True
        except KafkaError as error:
            await self._recover(batch, error)
        else:
            if messages := found.get(self._partition, ()):
                await self._accept(batch, messages)
        await asyncio.sleep(0)  # with a full buffer getmany does not give way to other lanes

    def _records_to_take(self, batch: _Collected) -> int:
        """One for a batch that has none, so that a lane without data holds nothing; else by the size of the last."""
        if not batch:
            return 1
        mean_bytes = batch.size_bytes // len(batch) + 1
        left = min(self._limits.records - len(batch), (self._limits.size_bytes - batch.size_bytes) // mean_bytes)
        return max(1, min(self._step, left))

    async def _accept(self, batch: _Collected, messages: Sequence[ConsumerRecord]) -> None:
        if not await self._is_expected(messages[0].offset):
            return
        size_bytes = self._add(batch, messages)
        self._step = min(STEP_RECORDS, self._step * 2) if size_bytes <= STEP_BYTES else max(1, self._step // 2)
        self._on_progress()

    async def _is_expected(self, offset: int) -> bool:
        """Whether a message at `offset` is what comes next.

        A jump forward is sought again once: only if Kafka repeats it are there no messages between (a transaction's
        marker, compaction, retention). A jump back means another topic under this name.
        """
        if offset < self._next:
            raise RestartError(f"{self.lane}: expected offset {self._next}, found {offset}")
        if offset > self._next and self._doubted != self._next:
            self._doubted = self._next
            self._seek()
            return False
        if offset > self._next and (bounds := await self._bounds()) and bounds[0] > self._next:
            self._observe(OffsetGap(lane=str(self.lane), expected=self._next, found=offset))
        return True

    def _add(self, batch: _Collected, messages: Sequence[ConsumerRecord]) -> int:
        """Decode messages into the batch; returns the bytes of their values."""
        before_bytes = batch.size_bytes
        if not batch:
            batch.deadline_s = asyncio.get_running_loop().time() + self._limits.wait_s
        for message in messages:
            try:
                batch.records.append(wire.decode(message.key, message.value, message.headers, message.offset))
            except RecordError as error:
                batch.rejected.append(_rejected(message, str(error)))
            batch.size_bytes += len(message.value or b"")
        added_bytes = batch.size_bytes - before_bytes
        self._hold(batch, added_bytes + len(messages) * RECORD_OVERHEAD_BYTES)
        batch.end = self._next = messages[-1].offset + 1
        self._unreadable = 0
        self._unacked += len(messages)
        return added_bytes

    async def _recover(self, batch: _Collected, error: KafkaError) -> None:
        """After any error aiokafka may have moved on past messages it did not give us: seek again, in any case."""
        if isinstance(error, CorruptRecordException | RecordTooLargeError):
            self._set_aside(batch, error)
        elif connection.is_final(error):
            raise connection.translate(error, f"reading {self.lane}") from error
        else:
            await self._pause("read", error)
        self._seek()

    async def _pause(self, step: str, error: BaseException) -> None:
        self._observe(Retrying(lane=str(self.lane), step=step, error=connection.explain(error), wait_s=RETRY_S))
        await asyncio.sleep(RETRY_S)

    def _set_aside(self, batch: _Collected, error: KafkaError) -> None:
        """What cannot be read is rejected offset by offset, since the messages before it must not be lost with it."""
        if self._step > 1 and batch:
            self._step = 1
            return
        self._unreadable += 1
        if self._unreadable < UNREADABLE_TRIES:
            return
        reason = f"cannot be read from Kafka: {connection.explain(error)}"
        batch.rejected.append(Rejected(offset=self._next, reason=reason, headers={}, value=b""))
        if not batch.deadline_s:
            batch.deadline_s = asyncio.get_running_loop().time() + self._limits.wait_s
        self._next += 1
        self._unacked += 1
        batch.end = self._next

    # --- positions and bytes -----------------------------------------------------------------------------------

    async def _bounds(self) -> tuple[int, int] | None:
        """Offset of the oldest message and of the one to come; None once the lane is told to stop.

        Asks until Kafka answers: a broker may be away for hours.
        """
        while not self._is_over():
            try:
                async with asyncio.timeout(OFFSETS_TIMEOUT_S):
                    oldest = await self._consumer.beginning_offsets([self._partition])
                    newest = await self._consumer.end_offsets([self._partition])
                return int(oldest[self._partition]), int(newest[self._partition])
            except (KafkaError, OSError) as error:
                if connection.is_final(error):
                    raise connection.translate(error, f"asking for the offsets of {self.lane}") from error
                await self._pause("ask for offsets", error)
        return None

    def _seek(self) -> None:
        try:
            self._consumer.seek(self._partition, self._next)
        except IllegalStateError:
            self._abandoned = True  # revoked meanwhile: the flag that says so is on its way

    def _let_in(self) -> None:
        try:
            self._consumer.resume(self._partition)
        except IllegalStateError:
            self._abandoned = True

    def _keep_out(self) -> None:
        try:
            self._consumer.pause(self._partition)
        except IllegalStateError:
            self._abandoned = True

    async def _abandon(self) -> None:
        """End the collecting task, within 2 s; it holds nothing afterwards."""
        self._abandoned = True
        task, self._collecting = self._collecting, None
        if task is not None:
            await asyncio.wait({task}, timeout=CLOSE_TIMEOUT_S)
            if not task.done():  # a rebalance that does not end keeps it in getmany
                await connection.end_tasks(task)
            elif not task.cancelled() and task.exception() is None:
                self._release(task.result())
        self._release(self._current)
        self._current = None
        self._keep_out()
        self._next = -1
        self._unacked = 0
        self._abandoned = False

    def _hold(self, batch: _Collected, size_bytes: int) -> None:
        self._budget.force(size_bytes)
        batch.held_bytes += size_bytes

    def _release(self, batch: _Collected | None) -> None:
        if batch is not None and batch.held_bytes:
            self._budget.give_back(batch.held_bytes)
            batch.held_bytes = 0

    def _batch(self, collected: _Collected) -> Batch:
        return Batch(
            lane=self.lane,
            start=collected.start,
            end=collected.end,
            records=collected.records,
            rejected=collected.rejected,
            size_bytes=collected.size_bytes,
        )


def _rejected(message: ConsumerRecord, reason: str) -> Rejected:
    headers = {name: (value or b"").decode(errors="backslashreplace") for name, value in message.headers}
    return Rejected(offset=message.offset, reason=reason, headers=headers, value=message.value or b"")
