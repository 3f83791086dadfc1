"""The snapshots of a batch: how their lists ended, what they state about their cluster, and which kinds are gone.

A snapshot is one run of lists over a cluster. Its start names the cluster; its end names every kind that discovery
found, so that one it does not name is gone, if discovery was complete.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from clusterinfo.model import Outcome, Record, Unit, list_start
from clusterinfo.observations import Observation, UnitGone, Warned
from clusterinfo.postgres.connection import Connection, Row
from clusterinfo.postgres.merge.identities import ClusterIds, detect_clones, detect_namesakes
from clusterinfo.postgres.merge.jsonb_checks import plain
from clusterinfo.postgres.merge.lists import ClosedLists
from clusterinfo.postgres.merge.staging import Staged
from clusterinfo.postgres.sql import statements
from clusterinfo.statements import WHOLE_GROUP, SnapshotCompleted, SnapshotStarted, UnitOutcome

_Key = tuple[str, uuid.UUID]
"""Cluster identity, snapshot."""


@dataclass(slots=True)
class AppliedSnapshots:
    """What came of a batch's snapshots: rows deleted, and what to report."""

    deleted: int = 0
    observations: list[Observation] = field(default_factory=list)


async def apply_snapshots(
    connection: Connection, staged: Staged, closed: ClosedLists, clusters: ClusterIds
) -> AppliedSnapshots:
    """Count the lists that ended, and apply the snapshots of the batch. Runs after the lists are closed."""
    await _count_lists(connection, closed, clusters)
    applied = AppliedSnapshots()
    for record, statement in sorted(staged.snapshots, key=lambda pair: pair[0].observed_at):
        cluster_id = clusters[record.cluster]
        if isinstance(statement, SnapshotStarted):
            applied.observations += await _start(connection, record, statement, cluster_id)
        else:
            ended = await _complete(connection, record, statement, cluster_id)
            applied.deleted += ended.deleted
            applied.observations += ended.observations
    return applied


async def _count_lists(connection: Connection, closed: ClosedLists, clusters: ClusterIds) -> None:
    verified: Counter[_Key] = Counter()
    objects: Counter[_Key] = Counter()
    failed: Counter[_Key] = Counter()
    for tally in closed.proven:
        if tally.snapshot:
            verified[tally.unit.cluster, tally.snapshot] += 1
            objects[tally.unit.cluster, tally.snapshot] += tally.count
    for record in closed.failed:
        if record.snapshot:
            failed[record.cluster, uuid.UUID(record.snapshot)] += 1
    for key in sorted({*verified, *failed}, key=lambda pair: pair[1]):
        cluster, snapshot = key
        counts = verified[key], failed[key], objects[key]
        await connection.execute(
            statements()["count_snapshot"], snapshot, clusters[cluster], list_start(str(snapshot)), *counts
        )


async def _start(
    connection: Connection, record: Record, statement: SnapshotStarted, cluster_id: int
) -> list[Observation]:
    observations = await _rename(connection, record, cluster_id)
    observations += await _separate(connection, record, cluster_id)
    await _record(connection, record, cluster_id, plain(statement.server_version) or None)
    return observations


async def _complete(
    connection: Connection, record: Record, statement: SnapshotCompleted, cluster_id: int
) -> AppliedSnapshots:
    await _record(connection, record, cluster_id, None)
    complete, units = statement.discovery_complete, statement.units
    await connection.execute(
        statements()["complete_snapshot"], uuid.UUID(record.snapshot), record.observed_at, complete
    )
    await _exclude(connection, cluster_id, units, record)
    return await _delete_gone(connection, cluster_id, units, record) if complete else AppliedSnapshots()


async def _record(connection: Connection, record: Record, cluster_id: int, server_version: str | None) -> None:
    """The snapshot's row, and what its statement changes of the cluster's."""
    await connection.execute(
        statements()["update_cluster"], cluster_id, record.observed_at, record.epoch, server_version
    )
    arguments = uuid.UUID(record.snapshot), cluster_id, record.began_at, 0, 0, 0
    await connection.execute(statements()["count_snapshot"], *arguments)


async def _separate(connection: Connection, record: Record, cluster_id: int) -> list[Observation]:
    """Separate two clusters that share a uid or a name, if this snapshot shows that they are two."""
    warnings: list[Observation] = []
    if message := await detect_clones(connection, record, cluster_id):
        remedy = "if it is one cluster, give its collectors one CLUSTER_NAME and run `clusterinfo forget` for the other"
        warnings.append(Warned(message=message, remedy=remedy))
    if message := await detect_namesakes(connection, record, cluster_id):
        remedy = "allow get on namespace kube-system to every collector, and set CLUSTER_NAME of one of them"
        warnings.append(Warned(message=message, remedy=remedy))
    return warnings


async def _rename(connection: Connection, record: Record, cluster_id: int) -> list[Observation]:
    name = record.cluster_name
    label = await connection.fetchval(statements()["rename_cluster"], cluster_id, name, record.observed_at)
    if label is None:
        return []
    return [Warned(message=f"the cluster with uid {record.cluster} is called {name!r} now and shown as {label!r}")]


async def _exclude(connection: Connection, cluster_id: int, units: Sequence[UnitOutcome], record: Record) -> None:
    excluded = [unit for unit in units if unit.outcome is Outcome.EXCLUDED and unit.resource != WHOLE_GROUP]
    if excluded:
        groups, resources = [plain(unit.group) for unit in excluded], [plain(unit.resource) for unit in excluded]
        await connection.execute(statements()["exclude_units"], cluster_id, groups, resources, record.observed_at)


async def _delete_gone(
    connection: Connection, cluster_id: int, units: Sequence[UnitOutcome], record: Record
) -> AppliedSnapshots:
    began = record.began_at
    groups, resources = [plain(unit.group) for unit in units], [plain(unit.resource) for unit in units]
    rows = await connection.fetch(statements()["delete_gone"], cluster_id, groups, resources, record.observed_at, began)
    await connection.execute(statements()["remember_discovery"], cluster_id, began)
    return AppliedSnapshots(
        deleted=sum(row["deleted"] for row in rows),
        observations=[_gone(record.cluster, row) for row in rows if row["is_gone"]],
    )


def _gone(cluster: str, row: Row) -> UnitGone:
    unit = Unit(cluster, row["api_group"], row["resource"])
    return UnitGone(cluster=cluster, resource=unit.dotted, deleted=row["deleted"])
