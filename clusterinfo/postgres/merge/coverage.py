"""Coverage: opening and closing what a session follows, and the intervals that are left of it.

A kind is followed by a set of sessions, one row for each that is open: a completed list opens it (`lists.py`), the end
of its watch closes it (`sessions.py`), and so does whatever casts doubt on the kind by other means.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence

from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.merge.bodies import plain
from clusterinfo.postgres.merge.numbers import Ended, Named, Progressed
from clusterinfo.postgres.sql import statements


async def name_sessions(connection: Connection, named: Mapping[str, Named], units: Mapping[str, int]) -> None:
    """Keep which lists name a session. `units`: list -> id of its unit."""
    chosen = {list_id: of_list for list_id, of_list in named.items() if list_id in units}
    if not chosen:
        return
    await connection.execute(
        statements()["name_sessions"],
        list(chosen),
        [units[list_id] for list_id in chosen],
        [one.session_id for one in chosen.values()],
        [one.from_number for one in chosen.values()],
        [one.place for one in chosen.values()],
        [one.seen_at for one in chosen.values()],
    )


async def find_broken(connection: Connection, lists: Sequence[str]) -> set[str]:
    """Those of these lists whose session said something of their kind, before they were complete, that has not come."""
    return {str(row["list"]) for row in await connection.fetch(statements()["find_broken"], lists)}


async def open_coverage(connection: Connection, lists: Sequence[str]) -> None:
    """Let these lists, which prove their kinds, open what their sessions follow."""
    rows = await connection.fetch(statements()["open_coverage"], lists)
    if rows:
        await _note_cut(connection, [row["session_id"] for row in rows])


async def cut_coverage(connection: Connection, followed: Sequence[tuple[int, int | None]]) -> None:
    """End the intervals of what these sessions follow of these units (None: of all); progress begins the next ones."""
    sessions = [session_id for session_id, _ in followed]
    await connection.execute(statements()["cut_coverage"], sessions, [unit_id for _, unit_id in followed])
    await _note_cut(connection, sessions)


async def begin_coverage(connection: Connection, progress: Progressed) -> None:
    """Begin the intervals that were cut, where nothing is missing any more."""
    session = progress.session
    await connection.execute(statements()["begin_coverage"], session.id, progress.number, progress.said_at)
    await _note_cut(connection, [session.id])


async def _note_cut(connection: Connection, sessions: Sequence[int]) -> None:
    """Keep whether an interval of these sessions begins with their next progress."""
    await connection.execute(statements()["note_cut"], sessions)


async def end_coverage(connection: Connection, ended: Ended) -> None:
    """Close what is followed by watches that have ended."""
    await connection.execute(
        statements()["end_coverage"],
        ended.session.id,
        ended.number,
        [plain(unit.group) for unit in ended.units],
        [plain(unit.resource) for unit in ended.units],
        [plain(unit.reach) for unit in ended.units],
        [unit.since for unit in ended.units],
    )


Version = tuple[int, str, str, str, int, bool]
"""(Unit, namespace, name, resourceVersion, epoch, whether it is a deletion)."""


async def find_unkept(
    connection: Connection, versions: Sequence[Version], sessions: Sequence[int]
) -> list[tuple[int, int | None]]:
    """Of versions that were ignored as older, the (session, unit) of those that are in neither row nor history."""
    found = await connection.fetch(statements()["find_unkept"], sessions, *map(list, zip(*versions, strict=True)))
    return [(row["session_id"], row["unit_id"]) for row in found]


async def doubt_units(connection: Connection, units: Collection[int], at: dt.datetime) -> None:
    """Whatever follows these units is over; only a list begun after `at` lets one be followed."""
    await connection.execute(statements()["doubt_units"], sorted(units), at)
