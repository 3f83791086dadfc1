"""Where the partitions of a topic end, asked by somebody who reads nothing and belongs to no group."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, TopicPartition

from clusterinfo.kafka import connection
from clusterinfo.settings import Settings


async def end_offsets(settings: Settings) -> dict[int, int]:
    """Partition of KAFKA_TOPIC -> offset of the message to come; empty if there is no such topic.

    Raises FatalError in one line if Kafka cannot be reached within 20 s or refuses; ConfigError for a wrong setting.
    """
    await connection.probe(settings)
    async with connection.first_time(settings):
        consumer = AIOKafkaConsumer(**connection.client_arguments(settings))
        try:
            await consumer.start()
            if settings.kafka_topic not in await consumer.topics():
                return {}
            numbers = consumer.partitions_for_topic(settings.kafka_topic) or set()
            ends = await consumer.end_offsets([TopicPartition(settings.kafka_topic, number) for number in numbers])
        finally:
            await connection.stop_consumer(consumer)
    return {partition.partition: int(end) for partition, end in ends.items()}
