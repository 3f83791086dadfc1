"""The snapshots of a batch: what they state about their cluster, how their lists ended, and which kinds are gone.

A snapshot is one run of lists over a cluster. Its start names the cluster; its end names every kind that discovery
found, with what was sent of it, so that one it does not name is gone, if discovery was complete.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field

from clusterinfo.model import Outcome, Record, Unit
from clusterinfo.observations import Observation, UnitFailed, UnitGone
from clusterinfo.postgres.connection import Connection, Row
from clusterinfo.postgres.merge.admission import Admission, ClusterRow, Clusters
from clusterinfo.postgres.merge.bodies import plain
from clusterinfo.postgres.merge.bury import Absence, bury
from clusterinfo.postgres.merge.census import Census
from clusterinfo.postgres.merge.clusters import name_cluster
from clusterinfo.postgres.merge.coverage import mark_units_unverified
from clusterinfo.postgres.sql import statements
from clusterinfo.statements import WHOLE_GROUP, SnapshotCompleted, SnapshotStarted, UnitOutcome


@dataclass(slots=True)
class AppliedSnapshots:
    """What came of a batch's snapshots: objects deleted, and what to report."""

    deleted: int = 0
    observations: list[Observation] = field(default_factory=list)


async def apply_snapshots(
    connection: Connection, census: Census, admission: Admission, clusters: Clusters
) -> AppliedSnapshots:
    """Apply the snapshots of the batch, in the order of their dates. Runs after the lists are closed."""
    applied = AppliedSnapshots()
    for record, statement in sorted(census.snapshots, key=lambda pair: pair[0].observed_at):
        run = _Run(record, clusters[record.cluster], admission.date(record), admission.began_at(record))
        if isinstance(statement, SnapshotStarted):
            applied.observations += await _start(connection, run, statement)
        else:
            ended = await _complete(connection, run, statement)
            applied.deleted += ended.deleted
            applied.observations += ended.observations
    return applied


@dataclass(frozen=True, slots=True)
class _Run:
    """A run of lists, its cluster, when the statement about it was made, and when it began."""

    record: Record
    cluster: ClusterRow
    at: dt.datetime
    began_at: dt.datetime


async def _start(connection: Connection, run: _Run, statement: SnapshotStarted) -> list[Observation]:
    observations = await name_cluster(connection, run.record, run.cluster, run.at)
    version = plain(statement.server_version) or None
    await connection.execute(statements()["update_cluster"], run.cluster.id, run.at, run.record.epoch, version)
    await connection.execute(statements()["start_snapshot"], run.record.snapshot, run.cluster.id, run.began_at)
    return observations


async def _complete(connection: Connection, run: _Run, statement: SnapshotCompleted) -> AppliedSnapshots:
    units = statement.units
    fared = [unit.outcome for unit in units if unit.resource != WHOLE_GROUP]
    await connection.execute(statements()["update_cluster"], run.cluster.id, run.at, run.record.epoch, None)
    await connection.execute(
        statements()["complete_snapshot"],
        run.record.snapshot,
        run.cluster.id,
        run.began_at,
        run.at,
        statement.discovery_complete,
        statement.interval_s,
        fared.count(Outcome.COMPLETED),
        fared.count(Outcome.FAILED) + fared.count(Outcome.FORBIDDEN),
        sum(unit.count for unit in units),
    )
    excluded = [unit for unit in units if unit.outcome is Outcome.EXCLUDED]
    if excluded:
        await connection.execute(statements()["exclude_units"], run.cluster.id, *_names(excluded), run.at)
    if statement.discovery_complete:
        return await _delete_gone(connection, run, units)
    return AppliedSnapshots(observations=await _fail_groups(connection, run, units))


async def _fail_groups(connection: Connection, run: _Run, units: Sequence[UnitOutcome]) -> list[Observation]:
    """What was known of groups whose discovery failed is not verified any more: nobody listed it."""
    failed = [unit for unit in units if unit.outcome is Outcome.FAILED and unit.resource == WHOLE_GROUP]
    if not failed:
        return []
    reasons = [plain(str(unit.reason or "")) or "discovery failed" for unit in failed]
    rows = await connection.fetch(
        statements()["fail_groups"], run.cluster.id, _names(failed)[0], reasons, *_names(units), run.at
    )
    return [_failed(run.record.cluster, row) for row in rows]


async def _delete_gone(connection: Connection, run: _Run, units: Sequence[UnitOutcome]) -> AppliedSnapshots:
    rows = await connection.fetch(statements()["find_gone"], run.cluster.id, *_names(units), run.at, run.began_at)
    await connection.execute(statements()["remember_discovery"], run.cluster.id, run.began_at)
    if not rows:
        return AppliedSnapshots()
    await mark_units_unverified(connection, [row["id"] for row in rows], run.began_at)
    deleted = await bury(connection, [Absence(row["id"], unseen_since=run.began_at) for row in rows], [])
    applied = AppliedSnapshots(deleted=sum(deleted))
    for row, count in zip(rows, deleted, strict=True):
        if row["is_gone"]:
            applied.observations.append(_gone(run.record.cluster, row, count))
    return applied


def _names(units: Sequence[UnitOutcome]) -> tuple[list[str], list[str]]:
    """Groups and resources."""
    return [plain(unit.group) for unit in units], [plain(unit.resource) for unit in units]


def _failed(cluster: str, row: Row) -> UnitFailed:
    unit = Unit(cluster, row["api_group"], row["resource"])
    return UnitFailed(
        cluster=cluster, resource=unit.dotted, reach=row["reach"], state=Outcome.FAILED, error=row["last_error"]
    )


def _gone(cluster: str, row: Row, deleted: int) -> UnitGone:
    unit = Unit(cluster, row["api_group"], row["resource"])
    return UnitGone(cluster=cluster, resource=unit.dotted, deleted=deleted)
