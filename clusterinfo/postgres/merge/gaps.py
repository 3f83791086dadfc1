"""Messages that were lost before they were stored: what a partition carries is unverified after a gap in it.

Nothing is deleted for that. The kinds lose their state verified; the next proven list of each gives it back.
"""

from __future__ import annotations

from clusterinfo.model import Batch, PartitionLane
from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.merge.admission import Admission
from clusterinfo.postgres.merge.units import Units
from clusterinfo.postgres.sql import statements


class CarriedUnits:
    """Which units a partition carries. Each is written to the database once in the life of a claim."""

    def __init__(self) -> None:
        self._known: dict[PartitionLane, set[int]] = {}

    async def store(self, connection: Connection, batch: Batch, units: Units) -> frozenset[int]:
        """Store which units came by the batch's partition; `remember` what this returns once it is committed."""
        if not isinstance(batch.lane, PartitionLane):
            return frozenset()
        lane = batch.lane
        new = {row.id for row in units.values()} - self._known.get(lane, set())
        if new:
            await connection.execute(
                statements()["carry_units"], sorted(new), lane.kafka_cluster, lane.topic, lane.partition
            )
        return frozenset(new)

    def remember(self, batch: Batch, new: frozenset[int]) -> None:
        """What `store` returned is committed."""
        if new and isinstance(batch.lane, PartitionLane):
            self._known.setdefault(batch.lane, set()).update(new)

    def forget(self, lane: PartitionLane) -> None:
        """The database may have gone back to an earlier state: write them again."""
        self._known.pop(lane, None)


async def mark_gap_unverified(connection: Connection, lane: PartitionLane, batch: Batch, admission: Admission) -> None:
    """Messages of a partition were lost before this batch: what it carries is unverified as of the first one after."""
    at = min((admission.date(record) for record in batch.records), default=admission.now)
    error = f"messages of {lane} were deleted from Kafka before they were stored: unproven until the next list"
    arguments = lane.kafka_cluster, lane.topic, lane.partition
    await connection.execute(statements()["lock_carried_units"], *arguments)
    await connection.execute(statements()["unverify_carried_units"], *arguments, at, error)
    await connection.execute(statements()["mark_sessions_unverified"], *arguments)
