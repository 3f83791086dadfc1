"""COPY into staging: identities, then the bodies that are wanted, with bisection where PostgreSQL refuses one."""

from __future__ import annotations

from typing import Any

import asyncpg

from clusterinfo.errors import FatalError
from clusterinfo.model import Record
from clusterinfo.postgres.bodies import is_suspect, sanitise
from clusterinfo.postgres.staging import IDENTITY_ONLY, DeadLetter, Staged, dead_letter
from clusterinfo.postgres.statements import statements
from clusterinfo.postgres.translate import is_of_the_record, said

MAX_ALIKE = 100
"""More records of one batch refused alike is our bug, not theirs: stop instead of setting the topic aside."""

RECORD_COLUMNS = (
    "ord", "unit_id", "namespace", "name", "uid", "resource_version", "epoch", "live_at", "deleted", "fidelity",
    "normalization", "content_hash", "observed_at",
)  # fmt: skip

BodyRow = tuple[int, bytes | None, bytes | None]
"""ord, body, original."""


async def copy_records(connection: Any, staged: Staged) -> None:
    """COPY the identities of a batch."""
    if staged.rows:
        await connection.copy_records_to_table("staged_record", records=staged.rows, columns=RECORD_COLUMNS)


async def copy_bodies(connection: Any, staged: Staged, wanted: list[int]) -> None:
    """COPY the bodies of the records `wanted` names; what PostgreSQL refuses becomes a dead letter and fidelity 0."""
    refused: list[tuple[int, asyncpg.PostgresError]] = []
    await _copy_or_bisect(connection, [_row(ord_, staged.records[ord_]) for ord_ in wanted], refused)
    if not refused:
        return
    if len(refused) > MAX_ALIKE and len({error.sqlstate for _, error in refused}) == 1:
        raise FatalError(f"{len(refused)} records of one batch were refused alike, the first by: {said(refused[0][1])}")
    ords = [ord_ for ord_, _ in refused]
    await connection.execute(statements()["set_aside"], ords, IDENTITY_ONLY)
    staged.dead_letters.extend(_letter(staged.records[ord_], error) for ord_, error in refused)


def _row(ord_: int, record: Record) -> BodyRow:
    if is_suspect(record.body) and (mended := sanitise(record.body)) != record.body:
        return ord_, mended, record.body
    return ord_, record.body, None


def _letter(record: Record, error: asyncpg.PostgresError) -> DeadLetter:
    return dead_letter(record, f"PostgreSQL refused the body: {said(error)}", error.sqlstate)


async def _copy_or_bisect(connection: Any, rows: list[BodyRow], refused: list[tuple[int, Any]]) -> None:
    """COPY `rows`; refused rows are found by halves, each half behind a savepoint of its own."""
    if not rows:
        return
    try:
        async with connection.transaction():
            await connection.copy_records_to_table("staged_body", records=rows, columns=("ord", "body", "original"))
        return
    except asyncpg.PostgresError as error:
        if not is_of_the_record(error):
            raise
        if len(rows) == 1:
            refused.append((rows[0][0], error))
            return
    middle = len(rows) // 2
    await _copy_or_bisect(connection, rows[:middle], refused)
    await _copy_or_bisect(connection, rows[middle:], refused)
