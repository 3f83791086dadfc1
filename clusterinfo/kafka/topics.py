"""The topic: created if it is missing, checked and never altered if it is there."""

from __future__ import annotations

import asyncio
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

MAX_MESSAGE_BYTES = 8 * MIB
_ALREADY_EXISTS = 36
_BROKERS_DEFAULT = -1  # "default.replication.factor" of the broker: KIP-464
_APPEARS_S = 0.2
_APPEARS_WITHIN_S = 5.0  # brokers know of a new topic within milliseconds


@dataclass(frozen=True, slots=True)
class Topic:
    """The topic as it is: its Kafka cluster's id, its partitions, the largest batch its broker takes (bytes)."""

    cluster_id: str
    name: str
    partitions: int
    max_message_bytes: int


async def ensure_topic(settings: Settings, observe: Observe) -> Topic:
    """The topic of the settings, created if it was missing. The first thing that talks to Kafka.

    Raises FatalError in one line if Kafka cannot be reached within 20 s or refuses; ConfigError for a wrong setting.
    """
    await probe(settings)
    arguments = client_arguments(settings)
    async with first_connection(settings):
        admin = AIOKafkaAdminClient(**arguments)
        try:
            await admin.start()
            cluster_id, partitions = await describe(admin, settings.kafka_topic)
            if not partitions:
                await _create(admin, settings, observe)
                partitions = await _partitions_of_new(admin, settings.kafka_topic)
            limit_bytes = await _max_message_bytes(admin, settings.kafka_topic)
        finally:
            await bounded(admin.close, STOP_TIMEOUT_S)
    return Topic(cluster_id, settings.kafka_topic, partitions, limit_bytes)


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


async def describe(admin: AIOKafkaAdminClient, name: str) -> tuple[str, int]:
    """Cluster id and number of partitions (0: no such topic).

    Requests all topics: requesting one by name makes the broker create it, with its own defaults, if it may.
    """
    cluster = await admin.describe_cluster()
    cluster_id = cluster.get("cluster_id")
    if not cluster_id:
        raise FatalError("Kafka does not report its cluster id; clusterinfo needs Kafka 0.10.1 or later")
    found: list[dict[str, Any]] = [topic for topic in await admin.describe_topics() if topic["topic"] == name]
    return cluster_id, len(found[0]["partitions"]) if found and not found[0]["error_code"] else 0


async def _create(admin: AIOKafkaAdminClient, settings: Settings, observe: Observe) -> None:
    replication = settings.kafka_topic_replication
    topic = NewTopic(
        settings.kafka_topic,
        settings.kafka_topic_partitions,
        replication or _BROKERS_DEFAULT,
        replica_assignments=None if replication else {},  # aiokafka lets -1 pass only with a (here empty) assignment
        topic_configs={"cleanup.policy": "delete", "max.message.bytes": str(MAX_MESSAGE_BYTES)},
    )
    response = await admin.create_topics([topic], timeout_ms=REQUEST_TIMEOUT_MS // 2)
    name, code, *rest = response.topic_errors[0]
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
        _, partitions = await describe(admin, name)
        if partitions:
            return partitions
    raise FatalError(
        f"topic {name!r} is there, but this user does not see it; grant Write (`collect`) or Read (`consume`) on it, "
        "or change KAFKA_TOPIC"
    )


async def _max_message_bytes(admin: AIOKafkaAdminClient, name: str) -> int:
    """The topic's `max.message.bytes`: of a compressed batch, in bytes. Our own request limit where it may not be read.

    A broker that takes less than we think refuses the batch, and the sink learns from that.
    """
    wanted = ConfigResource(ConfigResourceType.TOPIC, name, configs={"max.message.bytes": None})
    for response in await admin.describe_configs([wanted]):
        for code, _, _, _, entries in response.resources:
            if code == 0:
                return next((int(entry[1]) for entry in entries if entry[0] == "max.message.bytes"), MAX_MESSAGE_BYTES)
    return MAX_MESSAGE_BYTES
