"""Batches as Kafka takes them, built by the byte: what no client library lets its users send, and Kafka stores."""

from __future__ import annotations

import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.errors import for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.util import calc_crc32c, encode_varint_py
from aiokafka.structs import TopicPartition

CODECS = {"none": (0, bytes), "gzip": (1, gzip_encode), "snappy": (2, snappy_encode), "lz4": (3, lz4_encode)}
CODECS["zstd"] = (4, zstd_encode)

_HEADER = struct.Struct(">qiibIhiqqqhii")
_CRC_AT, _AFTER_CRC = 17, 21

Headers = Sequence[tuple[bytes, bytes | None]]
Send = Callable[..., Awaitable[None]]


def varint(number: int) -> bytes:
    out = bytearray()
    encode_varint_py(number, out.append)
    return bytes(out)


def sized(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


def record(delta: int, key: bytes | None, value: bytes | None, headers: Headers = ()) -> bytes:
    """A message of format 2, `delta` offsets behind its batch's first."""
    encoded = b"".join(sized(name) + sized(text) for name, text in headers)
    return framed(b"\0\0" + varint(delta) + sized(key) + sized(value) + varint(len(headers)) + encoded)


def framed(body: bytes) -> bytes:
    """What stands for a message, with its length in front."""
    return varint(len(body)) + body


def batch(
    records: Sequence[bytes],
    codec: str = "none",
    first_offset: int = 0,
    number: int | None = None,
    attributes: int | None = None,
) -> bytes:
    """A batch of messages; `number`: how many it says there are; `attributes`: what it says of its compression."""
    code, encode = CODECS[codec]
    attributes = code if attributes is None else attributes
    data, count, now_ms = encode(b"".join(records)), len(records) if number is None else number, int(time.time() * 1000)
    size_bytes = _HEADER.size - 12 + len(data)
    fields = (first_offset, size_bytes, -1, 2, 0, attributes, len(records) - 1, now_ms, now_ms, -1, -1, -1, count)
    whole = bytearray(_HEADER.pack(*fields) + data)
    struct.pack_into(">I", whole, _CRC_AT, calc_crc32c(whole[_AFTER_CRC:]))
    return bytes(whole)


@asynccontextmanager
async def sending(bootstrap: str, topic: str) -> AsyncIterator[Send]:
    """Yields `send(partition, *batches)`: each as it is, by a request of its own. It raises the broker's error."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        await producer.partitions_for(topic)

        async def send(partition: int, *batches: bytes) -> None:
            leader = producer.client.cluster.leader_for_partition(TopicPartition(topic, partition))
            for one in batches:
                request = ProduceRequest(
                    transactional_id=None, required_acks=-1, timeout=20_000, topics=[(topic, [(partition, one)])]
                )
                response = await producer.client.send(leader, request)
                [(_, [(_, code, *_)])] = response.topics
                if code:
                    raise for_code(code)(f"a batch of {len(one)} bytes")

        yield send
