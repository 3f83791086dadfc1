"""Coverage: opening and closing what a session follows, and the intervals that are left of it.

A kind is followed by a set of sessions, one row for each that is open: a completed list opens it (`lists.py`), the end
of its watch closes it (`sessions.py`), and so does whatever else marks the kind unverified. An interval that is
cut is closed, and followed by one that begins with the next progress.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.merge.bodies import plain
from clusterinfo.postgres.merge.numbers import Ended, Named
from clusterinfo.postgres.sql import statements
from clusterinfo.statements import WatchedUnit


class Followed(NamedTuple):
    """An open row; `heard`: up to when its session has said all that it saw, None if any of it is missing."""

    id: int
    unit_id: int
    api_group: str
    resource: str
    reach: str
    session_id: int
    from_number: int
    epoch: int
    begins_at: dt.datetime | None
    heard: dt.datetime | None


class Opening(NamedTuple):
    """What a list would have its session follow, and what speaks for or against it."""

    list: str
    unit_id: int
    reach: str
    session_id: int
    epoch: int
    from_number: int
    seen_at: dt.datetime
    is_proven: bool
    """Nothing is missing of what was said before it was complete."""
    is_whole: bool
    """Nothing is missing by now."""
    is_cut: bool
    """Something came out of order, or too late to be kept."""
    is_over: bool
    """Its watch has ended since."""
    corrected: int
    """Objects whose rows it had to write although the kind was followed by somebody."""
    was_followed: bool
    """By its own session, with nothing missing."""
    last_proven_at: dt.datetime | None
    """When the list before it was complete."""
    is_unverified: bool
    """Something has marked the kind unverified since it began."""


# --- lists -----------------------------------------------------------------------------------------------------------


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


async def find_openings(connection: Connection, lists: Sequence[str]) -> list[Opening]:
    """What these lists, which name a session, would have it follow."""
    rows: Sequence[Any] = await connection.fetch(statements()["find_openings"], lists) if lists else []
    return [Opening(*row) for row in rows]


async def note_corrections(connection: Connection, corrected: Mapping[str, int]) -> None:
    """Keep how many objects of lists had rows that were not right."""
    if corrected:
        await connection.execute(statements()["note_corrections"], list(corrected), list(corrected.values()))


async def take_back(connection: Connection, openings: Iterable[Opening]) -> None:
    """What these lists had to correct was not followed since the lists before."""
    for one in openings:
        if one.last_proven_at:
            key = one.session_id, one.unit_id, one.reach
            await connection.execute(statements()["take_back_coverage"], *key, one.last_proven_at)


async def open_coverage(connection: Connection, openings: Iterable[Opening]) -> None:
    """Let these lists, which prove their kinds, open what their sessions follow."""
    opened = chosen(openings)
    if not opened:
        return
    await connection.execute(
        statements()["open_coverage"],
        [one.unit_id for one in opened],
        [one.reach for one in opened],
        [one.session_id for one in opened],
        [one.from_number for one in opened],
        [one.epoch for one in opened],
        [None if one.is_cut else one.seen_at for one in opened],
    )


def chosen(openings: Iterable[Opening]) -> list[Opening]:
    """Those that hold, one for each session and reach: of several the first one of which nothing is missing. Pure.

    One of which something is missing opens as well: nothing is claimed by it before that has come.
    """
    found: dict[tuple[int, str, int], Opening] = {}
    for one in sorted(openings, key=lambda one: (not one.is_whole, one.from_number)):
        if not one.is_over and not one.is_unverified:
            found.setdefault((one.unit_id, one.reach, one.session_id), one)
    return list(found.values())


# --- what is open ----------------------------------------------------------------------------------------------------


async def cut_coverage(connection: Connection, session_ids: Collection[int], lost: Collection[tuple[int, int]]) -> None:
    """End the intervals of what these sessions follow, and of `lost` pairs (session, unit); progress begins others."""
    rows = await _followed_by(connection, {*session_ids, *(session_id for session_id, _ in lost)})
    cut = [
        row
        for row in rows
        if row.begins_at and (row.session_id in session_ids or (row.session_id, row.unit_id) in lost)
    ]
    await _close(connection, [(row, row.heard) for row in cut])
    if cut:
        await connection.execute(
            statements()["open_coverage"],
            [row.unit_id for row in cut],
            [row.reach for row in cut],
            [row.session_id for row in cut],
            [row.from_number for row in cut],
            [row.epoch for row in cut],
            [None] * len(cut),
        )


async def begin_coverage(connection: Connection, said_at: Mapping[int, dt.datetime]) -> list[Followed]:
    """Begin what was cut of sessions, where nothing is missing up to the progress that they said at that time.

    Returns all that they follow with nothing missing.
    """
    rows = [row for row in await _followed_by(connection, said_at.keys()) if row.heard]
    cut = [row for row in rows if not row.begins_at]
    for session_id in {row.session_id for row in cut}:
        ids = [row.id for row in cut if row.session_id == session_id]
        await connection.execute(statements()["begin_coverage"], ids, said_at[session_id])
    return rows


async def end_coverage(connection: Connection, ended: Ended) -> None:
    """Close what was followed by watches that have ended."""
    closed = list[tuple[Followed, dt.datetime | None]]()
    for row in await _followed_by(connection, [ended.session.id]):
        since = [unit.since for unit in ended.units if is_of(unit, row)]
        if since and row.from_number <= ended.number:
            closed.append((row, max([*since, *([row.heard] if row.heard else [])])))  # a hole would have cut it before
    await _close(connection, closed)


def is_of(unit: WatchedUnit, row: Followed) -> bool:
    """Whether a watch is one by which a row is followed; one over all namespaces is that of each. Pure."""
    return (plain(unit.group), plain(unit.resource)) == (row.api_group, row.resource) and plain(unit.reach) in (
        "",
        row.reach,
    )


async def mark_units_unverified(connection: Connection, units: Collection[int], at: dt.datetime) -> None:
    """Whatever follows these units is over; only a list begun after `at` lets one be followed."""
    await connection.execute(statements()["mark_units_unverified"], sorted(units), at)
    rows: Sequence[Any] = await connection.fetch(statements()["find_followed_units"], sorted(units))
    await _close(connection, [(row, row.heard) for row in map(Followed._make, rows)])


async def _followed_by(connection: Connection, session_ids: Collection[int]) -> list[Followed]:
    rows: Sequence[Any] = await connection.fetch(statements()["find_followed_by"], sorted(session_ids))
    return [Followed(*row) for row in rows]


async def _close(connection: Connection, ends: Sequence[tuple[Followed, dt.datetime | None]]) -> None:
    """Close rows as of when they were heard; those of which that leaves nothing go."""
    kept = {row.id: heard for row, heard in ends if row.begins_at and heard and heard >= row.begins_at}
    if kept:
        await connection.execute(statements()["close_coverage"], list(kept), list(kept.values()))
    if dropped := [row.id for row, _ in ends if row.id not in kept]:
        await connection.execute(statements()["drop_coverage"], dropped)


Version = tuple[int, str, str, str, int, bool]
"""(Unit, namespace, name, resourceVersion, epoch, whether it is a deletion)."""


async def find_unkept(
    connection: Connection, versions: Sequence[Version], sessions: Sequence[int]
) -> set[tuple[int, int]]:
    """Of versions that were ignored as older, the (session, unit) of those that are in neither row nor history."""
    found = await connection.fetch(statements()["find_unkept"], sessions, *map(list, zip(*versions, strict=True)))
    return {(row["session_id"], row["unit_id"]) for row in found}
