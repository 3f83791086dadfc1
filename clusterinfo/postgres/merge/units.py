"""Units: making the rows a batch needs, and locking them in one order, with the sessions that it names behind them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from clusterinfo.model import Unit
from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.merge.admission import Clusters
from clusterinfo.postgres.merge.census import Census, UnitNews
from clusterinfo.postgres.merge.coverage import mark_units_unverified
from clusterinfo.postgres.merge.numbers import Session, SessionKey, Speaking
from clusterinfo.postgres.sql import statements


@dataclass(slots=True)
class UnitRow:
    """A unit as the database has it: locked for this transaction."""

    id: int
    kind: str
    api_version: str
    namespaced: bool | None
    by_clock: bool
    is_followed: bool = False
    """A session follows it, so that a list has nothing to correct."""


Units = dict[Unit, UnitRow]


Sessions = dict[SessionKey, Session]
"""As they were when they were locked."""


async def lock_units(
    connection: Connection, census: Census, clusters: Clusters, speaking: Speaking, now: dt.datetime
) -> tuple[Units, Sessions]:
    """Make the units that are missing, lock those of the batch in id order, and describe them again; then its sessions.

    What is missing is made before any unit is locked, so that no two batches deadlock; sessions are of one partition,
    whose batches follow one another.
    """
    news = census.units
    if completed := census.completed_clusters():
        await _make_units(connection, census.named_units(), clusters)
        ids = sorted(clusters[uid].id for uid in completed)
        await connection.execute(statements()["lock_completed"], ids, *_keys(news, clusters))
    units, sessions = await _lock(connection, news, clusters, speaking)
    if len(units) < len(news):
        await _make_units(connection, news, clusters)
        units, sessions = await _lock(connection, news, clusters, speaking)
    if missing := speaking.without(sessions):
        await connection.execute(statements()["make_sessions"], *missing.place, *_columns(missing))
        sessions |= (await _lock(connection, {}, clusters, missing))[1]
    await _describe(connection, news, units, now)
    return units, sessions


def _keys(units: Iterable[Unit], clusters: Clusters) -> tuple[list[int], list[str], list[str]]:
    """Row ids of clusters, groups, resources."""
    chosen = list(units)
    return (
        [clusters[unit.cluster].id for unit in chosen],
        [unit.group for unit in chosen],
        [unit.resource for unit in chosen],
    )


def _columns(speaking: Speaking) -> tuple[list[str], list[str]]:
    """Clusters, sessions."""
    return [cluster for cluster, _ in speaking.runs], [session for _, session in speaking.runs]


async def _lock(
    connection: Connection, news: dict[Unit, UnitNews], clusters: Clusters, speaking: Speaking
) -> tuple[Units, Sessions]:
    """All units, or none if some are missing; then the sessions that are there."""
    if not news and not speaking:
        return {}, {}
    units, keys = list(news), list(speaking.runs)
    rows: Sequence[Any] = await connection.fetch(
        statements()["lock_units"],
        *_keys(news, clusters),
        *speaking.place,
        *_columns(speaking),
        [first for first, _ in speaking.runs.values()],
        [after for _, after in speaking.runs.values()],
    )
    return (
        {units[row["place"] - 1]: UnitRow(*row[1:7]) for row in rows if row["place"]},
        {keys[row["session_place"] - 1]: _session(row) for row in rows if row["session_place"]},
    )


def _session(row: Any) -> Session:
    return Session(
        row["session_id"],
        row["next_number"],
        tuple((gap.lower, gap.upper) for gap in row["missing"]),
        row["heard"],
        row["heard_number"],
        row["behind"],
        json.loads(row["ended"]),
        row["interval_s"],
        row["is_unverified"],
        row["cut_number"],
    )


async def _make_units(connection: Connection, news: dict[Unit, UnitNews], clusters: Clusters) -> None:
    await connection.execute(
        statements()["ensure_units"],
        *_keys(news, clusters),
        [of_unit.kind for of_unit in news.values()],
        [of_unit.api_version for of_unit in news.values()],
    )


async def _describe(connection: Connection, news: dict[Unit, UnitNews], units: Units, now: dt.datetime) -> None:
    changed = {unit: of_unit for unit, of_unit in news.items() if _changes(of_unit, units[unit])}
    if not changed:
        return
    await connection.execute(
        statements()["describe_units"],
        [units[unit].id for unit in changed],
        [of_unit.kind for of_unit in changed.values()],
        [of_unit.api_version for of_unit in changed.values()],
        [of_unit.namespaced for of_unit in changed.values()],
        [of_unit.by_clock for of_unit in changed.values()],
    )
    by_clock = {units[unit].id for unit, of_unit in changed.items() if of_unit.by_clock and not units[unit].by_clock}
    if by_clock:
        await mark_units_unverified(connection, by_clock, now)
    for unit, of_unit in changed.items():
        units[unit].by_clock |= of_unit.by_clock


def _changes(news: UnitNews, row: UnitRow) -> bool:
    """True if `row` has to be written: something that the batch states differs from it."""
    return (
        (news.kind or row.kind, news.api_version or row.api_version) != (row.kind, row.api_version)
        or news.namespaced not in (None, row.namespaced)
        or (news.by_clock and not row.by_clock)
    )
