"""Batcher: the messages of a partition gathered into batches, within limits of records, bytes and time.

A batch is handed over once its time is up, all that has come is in it, and the one before it is stored: while that is
being written it grows, so that what trickles in is stored at once, and what pours in by the thousand.

It reads with `getmany`, which is never cancelled (aiokafka then loses count of who polls), always has a timeout, and
takes few messages at a time, so that bytes stay bounded: what is not taken stays compressed in the consumer's buffer.
A message too large for a step is read alone, once the budget has room for all of it. It trusts no position but its own:
whatever looks odd is sought again. The `PartitionSource` decides when to gather, and what becomes of a batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aiokafka.errors import CorruptRecordException, KafkaError, RecordTooLargeError

from clusterinfo import wire
from clusterinfo.budget import ByteBudget
from clusterinfo.errors import RecordError, RestartError, one_line
from clusterinfo.kafka.aiokafka_patches.message import Item, Message, TooLargeError
from clusterinfo.kafka.aiokafka_patches.reading import UnreadableError
from clusterinfo.kafka.consumer.partition import AssignedPartition
from clusterinfo.kafka.errors import is_final, translate
from clusterinfo.model import Record, Rejected
from clusterinfo.observations import Observe, OffsetGap
from clusterinfo.settings import Settings
from clusterinfo.waiting import sleep_unless

POLL_S = 1.0  # longest wait for data before the flags are checked again
GROW_S = 0.05  # while the batch before is written, how often what has come is looked at
STEP_RECORDS = 64  # most messages taken at once; fewer while they are large
STEP_BYTES = 512 * 1024  # what a step aims at; what alone is larger begins a batch
MOST_STEP_BYTES = 4 * STEP_BYTES  # of messages that are larger than those before; more is read again, one by one
RECORD_OVERHEAD_BYTES = 1024  # a decoded record's attributes and headers in memory, measured
UNREADABLE_TRIES = 2  # a checksum that fails twice is on the disk, not on the wire


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a batch holds, `records` or about `size_bytes` of messages; `wait_s` after its first one it is due."""

    records: int
    size_bytes: int
    wait_s: float

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(settings.batch_size, settings.batch_bytes, settings.batch_wait)


@dataclass(slots=True)
class PartialBatch:
    """A batch in the making; `held_bytes` of the budget are its own, `gap`: messages before its end are gone."""

    start: int
    gap: bool = False
    records: list[Record] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    end: int = -1
    size_bytes: int = 0
    held_bytes: int = 0
    deadline_s: float = 0.0
    is_closed: bool = False
    """Nothing more may come to it."""
    has_all: bool = False
    """The last step took less than it might have: nothing more had come."""

    def __len__(self) -> int:
        return len(self.records) + len(self.rejected)


