"""Faults of Apache Kafka, its topics and its groups."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import struct
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.coordinator.assignors.range import RangePartitionAssignor

from tests.faults.matrix_rig import Rig

SILENT_S = 3.0
REBALANCES_S, REBALANCES_SMALL_S = 30.0, 5.0
STAYS_S = 0.7
"""A member that comes and goes stays so long; with those that join meanwhile the group is never at rest."""
IN_FLIGHT_S = 0.5
"""A fetch waits 100 ms at the broker: what it answers later, nobody has asked for yet."""
COLLECTED_TIMEOUT_S = 120.0
SET_ASIDE_TIMEOUT_S = 120.0
FEW_PARTITIONS, MORE_PARTITIONS = 4, 12


async def restart_clean(rig: Rig) -> None:
    """The broker is stopped with SIGTERM and started again."""
    await rig.stop_kafka("clean")
    await rig.start_kafka()
    rig.is_over()


async def restart_hard(rig: Rig) -> None:
    """The broker is stopped with SIGKILL and started again."""
    await rig.stop_kafka("hard")
    await rig.start_kafka()
    rig.is_over()


async def half_open(rig: Rig) -> None:
    """For 3 s nothing that is sent on any connection arrives, and those connections never come back.

    In the small version they are reset at the end, as by a firewall that has forgotten them.
    """
    rig.kafka.go_silent()
    await asyncio.sleep(SILENT_S)
    await rig.kafka.restore()
    if rig.is_small:
        rig.kafka.cut()
    rig.is_over()


async def rebalances(rig: Rig) -> None:
    """For 30 s members join the group, take partitions, do nothing and leave: two at a time, each for 0.7 s."""
    until_s = time.monotonic() + (REBALANCES_SMALL_S if rig.is_small else REBALANCES_S)

    async def come_and_go(after_s: float) -> None:
        await asyncio.sleep(after_s)
        while time.monotonic() < until_s:
            async with AIOKafkaConsumer(
                rig.world.topic,
                bootstrap_servers=rig.world.broker.bootstrap,
                group_id=rig.world.group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                partition_assignment_strategy=(RangePartitionAssignor,),
                session_timeout_ms=6000,
                rebalance_timeout_ms=45_000,
                request_timeout_ms=60_000,
            ):
                await asyncio.sleep(STAYS_S)

    await asyncio.gather(come_and_go(0), come_and_go(STAYS_S / 2))
    rig.is_over()


# --- while nobody reads ----------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def unread(rig: Rig) -> AsyncIterator[dict[int, int]]:
    """Consumers are stalled, and the collector has sent since: partition -> offset that none of them has asked for.

    Those partitions hold messages from that offset on.
    """
    for kept in rig.world.consumers:
        kept.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(IN_FLIGHT_S)
        before = await ends_of(rig)
        async with asyncio.timeout(COLLECTED_TIMEOUT_S):
            while not (grown := {n for n, end in (await ends_of(rig)).items() if end > before[n]}):
                await asyncio.sleep(0.1)
        yield {number: before[number] for number in grown}
    finally:
        for kept in rig.world.consumers:
            kept.signal(signal.SIGCONT)


async def ends_of(rig: Rig) -> dict[int, int]:
    """Partition -> offset of the message to come."""
    async with AIOKafkaConsumer(bootstrap_servers=rig.world.broker.bootstrap) as consumer:
        partitions = [TopicPartition(rig.world.topic, number) for number in range(rig.world.partitions)]
        ends = await consumer.end_offsets(partitions)
    return {partition.partition: end for partition, end in ends.items()}


@contextlib.asynccontextmanager
async def admin(rig: Rig) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=rig.world.broker.bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def out_of_range(rig: Rig) -> None:
    """What was sent while nobody read is deleted from the topic, as by a retention that is too short."""
    async with unread(rig) as partitions, admin(rig) as client:
        ends = await ends_of(rig)
        await client.delete_records(
            {TopicPartition(rig.world.topic, n): RecordsToDelete(before_offset=ends[n]) for n in partitions}
        )
    rig.is_over()


# --- a corrupt batch -------------------------------------------------------------------------------------------------


class BatchOnDisk(NamedTuple):
    """A record batch in a segment: where it lies, and its first and last offset."""

    segment: Path
    position: int
    size_bytes: int
    first: int
    last: int


def batches_in(segments: Iterable[Path]) -> list[BatchOnDisk]:
    """Every batch of a partition, in order. https://kafka.apache.org/documentation/#recordbatch"""
    found = []
    for segment in sorted(segments):
        content = segment.read_bytes()
        position = 0
        while position + 61 <= len(content):
            first, length = struct.unpack_from(">qi", content, position)
            (last_delta,) = struct.unpack_from(">i", content, position + 23)
            if not length:
                break
            found.append(BatchOnDisk(segment, position, 12 + length, first, first + last_delta))
            position += 12 + length
    return found


def flip_last_byte(batch: BatchOnDisk) -> None:
    """Once: its checksum fails. Twice: it is as it was."""
    with batch.segment.open("r+b") as file:
        file.seek(batch.position + batch.size_bytes - 1)
        (byte,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0xFF]))


async def corrupt_batch(rig: Rig) -> None:
    """A byte of a batch that nobody has read is flipped in the running broker's log.

    In the end it is flipped back: a broker that is killed would cut its log off there when it starts. The batch's
    offsets must be dead letters, each of them and no others; they are counted and dropped.
    """
    async with unread(rig) as partitions:
        number, offset = min(partitions.items())
        directory = rig.world.broker.directory / "data" / f"{rig.world.topic}-{number}"
        unread_batches = [one for one in batches_in(directory.glob("*.log")) if one.first >= offset]
        batch = max(unread_batches, key=lambda one: one.last - one.first)
        flip_last_byte(batch)
    rig.is_over()
    try:
        await _set_aside(rig, number, set(range(batch.first, batch.last + 1)))
    finally:
        flip_last_byte(batch)


async def _set_aside(rig: Rig, number: int, wanted: set[int]) -> None:
    async with rig.world.database() as connection:
        async with asyncio.timeout(SET_ASIDE_TIMEOUT_S):
            while True:
                rows = await connection.fetch("select topic, partition, record_offset, reason from dead_letter")
                if {row["record_offset"] for row in rows} >= wanted:
                    break
                await asyncio.sleep(0.1)
        rig.problems += [f"a dead letter too many: {tuple(row)}" for row in rows if not _is_meant(tuple(row), number)]
        if len(rows) != len(wanted):
            rig.problems.append(f"{len(rows)} dead letters for {len(wanted)} messages")
        await connection.execute("delete from dead_letter")


def _is_meant(row: tuple[str, int, int, str], number: int) -> bool:
    _, partition, _, reason = row
    return partition == number and "cannot be read from Kafka" in reason


# --- more partitions -------------------------------------------------------------------------------------------------


async def more_partitions(rig: Rig) -> None:
    """The topic grows from 4 partitions to 12; the collector, which keeps to those it knew, is started again."""
    async with admin(rig) as client:
        await client.create_partitions({rig.world.topic: NewPartitions(MORE_PARTITIONS)})
    rig.world.partitions = MORE_PARTITIONS
    await asyncio.sleep(1)
    await rig.world.collector.stop()
    rig.world.collector.start()
    await rig.world.collector.wait_for_output("Snapshot ended")
    rig.is_over()
