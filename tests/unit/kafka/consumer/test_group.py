"""ConsumerGroup without a broker: what it says while aiokafka is in the middle of something."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition

from clusterinfo.kafka.consumer.group import ConsumerGroup
from clusterinfo.kafka.topics import Topic
from clusterinfo.observations import unobserved
from clusterinfo.settings import load


class Rebalancing:
    """A consumer that has partition 1 left of two; asked for another's end it fails as aiokafka's does."""

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset({TopicPartition("topic", 1)})

    def highwater(self, partition: TopicPartition) -> int:
        assert partition in self.assignment(), "Partition is not assigned"
        return 10


def test_the_lag_leaves_out_what_was_taken_away_a_moment_ago() -> None:
    group: Any = ConsumerGroup(load({}), Topic("kafka-1", "topic", 2, 1000), unobserved)
    group._connection.consumer = Rebalancing()
    group._lanes = SimpleNamespace(sources=lambda: {0: SimpleNamespace(position=3), 1: SimpleNamespace(position=4)})
    assert group.lag() == {1: 6}