class Batcher:
    """Gathers one batch at a time from where the last one ended. Its owner gives every batch back with `release`.

    Attributes: `next_offset`, the one that the next message is expected to have (-1: closed); `taken`, messages taken
    since it was opened, less those that its owner took off.
    """

    def __init__(
        self,
        partition: AssignedPartition,
        *,
        limits: Limits,
        budget: ByteBudget,
        observe: Observe,
        on_progress: Callable[[], None],
        written: asyncio.Event,
    ) -> None:
        self.next_offset = -1
        self.taken = 0
        self._partition = partition
        self._limits = limits
        self._budget = budget
        self._observe = observe
        self._on_progress = on_progress
        self._written = written  # set unless the batch before is being written
        self._start = -1  # of the next batch
        self._gap = False  # before the next batch's first message
        self._step = 1
        self._jumped_at = -1  # offset at which a jump was seen and sought again
        self._unreadable = 0  # tries at an offset that cannot be read
        self._large_bytes = 0  # the next message, if it is too large for a step

    def open(self, start: int, oldest: int) -> None:
        """Begin a batch at `start`, and have messages fetched. If `oldest` is later, the first batch has a gap."""
        self._start = start
        self._large_bytes = 0
        self.next_offset = max(start, oldest)
        self._gap = self.next_offset > start
        if self._gap:
            self._observe(OffsetGap(lane=str(self._partition.lane), expected=start, found=self.next_offset))
        self._partition.seek(self.next_offset)
        self._partition.resume()

    def close(self) -> None:
        """Have no more messages fetched until it is opened again."""
        self._partition.pause()
        self.next_offset = -1
        self.taken = 0

    async def gather(self) -> PartialBatch | None:
        """Take messages until the batch is full, or its time is up and no more have come.

        None if the lane ends before there are any. Raises RestartError if the partition's offsets went back, FatalError
        if reading is refused.
        """
        batch = PartialBatch(start=self._start, gap=self._gap)
        try:
            while not self._partition.is_over and not self._is_full(batch) and await self._has_room(batch):
                await self._take(batch)
        except BaseException:
            self.release(batch)
            raise
        finally:
            self._partition.waits_since_s = None
        if self._partition.is_over or not batch:
            self.release(batch)
            return None
        self._start, self._gap = batch.end, False
        return batch

    def release(self, batch: PartialBatch | None) -> None:
        """Give the bytes of a batch back to the budget; again does no harm."""
        if batch is not None and batch.held_bytes:
            self._budget.give_back(batch.held_bytes)
            batch.held_bytes = 0

    def _is_full(self, batch: PartialBatch) -> bool:
        if not batch:
            return False
        full = len(batch) >= self._limits.records or batch.size_bytes >= self._limits.size_bytes
        return full or batch.is_closed or (self._is_due(batch) and batch.has_all and self._written.is_set())

    @staticmethod
    def _is_due(batch: PartialBatch) -> bool:
        return bool(batch) and asyncio.get_running_loop().time() >= batch.deadline_s

    async def _has_room(self, batch: PartialBatch) -> bool:
        """Whether the budget has room for a step. A batch that has messages goes out as it is; an empty one waits."""
        if batch:
            return self._budget.held_bytes + STEP_BYTES <= self._budget.limit_bytes
        if batch.held_bytes:
            return True
        if self._budget.try_take(self._large_bytes):
            batch.held_bytes = self._large_bytes
            return True
        taking = asyncio.create_task(self._budget.take(self._large_bytes), name="wait for room")
        try:
            while not self._partition.is_over:
                if (await asyncio.wait({taking}, timeout=POLL_S))[0]:
                    batch.held_bytes = self._large_bytes
                    return True
                self._partition.waits_since_s = None  # for room, not for Kafka
            return False
        finally:
            if not batch.held_bytes:
                await self._stop_waiting(taking)

    async def _take(self, batch: PartialBatch) -> None:
        """One step: messages that are there, or that come within a second."""
        if self._is_due(batch) and batch.has_all:
            await sleep_unless(self._written, GROW_S)  # then what has come meanwhile
        wait_s = POLL_S
        if batch:
            wait_s = max(0.0, min(POLL_S, batch.deadline_s - asyncio.get_running_loop().time()))
        most = self._records_to_take(batch)
        size_bytes = MOST_STEP_BYTES if batch else max(STEP_BYTES, self._large_bytes)
        try:
            messages = await self._partition.read(wait_s, most, self.next_offset, size_bytes)
        except TooLargeError as error:
            self._take_alone(batch, error.size_bytes, most)
        except KafkaError as error:
            await self._recover(batch, error)
        except Exception as error:  # noqa: BLE001 - whatever aiokafka makes of a message
            await self._recover_from_message(batch, error)
        else:
            batch.has_all = len(messages) < most
            if messages:
                await asyncio.sleep(0)  # unpacking them was this turn's work, decoding is the next one's
                await self._accept(batch, messages)
        await asyncio.sleep(0)  # with a full buffer getmany does not give way to other lanes

    def _records_to_take(self, batch: PartialBatch) -> int:
        """One for a batch that has none, so that a lane without data holds nothing; else by the size of the last."""
        if not batch:
            return 1
        mean_bytes = batch.size_bytes // len(batch) + 1
        left = min(self._limits.records - len(batch), (self._limits.size_bytes - batch.size_bytes) // mean_bytes)
        return max(1, min(self._step, left))

    async def _accept(self, batch: PartialBatch, messages: Sequence[Message | Item]) -> None:
        if not await self._is_expected(batch, messages[0].offset):
            return
        size_bytes = self._add(batch, messages)
        self._step = min(STEP_RECORDS, self._step * 2) if size_bytes <= STEP_BYTES else max(1, self._step // 2)
        self._on_progress()

    async def _is_expected(self, batch: PartialBatch, offset: int) -> bool:
        """Whether a message at `offset` is what comes next.

        A jump forward is sought again once: only if Kafka repeats it are there no messages between (a transaction's
        marker, compaction, retention). A jump back means another topic under this name. What retention took begins a
        batch: what came before it is not affected, and what lists in there prove must not seem newer than the loss.
        """
        expected, lane = self.next_offset, self._partition.lane
        if offset < expected:
            raise RestartError(f"{lane}: expected offset {expected}, found {offset}")
        if offset > expected and self._jumped_at != expected:
            self._jumped_at = expected
            self._partition.seek(expected)
            return False
        if offset > expected and (bounds := await self._partition.bounds()) and bounds[0] > expected:
            if batch:
                batch.is_closed = True
                self._partition.seek(expected)
                return False
            batch.gap = True
            self._observe(OffsetGap(lane=str(lane), expected=expected, found=offset))
        return True

    def _add(self, batch: PartialBatch, messages: Sequence[Message | Item]) -> int:
        """Decode messages into the batch; returns their bytes: keys, headers and values."""
        reserved_bytes = 0 if batch else batch.held_bytes
        self._begin(batch)
        for message in messages:
            if isinstance(message, Item):
                batch.records.append(message.record)
                continue
            try:
                _check_read(message)
                batch.records.append(wire.decode(message.key, message.value, message.headers, message.offset))
            except RecordError as error:
                batch.rejected.append(_rejected(message, str(error)))
        added_bytes = sum([message.size_bytes for message in messages])
        batch.size_bytes += added_bytes
        self._hold(batch, max(0, added_bytes + len(messages) * RECORD_OVERHEAD_BYTES - reserved_bytes))
        batch.end = self.next_offset = messages[-1].offset + 1
        self._unreadable = self._large_bytes = 0
        self.taken += len(messages)
        return added_bytes

    def _begin(self, batch: PartialBatch) -> None:
        """The batch's time runs from its first message."""
        if not batch:
            batch.deadline_s = asyncio.get_running_loop().time() + self._limits.wait_s

    def _hold(self, batch: PartialBatch, size_bytes: int) -> None:
        self._budget.force(size_bytes)
        batch.held_bytes += size_bytes

    async def _stop_waiting(self, taking: asyncio.Task[None]) -> None:
        """Wait for room no longer; what was granted meanwhile goes back."""
        taking.cancel()
        await asyncio.wait({taking})
        if not taking.cancelled():
            self._budget.give_back(self._large_bytes)

    def _take_alone(self, batch: PartialBatch, size_bytes: int, most: int) -> None:
        """The step is too large. One by one then; what is so alone begins a batch, which waits for room for it."""
        if most > 1:
            self._step = 1
        else:
            self._large_bytes = size_bytes
            batch.is_closed = True
        self._partition.seek(self.next_offset)

    async def _recover(self, batch: PartialBatch, error: KafkaError) -> None:
        """After any error aiokafka may have moved on past messages it did not give us: seek again, in any case."""
        if isinstance(error, CorruptRecordException | RecordTooLargeError):
            self._reject_unreadable(batch, error)
        elif is_final(error):
            raise translate(error, f"reading {self._partition.lane}") from error
        else:
            await self._partition.wait_after(error, "read")
        self._partition.seek(self.next_offset)

    async def _recover_from_message(self, batch: PartialBatch, error: Exception) -> None:
        """No error of Kafka's: a message that aiokafka cannot cope with, unless there is none."""
        if (bounds := await self._partition.bounds()) and self.next_offset >= bounds[1]:
            raise error
        self._reject_unreadable(batch, error)
        self._partition.seek(self.next_offset)

    def _reject_unreadable(self, batch: PartialBatch, error: Exception) -> None:
        """What cannot be read is rejected offset by offset, since the messages before it must not be lost with it.

        If nothing of a batch of Kafka's can be, all of it is rejected, as far as this one has room.
        """
        if self._step > 1 and batch:
            self._step = 1
            return
        self._unreadable += 1
        if self._unreadable < UNREADABLE_TRIES:
            return
        self._begin(batch)
        reason = f"cannot be read from Kafka: {one_line(error)}"
        end = error.end if isinstance(error, UnreadableError) else 0
        end = max(self.next_offset + 1, min(end, self.next_offset + self._limits.records - len(batch)))
        offsets = range(self.next_offset, end)
        batch.rejected += [Rejected(offset=offset, reason=reason, headers=[], value=b"") for offset in offsets]
        self.taken += len(offsets)
        batch.end = self.next_offset = end


def _check_read(message: Message) -> None:
    """Raise RecordError for a message that was not read whole."""
    if message.checksum is not None:
        raise RecordError(message.checksum.reason)


def _rejected(message: Message, reason: str) -> Rejected:
    """The message, as far as it is stored."""
    key, omitted_bytes = message.key, message.checksum.omitted_bytes if message.checksum else 0
    if key and len(key) > wire.MAX_KEY_BYTES:
        omitted_bytes += len(key) - wire.MAX_KEY_BYTES
        key = key[: wire.MAX_KEY_BYTES]
    return Rejected(
        offset=message.offset,
        reason=reason,
        key=key,
        headers=list(message.headers),
        value=message.value or b"",
        omitted_bytes=omitted_bytes,
    )
