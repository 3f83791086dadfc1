"""A dead letter stored after all: the same merge, in one transaction with the note that it was replayed.

A replay is as harmless as any duplicate: it moves no offset, and it belongs to no list's count, since the record was
counted when it was dead-lettered. What is refused again leaves everything as it was.
"""

from __future__ import annotations

from clusterinfo.errors import RecordError
from clusterinfo.model import Batch, ListLane, Record
from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.errors import FOREIGN, is_of_the_record, server_message, translate
from clusterinfo.postgres.merge.admission import read_forgotten, without_forgotten
from clusterinfo.postgres.merge.identities import check_separated, separate_clones
from clusterinfo.postgres.merge.lists import close_lists, count_lists
from clusterinfo.postgres.merge.rows import copy_bodies
from clusterinfo.postgres.merge.snapshots import apply_snapshots
from clusterinfo.postgres.merge.staging import Staged, stage
from clusterinfo.postgres.merge.units import lock_batch
from clusterinfo.postgres.sink import PostgresSink
from clusterinfo.postgres.sql import statements


async def replay(sink: PostgresSink, letter_id: int, record: Record) -> bool:
    """Store the record of a dead letter; True if that changed anything, False if the database knew as much or better.

    Raises RecordError if it is refused (nothing is changed then), TransientError or FatalError for the database.
    """
    try:
        async with sink.transaction() as connection:
            if await connection.fetchval(statements()["lock_letter"], letter_id) is None:
                raise RecordError("it was dropped meanwhile")
            changed = await _store(sink, connection, record)
            await connection.execute(statements()["mark_replayed"], letter_id)
            return changed
    except FOREIGN as error:
        if is_of_the_record(error):
            raise RecordError(f"PostgreSQL refused it: {server_message(error)}") from error
        raise translate(error, f"replaying dead letter {letter_id}") from error


async def _store(sink: PostgresSink, connection: Connection, record: Record) -> bool:
    batch = Batch(lane=ListLane(record.unit, record.reach), start=0, end=1, records=[record])
    batch = await sink.clocks.dated(connection, batch)
    forgotten = await read_forgotten(connection, batch)
    batch = without_forgotten(await separate_clones(connection, batch), forgotten)
    if not batch.records:
        raise RecordError("its cluster, or its kind, was forgotten since; drop it")
    locked = await lock_batch(connection, batch)
    await check_separated(connection, batch, locked.clusters)
    batch = locked.batch
    staged = stage(batch, locked.units)
    if record.is_object:
        staged.tallies.clear()
    complete = await count_lists(connection, batch, staged)
    changed = await _merge(sink, connection, staged) if staged.rows else not staged.dead_letters
    closed = await close_lists(connection, batch, staged, complete)
    await apply_snapshots(connection, staged, closed, locked.clusters)
    if staged.dead_letters:
        raise RecordError(staged.dead_letters[0].reason)
    return changed


async def _merge(sink: PostgresSink, connection: Connection, staged: Staged) -> bool:
    """The record into its row, and into the history where a version lacks its body; True if either changed."""
    _, unit_id, namespace, name, _, version, epoch, _, _, fidelity, normalization, content_hash, _ = staged.rows[0]
    identity = unit_id, namespace, name, epoch, version, normalization, content_hash
    await connection.execute(statements()["expect_body"], *identity)
    plan = await sink.merge(connection, staged)
    if not await connection.fetchval(statements()["lacks_body_in_history"], *identity):
        return bool(plan.written or plan.history)
    if not plan.bodies:
        await copy_bodies(connection, staged, [0])
    await connection.execute(statements()["give_history_its_body"], *identity, fidelity)
    return True
