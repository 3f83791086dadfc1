"""KafkaSink: the lists of a cluster, and what is watched of it, into a topic, by an idempotent producer.

A list's records go to one partition in order, its completion last. aiokafka batches and compresses; this builds the
batches itself, because then the records of a refused batch are known, and a record costs a few microseconds instead
of thirty. What went wrong between here and the broker is never guessed at: if any record of a write may be in Kafka and
another may not, the list starts again under a new id (`RestartError`), since a record sent twice would spoil its count.
What is watched is numbered instead, and sent again until Kafka has it: see `outbox.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from aiokafka.partitioner import murmur2

from clusterinfo import wire
from clusterinfo.errors import ClusterinfoError, FatalError, RestartError, TransientError
from clusterinfo.kafka.aiokafka_patches import codecs
from clusterinfo.kafka.aiokafka_patches.quiet import quiet
from clusterinfo.kafka.aiokafka_patches.stopping import STOP_TIMEOUT_S, bounded, drop_producer
from clusterinfo.kafka.client import client_arguments, refresh_credentials
from clusterinfo.kafka.errors import is_final, translate
from clusterinfo.kafka.outbox import Outbox
from clusterinfo.kafka.probe import CONNECT_TIMEOUT_S, first_connection, probe
from clusterinfo.kafka.topics import Topic, check_partition, ensure_topic
from clusterinfo.model import (
    Batch,
    Lane,
    ListLane,
    PartitionLane,
    Receipt,
    Record,
    RecordType,
    Unit,
    WatchLane,
    partition_name,
)
from clusterinfo.observations import Noted, Observe, Produced, Streamed, Stubbed
from clusterinfo.settings import MIB, Settings

SEND_TIMEOUT_S = 60.0  # for one batch of the pump: 16 MiB by default
PING_TIMEOUT_S = 5.0
MAX_REQUEST_BYTES = 8 * MIB  # of one message, before compression (docs/DESIGN.md, section 8)
BATCH_BYTES = 512 * 1024  # measured, 11 kB records: 64 KiB 12,000 records/s, 256 KiB to 1 MiB 24,000-30,000
MESSAGE_OVERHEAD_BYTES = 2048  # key, headers and framing of a message, rounded up
_REFUSED = (MessageSizeTooLargeError, RecordListTooLargeError)
_LIST_ENDS = frozenset({RecordType.LIST_COMPLETED, RecordType.LIST_FAILED})

PRODUCER: dict[str, Any] = {
    "acks": "all",
    "enable_idempotence": True,
    "compression_type": "zstd",
    "max_request_size": MAX_REQUEST_BYTES,
    "linger_ms": 0,  # batches are handed over full
}


@lru_cache(maxsize=8192)  # murmur2 in Python takes 24 times as long as looking it up
def partition_for(unit: Unit, partitions: int) -> int:
    """The partition of a unit among `partitions`: murmur2 of `cluster/group/resource`, as the Java client's default.

    Contract: another producer that keys by the same text puts it on the same partition.
    """
    text = f"{unit.cluster}/{unit.group}/{unit.resource}"
    return int(murmur2(text.encode()) & 0x7FFFFFFF) % partitions  # "toPositive", as Java's


@dataclass(slots=True)
class _Sent:
    """What one list has in Kafka so far."""

    list_id: str
    records: int = 0
    size_bytes: int = 0
    last_offset: int = -1


@dataclass(slots=True)
class _Delivery:
    """Records handed to aiokafka as one Kafka batch; `future` resolves to where it put them."""

    records: list[Record]
    future: asyncio.Future[Any]


class KafkaSink:
    """A `pump.Sink` for lanes of lists and watches. Use `async with KafkaSink.connect(settings, observe) as sink`."""

    def __init__(self, settings: Settings, topic: Topic, observe: Observe) -> None:
        self.topic = topic
        self._settings = settings
        self._observe = observe
        self._limit_bytes = min(topic.max_message_bytes, MAX_REQUEST_BYTES)
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self._sent: dict[Lane, _Sent] = {}
        self._outboxes: dict[tuple[str, int], Outbox] = {}
        """(session, partition) -> what it says there."""
        self._last_released = ""
        """The newest session whose outboxes are gone: ids are ordered by when they were made."""
        # aiokafka lets those who wait for a partition starve, and counts their waiting time more than once: 200 turns
        # of 1 ms pass for 20 s (message_accumulator.add_batch, 0.14.0). So one waits at a time, in order.
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, settings: Settings, observe: Observe) -> AsyncIterator[Self]:
        """A connected sink; creates the topic if it is missing. Leaving it takes 10 s at most, whatever Kafka does.

        Raises FatalError in one line if Kafka is not reached within 20 s or refuses us, ConfigError for wrong settings.
        """
        topic = await ensure_topic(settings, observe)
        check_partition(topic, settings, observe)
        sink = cls(settings, topic, observe)
        try:
            async with first_connection(settings):
                await sink._ready()
            yield sink
        finally:
            await sink._close()

    async def open(self, lane: Lane) -> None:
        """Forget what an earlier attempt at this lane sent. Lists and watches know where they begin: returns None."""
        self._sent.pop(lane, None)

    async def write(self, batch: Batch) -> Receipt:
        """Send every record of the batch and wait until all in-sync replicas have them, at most 60 s.

        Raises TransientError if nothing was sent (no broker to be had); RestartError if part of it may have been;
        FatalError if Kafka refuses us for good; RecordError for a record that cannot be encoded. What is watched is
        numbered before anything is waited for, and waits until Kafka has it.
        """
        partition = self._partition_of(batch)
        records = [self._fitting(record) for record in batch.records]
        if isinstance(batch.lane, WatchLane):
            await self._outbox(batch.lane.session, partition).put(_said_on(partition, records))
            return Receipt(lane=batch.lane, position=batch.end)
        producer = await self._ready()
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                last_offset = await self._send(producer, partition, records)
        except TimeoutError as error:
            self._retire(producer, drop=True)
            raise RestartError(f"{batch.lane}: Kafka did not confirm a batch within {SEND_TIMEOUT_S:g} s") from error
        except KafkaError as error:
            self._retire(producer, drop=True)
            raise _after_sending(error, f"{batch.lane}: sending to Kafka") from error
        return self._sent_to(batch, partition, last_offset, records)

    async def ping(self) -> None:
        """Return if Kafka answers, by a connection of its own. Raises FatalError, in one line, if it does not."""
        await probe(self._settings, PING_TIMEOUT_S)

    def next_number(self, lane: WatchLane) -> int:
        """The number that the next record of this lane's session will get on this lane's partition."""
        return self._outbox(lane.session, self._partition_of_unit(lane.unit)).next_number

    def progress_lane(self, lane: WatchLane) -> tuple[WatchLane, int]:
        """Where it is said until when this lane was heard: with all that is watched on its partition."""
        return WatchLane(Unit(lane.unit.cluster, "", ""), "", lane.session), self._partition_of_unit(lane.unit)

    def numbers_with(self, lane: WatchLane, listed: ListLane) -> bool:
        """All that is said of a kind is on one partition."""
        return lane.unit == listed.unit

    async def renewed(self) -> bool:
        """True if the topic has more partitions than it had, over which the kinds are spread from now on."""
        found = await self._partitions() if self._settings.kafka_partition == "auto" else None
        if found is None or found == self.topic.partitions:
            return False
        name, before = self.topic.name, self.topic.partitions
        self._observe(
            Noted(message=f"topic {name!r} has {found} partitions now, it had {before}: kinds are spread again")
        )
        self.topic = replace(self.topic, partitions=found)
        return True

    async def _partitions(self) -> int | None:
        """How many the topic has now; None if Kafka does not say."""
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                producer = await self._ready()
                await producer.client.force_metadata_update()
                return len(await producer.partitions_for(self.topic.name))
        except (TimeoutError, KafkaError, TransientError):
            return None

    def _partition_of(self, batch: Batch) -> int:
        if isinstance(batch.lane, WatchLane) and not batch.lane.unit.resource:
            return batch.records[0].partition
        lane = batch.lane
        return self._partition_of_unit(batch.records[0].unit if isinstance(lane, PartitionLane) else lane.unit)

    def _partition_of_unit(self, unit: Unit) -> int:
        pinned = self._settings.kafka_partition
        return partition_for(unit, self.topic.partitions) if pinned == "auto" else pinned

    # --- what is numbered --------------------------------------------------------------------------------------------

    def _outbox(self, session: str, partition: int) -> Outbox:
        if (outbox := self._outboxes.get((session, partition))) is None:
            name = partition_name(self.topic.name, partition)
            if session <= self._last_released:
                raise RestartError(f"{name}: session {session} is over, its numbers are not known any more")
            outbox = Outbox(name, partial(self._send_first, partition), self._observe)
            self._outboxes[session, partition] = outbox
            self._release_old()
        return outbox

    def _release_old(self) -> None:
        """Of sessions before the last two, once Kafka has all of it: a leader that comes and goes has one each time."""
        old = sorted({session for session, _ in self._outboxes})[:-2]
        if any(not outbox.is_over for (session, _), outbox in self._outboxes.items() if session in old):
            return
        for key in [key for key in self._outboxes if key[0] in old]:
            self._last_released = max(self._last_released, key[0])
            task = asyncio.create_task(self._outboxes.pop(key).close())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def _send_first(self, partition: int, records: Sequence[Record], most: int | None = None) -> int:
        """An `outbox.Send`: one message batch of the first records, `most` of them at most."""
        producer = await self._ready()
        delivery: _Delivery | None = None
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                delivery = await self._submit_first(producer, partition, records[:most])
                refused, _ = await _confirmed([delivery])
        except TimeoutError as error:
            self._retire(producer, drop=True)
            raise TransientError(f"Kafka did not confirm a batch within {SEND_TIMEOUT_S:g} s") from error
        except KafkaError as error:
            self._retire(producer, drop=True)
            raise _after_sending(error, "sending to Kafka", again=TransientError) from error
        finally:
            if delivery is not None:
                delivery.future.cancel()
        if not refused:
            return self._streamed(partition, delivery.records)
        self._retire(producer)  # as for a list
        if len(refused) > 1:
            return await self._send_first(partition, records, most=len(refused) // 2)
        self._lower_limit(refused[0])
        return await self._send_first(partition, [self._stub(refused[0])])

    def _streamed(self, partition: int, records: Sequence[Record]) -> int:
        size_bytes = sum(len(record.body) for record in records)
        topic, count = self.topic.name, len(records)
        self._observe(Streamed(topic=topic, partition=partition, records=count, size_bytes=size_bytes))
        return count

    async def _submit_first(self, producer: AIOKafkaProducer, partition: int, records: Sequence[Record]) -> _Delivery:
        """Hand over as many of the first records as one message batch takes."""
        builder, inside = producer.create_batch(), list[Record]()
        for record in records:
            message = wire.encode(record)
            if builder.append(timestamp=None, key=message.key, value=message.value, headers=message.headers) is None:
                break
            inside.append(record)
        return await self._submit(producer, partition, builder, inside)

    # --- what is listed ----------------------------------------------------------------------------------------------

    async def _send(self, producer: AIOKafkaProducer, partition: int, records: Sequence[Record]) -> int:
        """Offset of the last record. Cancelled or failed, it leaves no future behind that nobody asks."""
        deliveries: list[_Delivery] = []
        try:
            await self._submit_all(producer, partition, records, deliveries)
            refused, last_offset = await _confirmed(deliveries)
        finally:
            for delivery in deliveries:
                delivery.future.cancel()
        if refused:
            self._retire(producer)  # its sequence numbers have a gap now: the next batch would be refused with 45
            last_offset = max(last_offset, await self._resend(partition, refused))
        return last_offset

    async def _submit_all(
        self, producer: AIOKafkaProducer, partition: int, records: Iterable[Record], deliveries: list[_Delivery]
    ) -> None:
        """Hand the records over in Kafka batches, noting each; aiokafka holds two a partition, so this waits."""
        builder, inside = producer.create_batch(), list[Record]()
        for record in records:
            message = wire.encode(record)
            while builder.append(timestamp=None, key=message.key, value=message.value, headers=message.headers) is None:
                deliveries.append(await self._submit(producer, partition, builder, inside))
                builder, inside = producer.create_batch(), []
            inside.append(record)
        if inside:
            deliveries.append(await self._submit(producer, partition, builder, inside))

    async def _submit(
        self, producer: AIOKafkaProducer, partition: int, builder: Any, records: list[Record]
    ) -> _Delivery:
        builder.close()
        async with self._turns[partition]:
            return _Delivery(records, await producer.send_batch(builder, self.topic.name, partition=partition))

    async def _resend(self, partition: int, records: Sequence[Record]) -> int:
        """Send records of refused batches one by one; whichever is refused alone becomes a stub."""
        last_offset = -1
        for record in records:
            producer = await self._ready()
            refused, offset = await self._alone(producer, partition, record)
            if refused:
                self._retire(producer)
                self._lower_limit(record)
                _, offset = await self._alone(await self._ready(), partition, self._stub(record))
            last_offset = max(last_offset, offset)
        return last_offset

    async def _alone(self, producer: AIOKafkaProducer, partition: int, record: Record) -> tuple[list[Record], int]:
        deliveries: list[_Delivery] = []
        await self._submit_all(producer, partition, [record], deliveries)
        return await _confirmed(deliveries)

    def _lower_limit(self, refused: Record) -> None:
        """The broker takes less than its topic says."""
        self._limit_bytes = min(self._limit_bytes, max(len(codecs.zstd_encode(refused.body)), 1))

    def _fitting(self, record: Record) -> Record:
        """The record, or its stub if the broker would not take it. Compresses only what is above the limit."""
        size_bytes = len(record.body) + MESSAGE_OVERHEAD_BYTES
        if size_bytes <= self._limit_bytes:
            return record
        if size_bytes <= MAX_REQUEST_BYTES and self._compressed_fits(record.body):
            return record
        return self._stub(record)

    def _compressed_fits(self, body: bytes) -> bool:
        return len(codecs.zstd_encode(body)) + MESSAGE_OVERHEAD_BYTES <= self._limit_bytes

    def _stub(self, record: Record) -> Record:
        """What is sent in an object's place. A statement has none: raises FatalError."""
        size_bytes = len(record.body)
        if not record.is_object:
            raise FatalError(
                f"a {record.type.value} record of {size_bytes} bytes is larger than the {self._limit_bytes} bytes that "
                f"topic {self.topic.name!r} takes; raise its max.message.bytes"
            )
        self._observe(
            Stubbed(
                resource=record.resource,
                namespace=record.namespace,
                name=record.name,
                size_bytes=size_bytes,
                limit_bytes=self._limit_bytes,
            )
        )
        body = {"size_bytes": size_bytes, "sha256": hashlib.sha256(record.body).hexdigest()}
        return msgspec.structs.replace(record, body=msgspec.json.encode(body), state="oversize")

    def _sent_to(self, batch: Batch, partition: int, last_offset: int, records: Sequence[Record]) -> Receipt:
        if batch.list:
            self._count(batch, partition, last_offset, records)
        return Receipt(lane=batch.lane, position=batch.end)

    def _count(self, batch: Batch, partition: int, last_offset: int, records: Sequence[Record]) -> None:
        """Add to what the list has sent; report it once the list has ended."""
        sent = self._sent.get(batch.lane)
        if sent is None or sent.list_id != batch.list:
            sent = self._sent[batch.lane] = _Sent(batch.list)
        sent.records += len(records)
        sent.size_bytes += sum(len(record.body) for record in records)
        sent.last_offset = max(sent.last_offset, last_offset)
        if any(record.type in _LIST_ENDS for record in records):
            del self._sent[batch.lane]
            self._observe(
                Produced(
                    topic=self.topic.name,
                    partition=partition,
                    offset=sent.last_offset,
                    size_bytes=sent.size_bytes,
                    records=sent.records,
                    resource=str(batch.lane),
                )
            )

    async def _ready(self) -> AIOKafkaProducer:
        """The producer, a new one if the last was given up. Nothing was sent when this raises TransientError."""
        async with self._starting:
            if self._producer is None:
                self._producer = await self._start()
            return self._producer

    async def _start(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **client_arguments(self._settings),
            **PRODUCER,
            max_batch_size=min(BATCH_BYTES, self._limit_bytes),
        )
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                refresh_credentials(producer.client, self._settings)
                await producer.start()
                await producer.partitions_for(self.topic.name)
        except (KafkaError, OSError) as error:
            await drop_producer(producer)
            raise translate(error, "connecting to Kafka") from error
        except BaseException:
            await drop_producer(producer)
            raise
        return producer

    def _retire(self, producer: AIOKafkaProducer, *, drop: bool = False) -> None:
        """Give a producer up: the next write starts another. Others may still await it: `drop` fails them at once."""
        if self._producer is producer:
            self._producer = None
        if producer._closed:
            return
        task = asyncio.create_task(drop_producer(producer) if drop else _stop(producer))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _close(self) -> None:
        for outbox in self._outboxes.values():
            await outbox.close()
        producer, self._producer = self._producer, None
        if producer is not None:
            await _stop(producer)
        if self._retiring:
            await asyncio.wait(self._retiring, timeout=STOP_TIMEOUT_S)


