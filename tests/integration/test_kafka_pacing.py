"""A consumer with nothing to read rests, whatever its broker does with an empty fetch."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from clusterinfo.kafka.aiokafka_patches import pacing
from clusterinfo.kafka.aiokafka_patches.pacing import FETCH_API_KEY, pace_empty_fetches
from clusterinfo.sandbox.broker import EmbeddedBroker

pytestmark = pytest.mark.embedded_only


async def test_empty_fetches_are_paced_and_full_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "QUIET_AFTER_S", 1.0)
    fetches: list[Any] = []
    async with EmbeddedBroker() as broker, AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        await producer.send_and_wait("topic", b"first")
        async with AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest") as consumer:
            client: Any = consumer._client
            send = client.send

            async def counted(node_id: int, request: Any, *args: Any, **named: Any) -> Any:
                fetches.extend([request] * (request.API_KEY == FETCH_API_KEY))
                return await send(node_id, request, *args, **named)

            client.send = counted
            pace_empty_fetches(consumer, 0.2)
            consumer.assign([TopicPartition("topic", 0)])
            assert (await consumer.getone()).value == b"first"
            fetches.clear()
            assert await consumer.getmany(timeout_ms=3000) == {}
            assert 1 <= len(fetches) <= 17
            waits = [request._max_wait_ms for request in fetches]
            assert (waits[0], waits[-1]) == (200, 500), "where nothing has come for a while, a fetch may wait"
            await producer.send_and_wait("topic", b"second")
            async with asyncio.timeout(60):
                assert (await consumer.getone()).value == b"second"
            fetches.clear()
            assert await consumer.getmany(timeout_ms=900) == {}
            assert 200 in [request._max_wait_ms for request in fetches], "where something came, it is not to"
