"""Consumers that stop without a word, and brokers that are gone: what a member makes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from clusterinfo.kafka.aiokafka_patches.pacing import pace_empty_fetches
from clusterinfo.kafka.consumer import connection, watchdog
from clusterinfo.observations import Freed, Observation, PartitionsAssigned, Stuck, Warned
from clusterinfo.telemetry.health import Health
from tests.integration.brokers import Broker, kafka_settings
from tests.support.members import Store, fill, into, running, until

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "CHECK_S", 0.2)
    monkeypatch.setattr(watchdog, "STALLED_S", 3.0)


def stuck(consumer: AIOKafkaConsumer) -> None:
    """Its fetcher lives and fetches nothing, as in aiokafka #847 and #1154."""
    consumer._fetcher._get_actions_per_node = lambda *_: ([], {}, 0.1, False, [])


async def test_a_consumer_that_is_stuck_is_replaced_and_nothing_is_lost(broker: Broker) -> None:
    settings, store, seen = kafka_settings(broker, kafka_topic_partitions=2), Store(), list[Observation]()
    sent = await fill(settings, resources=2)
    async with running(settings, into(store, seen.append), seen.append) as member:
        await until(lambda: store.names() == sent)
        before: Any = member.consumer
        stuck(before)
        await asyncio.sleep(4)
        assert member.consumer is before, "nothing to fetch is no reason"
        sent = sorted(sent + await fill(settings, resources=2))
        await until(lambda: store.names() == sent)
        assert member.consumer not in (None, before)
    [warning] = [one.message for one in seen if isinstance(one, Warned)]
    assert "nothing came for 3 s" in warning
    assert not [one for one in seen if isinstance(one, Stuck)]


async def test_liveness_fails_once_other_consumers_are_stuck_too_and_only_then(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, store = kafka_settings(broker, kafka_topic_partitions=1), Store()
    health, seen = Health(), list[Observation]()
    sent = await fill(settings)
    is_stuck = True

    def pace_and_break(consumer: AIOKafkaConsumer, wait_s: float) -> None:
        pace_empty_fetches(consumer, wait_s)
        if is_stuck:
            stuck(consumer)

    monkeypatch.setattr(connection, "pace_empty_fetches", pace_and_break)

    def observe(observation: Observation) -> None:
        seen.append(observation)
        health.observe(observation)

    async with running(settings, into(store, observe), observe):
        await until(lambda: len(health.stuck) == 1)
        assert len([one for one in seen if isinstance(one, Warned)]) == watchdog.REBUILDS_TRIED
        is_stuck = False
        await until(lambda: store.names() == sent and not health.stuck)
    reported = [type(one) for one in seen if isinstance(one, Stuck | Freed)]
    assert (reported[0], reported[-1]) == (Stuck, Freed)


async def test_a_store_that_is_away_is_not_taken_for_a_consumer_that_is_stuck(broker: Broker) -> None:
    settings, store, seen = (
        kafka_settings(broker, kafka_topic_partitions=1, batch_size=10),
        Store(),
        list[Observation](),
    )
    sent = await fill(settings)
    store.is_away = True
    async with running(settings, into(store), seen.append):
        await until(lambda: bool(store.claims))
        await asyncio.sleep(4)
        store.is_away = False
        await until(lambda: store.names() == sent)
    assert not [one for one in seen if isinstance(one, Warned)]
    assert len([one for one in seen if isinstance(one, PartitionsAssigned)]) == 1