async def _stop(producer: AIOKafkaProducer) -> None:
    """Stop a producer in its own time, or after 5 s by force."""
    with quiet():
        if not await bounded(producer.stop, STOP_TIMEOUT_S):
            await drop_producer(producer)


async def _confirmed(deliveries: Sequence[_Delivery]) -> tuple[list[Record], int]:
    """Await every delivery: the records of refused batches, and the last offset (-1: unknown). Raises KafkaError."""
    answers = await asyncio.gather(*(delivery.future for delivery in deliveries), return_exceptions=True)
    refused: list[Record] = []
    last_offset = -1
    for delivery, answer in zip(deliveries, answers, strict=True):
        if isinstance(answer, _REFUSED):
            refused += delivery.records
        elif isinstance(answer, BaseException):
            raise answer
        elif answer.offset >= 0:  # -1: "duplicate sequence", delivered by an earlier try whose answer was lost
            last_offset = max(last_offset, answer.offset + len(delivery.records) - 1)
    return refused, last_offset


def _after_sending(
    error: KafkaError, doing: str, again: type[RestartError | TransientError] = RestartError
) -> ClusterinfoError:
    """After something was sent only two ways are left: `again`, which for a list is from its beginning, or the end."""
    translated = translate(error, doing)
    return translated if is_final(error) else again(str(translated))


def _said_on(partition: int, records: Sequence[Record]) -> Sequence[Record]:
    """A statement about watches says on which partition it lies, which only who sends it knows."""
    return [
        msgspec.structs.replace(record, partition=partition) if record.is_of_watches else record for record in records
    ]
