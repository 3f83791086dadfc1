"""The topics: created if they are missing, checked and never altered if they are there.

Who sends has one; who consumes may have several, and prefixes of others that come whenever somebody makes them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from clusterinfo.errors import ConfigError, FatalError, one_line
from clusterinfo.kafka.aiokafka_patches.stopping import STOP_TIMEOUT_S, bounded
from clusterinfo.kafka.client import REQUEST_TIMEOUT_MS, client_arguments
from clusterinfo.kafka.errors import translate
from clusterinfo.kafka.probe import first_connection, probe
from clusterinfo.observations import Noted, Observe, Warned
from clusterinfo.settings import MIB, Settings
from clusterinfo.topic_names import TopicNames

MAX_MESSAGE_BYTES = 8 * MIB
_ALREADY_EXISTS = 36
_BROKERS_DEFAULT = -1  # "default.replication.factor" of the broker: KIP-464
_REMEDY = "it is read as soon as there is one; if there is, grant Read on it"
_APPEARS_S = 0.2
_APPEARS_WITHIN_S = 5.0  # brokers know of a new topic within milliseconds


@dataclass(frozen=True, slots=True)
class Topic:
    """The topic as it is: its Kafka cluster's id, its partitions, the largest batch its broker takes (bytes)."""

    cluster_id: str
    name: str
    partitions: int
    max_message_bytes: int


@dataclass(frozen=True, slots=True)
class Topics:
    """What a consumer reads: of which Kafka cluster, and which topics KAFKA_TOPIC means."""

    cluster_id: str
    names: TopicNames


async def ensure_topic(settings: Settings, observe: Observe) -> Topic:
    """The one topic of who sends, created if it was missing. The first thing that talks to Kafka.

    Raises FatalError in one line if Kafka cannot be reached within 20 s or refuses; ConfigError for a wrong setting.
    """
    name = settings.sending_topic()
    async with connected_admin(settings) as admin:
        cluster_id, found = await _ensured(admin, settings, observe)
        limit_bytes = await _max_message_bytes(admin, name)
    return Topic(cluster_id, name, found[name], limit_bytes)


async def ensure_topics(settings: Settings, observe: Observe) -> Topics:
    """The topics of who consumes: those that are named are created if they were missing. Raises as `ensure_topic`."""
    async with connected_admin(settings) as admin:
        cluster_id, found = await _ensured(admin, settings, observe)
    if not found:
        observe(Warned(message=f"no topic is there yet that KAFKA_TOPIC means: {settings.kafka_topic}", remedy=_REMEDY))
    return Topics(cluster_id, settings.topics)


