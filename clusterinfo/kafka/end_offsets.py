"""Where the partitions of the topics end, asked by a client that reads nothing and belongs to no group."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

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
    async with _asking(settings) as (consumer, partitions):
        return {partition: int(end) for partition, end in (await consumer.end_offsets(partitions)).items()}


class End(NamedTuple):
    """Where a partition ends, and its first message that was sent after a given moment: offset, Unix time in seconds.

    `next_offset` -1: none was sent since.
    """

    offset: int
    next_offset: int
    next_sent_s: float


async def ends_since(settings: Settings, since_s: Mapping[tuple[str, int], float]) -> dict[TopicPartition, End]:
    """As `end_offsets`, with what came since a moment (Unix time) of each partition; 0 for one that is not named."""
    async with _asking(settings) as (consumer, partitions):
        ends = await consumer.end_offsets(partitions)
        times = {partition: int(1000 * since_s.get(partition, 0.0)) for partition in partitions}
        found = await consumer.offsets_for_times(times)
    return {
        partition: End(int(end), -1, 0.0)
        if (after := found.get(partition)) is None
        else End(int(end), int(after.offset), after.timestamp / 1000)
        for partition, end in ends.items()
    }


@asynccontextmanager
async def _asking(settings: Settings) -> AsyncIterator[tuple[AIOKafkaConsumer, list[TopicPartition]]]:
    """A consumer that can be asked about the topics' partitions, none if there is no such topic. It fetches nothing."""
    await probe(settings)
    async with first_connection(settings):
        partitions = await topic_partitions(settings)
        consumer = AIOKafkaConsumer(**client_arguments(settings))
        try:
            await consumer.start()
            if partitions:
                consumer.assign(partitions)  # or it would not ask who leads them
                consumer.pause(*partitions)  # at once: nothing is fetched
            yield consumer, partitions
        finally:
            await stop_consumer(consumer)


async def topic_partitions(settings: Settings) -> list[TopicPartition]:
    """Those that the topics have. Raises KafkaError, OSError."""
    admin = AIOKafkaAdminClient(**client_arguments(settings))
    try:
        await admin.start()
        _, found = await describe(admin, settings.topics)
    finally:
        await bounded(admin.close, STOP_TIMEOUT_S)
    return [TopicPartition(topic, number) for topic, count in sorted(found.items()) for number in range(count)]
