"""Who consumes, as Apache Kafka tells: it alone evicts, rebalances and refuses."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from clusterinfo.kafka.group_members import REBALANCING, describe
from clusterinfo.kafka.topics import ensure_topic
from clusterinfo.observations import unobserved
from clusterinfo.settings import Settings
from tests.integration.brokers import kafka_settings
from tests.kafka.apache import ApacheKafka
from tests.support.members import Store, ToNobody, fill, into, running

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def all_of(settings: Settings) -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(settings.kafka_topic, number) for number in range(6))


async def test_a_group_that_never_was_has_no_members() -> None:
    """Nor had the cluster any group: its first answer is that there is no coordinator yet."""
    async with ApacheKafka() as new:
        group = await describe(kafka_settings(new))
    assert (group.state, group.members, group.held, group.error) == ("Dead", 0, frozenset(), "")


async def test_members_hold_the_partitions_until_they_leave(broker: ApacheKafka) -> None:
    settings, store = kafka_settings(broker), Store()
    await fill(settings)
    async with running(settings, into(store)), running(settings, into(store)):
        async with asyncio.timeout(60):
            while (group := await describe(settings)).members < 2:
                await asyncio.sleep(0.1)
        assert (group.state, group.held) == ("Stable", all_of(settings))
    group = await describe(settings)
    assert (group.state, group.members, group.held) == ("Empty", 0, frozenset())


async def test_partitions_of_another_topic_do_not_count(broker: ApacheKafka) -> None:
    settings = kafka_settings(broker)
    await fill(settings)
    other = settings.model_copy(update={"kafka_topic": f"other-{uuid.uuid4().hex[:8]}"})
    await ensure_topic(other, unobserved)
    async with running(other, into(Store())) as member:
        async with asyncio.timeout(60):
            while not (await describe(other)).held:
                await asyncio.sleep(0.1)
        assert member is not None
        group = await describe(settings)
    assert (group.members, group.held) == (1, frozenset())


async def test_a_member_may_hold_nothing(broker: ApacheKafka) -> None:
    settings = kafka_settings(broker)
    await fill(settings)
    idle = consumer(settings, partition_assignment_strategy=[ToNobody])
    await idle.start()
    try:
        group = await describe(settings)
    finally:
        await idle.stop()
    assert (group.state, group.members, group.held) == ("Stable", 1, frozenset())


async def test_a_rebalance_is_named_and_waited_for(broker: ApacheKafka) -> None:
    """A member that does not join again holds it up."""
    settings = kafka_settings(broker)
    await fill(settings)
    first = consumer(settings, heartbeat_interval_ms=15_000, session_timeout_ms=45_000, max_poll_interval_ms=300_000)
    second = consumer(settings)
    await first.start()
    joining = asyncio.ensure_future(second.start())
    try:
        async with asyncio.timeout(60):
            while (group := await describe(settings, rests_within_s=0)).state not in REBALANCING:
                await asyncio.sleep(0.05)
        assert group.error == ""
        async with asyncio.timeout(60):
            stable = await describe(settings, rests_within_s=50)
        assert (stable.state, stable.members, stable.held) == ("Stable", 2, all_of(settings))
    finally:
        await asyncio.wait({joining})
        await first.stop()
        await second.stop()


def consumer(settings: Settings, **more: object) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        settings.kafka_topic, bootstrap_servers=settings.kafka_brokers, group_id=settings.kafka_group_id, **more
    )
