"""COPY into staging: identities, then the bodies that are wanted.

What PostgreSQL refuses is found by bisection, repaired and sent again; what it refuses even then becomes a dead letter,
its identity alone is stored. What is learnt of a body here, its fidelity, may change what becomes of its record: the
merge is planned again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import asyncpg

from clusterinfo.errors import FatalError
from clusterinfo.json_repair import repair
from clusterinfo.model import Record
from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.errors import is_of_the_record, server_message
from clusterinfo.postgres.merge.dead_letters import DeadLetter, dead_letter
from clusterinfo.postgres.merge.jsonb_checks import has_wild_number, is_suspect, sanitise
from clusterinfo.postgres.merge.staging import IDENTITY_ONLY, SANITISED, Staged
from clusterinfo.postgres.sql import statements

MAX_ALIKE = 100
"""More records of one batch refused alike is our bug, not theirs: stop instead of dead-lettering the topic."""

RECORD_COLUMNS = (
    "ord", "unit_id", "namespace", "name", "uid", "resource_version", "epoch", "live_at", "deleted", "fidelity",
    "normalization", "content_hash", "observed_at",
)  # fmt: skip

BodyRow = tuple[int, bytes | None, bytes | None]
"""ord, body, original."""

Refused = dict[int, asyncpg.PostgresError]
"""ord -> PostgreSQL's error for its body."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the plan of a batch comes to: the bodies it wants (ords), and rows it will write, leave and supersede."""

    bodies: list[int]
    written: int
    unchanged: int
    history: int


async def copy_records(connection: Connection, staged: Staged) -> None:
    """COPY the identities of a batch."""
    if staged.rows:
        await connection.copy_records_to_table("staged_record", records=staged.rows, columns=RECORD_COLUMNS)


async def plan_and_copy(connection: Connection, staged: Staged) -> Plan:
    """Plan the merge of what `copy_records` sent and COPY the bodies it wants; return what the plan comes to.

    Planned once as a rule; again for each time a body turned out to be less than it seemed.
    """
    copied: set[int] = set()
    while True:
        await connection.execute(statements()["plan"])
        (row,) = await connection.fetch(statements()["read_plan"])
        plan = Plan(*row)
        wanted = [ord_ for ord_ in plan.bodies if ord_ not in copied]
        copied.update(wanted)
        if not (learnt := await copy_bodies(connection, staged, wanted)):
            return plan
        await connection.execute(statements()["replan"], list(learnt), list(learnt.values()))


async def apply_plan(connection: Connection) -> None:
    """Write history and rows as planned."""
    await connection.execute(statements()["apply_plan"])


async def copy_bodies(connection: Connection, staged: Staged, wanted: list[int]) -> dict[int, int]:
    """COPY these bodies; return what was learnt of them: ord -> fidelity."""
    learnt: dict[int, int] = {}

    def found_sanitised(ord_: int) -> None:
        if staged.records[ord_].state != "oversize":
            learnt[ord_] = SANITISED

    def row(ord_: int) -> BodyRow:
        body = staged.records[ord_].body
        if has_wild_number(body) and (repaired := repair(body)) != body:
            found_sanitised(ord_)
            return ord_, repaired, body
        if is_suspect(body) and (repaired := sanitise(body)) != body:
            return ord_, repaired, body
        return ord_, body, None

    def repaired_row(ord_: int) -> BodyRow:
        body = staged.records[ord_].body
        return ord_, repair(body), body

    refused = await _copy_or_bisect(connection, wanted, row)
    refused_again = await _copy_or_bisect(connection, list(refused), repaired_row)
    for ord_ in refused:
        found_sanitised(ord_)
    _dead_letter(staged, refused_again)
    return learnt | dict.fromkeys(refused_again, IDENTITY_ONLY)


def _dead_letter(staged: Staged, refused: Refused) -> None:
    if len(refused) > MAX_ALIKE and len({error.sqlstate for error in refused.values()}) == 1:
        first = server_message(next(iter(refused.values())))
        raise FatalError(f"{len(refused)} records of one batch were refused alike, the first by: {first}")
    staged.dead_letters.extend(_letter(staged.records[ord_], error) for ord_, error in refused.items())


def _letter(record: Record, error: asyncpg.PostgresError) -> DeadLetter:
    return dead_letter(record, f"PostgreSQL refused the body: {server_message(error)}", error.sqlstate)


async def _copy_or_bisect(connection: Connection, ords: list[int], row: Callable[[int], BodyRow]) -> Refused:
    """COPY the rows of `ords`, made while they are sent; refused ones are found by bisection, behind savepoints."""
    if not ords:
        return {}
    try:
        async with connection.transaction():
            await connection.copy_records_to_table(
                "staged_body", records=map(row, ords), columns=("ord", "body", "original")
            )
        return {}
    except asyncpg.PostgresError as error:
        if not is_of_the_record(error):
            raise
        if len(ords) == 1:
            return {ords[0]: error}
    middle = len(ords) // 2
    first = await _copy_or_bisect(connection, ords[:middle], row)
    return first | await _copy_or_bisect(connection, ords[middle:], row)
