"""The chain: objects of which several versions meet in one row, staged, put in order, and written.

Slower than `rows.py`, and right whatever meets. A body that turns out to be less than it seemed, when COPY refuses it,
may lose against what is stored: the plan is made again with what was learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.merge.rows import WHO_COLUMNS, Copied, Merged, copy, in_turns, who
from clusterinfo.postgres.merge.staging import Staged
from clusterinfo.postgres.sql import statements

RECORD_COLUMNS = (
    "ord", "unit_id", "namespace", "name", "uid", "resource_version", "epoch", "live_at", "deleted", "fidelity",
    "normalization", "content_hash", "observed_at", "seen_at",
)  # fmt: skip
BODY_COLUMNS = ("ord", "fidelity", *WHO_COLUMNS, "body", "original")


class Plan(NamedTuple):
    """What the plan comes to: the bodies it wants (places), and rows it will write, leave and supersede."""

    bodies: list[int]
    written: int
    unchanged: int
    history: int


async def merge_chain(connection: Connection, staged: Staged, places: Sequence[int], proven: list[str]) -> Merged:
    """Store the objects at these places of `staged.rows`; `proven` are the lists that this batch completes."""
    numbered = any(staged.records[place].number for place in places)
    await connection.execute(statements()["begin_chain"])
    rows = in_turns((place, *staged.rows[place][:-1]) for place in places)
    await connection.copy_records_to_table("staged_record", records=rows, columns=RECORD_COLUMNS)
    copied: dict[int, Copied] = {}
    copy_s = 0.0
    while True:
        plan = await _plan(connection, proven)
        wanted = {
            place: Copied(staged.records[place], staged.rows[place].fidelity, (place, *who(staged.records[place])))
            for place in plan.bodies
            if place not in copied
        }
        copied |= wanted
        copy_s += await copy(connection, "staged_body", list(wanted.values()), BODY_COLUMNS, staged)
        if not (learnt := _learnt(staged, wanted)):
            break
        await connection.execute(statements()["replan"], list(learnt), list(learnt.values()))
    older = [row["ord"] for row in await connection.fetch(statements()["find_ignored"])] if numbered else []
    await connection.fetch(statements()["apply_plan"])
    return Merged(older=older, written=plan.written, unchanged=plan.unchanged, history=plan.history, copy_s=copy_s)


async def _plan(connection: Connection, proven: list[str]) -> Plan:
    await connection.fetch(statements()["stage_elements"])  # by `execute`, without arguments, it were planned each time
    await connection.fetch(statements()["link_elements"])
    await connection.fetch(statements()["describe_runs"])
    await connection.execute(statements()["plan_rows"], proven)
    row: Any = await connection.fetchrow(statements()["read_plan"])
    return Plan(*row)


def _learnt(staged: Staged, copied: dict[int, Copied]) -> dict[int, int]:
    """Place -> fidelity of the bodies of which less was stored than staging took them for."""
    found = {place: of_record.body.fidelity for place, of_record in copied.items() if of_record.body}
    return {place: fidelity for place, fidelity in found.items() if fidelity < staged.rows[place].fidelity}
