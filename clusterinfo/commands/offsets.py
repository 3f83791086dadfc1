"""`clusterinfo offsets reset`: have consumers read what Kafka still holds of a topic again."""

from __future__ import annotations

from clusterinfo.commands.output import Line, Output, Result, show
from clusterinfo.exit_codes import EXIT_DONE
from clusterinfo.observations import Observe, Warned
from clusterinfo.postgres.merge.offsets import forget_offsets, stored_topics
from clusterinfo.postgres.migrations import open_migrated_pool
from clusterinfo.postgres.pool import ACQUIRE_FIRST_S
from clusterinfo.settings import Settings


async def reset_offsets(settings: Settings, observe: Observe, *, output: Output) -> int:
    """Forget the stored offsets of KAFKA_TOPIC's topics; consumers that run begin again from their beginning."""
    async with open_migrated_pool(settings) as pool, pool.acquire(timeout=ACQUIRE_FIRST_S) as connection:
        stored = await stored_topics(connection, settings.db_schema)
        meant = [topic for topic in stored if settings.topics.matches(topic)]
        forgotten = {topic: await forget_offsets(connection, settings.db_schema, topic) for topic in meant}
    if stored and not meant:
        message = f"no offsets of topic {settings.kafka_topic} are stored, but of {', '.join(stored)}"
        observe(Warned(message=message, remedy="set KAFKA_TOPIC to the one that is meant"))
    topics = ", ".join(meant) or settings.kafka_topic
    sentence = f"forgot the offsets of {sum(forgotten.values())} partitions of topic {topics}"
    records = [{"topic": topic, "partitions": partitions} for topic, partitions in forgotten.items()]
    show(Result([Line(sentence)], records, records, meant), output)
    return EXIT_DONE
