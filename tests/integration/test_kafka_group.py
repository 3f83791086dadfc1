"""ConsumerGroup against a broker: nothing is lost or stored twice, whoever comes, goes, stalls or dies."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.admin import AIOKafkaAdminClient

from clusterinfo.budget import ByteBudget
from clusterinfo.errors import FatalError
from clusterinfo.kafka.aiokafka_patches.stopping import stop_consumer
from clusterinfo.kafka.consumer import connection, group
from clusterinfo.kafka.consumer.group import ConsumerGroup
from clusterinfo.kafka.consumer.source import PartitionSource
from clusterinfo.model import Batch, PartitionLane, Receipt
from clusterinfo.observations import Lagging, Observation, PartitionsAssigned, Warned, unobserved
from tests.integration.brokers import Broker, kafka_settings, running_broker
from tests.support.members import Store, fill, into, running, until

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


async def test_idle_ends_when_all_is_stored_and_also_with_nothing_to_do(broker: Broker) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    sent, store = await fill(settings), Store()
    async with (
        asyncio.timeout(60),
        ConsumerGroup.connect(settings, unobserved) as first,
        ConsumerGroup.connect(settings, unobserved) as second,
    ):
        await asyncio.gather(*(one.run(into(store), asyncio.Event(), until_idle_s=1.0) for one in (first, second)))
    assert store.names() == sent
    async with asyncio.timeout(60), ConsumerGroup.connect(settings, unobserved) as again:
        await again.run(into(store), asyncio.Event(), until_idle_s=0.5)
    assert store.names() == sent


async def test_idle_waits_for_a_store_that_is_away(broker: Broker) -> None:
    settings = kafka_settings(broker)
    sent, store = await fill(settings), Store()
    store.is_away = True
    async with ConsumerGroup.connect(settings, unobserved) as member:
        run = asyncio.create_task(member.run(into(store), asyncio.Event(), until_idle_s=0.3))
        await asyncio.sleep(2)
        assert not run.done()
        store.is_away = False
        async with asyncio.timeout(60):
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
    async with asyncio.timeout(60), ConsumerGroup.connect(settings, unobserved, budget=budget) as member:
        await member.run(into(store), asyncio.Event(), until_idle_s=0.5)
    assert store.names() == sent
    assert max(len(batch.records) for batch in store.batches) <= 300
    assert max(batch.size_bytes for batch in store.batches) <= (1 << 20) + 5002
    assert most_held <= budget.limit_bytes + 6 * group_step_bytes()
    assert budget.held_bytes == 0


def group_step_bytes() -> int:
    from clusterinfo.kafka.consumer import batching

    return batching.STEP_BYTES + batching.STEP_RECORDS * batching.RECORD_OVERHEAD_BYTES


async def test_messages_of_others_are_set_aside_with_all_that_is_known(broker: Broker) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    sent, store = await fill(settings), Store()
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        await producer.send_and_wait(settings.kafka_topic, b"value", b"key", headers=[("a", b"\xff"), ("b", b"c")])
        await producer.send_and_wait(settings.kafka_topic, None, b"key")
    async with asyncio.timeout(60), ConsumerGroup.connect(settings, unobserved) as member:
        await member.run(into(store), asyncio.Event(), until_idle_s=0.5)
    assert store.names() == sent
    assert [(one.offset, one.value) for one in store.rejected] == [(100, b"value"), (101, b"")]
    assert store.rejected[0].headers == [("a", b"\xff"), ("b", b"c")]
    assert store.offsets == {0: 102}


async def test_the_same_batch_is_read_until_it_is_acked_and_again_after_a_restart(broker: Broker) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1, batch_size=40)
    await fill(settings)
    seen: list[tuple[int, int]] = []

    async def drive(lane: PartitionLane, source: PartitionSource, stopping: asyncio.Event) -> None:
        await source.open(lane, 10)
        for _ in range(2):
            seen.append(await bounds_of_next(source))
        await source.ack(Receipt(lane=lane, position=seen[-1][1]))
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
    async with ConsumerGroup.connect(settings, unobserved) as member, asyncio.timeout(60):
        with pytest.raises(FatalError, match=r"offset 1000000.*clusterinfo offsets reset"):
            await member.run(into(store), asyncio.Event())


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

    async with ConsumerGroup.connect(settings, unobserved) as member, asyncio.timeout(60):
        with pytest.raises(FatalError, match="no space left"):
            await member.run(drive, asyncio.Event())
    assert 3 in ended


async def test_stopping_lets_the_batch_in_hand_finish(broker: Broker) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    await fill(settings)
    store = Store(delay_s=1.0)
    async with running(settings, into(store)) as member:
        await until(lambda: store.is_writing)
        member.stopping.set()
    assert store.offsets == {0: 100}


async def test_stopping_cancels_a_write_that_does_not_end(broker: Broker) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1, shutdown_grace_s=9)
    await fill(settings)
    store = Store(delay_s=3600)
    async with running(settings, into(store)) as member:
        await until(lambda: store.is_writing)
        began = time.monotonic()
        member.stopping.set()
    assert time.monotonic() - began < 30
    assert store.offsets == {}


async def test_membership_outlasts_a_store_that_is_away_for_longer_than_aiokafka_allows(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.CONSUMER, "max_poll_interval_ms", 2000)
    settings = kafka_settings(broker, kafka_topic_partitions=1, batch_size=10)  # so that nobody waits for more data
    sent, store, seen = await fill(settings), Store(), list[Observation]()
    store.is_away = True
    async with running(settings, into(store), seen.append):
        await asyncio.sleep(5)
        store.is_away = False
        await until(lambda: store.names() == sent)
    assert len([one for one in seen if isinstance(one, PartitionsAssigned)]) == 1


async def test_what_waits_in_kafka_is_reported_at_once_and_from_time_to_time(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "LAG_INTERVAL_S", 3600)
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    await fill(settings)
    store, seen = Store(), list[Observation]()
    store.is_away = True

    def lags() -> list[int]:
        return [one.records for one in seen if isinstance(one, Lagging)]

    async with running(settings, into(store), seen.append):
        await until(lambda: 100 in lags())
        monkeypatch.setattr(group, "LAG_INTERVAL_S", 0.2)
        store.is_away = False
        await until(lambda: lags()[-1] == 0)


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
        await until(lambda: member.group.lag() == {TopicPartition(settings.kafka_topic, 0): 0})
        assert member.group.cluster_id
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    partition = TopicPartition(settings.kafka_topic, 0)
    offsets = await admin.list_consumer_group_offsets(settings.kafka_group_id, partitions=[partition])
    await admin.close()
    assert offsets[partition].offset == 100


async def test_an_outage_is_waited_out_and_leaving_in_one_returns() -> None:
    async with running_broker() as own:
        settings, store = kafka_settings(own, kafka_topic_partitions=2, shutdown_grace_s=4), Store()
        sent = await fill(settings)
        async with running(settings, into(store), session_timeout_s=10) as member:
            await until(lambda: store.names() == sent)
            os.kill(own.pid or 0, signal.SIGSTOP)
            await asyncio.sleep(2)
            os.kill(own.pid or 0, signal.SIGCONT)
            sent = sorted(sent + await fill(settings))
            await until(lambda: store.names() == sent)
            os.kill(own.pid or 0, signal.SIGSTOP)
            await asyncio.sleep(1)
            began = time.monotonic()
            member.stopping.set()
        assert time.monotonic() - began < 40, "the grace of 4 s; a request would be waited for for 45"
        os.kill(own.pid or 0, signal.SIGCONT)


def coordination_fails(consumer: AIOKafkaConsumer) -> None:
    """An error that aiokafka's coordination does not expect ends its task; no rebalance is answered any more."""

    async def fails(*_: object) -> None:
        raise RuntimeError("injected")

    consumer._coordinator.ensure_active_group = fails
    consumer._coordinator.request_rejoin()


