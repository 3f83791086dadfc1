"""Fixtures of the tests that talk to servers. The broker is Apache Kafka's where CI has it."""

from __future__ import annotations

import uuid

import pytest

from tests.integration.brokers import Broker, broker, no_authorities, nothing_left_behind
from tests.integration.lists import api, make_settings, many_namespaces, no_waiting, start
from tests.previous.upgrade import upgrade

__all__ = [
    "api",
    "broker",
    "kafka_env",
    "make_settings",
    "many_namespaces",
    "no_authorities",
    "no_waiting",
    "nothing_left_behind",
    "start",
    "upgrade",
]


@pytest.fixture
def kafka_env(broker: Broker) -> dict[str, str]:
    """What makes `clusterinfo` use a topic of this test's own, of six partitions, spread by kind."""
    name = uuid.uuid4().hex[:12]
    return {
        "KAFKA_ENABLED": "true",
        "KAFKA_BROKERS": broker.bootstrap,
        "KAFKA_TOPIC": f"topic-{name}",
        "KAFKA_GROUP_ID": f"group-{name}",
        "KAFKA_PARTITION": "auto",
        "KAFKA_TOPIC_PARTITIONS": "6",
    }
