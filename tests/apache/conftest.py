"""Apache Kafka for tests that only it can judge. Not among `testpaths`: they need Java and Maven; .ci/run has both."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.brokers import nothing_left_behind
from tests.kafka.apache import ApacheKafka
from tests.previous.upgrade import upgrade

__all__ = ["broker", "nothing_left_behind", "upgrade"]


@pytest.fixture(scope="session")
async def broker() -> AsyncIterator[ApacheKafka]:
    """The session's broker; every test has topics and groups of its own on it."""
    async with ApacheKafka() as started:
        yield started
