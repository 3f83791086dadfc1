"""A broker that is away is no stuck consumer. Not for the embedded one: on a kill it forgets what it confirmed."""

from __future__ import annotations

import asyncio

import pytest

from clusterinfo.kafka.consumer import membership
from clusterinfo.observations import Observation, Stuck
from clusterinfo.telemetry.health import Health
from tests.integration.brokers import kafka_settings
from tests.integration.test_kafka_watchdog import impatient
from tests.kafka.apache import ApacheKafka
from tests.support.members import Store, fill, into, running, until

__all__ = ["impatient"]

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


async def test_while_the_broker_is_away_nobody_is_stuck_and_readiness_fails_until_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(membership, "LOST_POLLS", 2)
    async with ApacheKafka() as own:
        settings, store = kafka_settings(own, kafka_topic_partitions=2), Store()
        health, seen = Health(), list[Observation]()
        sent = await fill(settings, resources=2)

        def observe(observation: Observation) -> None:
            seen.append(observation)
            health.observe(observation)

        async with running(settings, into(store, observe), observe, session_timeout_s=10) as member:
            await until(lambda: store.names() == sent)
            before = member.consumer
            await own.stop("hard")
            await until(lambda: bool(health.failing))
            await asyncio.sleep(4)
            assert (member.consumer, health.stuck) == (before, set())
            await own.start()
            sent = sorted(sent + await fill(settings, resources=2))
            await until(lambda: store.names() == sent and not health.failing)
        assert not [one for one in seen if isinstance(one, Stuck)]
