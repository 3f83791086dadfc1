"""A consumer that the group gives nothing: not ready while there is something that nobody holds, spare else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer

from clusterinfo.commands import pipelines
from clusterinfo.errors import TransientError
from clusterinfo.kafka import group_members
from clusterinfo.kafka.consumer import group
from clusterinfo.kafka.group_members import Group
from clusterinfo.observations import Holding, Observation
from clusterinfo.settings import Settings, load
from clusterinfo.telemetry import probes
from clusterinfo.telemetry.server import Telemetry
from tests.conftest import Database
from tests.integration.brokers import Broker, kafka_settings
from tests.support.members import Store, ToNobody, fill, into, running

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "UNASSIGNED_S", 0.5)
    monkeypatch.setattr(group, "LAG_INTERVAL_S", 0.1)
    monkeypatch.setattr(probes, "INTERVAL_S", 0.1)


@asynccontextmanager
async def stingy_leader(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """A first member, so that it hands out the partitions, and to nobody."""
    leader = AIOKafkaConsumer(
        settings.kafka_topic,
        bootstrap_servers=settings.kafka_brokers,
        group_id=settings.kafka_group_id,
        partition_assignment_strategy=[ToNobody],
        heartbeat_interval_ms=200,
        metadata_max_age_ms=500,
    )
    await leader.start()
    try:
        yield leader
    finally:
        await leader.stop()


async def test_one_that_gets_nothing_of_what_nobody_holds_is_not_ready(broker: Broker, database: Database) -> None:
    settings = kafka_settings(broker)
    await fill(settings)
    env = {name: str(getattr(settings, name.lower())) for name in ("KAFKA_TOPIC", "KAFKA_GROUP_ID")}
    served = load(database.env | env | {"KAFKA_BROKERS": broker.bootstrap, "KAFKA_ENABLED": "true"})
    seen: list[Observation] = []
    telemetry, stopping = Telemetry(seen.append), asyncio.Event()

    async def until(not_ready: list[str]) -> None:
        async with asyncio.timeout(60):
            while telemetry.health.not_ready != not_ready:
                await asyncio.sleep(0.05)

    async with stingy_leader(settings) as leader:
        running = asyncio.ensure_future(
            pipelines.consume(served, telemetry.observe, stopping, until_idle_s=None, do_migrate=False)
        )
        try:
            named = ", ".join(f"{settings.kafka_topic}-{number}" for number in range(3))
            why = f"this consumer has been assigned no partition, and nobody holds {named} and 3 more"
            await until([f"consumer group, answer: {why}"])
            assert telemetry.metrics.assigned._value.get() == 0
            await leader.stop()
            await until([])
            async with asyncio.timeout(60):
                while Holding(partitions=6) not in seen:
                    await asyncio.sleep(0.05)
            assert telemetry.metrics.assigned._value.get() == 6
        finally:
            stopping.set()
            assert await running == 0


async def test_one_that_is_spare_is_ready(broker: Broker) -> None:
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    await fill(settings)
    async with running(settings, into(Store())) as first, running(settings, into(Store())) as second:
        async with asyncio.timeout(60):
            while [one.group._membership.assigned is None for one in (first, second)] != [False, False] or (
                len((await group_members.describe(settings)).held) < 1
            ):
                await asyncio.sleep(0.1)
        await asyncio.sleep(group.UNASSIGNED_S)
        assert sorted(len(one.group._membership.assigned or ()) for one in (first, second)) == [0, 1]
        for one in (first, second):
            await one.group.check_assigned()


async def test_kafka_is_asked_after_a_minute_without_partitions_and_not_before(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = kafka_settings(broker)
    await fill(settings)
    async with group.ConsumerGroup.connect(settings, lambda _: None) as idle:
        monkeypatch.setattr(group, "UNASSIGNED_S", 60.0)
        await idle.check_assigned()
        monkeypatch.setattr(group, "UNASSIGNED_S", 0.0)
        with pytest.raises(TransientError, match="nobody holds"):
            await idle.check_assigned()


async def test_where_nobody_may_ask_who_holds_what_it_is_ready(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: object, **__: object) -> Group:
        return Group("unknown", error="no rights")

    settings = kafka_settings(broker)
    await fill(settings)
    assert len(await group_members.unowned(settings)) == 6
    monkeypatch.setattr(group_members, "describe", refused)
    assert await group_members.unowned(settings) == []
