"""Members of a consumer group and a store in memory that they fill, for tests of the group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka.coordinator.assignors.range import RangePartitionAssignor

from clusterinfo.errors import RestartError, TransientError
from clusterinfo.kafka.consumer.group import ConsumerGroup
from clusterinfo.kafka.consumer.lanes import Drive
from clusterinfo.kafka.producer import KafkaSink
from clusterinfo.model import Batch, PartitionLane, Receipt, Record, Rejected
from clusterinfo.observations import Observe, unobserved
from clusterinfo.pump import pump
from clusterinfo.settings import Settings
from tests.support.kafka import item, new_list, page_of


class ToNobody(RangePartitionAssignor):  # type: ignore[misc]  # aiokafka is untyped
    """Everything to nobody: what an assignor, or more members than partitions, leaves a member with."""

    @classmethod
    def assign(cls, cluster: object, members: object) -> object:
        made = super().assign(cluster, members)
        for assignment in made.values():
            assignment.assignment.clear()
        return made


class Store:
    """A sink in memory that keeps the rules of the database: claims, and a compare-and-set on the offset."""

    def __init__(self, *, delay_s: float = 0.0) -> None:
        self.offsets: dict[int, int] = {}
        self.claims: dict[int, int] = {}
        self.records: list[Record] = []
        self.rejected: list[Rejected] = []
        self.batches: list[Batch] = []
        self.delay_s = delay_s
        self.is_away = False
        self.is_writing = False

    async def open(self, lane: PartitionLane) -> int | None:
        self.claims[lane.partition] = self.claims.get(lane.partition, 0) + 1
        return self.offsets.get(lane.partition)

    async def write(self, batch: Batch) -> Receipt:
        assert isinstance(batch.lane, PartitionLane)
        partition = batch.lane.partition
        self.is_writing = True
        await asyncio.sleep(self.delay_s)
        if self.is_away:
            raise TransientError("the database is away")
        receipt = Receipt(lane=batch.lane, position=batch.end)
        if (stored := self.offsets.get(partition)) == batch.end:
            return receipt
        if stored is not None and stored != batch.start:
            raise RestartError(f"stored {stored}, batch begins at {batch.start}")
        self.offsets[partition] = batch.end
        self.records += batch.records
        self.rejected += batch.rejected
        self.batches.append(batch)
        return receipt

    def names(self) -> list[tuple[str, str]]:
        return sorted((record.resource, record.name) for record in self.records)


def into(store: Store, observe: Observe = unobserved) -> Drive:
    """What a group runs: the pump, into `store`."""
    return lambda lane, source, stopping: pump(source, store, lane, observe, stopping)  # type: ignore[arg-type]


async def fill(settings: Settings, resources: int = 1, each: int = 100, body: bytes = b"") -> list[tuple[str, str]]:
    """Send records of some resources; returns what a store must then hold."""
    async with KafkaSink.connect(settings, unobserved) as kafka:
        for number in range(resources):
            resource, list_id = f"r{number}", new_list()
            await kafka.write(page_of(resource, 0, [item(i, resource, list_id, body) for i in range(each)]))
    return sorted((f"r{number}", f"o-{i}") for number in range(resources) for i in range(each))


@dataclass(slots=True)
class Member:
    """A member that runs until `stopping` is set."""

    group: ConsumerGroup
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def consumer(self) -> Any:
        """aiokafka's, as long as there is one."""
        return self.group._connection.consumer


@asynccontextmanager
async def running(
    settings: Settings, drive: Drive, observe: Observe = unobserved, session_timeout_s: float = 6.0
) -> AsyncIterator[Member]:
    """A member that runs for the length of the block, then stops and leaves."""
    async with ConsumerGroup.connect(settings, observe, session_timeout_s=session_timeout_s) as group:
        member = Member(group)
        run = asyncio.create_task(group.run(drive, member.stopping))
        try:
            yield member
        finally:
            member.stopping.set()
            await run


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait for `condition`. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)
