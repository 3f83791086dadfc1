"""One cluster, two identities: the name it is known by while its uid may not be read, and its uid.

A name that gains its uid keeps its rows, whichever of the two is stored first: the first record under the uid takes the
row over; what was sent under the name and comes late is recognised by the names the cluster has had. Where late records
came before anything said so, the cluster is stored twice until some record says both, and then joined.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import msgspec

from clusterinfo.model import Batch, Record
from clusterinfo.postgres.sql import statements


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """What is stored of a cluster, as far as it tells who it is."""

    id: int
    uid: str
    former_uid: str | None
    first_seen: dt.datetime
    last_seen: dt.datetime


KnownClusters = dict[str, ClusterRow]
"""Identity, the present or the former one -> row."""


async def find_clusters(connection: Any, records: list[Record]) -> KnownClusters:
    """The rows of the clusters that `records` speak of, by identity and by name."""
    said = sorted({text for record in records for text in (record.cluster, record.cluster_name)})
    rows = [ClusterRow(*row) for row in await connection.fetch(statements()["find_clusters"], said)]
    return {row.former_uid: row for row in rows if row.former_uid} | {row.uid: row for row in rows}


async def recognise(connection: Any, record: Record) -> bool:
    """True if the cluster is here under its other identity: its uid, or the name from before the uid was known."""
    if record.cluster == record.cluster_name:
        done = await connection.execute(statements()["recall_cluster"], record.cluster, record.began_at)
    else:
        done = await connection.execute(statements()["adopt_cluster"], record.cluster, record.cluster_name)
    return str(done) == "UPDATE 1"


def under_one_identity(batch: Batch, known: KnownClusters) -> Batch:
    """`batch` with what it says of kinds and objects under a former name said under the uid: one unit is one key."""
    uids = {identity: row.uid for identity, row in known.items() if identity != row.uid}
    if not uids:
        return batch
    records = [
        msgspec.structs.replace(record, cluster=uids.get(record.cluster, record.cluster)) if record.resource else record
        for record in batch.records
    ]
    return msgspec.structs.replace(batch, records=records)


async def join_former(connection: Any, records: list[Record], known: KnownClusters) -> bool:
    """Join what is stored under a name to the cluster whose name that was; return whether anything was."""
    pairs = {(record.cluster, record.cluster_name) for record in records if record.cluster != record.cluster_name}
    due = [(known[uid], known[name]) for uid, name in sorted(pairs) if _is_former(known, uid, name)]
    if not due:
        return False
    await connection.execute(statements()["lock_forgotten"])
    for cluster, former in due:
        await connection.execute(statements()["join_units"], cluster.id, former.id)
        await connection.execute(statements()["join_rows"], cluster.id, former.id)
        await connection.execute(statements()["drop_former_history"], former.id)
        await connection.execute(statements()["join_snapshots"], cluster.id, former.id)
        await connection.execute(statements()["join_cluster"], cluster.id, former.id)
        await connection.execute(statements()["become_former"], cluster.id, former.uid)
    return True


def _is_former(known: KnownClusters, uid: str, name: str) -> bool:
    """True if both are stored, and all that is stored under the name dates from before the uid was seen.

    What goes on under the name beside the uid is another cluster of that name, whose uid may not be read.
    """
    cluster, former = known.get(uid), known.get(name)
    if cluster is None or former is None or former.uid != name or cluster.uid != uid:
        return False
    return cluster.former_uid in (None, name) and former.last_seen < cluster.first_seen
