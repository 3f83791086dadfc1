"""The broker that integration tests talk to: the embedded one, or Apache Kafka if CLUSTERINFO_TEST_KAFKA=apache."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Protocol

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from clusterinfo.sandbox.broker import EmbeddedBroker
from clusterinfo.settings import Settings, load
from tests.kafka.apache import ApacheKafka
from tests.support.programs import NO_AUTHORITIES

IS_APACHE = os.environ.get("CLUSTERINFO_TEST_KAFKA") == "apache"


class Broker(Protocol):
    """What both brokers can do."""

    @property
    def bootstrap(self) -> str: ...

    @property
    def pid(self) -> int | None: ...

    async def start(self) -> None: ...


@asynccontextmanager
async def running_broker() -> AsyncIterator[EmbeddedBroker | ApacheKafka]:
    """A broker of the test's own, to be broken."""
    async with ApacheKafka() if IS_APACHE else EmbeddedBroker() as started:
        yield started


@pytest.fixture(scope="session")
async def broker() -> AsyncIterator[EmbeddedBroker | ApacheKafka]:
    """The session's broker; every test has topics and groups of its own on it."""
    async with running_broker() as started:
        await _coordinator_found(started.bootstrap)
        yield started


async def _coordinator_found(bootstrap: str) -> None:
    """Wait until groups can be used: Apache Kafka makes their topic when it is first asked, and refuses meanwhile.

    Else whichever test comes first has that refusal (15) in its log, as the first consumer of a new cluster does.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(GroupCoordinatorNotAvailableError):
                    await admin.find_coordinator("first")
                    return
                await asyncio.sleep(0.1)
    finally:
        await admin.close()


@pytest.fixture(scope="session", autouse=True)
def no_authorities() -> Iterator[None]:
    """Clients in the tests' own process trust what a test names and nobody else, as programs do."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in NO_AUTHORITIES.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
async def nothing_left_behind() -> AsyncIterator[None]:
    """No task that the test began outlives it."""
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0.05)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, left


async def kill(broker: EmbeddedBroker | ApacheKafka) -> None:
    """End the broker without a word."""
    if isinstance(broker, ApacheKafka):
        await broker.stop("hard")
    else:
        await broker.stop("kill")


def kafka_settings(broker: Broker, **flags: object) -> Settings:
    """Settings for this broker, with a topic and a group of their own."""
    unique = uuid.uuid4().hex[:8]
    given: dict[str, object] = {
        "kafka_brokers": broker.bootstrap,
        "kafka_topic": f"topic-{unique}",
        "kafka_group_id": f"group-{unique}",
        "kafka_topic_partitions": 6,
        "kafka_partition": "auto",
        "batch_wait": "100ms",
        "batch_size": 500,
    }
    return load({}, **(given | flags))
