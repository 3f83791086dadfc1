"""AssignedPartition on a consumer that does not have it: the reader is given up, nothing is raised."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import IllegalStateError

from clusterinfo.kafka.consumer.partition import AssignedPartition
from clusterinfo.model import PartitionLane
from clusterinfo.observations import unobserved


class Elsewhere:
    """A consumer whose partitions were taken away: it asks aiokafka's own state."""

    def __init__(self, state: SubscriptionState) -> None:
        self._state = state

    def pause(self, partition: Any) -> None:
        self._state.pause(partition)

    def resume(self, partition: Any) -> None:
        self._state.resume(partition)

    def seek(self, partition: Any, offset: int) -> None:
        self._state.seek(partition, offset)


def taken_away() -> SubscriptionState:
    """By a rebalance."""
    state = SubscriptionState()
    state.subscribe({"topic"})
    state.assign_from_subscribed(set())
    return state


def resubscribed() -> SubscriptionState:
    """A topic that matches the pattern has come, and the group has not assigned anything since."""
    state = SubscriptionState()
    state.subscribe_pattern(re.compile("topic.*"))
    state.subscribe_from_pattern({"topic", "topic-2"})
    return state


@pytest.mark.parametrize(("state", "raises"), [(taken_away, IllegalStateError), (resubscribed, AssertionError)])
@pytest.mark.parametrize("step", ["pause", "resume", "seek"])
async def test_who_reads_what_is_not_assigned_is_given_up(state: Any, raises: type[Exception], step: str) -> None:
    consumer = Elsewhere(state())
    lane, stopping = PartitionLane("kafka", "topic", 0, "group"), asyncio.Event()
    arguments = (7,) if step == "seek" else ()
    with pytest.raises(raises):
        getattr(consumer, step)(("topic", 0), *arguments)
    partition = AssignedPartition(consumer, lane, observe=unobserved, stopping=stopping)
    getattr(partition, step)(*arguments)
    assert partition.is_given_up
