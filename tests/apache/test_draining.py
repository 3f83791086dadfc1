"""Asked to stop while the broker is stopped: within the grace period, asked twice at once; nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from tests.conftest import Database
from tests.integration.test_draining import AT_ONCE_S, GRACE_S, ONCE, PATIENT, QUIET, converges, stopped
from tests.kafka.apache import ApacheKafka
from tests.support.programs import Api, Program, run, running, simulated_api

KAFKA = {"KAFKA_ENABLED": "true", "KAFKA_PARTITION": "auto", "KAFKA_TOPIC_PARTITIONS": "6"}


@contextmanager
def frozen(pid: int | None) -> Iterator[None]:
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def at_work_as_it_stops(env: dict[str, str], broker: int | None) -> AsyncIterator[tuple[Program, Program]]:
    """A consumer and a collector in the middle of their work when the broker freezes; it thaws when the block ends."""
    async with (
        running("consume", env=env) as consumer,
        running("collect", "--interval", "1s", env=env) as collector,
    ):
        await asyncio.gather(consumer.wait_for_output('"Batch stored"'), collector.wait_for_output('"Snapshot ended"'))
        with frozen(broker):
            await asyncio.sleep(2)
            yield consumer, collector


@pytest.fixture(scope="module")
async def own() -> AsyncIterator[ApacheKafka]:
    """A broker to freeze: afterwards it may take itself for lost, which is nobody else's matter."""
    async with ApacheKafka() as started:
        yield started


@pytest.fixture(scope="module")
async def api() -> AsyncIterator[Api]:
    async with simulated_api(300, 8) as started:
        yield started


@pytest.fixture
def env(own: ApacheKafka, api: Api, database: Database) -> dict[str, str]:
    named = f"draining-{uuid.uuid4().hex[:8]}"
    kafka = {"KAFKA_BROKERS": own.bootstrap, "KAFKA_TOPIC": named, "KAFKA_GROUP_ID": named}
    return api.env | database.env | KAFKA | QUIET | kafka


async def test_a_stopped_broker_keeps_nobody(
    own: ApacheKafka, api: Api, database: Database, env: dict[str, str]
) -> None:
    (await run(*ONCE["collect"], env=env)).expect(0)
    async with at_work_as_it_stops(env, own.pid) as (consumer, collector):
        first, second = await asyncio.gather(stopped(consumer, 2 * GRACE_S), stopped(collector, 2 * GRACE_S))
    first.expect(0)
    second.expect(0)
    await converges(api, database, env, "collect", "consume")


async def test_asked_twice_a_stopped_broker_keeps_nobody_at_all(
    own: ApacheKafka, api: Api, database: Database, env: dict[str, str]
) -> None:
    async with at_work_as_it_stops(env | PATIENT, own.pid) as (consumer, collector):
        ends = await asyncio.gather(*(stopped(one, AT_ONCE_S, 2) for one in (consumer, collector)))
    assert all(ended.code in (0, 1) for ended in ends)
    await converges(api, database, env, "collect", "consume")
