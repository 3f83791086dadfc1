"""Where the partitions of the topics end, asked by a client that reads nothing and belongs to no group."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from clusterinfo.kafka.aiokafka_patches.stopping import STOP_TIMEOUT_S, bounded, stop_consumer
from clusterinfo.kafka.client import client_arguments
from clusterinfo.kafka.probe import first_connection, probe
from clusterinfo.kafka.topics import describe
from clusterinfo.settings import Settings


async def end_offsets(settings: Settings) -> dict[TopicPartition, int]:
    """Partition of a topic that KAFKA_TOPIC means -> offset of the message to come; empty if there is no such topic.

    Raises FatalError in one line if Kafka cannot be reached within 20 s or refuses; ConfigError for a wrong setting.
    """
    await probe(settings)
    async with first_connection(settings):
        partitions = await _partitions(settings)
        return await _ends(settings, partitions) if partitions else {}


async def _partitions(settings: Settings) -> list[TopicPartition]:
    """Those that the topics have."""
    admin = AIOKafkaAdminClient(**client_arguments(settings))
    try:
        await admin.start()
        _, found = await describe(admin, settings.topics)
    finally:
        await bounded(admin.close, STOP_TIMEOUT_S)
    return [TopicPartition(topic, number) for topic, count in sorted(found.items()) for number in range(count)]


async def _ends(settings: Settings, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
    consumer = AIOKafkaConsumer(**client_arguments(settings))
    try:
        await consumer.start()
        consumer.assign(partitions)  # or it would not ask who leads them
        consumer.pause(*partitions)  # at once: nothing is fetched
        ends = await consumer.end_offsets(partitions)
    finally:
        await stop_consumer(consumer)
    return {partition: int(end) for partition, end in ends.items()}
