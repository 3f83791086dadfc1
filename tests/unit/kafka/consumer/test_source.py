"""PartitionSource against a consumer that misbehaves as aiokafka and brokers have been seen to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    CorruptRecordException,
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    RecordTooLargeError,
)
from aiokafka.structs import TopicPartition

from clusterinfo import wire
from clusterinfo.budget import ByteBudget
from clusterinfo.errors import FatalError, LostError, RestartError
from clusterinfo.kafka.aiokafka_patches import reading
from clusterinfo.kafka.aiokafka_patches.message import Unread
from clusterinfo.kafka.consumer import batching, partition
from clusterinfo.kafka.consumer.batching import GROW_S, Limits
from clusterinfo.kafka.consumer.source import PartitionSource
from clusterinfo.model import Batch, PartitionLane, Receipt
from clusterinfo.observations import Observation, OffsetGap
from clusterinfo.pump import pump
from tests.support.kafka import item, new_list
from tests.support.members import until

LANE = PartitionLane("kafka", "topic", 0, "group")
PARTITION = TopicPartition("topic", 0)
LIST = new_list()


class FakeConsumer:
    """One partition in memory: `log` maps offsets to messages or to the error that reading them raises.

    As aiokafka's, it forgets messages that it read before an error in the same call.
    """

    def __init__(self, offsets: range, oldest: int = 0) -> None:
        self.log: dict[int, Any] = {offset: message(offset) for offset in offsets}
        self.oldest = oldest
        self.end = offsets.stop
        self.position = -1
        self.paused = True
        self.is_assigned = True
        self.seeks: list[int] = []
        self.before_read: Callable[[], None] = lambda: None

    async def getmany(self, *_: TopicPartition, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        self.before_read()
        found: list[Any] = []
        while not self.paused and len(found) < max_records and self.position < self.end:
            what = self.log.get(self.position)
            self.position += 1
            if isinstance(what, Exception):
                raise what
            if what is not None:
                if allowance := reading._allowance.get():
                    allowance.take(len(what.key) + len(what.value))
                found.append(what)
        if not found:
            await asyncio.sleep(min(timeout_ms / 1000, 0.01))
        return {PARTITION: found} if found else {}

    def seek(self, _: TopicPartition, offset: int) -> None:
        if not self.is_assigned:
            raise IllegalStateError("not assigned")
        self.position = offset
        self.seeks.append(offset)

    def pause(self, _: TopicPartition) -> None:
        self.paused = True

    def resume(self, _: TopicPartition) -> None:
        self.paused = False

    async def beginning_offsets(self, _: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {PARTITION: self.oldest}

    async def end_offsets(self, _: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {PARTITION: self.end}


def message(offset: int, size_bytes: int = 10) -> Any:
    key, value, headers = wire.encode(item(offset, "pods", LIST, b"x" * size_bytes))
    whole_bytes = len(key) + len(value) + sum(len(name) + len(text) for name, text in headers)
    return SimpleNamespace(
        offset=offset, key=key, value=value, headers=tuple(headers), checksum=None, size_bytes=whole_bytes
    )


class Lane:
    """A source on a fake consumer, and what it observed."""

    def __init__(self, consumer: FakeConsumer, limits: Limits, budget: ByteBudget) -> None:
        self.consumer = consumer
        self.budget = budget
        self.seen: list[Observation] = []
        self.stopping = asyncio.Event()
        self.source = PartitionSource(
            consumer, LANE, limits=limits, budget=budget, observe=self.seen.append, stopping=self.stopping
        )

    async def next(self) -> Batch:
        async with asyncio.timeout(60):
            batch = await self.source.read()
        assert batch is not None
        return batch

    async def take(self) -> Batch:
        batch = await self.next()
        await self.source.ack(Receipt(lane=LANE, position=batch.end))
        return batch


@pytest.fixture
async def lanes(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Lane]]:
    monkeypatch.setattr(partition, "RETRY_S", 0.01)
    made: list[Lane] = []

    def make(
        consumer: FakeConsumer,
        records: int = 10,
        size_bytes: int = 1 << 20,
        budget: int = 8 << 20,
        wait_s: float = 0.5,
    ) -> Lane:
        """`wait_s` ends a batch that nothing else ends; a busy machine takes a while to gather one."""
        made.append(Lane(consumer, Limits(records, size_bytes, wait_s), ByteBudget(budget)))
        return made[-1]

    yield make
    for lane in made:
        await lane.source.close()
        assert lane.budget.held_bytes == 0


def offsets(batch: Batch) -> list[int]:
    return [record.offset for record in batch.records]


async def test_batches_follow_each_other_without_a_gap(lanes: Callable[..., Lane]) -> None:
    lane = lanes(FakeConsumer(range(25)))
    await lane.source.open(LANE, None)
    batches = [await lane.take() for _ in range(3)]
    assert [(batch.start, batch.end) for batch in batches] == [(0, 10), (10, 20), (20, 25)]
    assert [offset for batch in batches for offset in offsets(batch)] == list(range(25))
    assert (lane.source.position, lane.source.is_idle) == (25, True)


async def test_the_next_batch_is_there_before_this_one_is_acked(lanes: Callable[..., Lane]) -> None:
    lane = lanes(FakeConsumer(range(30)))
    await lane.source.open(LANE, None)
    first = await lane.next()
    await until(lambda: lane.consumer.position >= 20)
    await asyncio.sleep(0.1)
    assert lane.consumer.position == 20  # one batch ahead, not two
    assert await lane.next() is not None
    assert offsets(await lane.next()) == offsets(first)
    assert not lane.source.written.is_set()
    assert not lane.source.is_idle


async def test_a_batch_grows_while_the_one_before_is_written(lanes: Callable[..., Lane]) -> None:
    consumer = FakeConsumer(range(1))
    lane = lanes(consumer, wait_s=0.01)
    await lane.source.open(LANE, None)
    first = await lane.next()
    for offset in range(1, 5):
        consumer.log[offset], consumer.end = message(offset), offset + 1
        await asyncio.sleep(2 * GROW_S)  # in which it is looked for at least once
    await lane.source.ack(Receipt(lane=LANE, position=first.end))
    assert offsets(await lane.take()) == [1, 2, 3, 4]


async def test_all_that_has_come_is_handed_over_without_a_wait(lanes: Callable[..., Lane]) -> None:
    lane = lanes(FakeConsumer(range(9)), wait_s=0)
    await lane.source.open(LANE, None)
    assert offsets(await lane.take()) == [*range(9)]


async def test_a_full_budget_holds_an_empty_batch_back_and_sends_a_begun_one_out(lanes: Callable[..., Lane]) -> None:
    consumer = FakeConsumer(range(40))
    for offset in consumer.log:
        consumer.log[offset] = message(offset, 400_000)
    lane = lanes(consumer, records=100, size_bytes=100 << 20, budget=2 << 20)
    await lane.source.open(LANE, None)
    first = await lane.next()
    assert 1 <= len(first.records) < 10
    await asyncio.sleep(0.1)
    assert lane.budget.held_bytes < (2 << 20) + 2 * batching.STEP_BYTES
    await lane.take()
    while lane.source.position < 40:
        await lane.take()


@pytest.mark.parametrize("error", [KafkaConnectionError("gone"), KafkaError("odd")], ids=str)
async def test_what_was_read_before_an_error_is_read_again(lanes: Callable[..., Lane], error: Exception) -> None:
    consumer = FakeConsumer(range(10))
    lane = lanes(consumer)
    whole = dict(consumer.log)
    consumer.log[5] = error
    reads = 0

    def recover() -> None:
        nonlocal reads
        reads += 1
        if reads > 6:
            consumer.log = whole

    consumer.before_read = recover
    await lane.source.open(LANE, None)
    found: list[int] = []
    while len(found) < 10:
        found += offsets(await lane.take())
    assert found == list(range(10))


UNREADABLE = [CorruptRecordException("bad"), RecordTooLargeError("large"), MemoryError(), ValueError("odd")]
UNREADABLE += [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")]


@pytest.mark.parametrize("error", UNREADABLE, ids=lambda error: type(error).__name__)
async def test_what_can_never_be_read_is_set_aside_alone(lanes: Callable[..., Lane], error: Exception) -> None:
    consumer = FakeConsumer(range(12))
    consumer.log |= {5: error, 6: error}
    lane = lanes(consumer)
    await lane.source.open(LANE, None)
    batches: list[Batch] = []
    while not batches or batches[-1].end < 12:
        batches.append(await lane.take())
    assert [offset for batch in batches for offset in offsets(batch)] == [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]
    rejected = [one for batch in batches for one in batch.rejected]
    assert [one.offset for one in rejected] == [5, 6]
    assert all("cannot be read" in one.reason for one in rejected)
    assert lane.source.is_idle


async def test_what_cannot_be_read_at_the_second_try_only_is_not_set_aside(lanes: Callable[..., Lane]) -> None:
    consumer = FakeConsumer(range(5))
    whole, consumer.log[2] = consumer.log[2], MemoryError()
    lane = lanes(consumer)

    def recover() -> None:
        if consumer.seeks.count(2) > 1:
            consumer.log[2] = whole

    consumer.before_read = recover
    await lane.source.open(LANE, 2)
    assert offsets(await lane.take()) == [2, 3, 4]


async def test_an_error_without_a_message_is_nobodys_message(lanes: Callable[..., Lane]) -> None:
    consumer = FakeConsumer(range(5))
    lane = lanes(consumer)
    await lane.source.open(LANE, 5)

    def fail() -> None:
        raise ValueError("a fault of aiokafka's own")

    consumer.before_read = fail
    with pytest.raises(ValueError, match="of aiokafka's own"):
        await lane.next()


async def test_a_batch_of_which_nothing_can_be_read_is_set_aside_at_once(lanes: Callable[..., Lane]) -> None:
    consumer = FakeConsumer(range(30))
    consumer.log |= dict.fromkeys(range(5, 28), reading.UnreadableError("larger than may be", 28))
    lane = lanes(consumer, records=10)
    await lane.source.open(LANE, None)
    batches: list[Batch] = []
    while not batches or batches[-1].end < 30:
        batches.append(await lane.take())
    assert [offset for batch in batches for offset in offsets(batch)] == [0, 1, 2, 3, 4, 28, 29]
    assert [one.offset for batch in batches for one in batch.rejected] == list(range(5, 28))
    assert all(len(batch.records) + len(batch.rejected) <= 10 for batch in batches)
    assert len(consumer.seeks) < 12  # of 46 if it were offset by offset


async def test_a_large_message_waits_for_room_and_begins_a_batch(lanes: Callable[..., Lane]) -> None:
    consumer = FakeConsumer(range(20))
    for offset in (3, 4, 12):
        consumer.log[offset] = message(offset, 3 << 20)
    lane = lanes(consumer, records=100, size_bytes=100 << 20, budget=4 << 20)
    await lane.source.open(LANE, None)
    await lane.budget.take(2 << 20)
    first = await lane.take()
    assert offsets(first) == [0, 1, 2]
    reading_on = asyncio.create_task(lane.source.read())
    await asyncio.sleep(0.1)
    assert not reading_on.done()
    assert lane.budget.held_bytes == 2 << 20
    lane.budget.give_back(2 << 20)
    second = await asyncio.wait_for(reading_on, 60)
    assert second is not None
    assert second.records[0].offset == 3
    assert 3 << 20 < lane.budget.held_bytes <= 4 << 20
    found = offsets(await lane.take())
    while len(found) < 17:
        batch = await lane.take()
        assert 4 not in offsets(batch)[1:]
        assert 12 not in offsets(batch)[1:]
        assert lane.budget.held_bytes <= 4 << 20
        found += offsets(batch)
    assert found == list(range(3, 20))


async def test_stopped_while_a_large_message_waits_it_holds_nothing(lanes: Callable[..., Lane]) -> None:
    consumer = FakeConsumer(range(3))
    consumer.log[0] = message(0, 3 << 20)
    lane = lanes(consumer, budget=4 << 20)
    await lane.budget.take(2 << 20)
    await lane.source.open(LANE, None)
    waiting = asyncio.create_task(lane.source.read())
    await asyncio.sleep(0.05)
    lane.stopping.set()
    async with asyncio.timeout(60):
        assert await waiting is None
        await lane.source.close()
    lane.budget.give_back(2 << 20)
    assert lane.budget.held_bytes == 0


async def test_all_of_a_message_counts_and_what_is_kept_of_its_key_is_bounded(lanes: Callable[..., Lane]) -> None:
    consumer = FakeConsumer(range(1))
    consumer.log[0].key = b"k" * 70_000
    consumer.log[0].size_bytes = 70_000 + 50_002 + 10
    lane = lanes(consumer)
    await lane.source.open(LANE, None)
    batch = await lane.next()
    assert batch.size_bytes == 70_000 + 50_002 + 10
    assert lane.budget.held_bytes >= batch.size_bytes
    [rejected] = batch.rejected
    assert (rejected.key, rejected.omitted_bytes) == (b"k" * wire.MAX_KEY_BYTES, 70_000 - wire.MAX_KEY_BYTES)


async def test_a_message_that_was_not_read_whole_is_rejected_with_what_was(lanes: Callable[..., Lane]) -> None:
    consumer = FakeConsumer(range(3))
    consumer.log[1].checksum = Unread("it has too many headers", 300)
    lane = lanes(consumer)
    await lane.source.open(LANE, None)
    batch = await lane.next()
    [rejected] = batch.rejected
    assert (rejected.offset, rejected.reason, rejected.omitted_bytes) == (1, "it has too many headers", 300)
    assert rejected.headers == list(consumer.log[1].headers)


async def test_a_jump_is_sought_again_before_it_is_believed(lanes: Callable[..., Lane]) -> None:
    consumer = FakeConsumer(range(10))
    del consumer.log[3], consumer.log[4]
    lane = lanes(consumer, records=3)
    await lane.source.open(LANE, None)
    assert offsets(await lane.next()) == [0, 1, 2]
    await asyncio.sleep(0.05)
    await lane.take()
    batch = await lane.take()
    assert (batch.start, offsets(batch), batch.gap) == (3, [5, 6, 7], False)
    assert consumer.seeks.count(3) == 1
    assert not [one for one in lane.seen if isinstance(one, OffsetGap)]


def _retention_takes(consumer: FakeConsumer, first: int, end: int) -> None:
    """Before anybody read them; what is older was fetched already."""
    consumer.oldest = end
    consumer.log = {offset: what for offset, what in consumer.log.items() if not first <= offset < end}


async def test_a_jump_past_what_retention_took_is_a_gap(lanes: Callable[..., Lane]) -> None:
    consumer = FakeConsumer(range(10))
    lane = lanes(consumer, records=3)
    await lane.source.open(LANE, None)
    _retention_takes(consumer, 3, 6)
    before = await lane.take()
    assert (offsets(before), before.gap) == ([0, 1, 2], False)
    batch = await lane.take()
    assert (batch.start, offsets(batch), batch.gap) == (3, [6, 7, 8], True)
    assert not (await lane.take()).gap
    [gap] = [one for one in lane.seen if isinstance(one, OffsetGap)]
    assert (gap.expected, gap.found) == (3, 6)


async def test_what_came_before_a_gap_is_a_batch_of_its_own(lanes: Callable[..., Lane]) -> None:
    consumer = FakeConsumer(range(10))
    lane = lanes(consumer, records=10)
    await lane.source.open(LANE, None)
    _retention_takes(consumer, 3, 6)
    before, after = await lane.take(), await lane.take()
    assert (before.start, before.end, offsets(before), before.gap) == (0, 3, [0, 1, 2], False)
    assert (after.start, offsets(after), after.gap) == (3, [6, 7, 8, 9], True)
    assert [one for one in lane.seen if isinstance(one, OffsetGap)] == [OffsetGap(lane="topic-0", expected=3, found=6)]


async def test_offsets_that_go_back_restart_the_lane(lanes: Callable[..., Lane]) -> None:
    consumer = FakeConsumer(range(10))
    lane = lanes(consumer, records=3)
    await lane.source.open(LANE, 5)
    consumer.position = 2
    with pytest.raises(RestartError, match="expected offset 5, found 2"):
        await lane.next()


async def test_positions_outside_the_partition(lanes: Callable[..., Lane]) -> None:
    lane = lanes(FakeConsumer(range(5, 10), oldest=5))
    with pytest.raises(FatalError, match="clusterinfo offsets reset"):
        await lane.source.open(LANE, 11)
    await lane.source.open(LANE, 10)
    assert lane.seen == []
    await lane.source.open(LANE, 2)
    assert lane.seen == [OffsetGap(lane="topic-0", expected=2, found=5)]
    first, second = await lane.next(), await lane.take()
    assert (first.start, first.gap) == (second.start, second.gap) == (2, True)


async def test_a_gap_is_reported_again_until_it_is_stored(lanes: Callable[..., Lane]) -> None:
    lane = lanes(FakeConsumer(range(5, 30), oldest=5))
    await lane.source.open(LANE, 2)
    assert (await lane.next()).gap
    await lane.source.restart()
    await lane.source.open(LANE, 2)
    assert [(await lane.take()).gap for _ in range(2)] == [True, False]
    await lane.source.restart()
    await lane.source.open(LANE, lane.source.position)
    assert not (await lane.take()).gap


async def test_a_pump_closes_it_and_the_next_one_goes_on_where_the_sink_is(
    lanes: Callable[..., Lane],
) -> None:
    lane, stored = lanes(FakeConsumer(range(25))), list[Batch]()

    class LostTwice:
        async def open(self, _: object) -> int:
            return len(stored) * 10

        async def write(self, batch: Batch) -> Receipt:
            if len(stored) == 2:
                raise LostError("claimed by another")
            stored.append(batch)
            return Receipt(lane=LANE, position=batch.end)

    await pump(lane.source, LostTwice(), LANE, lane.seen.append)
    assert (lane.source.written.is_set(), lane.budget.held_bytes, lane.consumer.paused) == (True, 0, True)
    stored.pop()
    await pump(lane.source, LostTwice(), LANE, lane.seen.append)
    assert [batch.start for batch in stored] == [0, 10]


async def test_no_rights_stop_the_lane(lanes: Callable[..., Lane]) -> None:
    consumer = FakeConsumer(range(10))
    consumer.log[0] = GroupAuthorizationFailedError("group")
    lane = lanes(consumer)
    await lane.source.open(LANE, None)
    with pytest.raises(FatalError, match="KAFKA_GROUP_ID"):
        await lane.next()


async def test_a_partition_taken_away_ends_the_lane_quietly(lanes: Callable[..., Lane]) -> None:
    consumer = FakeConsumer(range(10))
    consumer.is_assigned = False
    lane = lanes(consumer)
    async with asyncio.timeout(60):
        await lane.source.open(LANE, None)
        assert await lane.source.read() is None


async def test_asked_to_stop_it_ends_whatever_it_waits_for(lanes: Callable[..., Lane]) -> None:
    consumer = FakeConsumer(range(0))
    lane = lanes(consumer)
    await lane.source.open(LANE, None)
    reading = asyncio.create_task(lane.source.read())
    await asyncio.sleep(0.05)
    lane.stopping.set()
    async with asyncio.timeout(60):
        assert await reading is None
        assert await lane.source.read() is None


async def test_asked_to_stop_it_does_not_wait_for_offsets_that_nobody_tells(lanes: Callable[..., Lane]) -> None:
    consumer = FakeConsumer(range(0))

    async def fails(_: list[TopicPartition]) -> dict[TopicPartition, int]:
        raise KafkaConnectionError("gone")

    consumer.end_offsets = fails  # type: ignore[method-assign]
    lane = lanes(consumer)
    opening = asyncio.create_task(lane.source.open(LANE, None))
    await asyncio.sleep(0.05)
    assert not opening.done()
    lane.stopping.set()
    async with asyncio.timeout(60):
        await opening
        assert await lane.source.read() is None


@pytest.mark.parametrize("steps", range(6))
async def test_cancelled_anywhere_it_loses_nothing(lanes: Callable[..., Lane], steps: int) -> None:
    lane = lanes(FakeConsumer(range(10)))
    await lane.source.open(LANE, None)
    reading = asyncio.create_task(lane.source.read())
    for _ in range(steps):
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    found: list[int] = []
    while len(found) < 10:
        found += offsets(await lane.take())
    assert found == list(range(10))
