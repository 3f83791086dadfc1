"""Records on their way through Kafka, for tests of the sink and the group."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from clusterinfo import wire
from clusterinfo.model import Batch, ListLane, Record, RecordType, Unit
from clusterinfo.settings import Settings
from tests.support.records import NOON, uuid7

CLUSTER = "c1"


def new_list() -> str:
    return uuid7(NOON + dt.timedelta(seconds=1))


def item(number: int, resource: str, list_id: str, body: bytes = b"") -> Record:
    return Record(
        type=RecordType.OBSERVED, cluster=CLUSTER, cluster_name="test", observed_at=NOON,
        body=body or b'{"number":%d}' % number, resource=resource, namespace="ns", name=f"o-{number}", list=list_id,
        api_version="v1", kind="Thing", uid=f"uid-{number}", resource_version=str(number + 1), list_version="99",
        content_hash=f"{number:032x}", normalization=1,
    )  # fmt: skip


def completed(resource: str, list_id: str) -> Record:
    return Record(
        type=RecordType.LIST_COMPLETED, cluster=CLUSTER, cluster_name="test", observed_at=NOON, list=list_id,
        resource=resource, body=b'{"count":0,"digest":"00"}',
    )  # fmt: skip


def lane_of(resource: str) -> ListLane:
    return ListLane(Unit(CLUSTER, "", resource))


def page_of(resource: str, number: int, records: Sequence[Record]) -> Batch:
    """Page `number` of a list of `resource`."""
    return Batch(lane=lane_of(resource), start=number, end=number + 1, records=list(records), list=records[0].list)


async def read_all(settings: Settings) -> dict[int, list[ConsumerRecord]]:
    """Every message of the topic, by partition, read by a client without any of our code."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_brokers, max_partition_fetch_bytes=16 << 20, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        numbers = await consumer._client._wait_on_metadata(settings.kafka_topic)
        partitions = [TopicPartition(settings.kafka_topic, number) for number in sorted(numbers)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        found: dict[int, list[ConsumerRecord]] = {partition.partition: [] for partition in partitions}
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for partition, messages in (await consumer.getmany(timeout_ms=500)).items():
                found[partition.partition] += messages
        return found
    finally:
        await consumer.stop()


async def records_of(settings: Settings) -> dict[int, list[Record]]:
    """The same, decoded."""
    return {
        partition: [wire.decode(m.key, m.value, m.headers, m.offset) for m in messages]
        for partition, messages in (await read_all(settings)).items()
    }
