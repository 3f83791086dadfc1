"""What stands in a topic, read by a client without any of the package's code."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

POLL_MS = 500
FETCH_BYTES = 4 << 20

OBSERVED = "io.clusterinfo.resource.observed.v1"
DELETED = "io.clusterinfo.resource.deleted.v1"
COMPLETED = "io.clusterinfo.list.completed.v1"


@dataclass(frozen=True, slots=True)
class Message:
    """One message: `headers` are the CloudEvents attributes without `ce_`, `raw` is all its bytes."""

    partition: int
    offset: int
    headers: dict[str, str]
    key: tuple[str, str, str, str, str]
    value: bytes

    @property
    def type(self) -> str:
        return self.headers["type"]

    @property
    def list(self) -> str:
        return self.headers.get("list", "")

    @property
    def raw(self) -> bytes:
        return b"\n".join([json.dumps(self.key).encode(), self.value, *map(str.encode, self.headers.values())])


async def ends(bootstrap: str, topic: str, partitions: int) -> dict[int, int]:
    """Partition -> offset after its last message."""
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        found = await consumer.end_offsets([TopicPartition(topic, number) for number in range(partitions)])
    return {partition.partition: int(end) for partition, end in found.items()}


async def committed(bootstrap: str, topic: str, group: str, partitions: int) -> dict[int, int]:
    """Partition -> offset that Kafka has for the group; -1: none."""
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False) as consumer:
        offsets = {number: await consumer.committed(TopicPartition(topic, number)) for number in range(partitions)}
    return {number: -1 if offset is None else int(offset) for number, offset in offsets.items()}


async def messages(bootstrap: str, topic: str, partitions: int) -> list[Message]:
    """Every message that is there now, partition by partition in order."""
    found: dict[int, list[Message]] = {number: [] for number in range(partitions)}
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap, max_partition_fetch_bytes=FETCH_BYTES, auto_offset_reset="earliest"
    ) as consumer:
        assigned = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(assigned)
        last = await consumer.end_offsets(assigned)
        while any([await consumer.position(partition) < end for partition, end in last.items()]):
            for partition, records in (await consumer.getmany(timeout_ms=POLL_MS)).items():
                found[partition.partition] += [_message(partition.partition, record) for record in records]
    return [message for number in range(partitions) for message in found[number]]


def _message(partition: int, record: ConsumerRecord) -> Message:
    headers = {name.removeprefix("ce_"): value.decode() for name, value in record.headers}
    return Message(partition, record.offset, headers, tuple(json.loads(record.key)), record.value)


def completions(found: Iterable[Message]) -> dict[str, tuple[str, ...]]:
    """List -> cluster, group, resource and version that it is of: the lists that were completed."""
    return {
        message.list: (*message.key[:3], message.headers["listversion"])
        for message in found
        if message.type == COMPLETED
    }
