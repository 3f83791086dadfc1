"""Clusters and units: making the rows a batch needs, and locking them in one order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from clusterinfo.model import Batch, Record, RecordType, Unit
from clusterinfo.observations import Observation, Warned
from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.merge.admission import lock_forgotten
from clusterinfo.postgres.merge.identities import (
    ClusterIds,
    KnownClusters,
    find_clusters,
    find_former,
    join_former,
    recognise,
    under_one_identity,
)
from clusterinfo.postgres.merge.staging import UnitNews, UnitRow, named_by_snapshots, news_of
from clusterinfo.postgres.sql import statements


@dataclass(slots=True)
class Locked:
    """What a batch is about, locked: its units, the row ids of its clusters, and what to report of them.

    `batch` is the batch with each unit under one identity of its cluster.
    """

    batch: Batch
    units: dict[Unit, UnitRow]
    clusters: ClusterIds
    observations: list[Observation]


async def lock_batch(connection: Connection, batch: Batch) -> Locked:
    """Make missing clusters and units, lock the batch's units in id order, and describe them again.

    What is missing is made before any unit is locked, so that no two batches deadlock.
    """
    known, observations = await _know_clusters(connection, batch.records)
    named = {record.cluster for record in batch.records}
    batch = under_one_identity(batch, known)
    clusters = {cluster: known[cluster].id for cluster in named | {record.cluster for record in batch.records}}
    news = news_of(batch.records)
    completed = {record.cluster for record in batch.records if record.type is RecordType.SNAPSHOT_COMPLETED}
    if completed:
        await _make_units(connection, named_by_snapshots(batch.records) | news, clusters)
        await connection.execute(
            statements()["lock_completed"], sorted(clusters[uid] for uid in completed), *_keys(news, clusters)
        )
    rows = await _lock_units(connection, news, clusters)
    if len(rows) < len(news):
        await _make_units(connection, news, clusters)
        rows = await _lock_units(connection, news, clusters)
    await _describe(connection, news, rows)
    return Locked(batch, rows, clusters, observations)


async def _know_clusters(connection: Connection, records: list[Record]) -> tuple[KnownClusters, list[Observation]]:
    """The clusters of a batch, made or joined where they have to be; and what to report of that."""
    observations: list[Observation] = []
    known = await find_clusters(connection, records)
    if _missing(records, known):
        # Labels are handed out one at a time: two clusters of one name must not both get the plain one.
        await connection.execute("lock table cluster in share row exclusive mode")
        known = await find_clusters(connection, records)
        for record in _missing(records, known):
            if not await recognise(connection, record):
                observations += await _make_cluster(connection, record)
        known = await find_clusters(connection, records)
    elif any(not record.resource for record in records):
        # A snapshot's update of its cluster must not wait, with units locked, for a batch that makes a cluster and then
        # needs those units: the two would deadlock.
        await connection.execute("lock table cluster in row exclusive mode")
    if former := find_former(records, known):
        await lock_forgotten(connection)
        await join_former(connection, former)
        known = await find_clusters(connection, records)
    return known, observations


def _missing(records: list[Record], known: KnownClusters) -> list[Record]:
    """The first record of each cluster that is not stored, in one order."""
    named = {record.cluster: record for record in reversed(records)}
    return [record for cluster, record in sorted(named.items()) if cluster not in known]


async def _make_cluster(connection: Connection, record: Record) -> list[Observation]:
    name = record.cluster_name
    label = await connection.fetchval(
        statements()["ensure_cluster"], record.cluster, name, record.epoch, record.began_at
    )
    if label in (None, name):
        return []
    message = f"another cluster is called {name!r} already: the one with uid {record.cluster} is shown as {label!r}"
    return [Warned(message=message, remedy="set CLUSTER_NAME of one of their collectors")]


def _keys(units: Iterable[Unit], clusters: ClusterIds) -> tuple[list[int], list[str], list[str]]:
    """Row ids of clusters, groups, resources."""
    chosen = list(units)
    return (
        [clusters[unit.cluster] for unit in chosen],
        [unit.group for unit in chosen],
        [unit.resource for unit in chosen],
    )


async def _lock_units(connection: Connection, news: dict[Unit, UnitNews], clusters: ClusterIds) -> dict[Unit, UnitRow]:
    """All of them, or none if some are missing."""
    if not news:
        return {}
    rows = await connection.fetch(statements()["lock_units"], *_keys(news, clusters))
    found = {
        (row["cluster_id"], row["api_group"], row["resource"]): UnitRow(
            row["id"], row["cluster_id"], row["kind"], row["api_version"], row["namespaced"], row["live_at_source"]
        )
        for row in rows
    }
    keys = {unit: (clusters[unit.cluster], unit.group, unit.resource) for unit in news}
    return {unit: found[key] for unit, key in keys.items() if key in found}


async def _make_units(connection: Connection, news: dict[Unit, UnitNews], clusters: ClusterIds) -> None:
    await connection.execute(
        statements()["ensure_units"],
        *_keys(news, clusters),
        [of_unit.kind for of_unit in news.values()],
        [of_unit.api_version for of_unit in news.values()],
    )


async def _describe(connection: Connection, news: dict[Unit, UnitNews], rows: dict[Unit, UnitRow]) -> None:
    changed = {unit: of_unit for unit, of_unit in news.items() if of_unit.changes(rows[unit])}
    if not changed:
        return
    await connection.execute(
        statements()["describe_units"],
        [rows[unit].id for unit in changed],
        [of_unit.kind for of_unit in changed.values()],
        [of_unit.api_version for of_unit in changed.values()],
        [of_unit.namespaced for of_unit in changed.values()],
        [of_unit.live_at_source for of_unit in changed.values()],
    )
    for unit, of_unit in changed.items():
        rows[unit].live_at_source = of_unit.live_at_source
