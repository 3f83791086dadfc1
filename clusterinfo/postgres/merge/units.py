"""Units: making the rows a batch needs, and locking them in one order."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from clusterinfo.model import Unit
from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.merge.admission import Clusters
from clusterinfo.postgres.merge.census import Census, UnitNews
from clusterinfo.postgres.merge.coverage import mark_units_unverified
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


async def lock_units(connection: Connection, census: Census, clusters: Clusters, now: dt.datetime) -> Units:
    """Make the units that are missing, lock those of the batch in id order, and describe them again.

    What is missing is made before any unit is locked, so that no two batches deadlock.
    """
    news = census.units
    if completed := census.completed_clusters():
        await _make_units(connection, census.named_units(), clusters)
        ids = sorted(clusters[uid].id for uid in completed)
        await connection.execute(statements()["lock_completed"], ids, *_keys(news, clusters))
    units = await _lock(connection, news, clusters)
    if len(units) < len(news):
        await _make_units(connection, news, clusters)
        units = await _lock(connection, news, clusters)
    await _describe(connection, news, units, now)
    return units


def _keys(units: Iterable[Unit], clusters: Clusters) -> tuple[list[int], list[str], list[str]]:
    """Row ids of clusters, groups, resources."""
    chosen = list(units)
    return (
        [clusters[unit.cluster].id for unit in chosen],
        [unit.group for unit in chosen],
        [unit.resource for unit in chosen],
    )


async def _lock(connection: Connection, news: dict[Unit, UnitNews], clusters: Clusters) -> Units:
    """All of them, or none if some are missing."""
    if not news:
        return {}
    rows = await connection.fetch(statements()["lock_units"], *_keys(news, clusters))
    units = list(news)
    return {
        units[row["place"] - 1]: UnitRow(
            row["id"], row["kind"], row["api_version"], row["namespaced"], row["by_clock"], row["is_followed"]
        )
        for row in rows
    }


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
