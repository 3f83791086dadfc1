"""Which row is which cluster: one cluster with two identities, and two clusters with one.

One with two: the name it is known by while its uid may not be read, and its uid. A name that gains its uid keeps its
rows, whichever of the two is stored first: the first record under the uid takes the row over; what was sent under the
name and comes late is recognised by the names the cluster has had. Where late records came before either showed, the
cluster is stored twice until some record has both, and then joined.

Two with one: names that alternate under one uid (a copied etcd), or a name and a uid that alternate, are two clusters.
The row stays with one of them, the other gets its own, and what they have mixed is unverified until the next list.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from clusterinfo.errors import TransientError
from clusterinfo.model import Batch, Record
from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.merge.lists import drop_unit_progress
from clusterinfo.postgres.sql import statements


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """What is stored of a cluster, as far as it identifies it."""

    id: int
    uid: str
    former_uid: str | None
    first_seen: dt.datetime
    last_seen: dt.datetime


KnownClusters = dict[str, ClusterRow]
"""Identity, the present or the former one -> row."""

ClusterIds = dict[str, int]
"""Cluster identity -> row id."""


async def find_clusters(connection: Connection, records: list[Record]) -> KnownClusters:
    """The rows of the clusters that `records` are about, by identity and by name."""
    named = sorted({text for record in records for text in (record.cluster, record.cluster_name)})
    rows = [ClusterRow(*row) for row in await connection.fetch(statements()["find_clusters"], named)]
    return {row.former_uid: row for row in rows if row.former_uid} | {row.uid: row for row in rows}


# --- one cluster with two identities ---------------------------------------------------------------------------------


async def recognise(connection: Connection, record: Record) -> bool:
    """True if the cluster is here under its other identity: its uid, or the name from before the uid was known."""
    if record.cluster == record.cluster_name:
        done = await connection.execute(statements()["recall_cluster"], record.cluster, record.began_at)
    else:
        done = await connection.execute(statements()["adopt_cluster"], record.cluster, record.cluster_name)
    return done == "UPDATE 1"


def under_one_identity(batch: Batch, known: KnownClusters) -> Batch:
    """`batch` with its records of kinds and objects under a former name moved to the uid: one unit is one key."""
    uids = {identity: row.uid for identity, row in known.items() if identity != row.uid}
    if not uids:
        return batch
    records = [
        msgspec.structs.replace(record, cluster=uids.get(record.cluster, record.cluster)) if record.resource else record
        for record in batch.records
    ]
    return msgspec.structs.replace(batch, records=records)


def find_former(records: list[Record], known: KnownClusters) -> list[tuple[ClusterRow, ClusterRow]]:
    """(cluster, what is stored under the name it had before): pairs of rows that are one cluster."""
    pairs = {(record.cluster, record.cluster_name) for record in records if record.cluster != record.cluster_name}
    return [(known[uid], known[name]) for uid, name in sorted(pairs) if _is_former(known, uid, name)]


async def join_former(connection: Connection, pairs: list[tuple[ClusterRow, ClusterRow]]) -> None:
    """Join what is stored under a name to the cluster whose name that was. To be called while no batch is under way."""
    for cluster, former in pairs:
        await connection.execute(statements()["join_units"], cluster.id, former.id)
        await connection.execute(statements()["join_rows"], cluster.id, former.id)
        await connection.execute(statements()["drop_former_history"], former.id)
        await connection.execute(statements()["join_snapshots"], cluster.id, former.id)
        await connection.execute(statements()["join_cluster"], cluster.id, former.id)
        await connection.execute(statements()["become_former"], cluster.id, former.uid)


def _is_former(known: KnownClusters, uid: str, name: str) -> bool:
    """True if both are stored, and all that is stored under the name dates from before the uid was seen.

    What goes on under the name beside the uid is another cluster of that name, whose uid may not be read.
    """
    cluster, former = known.get(uid), known.get(name)
    if cluster is None or former is None or former.uid != name or cluster.uid != uid:
        return False
    return cluster.former_uid in (None, name) and former.last_seen < cluster.first_seen


# --- two clusters with one identity ----------------------------------------------------------------------------------


def clone_identity(uid: str, name: str) -> str:
    """The identity of a cluster whose uid another one has too: uid/name."""
    return f"{uid}/{name}"


async def separate_clones(connection: Connection, batch: Batch) -> Batch:
    """`batch` with the records of clusters that share another one's uid under an identity of their own."""
    uids = sorted({record.cluster for record in batch.records})
    rows = await connection.fetch(statements()["find_clones"], uids)
    clones = {row["uid"]: frozenset(row["clones"]) for row in rows}
    if not clones:
        return batch
    return msgspec.structs.replace(batch, records=[_separated(record, clones) for record in batch.records])


