"""Where the partitions of a topic end, asked by a client that reads nothing and belongs to no group."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from clusterinfo.kafka.aiokafka_patches.stopping import STOP_TIMEOUT_S, bounded, stop_consumer
from clusterinfo.kafka.client import client_arguments
from clusterinfo.kafka.probe import first_connection, probe
from clusterinfo.kafka.topics import describe
from clusterinfo.settings import Settings


async def end_offsets(settings: Settings) -> dict[int, int]:
    """Partition of KAFKA_TOPIC -> offset of the message to come; empty if there is no such topic.

    Raises FatalError in one line if Kafka cannot be reached within 20 s or refuses; ConfigError for a wrong setting.
    """
    await probe(settings)
    async with first_connection(settings):
        partitions = [TopicPartition(settings.kafka_topic, number) for number in range(await _count(settings))]
        return await _ends(settings, partitions) if partitions else {}


async def _count(settings: Settings) -> int:
    """How many partitions the topic has."""
    admin = AIOKafkaAdminClient(**client_arguments(settings))
    try:
        await admin.start()
        _, partitions = await describe(admin, settings.kafka_topic)
    finally:
        await bounded(admin.close, STOP_TIMEOUT_S)
    return partitions


async def _ends(settings: Settings, partitions: list[TopicPartition]) -> dict[int, int]:
    consumer = AIOKafkaConsumer(**client_arguments(settings))
    try:
        await consumer.start()
        consumer.assign(partitions)  # or it would not ask who leads them
        consumer.pause(*partitions)  # at once: nothing is fetched
        ends = await consumer.end_offsets(partitions)
    finally:
        await stop_consumer(consumer)
    return {partition.partition: int(end) for partition, end in ends.items()}
