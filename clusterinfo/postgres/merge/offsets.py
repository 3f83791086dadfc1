"""Where a lane goes on, kept in the same transaction as its rows: claims, compare-and-set, the rules for a mismatch.

A partition's position is its next offset, owned by the newest generation; a list's is the number of pages stored of it.
"""

from __future__ import annotations

import uuid

from clusterinfo.errors import ConfigError, LostError, RestartError
from clusterinfo.model import Batch, PartitionLane
from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.errors import FOREIGN, translate
from clusterinfo.postgres.sql import statements

ALREADY_STORED = True
TO_BE_STORED = False


class Positions:
    """The generations this process holds, one a partition."""

    def __init__(self) -> None:
        self._generations: dict[PartitionLane, int] = {}

    def generation(self, lane: PartitionLane) -> int:
        """The generation of this process' claim; 0: none."""
        return self._generations.get(lane, 0)

    async def claim(self, connection: Connection, lane: PartitionLane) -> int | None:
        """Become the owner of a partition and return its next offset (None: it was never stored)."""
        row = await connection.fetchrow(
            statements()["claim_partition"], lane.kafka_cluster, lane.topic, lane.partition, lane.group_id
        )
        if row is None:
            owner = await connection.fetchrow(statements()["find_other_group"], lane.group_id)
            whose = f"group {owner['group_id']!r} (topic {owner['topic']!r})" if owner else "another group"
            raise ConfigError(
                f"KAFKA_GROUP_ID is {lane.group_id!r}, but this database already belongs to consumer {whose}: "
                "use that group, another DB_SCHEMA, or `clusterinfo offsets reset` for that topic"
            )
        self._generations[lane] = row["generation"]
        return row["next_offset"]  # type: ignore[no-any-return]

    async def check_offset(self, connection: Connection, batch: Batch) -> bool:
        """Lock a partition's position. True: the batch is stored already (its answer was lost). False: store it now.

        Raises LostError (a newer owner) or RestartError (our claim or our place in the lane is not what we thought).
        """
        if not isinstance(batch.lane, PartitionLane):
            return TO_BE_STORED
        return await self._check_offset(connection, batch, batch.lane)

    async def check_page(self, connection: Connection, batch: Batch) -> bool:
        """The same for a page of a list, once its unit is locked: its first page has no row of its own to lock."""
        if isinstance(batch.lane, PartitionLane) or not batch.list:
            return TO_BE_STORED
        return await self._check_page(connection, batch)

    async def move(self, connection: Connection, batch: Batch) -> None:
        """Move the position past the batch, in the transaction that stores it (pages move with their tally)."""
        if isinstance(batch.lane, PartitionLane):
            lane = batch.lane
            await connection.execute(
                statements()["move_offset"], lane.kafka_cluster, lane.topic, lane.partition, batch.end
            )

    async def _check_offset(self, connection: Connection, batch: Batch, lane: PartitionLane) -> bool:
        row = await connection.fetchrow(statements()["lock_offset"], lane.kafka_cluster, lane.topic, lane.partition)
        generation, stored = (row["generation"], row["next_offset"]) if row else (0, None)
        if generation > self.generation(lane):
            raise LostError(f"{lane} was claimed by another consumer (generation {generation})")
        if generation < self.generation(lane):
            raise RestartError(f"the claim of {lane} was lost by the database: claiming again")
        if stored is None or stored == batch.start:
            return TO_BE_STORED
        if stored == batch.end:
            return ALREADY_STORED
        raise RestartError(f"{lane} is stored up to offset {stored}, this batch begins at {batch.start}")

    async def _check_page(self, connection: Connection, batch: Batch) -> bool:
        pages = await connection.fetchval(statements()["lock_pages"], uuid.UUID(batch.list)) or 0
        if pages == batch.start:
            return TO_BE_STORED
        if pages == batch.end:
            return ALREADY_STORED
        raise RestartError(f"{batch.lane}: {pages} pages of its list are stored, this is page {batch.start}")


async def stored_topics(connection: Connection, schema: str) -> list[str]:
    """The topics of which offsets are stored."""
    try:
        async with connection.transaction():
            await connection.execute(f"set local search_path = {schema}, pg_catalog")
            return [row["topic"] for row in await connection.fetch(statements()["stored_topics"])]
    except FOREIGN as error:
        raise translate(error, "reading the offsets") from error


async def forget_offsets(connection: Connection, schema: str, topic: str) -> int:
    """Delete the positions of a topic, whoever owns them; return of how many partitions."""
    try:
        async with connection.transaction():
            await connection.execute(f"set local search_path = {schema}, pg_catalog")
            return len(await connection.fetch(statements()["forget_offsets"], topic))
    except FOREIGN as error:
        raise translate(error, f"forgetting the offsets of {topic}") from error
