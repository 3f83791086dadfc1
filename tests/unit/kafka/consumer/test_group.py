"""ConsumerGroup without a broker: what it says while aiokafka is in the middle of something."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition

from clusterinfo.kafka.consumer.group import ConsumerGroup
from clusterinfo.kafka.topics import Topics
from clusterinfo.observations import unobserved
from clusterinfo.settings import load
from clusterinfo.topic_names import TopicNames


class Rebalancing:
    """A consumer that has partition 1 left of two; asked for another's end it fails as aiokafka's does."""

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset({TopicPartition("topic", 1)})

    def highwater(self, partition: TopicPartition) -> int:
        assert partition in self.assignment(), "Partition is not assigned"
        return 10


def test_the_lag_leaves_out_what_was_taken_away_a_moment_ago() -> None:
    group: Any = ConsumerGroup(load({}), Topics("kafka-1", TopicNames.parse("topic")), unobserved)
    group._connection.consumer = Rebalancing()
    group._lanes = SimpleNamespace(
        sources=lambda: {TopicPartition("topic", n): SimpleNamespace(position=3 + n) for n in range(2)}
    )
    assert group.lag() == {TopicPartition("topic", 1): 6}