@contextlib.asynccontextmanager
async def connected_admin(settings: Settings, timeout_s: float | None = None) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client; the first connection, and then the block, must end within `timeout_s`, or CONNECT_TIMEOUT_S.

    Raises FatalError in one line if Kafka cannot be reached or refuses, ConfigError for wrong settings.
    """
    await probe(settings, timeout_s)
    arguments = client_arguments(settings)
    async with first_connection(settings, timeout_s):
        admin = AIOKafkaAdminClient(**arguments)
        try:
            await admin.start()
            yield admin
        finally:
            await bounded(admin.close, STOP_TIMEOUT_S)


async def _ensured(admin: AIOKafkaAdminClient, settings: Settings, observe: Observe) -> tuple[str, dict[str, int]]:
    """As `describe`, with the named topics that were missing."""
    cluster_id, found = await describe(admin, settings.topics)
    for name in settings.topics.names:
        if name not in found:
            await _create(admin, name, settings, observe)
            found[name] = await _partitions_of_new(admin, name)
    return cluster_id, found


def check_partition(topic: Topic, settings: Settings, observe: Observe) -> None:
    """KAFKA_PARTITION against the topic. Raises ConfigError if the pinned partition does not exist."""
    pinned = settings.kafka_partition
    if pinned == "auto":
        return
    if pinned >= topic.partitions:
        raise ConfigError(
            f"KAFKA_PARTITION is {pinned}, but topic {topic.name!r} has {topic.partitions} partitions: "
            f"allowed is 0 to {topic.partitions - 1}, or auto"
        )
    if pinned == 0 and topic.partitions > 1:
        observe(
            Warned(
                message=f"everything goes to partition 0 of the {topic.partitions} of topic {topic.name!r}, "
                "so that one consumer does all the work",
                remedy="KAFKA_PARTITION=auto spreads the kinds over all partitions",
            )
        )


async def describe(admin: AIOKafkaAdminClient, names: TopicNames) -> tuple[str, dict[str, int]]:
    """Cluster id, and the partitions of each of these topics that is there and that we may see.

    Requests all topics: requesting one by name makes the broker create it, with its own defaults, if it may.
    """
    cluster = await admin.describe_cluster()
    cluster_id = cluster.get("cluster_id")
    if not cluster_id:
        raise FatalError("Kafka does not report its cluster id; clusterinfo needs Kafka 0.10.1 or later")
    described: list[dict[str, Any]] = await admin.describe_topics()
    found = {one["topic"]: len(one["partitions"]) for one in described if not one["error_code"]}
    return cluster_id, {name: count for name, count in found.items() if count and names.matches(name)}


async def _create(admin: AIOKafkaAdminClient, name: str, settings: Settings, observe: Observe) -> None:
    replication = settings.kafka_topic_replication
    topic = NewTopic(
        name,
        settings.kafka_topic_partitions,
        replication or _BROKERS_DEFAULT,
        replica_assignments=None if replication else {},  # aiokafka lets -1 pass only with a (here empty) assignment
        topic_configs={"cleanup.policy": "delete", "max.message.bytes": str(MAX_MESSAGE_BYTES)},
    )
    response = await admin.create_topics([topic], timeout_ms=REQUEST_TIMEOUT_MS // 2)
    _, code, *rest = response.topic_errors[0]
    if code == 0:
        observe(Noted(message=f"created topic {name!r} with {settings.kafka_topic_partitions} partitions"))
    elif code != _ALREADY_EXISTS:
        detail = str(rest[0]) if rest and rest[0] else for_code(code).__name__
        refused = translate(for_code(code)(), f"cannot create topic {name!r}")
        raise FatalError(f"{refused}: {one_line(detail)}; create it yourself, or change KAFKA_TOPIC")


async def _partitions_of_new(admin: AIOKafkaAdminClient, name: str) -> int:
    """Wait until a topic that was just created is seen: rights to create it are not rights to see it."""
    for _ in range(round(_APPEARS_WITHIN_S / _APPEARS_S)):
        await asyncio.sleep(_APPEARS_S)
        _, found = await describe(admin, TopicNames.parse(name))
        if name in found:
            return found[name]
    raise FatalError(
        f"topic {name!r} is there, but this user does not see it; grant Write (`collect`) or Read (`consume`) on it, "
        "or change KAFKA_TOPIC"
    )


async def _max_message_bytes(admin: AIOKafkaAdminClient, name: str) -> int:
    """The topic's `max.message.bytes`: of a compressed batch, in bytes. Our own request limit where it may not be read.

    A broker that takes less than we think refuses the batch, and the sink learns from that.
    """
    found = await topic_settings(admin, name, "max.message.bytes")
    return int(found.get("max.message.bytes", MAX_MESSAGE_BYTES))


async def topic_settings(admin: AIOKafkaAdminClient, name: str, *wanted: str) -> dict[str, str]:
    """Those of a topic's settings, as the broker has them; none where they may not be read."""
    resource = ConfigResource(ConfigResourceType.TOPIC, name, configs=dict.fromkeys(wanted))
    for response in await admin.describe_configs([resource]):
        for code, _, _, _, entries in response.resources:
            if code == 0:
                return {entry[0]: entry[1] for entry in entries if entry[0] in wanted}
    return {}
