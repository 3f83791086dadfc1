"""A dead letter stored after all: the same merge, in one transaction with the note that it was replayed.

A replay is as harmless as any duplicate: it moves no offset, counts no number, and it belongs to no list's count, since
the record was counted when it was dead-lettered. What is refused again leaves everything as it was.
"""

from __future__ import annotations

import asyncpg

from clusterinfo.errors import RecordError
from clusterinfo.model import Batch, ListLane, Record
from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.errors import FOREIGN, is_of_the_record, server_message, translate
from clusterinfo.postgres.merge.apply import apply
from clusterinfo.postgres.merge.bodies import body_of, fidelity_of, repaired_body_of
from clusterinfo.postgres.merge.census import Census
from clusterinfo.postgres.sink import PostgresSink
from clusterinfo.postgres.sql import statements
from clusterinfo.postgres.transactions import savepoint


async def replay(sink: PostgresSink, letter_id: int, record: Record, topic: str) -> bool:
    """Store the record of a dead letter that came by `topic`; True if that changed anything, False if it was known.

    Raises RecordError if it is refused (nothing is changed then), TransientError or FatalError for the database.
    """
    try:
        async with sink.transaction() as connection:
            if await connection.fetchval(statements()["lock_letter"], letter_id) is None:
                raise RecordError("it was dropped meanwhile")
            changed = await _store(sink, connection, record, topic)
            await connection.execute(statements()["mark_replayed"], letter_id)
            return changed
    except FOREIGN as error:
        if is_of_the_record(error):
            raise RecordError(f"PostgreSQL refused it: {server_message(error)}") from error
        raise translate(error, f"replaying dead letter {letter_id}") from error


async def _store(sink: PostgresSink, connection: Connection, record: Record, topic: str) -> bool:
    batch = Batch(lane=ListLane(record.unit, record.reach), start=0, end=1, records=[record])
    census = Census.of(batch.records)
    admission = await sink.claims.admit(connection, batch, census, topic)
    if admission is None or not admission.admits(record):
        raise RecordError("its cluster, or its kind, was forgotten since; drop it")
    if record.is_object:
        await connection.execute(statements()["expect_body"], *_version(record))
    applied = await apply(
        connection,
        batch,
        census,
        admission,
        sink.carried,
        counts=not record.is_object,
        hears=False,
        uses_savepoints=True,
    )
    if applied.notification:
        await connection.execute(applied.notification)
    if applied.staged.dead_letters:
        raise RecordError(applied.staged.dead_letters[0].reason)
    given = await _give_history_its_body(connection, record) if record.is_object else False
    return given or not record.is_object or bool(applied.merged.written or applied.merged.history)


def _version(record: Record) -> tuple[object, ...]:
    """What tells a version of an object from all others."""
    unit = record.cluster, record.group, record.resource, record.namespace, record.name
    content_hash = bytes.fromhex(record.content_hash)
    return (*unit, record.epoch, record.resource_version, record.normalization, content_hash)


async def _give_history_its_body(connection: Connection, record: Record) -> bool:
    """Versions that were superseded meanwhile and lack their body get it; True if there were any."""
    for body in (body_of(record, fidelity_of(record)), repaired_body_of(record)):
        try:
            async with savepoint(connection):
                done = await connection.execute(statements()["give_history_its_body"], *_version(record), *body)
        except asyncpg.PostgresError as error:
            if not is_of_the_record(error):
                raise
            refused = error
        else:
            return done != "UPDATE 0"
    raise refused
