"""ConsumerGroup against what only Apache Kafka does: retention, transactions, a group that outlives its broker."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from clusterinfo.errors import FatalError
from clusterinfo.kafka.consumer.group import ConsumerGroup
from clusterinfo.observations import Observation, OffsetGap, unobserved
from tests.integration.brokers import kafka_settings
from tests.kafka.apache import ApacheKafka
from tests.support.members import Store, fill, into, running, until

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


async def test_what_retention_took_is_a_gap_and_reading_goes_on(broker: ApacheKafka) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    await fill(settings)
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(settings.kafka_topic, 0): RecordsToDelete(before_offset=60)})
    await admin.close()
    store, seen = Store(), list[Observation]()
    store.offsets = {0: 10}
    async with asyncio.timeout(60), ConsumerGroup.connect(settings, seen.append) as member:
        await member.run(into(store), asyncio.Event(), until_idle_s=0.5)
    assert [record.offset for record in store.records] == list(range(60, 100))
    assert (store.batches[0].start, store.batches[0].gap, store.offsets) == (10, True, {0: 100})
    [gap] = [one for one in seen if isinstance(one, OffsetGap)]
    assert (gap.expected, gap.found) == (10, 60)


async def test_the_markers_of_a_transaction_are_no_gap(broker: ApacheKafka) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    await fill(settings, each=10)
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=settings.kafka_topic) as producer:
        for _ in range(3):
            async with producer.transaction():
                await producer.send_and_wait(settings.kafka_topic, b"x", b"y")
    store, seen = Store(), list[Observation]()
    async with asyncio.timeout(60), ConsumerGroup.connect(settings, seen.append) as member:
        await member.run(into(store), asyncio.Event(), until_idle_s=0.5)
    assert len(store.records) == 10
    assert [one.offset for one in store.rejected] == [10, 12, 14]
    assert not [one for one in seen if isinstance(one, OffsetGap)]


async def test_a_broker_that_is_killed_and_comes_back_loses_nothing() -> None:
    async with ApacheKafka() as own:
        settings, store = kafka_settings(own, kafka_topic_partitions=2), Store()
        sent = await fill(settings)
        async with running(settings, into(store), session_timeout_s=10):
            await until(lambda: store.names() == sent)
            await own.restart("hard")
            sent = sorted(sent + await fill(settings))
            await until(lambda: store.names() == sent)


async def test_another_cluster_behind_the_same_address_is_not_read(broker: ApacheKafka) -> None:
    async with ApacheKafka() as other, asyncio.timeout(60):
        settings, store, others = kafka_settings(broker, kafka_topic_partitions=1), Store(), Store()
        sent = await fill(settings)
        elsewhere = settings.model_copy(update={"kafka_brokers": [other.bootstrap]})
        await fill(elsewhere, each=300)
        async with ConsumerGroup.connect(settings, unobserved, session_timeout_s=6) as member:
            run = asyncio.create_task(member.run(into(store), asyncio.Event()))
            await until(lambda: store.names() == sent)
            member._connection._settings = elsewhere  # as if the address led there now
            member._connection.live._fetcher._fetch_task.cancel()
            with pytest.raises(FatalError, match=f"another Kafka cluster answers.*{member.cluster_id}.*KAFKA_BROKERS"):
                await run
        assert store.names() == sent
        async with ConsumerGroup.connect(elsewhere, unobserved) as member:
            await member.run(into(others), asyncio.Event(), until_idle_s=0.5)
        assert len(others.records) == 300


async def test_members_that_come_and_go_store_everything_once(broker: ApacheKafka) -> None:
    """Three members rebalancing at once: the embedded broker now and then answers them with no assignment at all."""
    settings = kafka_settings(broker)
    sent = await fill(settings, resources=20, each=1000)
    store = Store(delay_s=0.05)

    async def member(joins_after_s: float, leaves_after_s: float | None) -> None:
        await asyncio.sleep(joins_after_s)
        stopping = asyncio.Event()
        async with ConsumerGroup.connect(settings, unobserved, session_timeout_s=6) as one:
            if leaves_after_s is not None:
                asyncio.get_running_loop().call_later(leaves_after_s, stopping.set)
            await one.run(into(store), stopping, until_idle_s=None if leaves_after_s else 1.5)

    async with asyncio.timeout(60):
        await asyncio.gather(member(0, None), member(0.3, 3.0), member(0.5, None))
    assert store.names() == sent
    for partition in store.offsets:
        batches = [batch for batch in store.batches if batch.lane.partition == partition]  # type: ignore[union-attr]
        assert [batch.start for batch in batches] == [0, *(batch.end for batch in batches[:-1])]
    assert sum(store.claims.values()) > 6  # there were rebalances, or this proves nothing