async def check_separated(connection: Connection, batch: Batch, clusters: ClusterIds) -> None:
    """Raise TransientError if clusters of `batch` were separated since `separate_clones`; once its units are locked.

    Whoever separates them locks the units first: where that was under way, this batch waited for them meanwhile.
    """
    rows = await connection.fetch(statements()["find_identities"], sorted(clusters))
    is_known = {row["identity"]: row["id"] for row in rows} == clusters
    clones = {row["identity"]: frozenset(row["clones"]) for row in rows if row["clones"]}
    if not is_known or (clones and any(_separated(record, clones) is not record for record in batch.records)):
        raise TransientError(f"{batch.lane}: two clusters with one uid or name were separated meanwhile")


def _separated(record: Record, clones: Mapping[str, frozenset[str]]) -> Record:
    if record.cluster_name not in clones.get(record.cluster, ()):
        return record
    return msgspec.structs.replace(record, cluster=clone_identity(record.cluster, record.cluster_name))


async def detect_namesakes(connection: Connection, record: Record, cluster_id: int) -> str:
    """Note by which identity a snapshot names its cluster; return what to warn of if two have the name, else "".

    A name that gains its uid is used no more. A name and a uid that alternate are two clusters, and the uid of one of
    them may not be read; or one, read by two collectors of which only one may.
    """
    await connection.execute(statements()["record_identity"], cluster_id, record.cluster, record.observed_at)
    row = await connection.fetchrow(statements()["separate_namesakes"], cluster_id)
    if row is None:
        return ""
    await _mark_unverified(connection, cluster_id, record, "name")
    return (
        f"two clusters are called {row['label']!r}, one of them with uid {row['uid']}, the other without rights to get "
        "namespace kube-system: from now on each is stored as a cluster of its own"
    )


async def detect_clones(connection: Connection, record: Record, cluster_id: int) -> str:
    """Note the name a snapshot gives its cluster; return what to warn of if two clusters share the uid, else "".

    A cluster that is renamed has one name after the other. Names that alternate (A, B, A, B) are two clusters: a copied
    etcd keeps the uid of its kube-system namespace.
    """
    await connection.execute(statements()["record_name"], cluster_id, record.cluster_name, record.observed_at)
    crossing = await connection.fetchval(statements()["find_crossing_names"], cluster_id)
    if not crossing:
        return ""
    label = await connection.fetchval(statements()["split_cluster"], cluster_id, crossing)
    if label is None:
        return ""
    await _mark_unverified(connection, cluster_id, record, "uid")
    others = ", ".join(map(repr, crossing))
    return (
        f"clusters named {label!r} and {others} have the same uid, {record.cluster} (a copied etcd?): from now on each "
        "is stored as a cluster of its own"
    )


async def _mark_unverified(connection: Connection, cluster_id: int, record: Record, shared: str) -> None:
    """What two clusters have mixed is unverified: the next proven list of the one that stays corrects it."""
    units = [row["id"] for row in await connection.fetch(statements()["lock_cluster_units"], [cluster_id])]
    error = f"two clusters with one {shared} wrote here: unproven until the next list"
    await drop_unit_progress(connection, units)
    await connection.execute(statements()["unverify_cluster_rows"], cluster_id)
    await connection.execute(statements()["unverify_cluster_floors"], cluster_id, record.observed_at, error)
    await connection.execute(statements()["unverify_cluster_units"], cluster_id, record.observed_at, error)
