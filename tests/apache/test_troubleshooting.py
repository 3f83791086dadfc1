"""What only Apache Kafka provokes of docs/TROUBLESHOOTING.md; the rest: tests/integration/test_troubleshooting.py."""

from __future__ import annotations

import re
import uuid

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from tests.conftest import Database
from tests.integration.test_troubleshooting import ENTRIES
from tests.kafka.apache import ApacheKafka
from tests.support.programs import run, simulated_api


async def test_records_are_missing(broker: ApacheKafka, database: Database, connection: asyncpg.Connection) -> None:
    """And the next run of lists is all it takes."""
    entry, named = ENTRIES["Records are missing"], f"missing-{uuid.uuid4().hex[:8]}"
    (query,) = re.findall(r"```sql\n(.*?)```", entry, re.DOTALL)
    kafka = {"KAFKA_ENABLED": "true", "KAFKA_BROKERS": broker.bootstrap, "KAFKA_TOPIC": named, "KAFKA_GROUP_ID": named}
    env = database.env | kafka | {"KAFKA_TOPIC_PARTITIONS": "1", "BATCH_WAIT": "100ms"}
    async with simulated_api(60, 12) as api:

        async def come_through() -> None:
            (await run("collect", "--once", env=env | api.env)).expect(0)
            (await run("consume", "--until-idle", "1s", env=env)).expect(0)

        await come_through()
        assert await connection.fetch(query) == []
        (await run("collect", "--once", env=env | api.env)).expect(0)
        await delete_all_but(20, broker, named)
        ended = (await run("consume", "--until-idle", "1s", env=env)).expect(0)
        (gap,) = ended.logged("Records are missing: Kafka no longer holds them")
        assert gap["msg"] in entry
        assert gap["found"] > gap["expected"]
        assert {row["state"] for row in await connection.fetch(query)} == {"unverified"}
        await come_through()
        assert await connection.fetch(query) == []


async def delete_all_but(last: int, broker: ApacheKafka, topic: str) -> None:
    """As retention does."""
    partition = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap)
    await consumer.start()
    end = (await consumer.end_offsets([partition]))[partition]
    await consumer.stop()
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        await admin.delete_records({partition: RecordsToDelete(before_offset=end - last)})
    finally:
        await admin.close()
