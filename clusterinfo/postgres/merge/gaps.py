"""What casts doubt on rows that are stored: messages that were lost before they came, and two clusters with one uid.

Doubt deletes nothing. It takes a kind's word that it is verified away; the next proven list gives it back.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

from clusterinfo.errors import TransientError
from clusterinfo.model import Batch, PartitionLane, Record
from clusterinfo.postgres.merge.units import Locked
from clusterinfo.postgres.sql import statements


class CarriedUnits:
    """Which kinds a partition carries. The database is told of each once in the life of a claim."""

    def __init__(self) -> None:
        self._known: dict[PartitionLane, set[int]] = {}

    async def note(self, connection: Any, batch: Batch, locked: Locked) -> frozenset[int]:
        """Store which units came by the batch's partition; `keep` what this returns once it is committed."""
        if not isinstance(batch.lane, PartitionLane):
            return frozenset()
        lane = batch.lane
        new = {row.id for row in locked.units.values()} - self._known.get(lane, set())
        if new:
            await connection.execute(
                statements()["carry_units"], sorted(new), lane.kafka_cluster, lane.topic, lane.partition
            )
        return frozenset(new)

    def keep(self, batch: Batch, new: frozenset[int]) -> None:
        """What `note` returned is stored now."""
        if new and isinstance(batch.lane, PartitionLane):
            self._known.setdefault(batch.lane, set()).update(new)

    def forget(self, lane: PartitionLane) -> None:
        """The database may have gone back to an earlier state: ask it again."""
        self._known.pop(lane, None)


async def doubt_gap(connection: Any, batch: Batch) -> None:
    """Messages of the batch's partition were lost: what it carries is unverified as of the first one after them."""
    if not (batch.gap and isinstance(batch.lane, PartitionLane)):
        return
    lane = batch.lane
    at = min((record.observed_at for record in batch.records), default=dt.datetime.now(dt.UTC))
    said = f"messages of {lane} were deleted from Kafka before they were stored: unproven until the next list"
    arguments = lane.kafka_cluster, lane.topic, lane.partition
    await connection.execute(statements()["lock_carried_units"], *arguments)
    await connection.execute(statements()["unverify_carried_units"], *arguments, at, said)


async def keep_apart(connection: Any, batch: Batch) -> Batch:
    """`batch` with the records of clusters that share another one's uid under an identity of their own: uid/name."""
    uids = sorted({record.cluster for record in batch.records})
    rows = await connection.fetch(statements()["find_clones"], uids)
    clones = {row["uid"]: frozenset(row["clones"]) for row in rows}
    if not clones:
        return batch
    return msgspec.structs.replace(batch, records=[_apart(record, clones) for record in batch.records])


async def check_apart(connection: Any, batch: Batch, locked: Locked) -> None:
    """Raise TransientError if clusters of `batch` were told apart since `keep_apart`; once its units are locked.

    Whoever tells them apart locks the units first: where that was under way, this batch waited for them meanwhile.
    """
    rows = await connection.fetch(statements()["find_identities"], sorted(locked.clusters))
    is_known = {row["identity"]: row["id"] for row in rows} == locked.clusters
    clones = {row["identity"]: frozenset(row["clones"]) for row in rows if row["clones"]}
    if not is_known or (clones and any(_apart(record, clones) is not record for record in batch.records)):
        raise TransientError(f"{batch.lane}: two clusters with one uid or name were told apart meanwhile")


def _apart(record: Record, clones: dict[str, frozenset[str]]) -> Record:
    if record.cluster_name not in clones.get(record.cluster, ()):
        return record
    return msgspec.structs.replace(record, cluster=clone_identity(record.cluster, record.cluster_name))


def clone_identity(uid: str, name: str) -> str:
    """What tells a cluster apart whose uid another one has."""
    return f"{uid}/{name}"


async def notice_namesakes(connection: Any, record: Record, cluster_id: int) -> str:
    """Note by which identity a snapshot speaks of its cluster; return what to warn of if two have the name, else "".

    A name that gains its uid is said no more. A name and a uid that are said in turns are two clusters, and the uid of
    one of them may not be read; or one, read by two collectors of which only one may.
    """
    await connection.execute(statements()["record_identity"], cluster_id, record.cluster, record.observed_at)
    row = await connection.fetchrow(statements()["separate_namesakes"], cluster_id)
    if row is None:
        return ""
    await _doubt_all(connection, cluster_id, record, "name")
    return (
        f"two clusters are called {row['label']!r}, one of them with uid {row['uid']}, the other without rights to get "
        "namespace kube-system: from now on each is stored as a cluster of its own"
    )


async def notice_clones(connection: Any, record: Record, cluster_id: int) -> str:
    """Note the name a snapshot gives its cluster; return what to warn of if two clusters share the uid, else "".

    A cluster that is renamed has one name after the other. Names that are said in turns (A, B, A, B) are two clusters:
    a copied etcd keeps the uid of its kube-system namespace. What the two have mixed by then is no longer believed, so
    that the next proven list of the first one puts it right.
    """
    await connection.execute(statements()["record_name"], cluster_id, record.cluster_name, record.observed_at)
    crossing = await connection.fetchval(statements()["find_crossing_names"], cluster_id)
    if not crossing:
        return ""
    label = await connection.fetchval(statements()["split_cluster"], cluster_id, crossing)
    if label is None:
        return ""
    await _doubt_all(connection, cluster_id, record, "uid")
    others = ", ".join(map(repr, crossing))
    return (
        f"clusters named {label!r} and {others} have the same uid, {record.cluster} (a copied etcd?): from now on each "
        "is stored as a cluster of its own"
    )


async def _doubt_all(connection: Any, cluster_id: int, record: Record, shared: str) -> None:
    """What two clusters have mixed is no longer believed: the next proven list of the one that stays puts it right."""
    units = [row["id"] for row in await connection.fetch(statements()["lock_cluster_units"], [cluster_id])]
    said = f"two clusters with one {shared} wrote here: unproven until the next list"
    await connection.execute(statements()["drop_unit_progress"], units)
    await connection.execute(statements()["unverify_cluster_rows"], cluster_id)
    await connection.execute(statements()["unverify_cluster_floors"], cluster_id, record.observed_at, said)
    await connection.execute(statements()["unverify_cluster_units"], cluster_id, record.observed_at, said)
