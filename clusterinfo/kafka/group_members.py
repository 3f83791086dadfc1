"""Who consumes: the members of the consumer group, as Kafka describes them to a client that is none of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError, for_code

from clusterinfo.errors import FatalError
from clusterinfo.kafka.aiokafka_patches.stopping import STOP_TIMEOUT_S, bounded
from clusterinfo.kafka.client import client_arguments
from clusterinfo.kafka.end_offsets import topic_partitions
from clusterinfo.kafka.errors import Next, next_after
from clusterinfo.kafka.probe import first_connection
from clusterinfo.settings import Settings

REBALANCING = ("PreparingRebalance", "CompletingRebalance")
"""States in which Kafka reports who held what before, or nothing."""

RESTS_WITHIN_S = 10.0  # a rebalance takes 3 s where every member answers: it learns of it by its heartbeat
_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group in Kafka's words: Stable, Empty, Dead (there is none), or a rebalance that does not end.

    `held`: the partitions of KAFKA_TOPIC's topics that its members hold, or held before that rebalance. `error`: why
    Kafka did not describe it; then `state` is unknown, and so is the rest.
    """

    state: str
    members: int = 0
    held: frozenset[TopicPartition] = frozenset()
    error: str = ""


async def describe(settings: Settings, rests_within_s: float = RESTS_WITHIN_S) -> Group:
    """The group KAFKA_GROUP_ID, after a rebalance that is under way if it ends within `rests_within_s`.

    Needs Describe on the group, which Read implies. Raises ConfigError for a wrong setting; whatever else prevents an
    answer is the group's `error`.
    """
    try:
        async with first_connection(settings):
            admin = AIOKafkaAdminClient(**client_arguments(settings))
            try:
                await admin.start()
                return await _at_rest(admin, settings, rests_within_s)
            finally:
                await bounded(admin.close, STOP_TIMEOUT_S)
    except FatalError as error:
        return Group("unknown", error=str(error))


async def unowned(settings: Settings) -> list[TopicPartition]:
    """The partitions of KAFKA_TOPIC's topics that no member of the group holds; none if Kafka does not describe it.

    All of them while a rebalance goes on. Raises FatalError if Kafka is away, ConfigError for a wrong setting.
    """
    async with first_connection(settings):
        partitions = await topic_partitions(settings)
    group = await describe(settings, rests_within_s=0)
    return [] if group.error else [one for one in partitions if one not in group.held]


async def _at_rest(admin: AIOKafkaAdminClient, settings: Settings, within_s: float) -> Group:
    """Describe it until it is at rest and its coordinator available (a new cluster has none at first)."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + within_s
    while True:
        try:
            group = await _describe(admin, settings)
            if group.state not in REBALANCING or loop.time() >= deadline_s:
                return group
        except KafkaError as error:
            if next_after(error) is not Next.RETRY or loop.time() >= deadline_s:
                raise
        await asyncio.sleep(_PAUSE_S)


async def _describe(admin: AIOKafkaAdminClient, settings: Settings) -> Group:
    [response] = await admin.describe_consumer_groups([settings.kafka_group_id])
    [(code, _, state, _, _, members, *_)] = response.groups
    if code:
        raise for_code(code)()
    names = settings.topics
    held = {
        partition
        for _, _, _, _, assignment in members
        if assignment  # empty before the first one, and while a rebalance completes
        for partition in ConsumerProtocolMemberAssignment.decode(assignment).partitions()
        if names.matches(partition.topic)
    }
    return Group(state, len(members), frozenset(held))