def fetcher_ends(consumer: AIOKafkaConsumer) -> None:
    """An error that aiokafka's fetcher does not expect ends its task; nothing is fetched any more."""

    def fails(*_: object) -> None:
        raise RuntimeError("injected")

    consumer._fetcher._get_actions_per_node = fails


@pytest.mark.parametrize("breaks", [coordination_fails, fetcher_ends], ids=lambda one: one.__name__)
async def test_a_consumer_that_breaks_down_is_replaced_and_nothing_is_lost(
    broker: Broker, breaks: Callable[[AIOKafkaConsumer], None]
) -> None:
    settings, store, seen = kafka_settings(broker, kafka_topic_partitions=2), Store(), list[Observation]()
    sent = await fill(settings)
    async with running(settings, into(store, seen.append), seen.append) as member:
        await until(lambda: store.names() == sent)
        before = member.consumer
        breaks(before)
        sent = sorted(sent + await fill(settings, resources=2))
        await until(lambda: store.names() == sent)
        assert member.consumer not in (None, before)
    warnings = [one.message for one in seen if isinstance(one, Warned)]
    assert len(warnings) == 1
    assert "is replaced" in warnings[0]


class Slow(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """Lets nobody join after it until `let` is set."""

    def __init__(self) -> None:
        self.asked, self.let = asyncio.Event(), asyncio.Event()

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        if revoked:
            self.asked.set()
            await self.let.wait()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        pass


async def test_who_stops_while_joining_is_no_member_afterwards(broker: Broker) -> None:
    """Kafka would assign partitions to it, and nobody would read them until its session has expired."""
    settings = kafka_settings(broker)
    await fill(settings)
    arguments = {"bootstrap_servers": broker.bootstrap, "group_id": settings.kafka_group_id}
    waits = {"heartbeat_interval_ms": 200, "rebalance_timeout_ms": 45_000, "request_timeout_ms": 60_000}
    slow, first, second = Slow(), AIOKafkaConsumer(**arguments, **waits), AIOKafkaConsumer(**arguments, **waits)
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)

    async def members() -> int:
        [described] = await admin.describe_consumer_groups([settings.kafka_group_id])
        return len(described.groups[0][5])

    async with asyncio.timeout(60):
        for client in (admin, first, second):
            await client.start()
        first.subscribe([settings.kafka_topic], listener=slow)
        while not first.assignment():
            await first.getmany(timeout_ms=100)
        second.subscribe([settings.kafka_topic])
        await slow.asked.wait()
        assert await members() == 2
        await stop_consumer(second, timeout_s=30)
        assert await members() == 1
        slow.let.set()
        await stop_consumer(first)
        await admin.close()
