"""A consumer of several topics, and of those that come while it runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from clusterinfo.kafka.consumer import connection
from clusterinfo.kafka.consumer.group import ConsumerGroup
from clusterinfo.kafka.end_offsets import end_offsets
from clusterinfo.model import Batch, PartitionLane, Receipt
from clusterinfo.observations import (
    AssignmentAwaited,
    Lagging,
    Observation,
    PartitionsAssigned,
    PartitionsRevoked,
    Warned,
    unobserved,
)
from clusterinfo.settings import Settings
from tests.integration.brokers import Broker, kafka_settings
from tests.support.members import Store, fill, into, running, until

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


class Stores:
    """A store for each topic, whose partitions have the same numbers."""

    def __init__(self) -> None:
        self.of: dict[str, Store] = {}

    async def open(self, lane: PartitionLane) -> int | None:
        return await self.of.setdefault(lane.topic, Store()).open(lane)

    async def write(self, batch: Batch) -> Receipt:
        assert isinstance(batch.lane, PartitionLane)
        return await self.of[batch.lane.topic].write(batch)

    def names(self, settings: Settings) -> list[tuple[str, str]]:
        return self.of[settings.kafka_topic].names() if settings.kafka_topic in self.of else []


def named(settings: Settings, topic: str) -> Settings:
    """The same, for another topic."""
    return settings.model_copy(update={"kafka_topic": topic})


async def test_all_topics_of_a_list_are_consumed_each_from_its_own_offset(broker: Broker) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=2)
    one, other = (named(settings, f"{settings.kafka_topic}-{name}") for name in ("one", "other"))
    both, stores = named(settings, f"{one.kafka_topic},{other.kafka_topic}"), Stores()
    sent = {one.kafka_topic: await fill(one, 4), other.kafka_topic: await fill(other, 2, 30)}
    async with asyncio.timeout(60), ConsumerGroup.connect(both, unobserved) as member:
        await member.run(into(stores), asyncio.Event(), until_idle_s=0.5)  # type: ignore[arg-type]
    assert {topic: store.names() for topic, store in stores.of.items()} == sent
    ends = await end_offsets(both)
    assert {(at.topic, at.partition): end for at, end in ends.items()} == {
        (topic, number): store.offsets.get(number, 0) for topic, store in stores.of.items() for number in range(2)
    }
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    committed = await admin.list_consumer_group_offsets(both.kafka_group_id)
    await admin.close()
    assert {at: found.offset for at, found in committed.items() if found.offset > 0} == {
        at: end for at, end in ends.items() if end
    }


async def test_a_named_topic_that_is_missing_is_made(broker: Broker) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    both = named(settings, f"{settings.kafka_topic}-a,{settings.kafka_topic}-b")
    async with asyncio.timeout(60), ConsumerGroup.connect(both, unobserved) as member:
        await member.run(into(Store()), asyncio.Event(), until_idle_s=0.1)
    assert len(await end_offsets(both)) == 2


async def test_a_topic_that_comes_later_and_matches_is_picked_up(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.CONSUMER, "metadata_max_age_ms", 500)
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    every = named(settings, f"{settings.kafka_topic}-*")
    early, late, foreign = (named(settings, f"{settings.kafka_topic}{name}") for name in ("-early", "-late", "late"))
    stores, seen, sent = Stores(), list[Observation](), await fill(early)
    async with running(every, into(stores), seen.append):  # type: ignore[arg-type]
        await until(lambda: stores.names(early) == sent)
        await fill(foreign)
        more = await fill(late)
        await until(lambda: stores.names(late) == more)
        again = await fill(early)
        await until(lambda: stores.names(early) == sorted(sent + again))
    assert set(stores.of) == {early.kafka_topic, late.kafka_topic}
    assigned = [one.partitions for one in seen if isinstance(one, PartitionsAssigned)]
    assert assigned[-1] == (f"{early.kafka_topic}-0", f"{late.kafka_topic}-0")
    awaited, *_ = [one for one in seen if isinstance(one, AssignmentAwaited)]
    assert (awaited.group, seen.index(awaited)) == (every.kafka_group_id, 0)
    revoked = [one.partitions for one in seen if isinstance(one, PartitionsRevoked)]
    assert revoked == [(f"{early.kafka_topic}-0",)], "none before the first assignment"


async def test_two_members_share_the_partitions_of_topics_that_match(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.CONSUMER, "metadata_max_age_ms", 500)
    settings = kafka_settings(broker, kafka_topic_partitions=2)
    every, stores = named(settings, f"{settings.kafka_topic}-*"), Stores()
    topics = [named(settings, f"{settings.kafka_topic}-{number}") for number in range(3)]
    sent = {topic.kafka_topic: await fill(topic, 4) for topic in topics[:2]}
    async with running(every, into(stores)), running(every, into(stores)):  # type: ignore[arg-type]
        await until(lambda: all(stores.names(topic) == sent[topic.kafka_topic] for topic in topics[:2]))
        sent[topics[2].kafka_topic] = await fill(topics[2], 4)
        await until(lambda: stores.names(topics[2]) == sent[topics[2].kafka_topic])
    assert {topic: store.names() for topic, store in stores.of.items()} == sent


async def test_no_topic_that_matches_is_no_error_and_said_once(broker: Broker) -> None:
    settings = kafka_settings(broker)
    seen: list[Observation] = []
    async with (
        asyncio.timeout(60),
        ConsumerGroup.connect(named(settings, f"{settings.kafka_topic}-*"), seen.append) as member,
    ):
        await member.run(into(Store()), asyncio.Event(), until_idle_s=0.5)
    (warned,) = [one for one in seen if isinstance(one, Warned)]
    assert "no topic is there yet" in warned.message


async def test_the_lag_is_told_by_topic(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clusterinfo.kafka.consumer.group.LAG_INTERVAL_S", 0.2)
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    topics = [named(settings, f"{settings.kafka_topic}-{name}") for name in "ab"]
    for number, topic in enumerate(topics):
        await fill(topic, each=10 + number)
    stores, seen = Stores(), list[Any]()
    for topic in topics:
        stores.of[topic.kafka_topic] = Store()
        stores.of[topic.kafka_topic].is_away = True
    async with running(named(settings, f"{settings.kafka_topic}-*"), into(stores), seen.append):  # type: ignore[arg-type]
        wanted = {(topic.kafka_topic, 0): 10 + number for number, topic in enumerate(topics)}

        def lags() -> dict[tuple[str, int], int]:
            return {(one.topic, one.partition): one.records for one in seen if isinstance(one, Lagging)}

        await until(lambda: lags() == wanted)
        for store in stores.of.values():
            store.is_away = False
        await until(lambda: set(lags().values()) == {0})
