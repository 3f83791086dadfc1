"""ConsumerGroup against a broker: nothing is lost or stored twice, whoever comes, goes, stalls or dies."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from clusterinfo.budget import ByteBudget
from clusterinfo.errors import FatalError, RestartError, TransientError
from clusterinfo.kafka import connection, group
from clusterinfo.kafka.group import ConsumerGroup
from clusterinfo.kafka.sink import KafkaSink
from clusterinfo.kafka.source import PartitionSource
from clusterinfo.model import Batch, PartitionLane, Receipt, Record, Rejected
from clusterinfo.observations import Observation, Observe, OffsetGap, PartitionsAssigned, unobserved
from clusterinfo.pump import pump
from clusterinfo.settings import Settings
from tests.integration.brokers import IS_APACHE, Broker, broker, kafka_settings, only_apache, running_broker  # noqa: F401
from tests.kafka.apache import ApacheKafka
from tests.support.kafka import item, new_list, page_of

# ruff: noqa: F811 - pytest hands fixtures over by the name of an argument


class Store:
    """A sink in memory that keeps the rules of the database: claims, and a compare-and-set on the offset."""

    def __init__(self, *, delay_s: float = 0.0) -> None:
        self.offsets: dict[int, int] = {}
        self.claims: dict[int, int] = {}
        self.records: list[Record] = []
        self.rejected: list[Rejected] = []
        self.batches: list[Batch] = []
        self.delay_s = delay_s
        self.is_away = False

    async def open(self, lane: PartitionLane) -> int | None:
        self.claims[lane.partition] = self.claims.get(lane.partition, 0) + 1
        return self.offsets.get(lane.partition)

    async def write(self, batch: Batch) -> Receipt:
        assert isinstance(batch.lane, PartitionLane)
        partition = batch.lane.partition
        await asyncio.sleep(self.delay_s)
        if self.is_away:
            raise TransientError("the database is away")
        if (stored := self.offsets.get(partition)) is not None and stored != batch.start:
            raise RestartError(f"stored {stored}, batch begins at {batch.start}")
        self.offsets[partition] = batch.end
        self.records += batch.records
        self.rejected += batch.rejected
        self.batches.append(batch)
        return Receipt(lane=batch.lane, position=batch.end, records=len(batch.records))

    def names(self) -> list[tuple[str, str]]:
        return sorted((record.resource, record.name) for record in self.records)


Drive = Callable[[PartitionLane, PartitionSource, asyncio.Event], Awaitable[None]]


def into(store: Store, observe: Observe = unobserved) -> Drive:
    return lambda lane, source, stopping: pump(source, store, lane, observe, stopping)  # type: ignore[arg-type]


async def fill(settings: Settings, resources: int = 1, each: int = 100, body: bytes = b"") -> list[tuple[str, str]]:
    """Send records of some resources; returns what a store must then hold."""
    async with KafkaSink.connect(settings, unobserved) as kafka:
        for number in range(resources):
            resource, list_id = f"r{number}", new_list()
            await kafka.write(page_of(resource, 0, [item(i, resource, list_id, body) for i in range(each)]))
    return sorted((f"r{number}", f"o-{i}") for number in range(resources) for i in range(each))


@asynccontextmanager
async def running(
    settings: Settings, drive: Drive, observe: Observe = unobserved, session_timeout_s: float = 6.0
) -> AsyncIterator[ConsumerGroup]:
    """A member that runs for the length of the block, then stops and leaves."""
    async with ConsumerGroup.connect(settings, observe, session_timeout_s=session_timeout_s) as member:
        run = asyncio.create_task(member.run(drive))
        try:
            yield member
        finally:
            member.stop()
            await run


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
async def nothing_left_behind() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0.05)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert [str(task) for task in left] == []


async def test_members_that_come_and_go_store_everything_once(broker: Broker) -> None:
    settings = kafka_settings(broker)
    sent = await fill(settings, resources=20, each=1000)
    store = Store(delay_s=0.05)

    async def member(joins_after_s: float, leaves_after_s: float | None) -> None:
        await asyncio.sleep(joins_after_s)
        async with ConsumerGroup.connect(settings, unobserved, session_timeout_s=6) as one:
            if leaves_after_s is not None:
                asyncio.get_running_loop().call_later(leaves_after_s, one.stop)
            await one.run(into(store), until_idle_s=None if leaves_after_s else 1.5)

    async with asyncio.timeout(60):
        await asyncio.gather(member(0, None), member(0.3, 3.0), member(0.5, None))
    assert store.names() == sent
    for partition in store.offsets:
        batches = [batch for batch in store.batches if batch.lane.partition == partition]  # type: ignore[union-attr]
        assert [batch.start for batch in batches] == [0, *(batch.end for batch in batches[:-1])]
    assert sum(store.claims.values()) > 6  # there were rebalances, or this proves nothing


async def test_idle_ends_when_all_is_stored_and_also_with_nothing_to_do(broker: Broker) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    sent, store = await fill(settings), Store()
    async with (
        asyncio.timeout(30),
        ConsumerGroup.connect(settings, unobserved) as first,
        ConsumerGroup.connect(settings, unobserved) as second,
    ):
        await asyncio.gather(*(one.run(into(store), until_idle_s=1.0) for one in (first, second)))
    assert store.names() == sent
    async with asyncio.timeout(10), ConsumerGroup.connect(settings, unobserved) as again:
        await again.run(into(store), until_idle_s=0.5)
    assert store.names() == sent


async def test_idle_waits_for_a_store_that_is_away(broker: Broker) -> None:
    settings = kafka_settings(broker)
    sent, store = await fill(settings), Store()
    store.is_away = True
    async with ConsumerGroup.connect(settings, unobserved) as member:
        run = asyncio.create_task(member.run(into(store), until_idle_s=0.3))
        await asyncio.sleep(2)
        assert not run.done()
        store.is_away = False
        async with asyncio.timeout(20):
            await run
    assert store.names() == sent


async def test_batches_keep_to_their_bounds_and_the_budget_is_given_back(broker: Broker) -> None:
    settings = kafka_settings(broker, batch_bytes="1MiB", batch_size=300)
    sent, store, budget = await fill(settings, 4, 2000, b'"' + b"x" * 5000 + b'"'), Store(), ByteBudget(4 << 20)
    most_held = 0

    async def write_and_look(batch: Batch) -> Receipt:
        nonlocal most_held
        most_held = max(most_held, budget.held_bytes)
        return await Store.write(store, batch)

    store.write = write_and_look  # type: ignore[method-assign]
    async with asyncio.timeout(30), ConsumerGroup.connect(settings, unobserved, budget=budget) as member:
        await member.run(into(store), until_idle_s=0.5)
    assert store.names() == sent
    assert max(len(batch.records) for batch in store.batches) <= 300
    assert max(batch.size_bytes for batch in store.batches) <= (1 << 20) + 5002
    assert most_held <= budget.limit_bytes + 6 * group_step_bytes()
    assert budget.held_bytes == 0


def group_step_bytes() -> int:
    from clusterinfo.kafka import collecting

    return collecting.STEP_BYTES + collecting.STEP_RECORDS * collecting.RECORD_OVERHEAD_BYTES


async def test_messages_of_others_are_set_aside_with_all_that_is_known(broker: Broker) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    sent, store = await fill(settings), Store()
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        await producer.send_and_wait(settings.kafka_topic, b"value", b"key", headers=[("a", b"\xff"), ("b", b"c")])
        await producer.send_and_wait(settings.kafka_topic, None, b"key")
    async with asyncio.timeout(20), ConsumerGroup.connect(settings, unobserved) as member:
        await member.run(into(store), until_idle_s=0.5)
    assert store.names() == sent
    assert [(one.offset, one.value) for one in store.rejected] == [(100, b"value"), (101, b"")]
    assert store.rejected[0].headers == {"a": "\\xff", "b": "c"}
    assert store.offsets == {0: 102}


async def test_the_same_batch_is_read_until_it_is_acked_and_again_after_a_restart(broker: Broker) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1, batch_size=40)
    await fill(settings)
    seen: list[tuple[int, int]] = []

    async def drive(lane: PartitionLane, source: PartitionSource, stopping: asyncio.Event) -> None:
        await source.open(lane, 10)
        for _ in range(2):
            seen.append(await bounds_of_next(source))
        await source.ack(Receipt(lane=lane, position=seen[-1][1], records=40))
        seen.append(await bounds_of_next(source))
        await source.restart()
        await source.open(lane, 20)
        seen.append(await bounds_of_next(source))
        await stopping.wait()
        assert await source.read() is None

    async with running(settings, drive):
        await until(lambda: len(seen) == 4)
    assert seen == [(10, 50), (10, 50), (50, 90), (20, 60)]


async def bounds_of_next(source: PartitionSource) -> tuple[int, int]:
    batch = await source.read()
    assert batch is not None
    assert [record.offset for record in batch.records] == list(range(batch.start, batch.end))
    return batch.start, batch.end


async def test_an_offset_beyond_the_end_stops_with_what_to_do(broker: Broker) -> None:
    settings = kafka_settings(broker)
    await fill(settings)
    store = Store()
    store.offsets = dict.fromkeys(range(6), 1_000_000)
    async with ConsumerGroup.connect(settings, unobserved) as member, asyncio.timeout(20):
        with pytest.raises(FatalError, match=r"offset 1000000.*clusterinfo offsets reset"):
            await member.run(into(store))


@only_apache
async def test_what_retention_took_is_a_gap_and_reading_goes_on(broker: Broker) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    await fill(settings)
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(settings.kafka_topic, 0): RecordsToDelete(before_offset=60)})
    await admin.close()
    store, seen = Store(), list[Observation]()
    store.offsets = {0: 10}
    async with asyncio.timeout(20), ConsumerGroup.connect(settings, seen.append) as member:
        await member.run(into(store), until_idle_s=0.5)
    assert [record.offset for record in store.records] == list(range(60, 100))
    assert (store.batches[0].start, store.offsets) == (10, {0: 100})
    [gap] = [one for one in seen if isinstance(one, OffsetGap)]
    assert (gap.expected, gap.found) == (10, 60)


@only_apache
async def test_the_markers_of_a_transaction_are_no_gap(broker: Broker) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    await fill(settings, each=10)
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=settings.kafka_topic) as producer:
        for _ in range(3):
            async with producer.transaction():
                await producer.send_and_wait(settings.kafka_topic, b"x", b"y")
    store, seen = Store(), list[Observation]()
    async with asyncio.timeout(20), ConsumerGroup.connect(settings, seen.append) as member:
        await member.run(into(store), until_idle_s=0.5)
    assert len(store.records) == 10
    assert [one.offset for one in store.rejected] == [10, 12, 14]
    assert not [one for one in seen if isinstance(one, OffsetGap)]


async def test_the_error_of_a_lane_ends_the_run_and_cancels_the_others(broker: Broker) -> None:
    settings = kafka_settings(broker)
    ended: list[int] = []

    async def drive(lane: PartitionLane, source: PartitionSource, stopping: asyncio.Event) -> None:
        try:
            if lane.partition == 3:
                raise FatalError("no space left")
            await asyncio.sleep(3600)
        finally:
            ended.append(lane.partition)

    async with ConsumerGroup.connect(settings, unobserved) as member, asyncio.timeout(20):
        with pytest.raises(FatalError, match="no space left"):
            await member.run(drive)
    assert 3 in ended


async def test_stopping_lets_the_batch_in_hand_finish(broker: Broker) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    await fill(settings)
    store = Store(delay_s=1.0)
    async with running(settings, into(store)) as member:
        await until(lambda: bool(store.claims))
        await asyncio.sleep(0.5)
        member.stop()
    assert store.offsets == {0: 100}


async def test_stopping_cancels_a_write_that_does_not_end(broker: Broker) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1, shutdown_grace_s=9)
    await fill(settings)
    store = Store(delay_s=3600)
    async with running(settings, into(store)) as member:
        await until(lambda: bool(store.claims))
        await asyncio.sleep(0.5)
        began = time.monotonic()
        member.stop()
    assert time.monotonic() - began < 6
    assert store.offsets == {}


async def test_membership_outlasts_a_store_that_is_away_for_longer_than_aiokafka_allows(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(group.CONSUMER, "max_poll_interval_ms", 2000)
    settings = kafka_settings(broker, kafka_topic_partitions=1, batch_size=10)  # so that nobody waits for more data
    sent, store, seen = await fill(settings), Store(), list[Observation]()
    store.is_away = True
    async with running(settings, into(store), seen.append):
        await asyncio.sleep(5)
        store.is_away = False
        await until(lambda: store.names() == sent)
    assert len([one for one in seen if isinstance(one, PartitionsAssigned)]) == 1


async def test_a_rebalance_while_the_store_is_away_ends_nobody(broker: Broker) -> None:
    settings = kafka_settings(broker)
    sent, store = await fill(settings, resources=6), Store()
    store.is_away = True
    async with running(settings, into(store)):
        await until(lambda: len(store.claims) == 6)
        async with running(settings, into(store)):
            await until(lambda: sum(store.claims.values()) >= 12)
            store.is_away = False
            await until(lambda: store.names() == sent)


async def test_what_is_stored_can_be_seen_in_kafka(broker: Broker) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    await fill(settings)
    store = Store()
    async with running(settings, into(store)) as member:
        await until(lambda: store.offsets == {0: 100})
        await asyncio.sleep(0.2)
        assert member.lag() == {0: 0}
        assert member.cluster_id
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    partition = TopicPartition(settings.kafka_topic, 0)
    offsets = await admin.list_consumer_group_offsets(settings.kafka_group_id, partitions=[partition])
    await admin.close()
    assert offsets[partition].offset == 100
    if isinstance(broker, ApacheKafka):
        [line] = [
            line.split()
            for line in (await broker.consumer_groups_describe(settings.kafka_group_id)).splitlines()
            if settings.kafka_topic in line
        ]
        assert line[:6] == [settings.kafka_group_id, settings.kafka_topic, "0", "100", "100", "0"]


async def test_an_outage_is_waited_out_and_leaving_in_one_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STOP_TIMEOUT_S", 1.0)
    async with running_broker() as own:
        settings, store = kafka_settings(own, kafka_topic_partitions=2, shutdown_grace_s=9), Store()
        sent = await fill(settings)
        async with running(settings, into(store), session_timeout_s=10) as member:
            await until(lambda: store.names() == sent)
            os.kill(own.pid or 0, signal.SIGSTOP)
            await asyncio.sleep(2)
            os.kill(own.pid or 0, signal.SIGCONT)
            sent = sorted(sent + await fill(settings))
            await until(lambda: store.names() == sent, 40)
            os.kill(own.pid or 0, signal.SIGSTOP)
            await asyncio.sleep(1)
            began = time.monotonic()
            member.stop()
        assert time.monotonic() - began < 15
        os.kill(own.pid or 0, signal.SIGCONT)


@only_apache
async def test_a_broker_that_is_killed_and_comes_back_loses_nothing() -> None:
    async with running_broker() as own:
        assert isinstance(own, ApacheKafka)
        settings, store = kafka_settings(own, kafka_topic_partitions=2), Store()
        sent = await fill(settings)
        async with running(settings, into(store), session_timeout_s=10):
            await until(lambda: store.names() == sent)
            await own.restart("hard")
            sent = sorted(sent + await fill(settings))
            await until(lambda: store.names() == sent, 60)
