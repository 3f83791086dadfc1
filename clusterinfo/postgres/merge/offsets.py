"""Where a lane goes on, kept in the same transaction as its rows: claims, one compare-and-set, what a mismatch means.

A partition's position is its next offset, owned by the newest generation. That of a list which is written without Kafka
is the number of its pages that are stored; a list has one writer, and no generations.
"""

from __future__ import annotations

import datetime as dt
import time
from typing import NamedTuple

from clusterinfo.errors import ConfigError, LostError, RestartError
from clusterinfo.model import Batch, PartitionLane
from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.errors import FOREIGN, translate
from clusterinfo.postgres.merge.admission import Admission, topic_of
from clusterinfo.postgres.merge.census import Census
from clusterinfo.postgres.merge.pace import Pace
from clusterinfo.postgres.sql import local_search_path, statements


class _Place(NamedTuple):
    """The row of a batch's position, and the generation that its writer holds."""

    kafka_cluster: str
    topic: str
    partition: int
    generation: int


class Claims:
    """The generations this process holds, one a partition."""

    def __init__(self) -> None:
        self._generations: dict[PartitionLane, int] = {}
        self._paces: dict[PartitionLane, Pace] = {}

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
        self._paces[lane] = Pace()
        return row["next_offset"]  # type: ignore[no-any-return]

    async def admit(
        self, connection: Connection, batch: Batch, census: Census, topic: str | None = None
    ) -> Admission | None:
        """Move the batch's position past it and read what is admitted. None: stored already (the answer was lost).

        `topic`: the one its records came by, if it is not its lane's.
        Raises LostError (a newer owner) or RestartError (our claim or our place in the lane is not what we thought):
        the transaction, and with it what was moved, is to be rolled back.
        """
        place = self._place(batch)
        (row,) = await connection.fetch(
            statements()["admit"],
            *(place or (None,) * len(_Place._fields)),
            batch.start,
            batch.end,
            list(census.clusters),
            *self._progress(batch),
        )
        if place is not None and not await _was_moved(connection, batch, place, is_new=row["is_new"]):
            return None
        return Admission.from_row(row, topic_of(batch.lane) if topic is None else topic)

    def _progress(self, batch: Batch) -> tuple[dt.datetime | None, float | None]:
        """When the batch's last record was observed, and how many messages of its partition are stored a second."""
        if not isinstance(batch.lane, PartitionLane):
            return None, None
        pace = self._paces.setdefault(batch.lane, Pace())
        pace.note(batch, time.monotonic())
        return pace.observed_at, pace.rate

    def _place(self, batch: Batch) -> _Place | None:
        """None: a batch that has no position, as a statement about a snapshot that is written without Kafka."""
        if isinstance(batch.lane, PartitionLane):
            lane = batch.lane
            return _Place(lane.kafka_cluster, lane.topic, lane.partition, self.generation(lane))
        return _Place("", batch.list, 0, 0) if batch.list else None


async def _was_moved(connection: Connection, batch: Batch, place: _Place, *, is_new: bool | None) -> bool:
    """True if the position was moved; False if the batch is stored already."""
    is_partition = bool(place.kafka_cluster)
    if is_new is False or (is_new and not is_partition and batch.start == 0):
        return True
    row = None if is_new else await connection.fetchrow(statements()["read_offset"], *place[:3])
    generation, stored = (row["generation"], row["next_offset"]) if row else (0, None)
    if generation > place.generation:
        raise LostError(f"{batch.lane} was claimed by another consumer (generation {generation})")
    if is_partition and generation < place.generation:
        raise RestartError(f"the claim of {batch.lane} was lost by the database: claiming again")
    if stored == batch.end:
        return False
    raise RestartError(_mismatch(batch, stored, is_partition=is_partition))


def _mismatch(batch: Batch, stored: int | None, *, is_partition: bool) -> str:
    if is_partition:
        return f"{batch.lane} is stored up to offset {stored}, this batch begins at {batch.start}"
    return f"{batch.lane}: {stored or 0} pages of its list are stored, this is page {batch.start}"


async def stored_topics(connection: Connection, schema: str) -> list[str]:
    """The topics of which offsets are stored."""
    try:
        async with connection.transaction():
            await connection.execute(local_search_path(schema))
            return [row["topic"] for row in await connection.fetch(statements()["stored_topics"])]
    except FOREIGN as error:
        raise translate(error, "reading the offsets") from error


async def forget_offsets(connection: Connection, schema: str, topic: str) -> int:
    """Delete the positions of a topic, whoever owns them; return of how many partitions."""
    try:
        async with connection.transaction():
            await connection.execute(local_search_path(schema))
            return len(await connection.fetch(statements()["forget_offsets"], topic))
    except FOREIGN as error:
        raise translate(error, f"forgetting the offsets of {topic}") from error
