"""Clusters: making the rows that are missing, and the alarm for two clusters under one identity.

A cluster that is renamed has one name after the other. Names that alternate (A, B, A, B) are two clusters that write to
one row: a copied etcd keeps the uid of its kube-system namespace. Nothing is split or joined by guesswork: the cluster
is *contested*, nothing of it is verified or deleted until that ends, and CLUSTER_ID separates the two. What they mixed
counts as older than whatever comes next, once when it begins and once when it ends, so that the next list corrects
everything. Two that send to topics of their own never mix: the cluster is the first one's (`admission.py`).
"""

from __future__ import annotations

import datetime as dt

from clusterinfo.model import Record
from clusterinfo.observations import Observation, Warned
from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.merge.admission import Admission, ClusterRow, Clusters, clusters_of
from clusterinfo.postgres.merge.census import Census
from clusterinfo.postgres.merge.coverage import mark_units_unverified
from clusterinfo.postgres.sql import statements

CONTESTED = "two clusters write under one identity: unproven until one of them has a CLUSTER_ID"


async def know_clusters(
    connection: Connection, census: Census, admission: Admission
) -> tuple[Clusters, list[Observation]]:
    """The clusters of a batch, made where they are missing, owned where nobody did; and what to report of that."""
    missing = [record for cluster, record in sorted(census.clusters.items()) if cluster not in admission.clusters]
    ownerless = [uid for uid in admission.ownerless if uid in census.clusters]
    if not missing and not ownerless:
        if census.snapshots:
            # A snapshot's update of its cluster must not wait, with units locked, for a batch that makes a cluster and
            # then needs those units: the two would deadlock.
            await connection.execute("lock table cluster in row exclusive mode")
        return admission.clusters, []
    # Labels are handed out one at a time: two clusters of one name must not both get the plain one.
    await connection.execute("lock table cluster in share row exclusive mode")
    observations = [warning for record in missing for warning in await _make_cluster(connection, record, admission)]
    if ownerless:
        await connection.execute(statements()["adopt_clusters"], ownerless, admission.topic)
    return clusters_of(await connection.fetch(statements()["find_clusters"], list(census.clusters))), observations


async def _make_cluster(connection: Connection, record: Record, admission: Admission) -> list[Observation]:
    name, seen_at = record.cluster_name, admission.run_began_at(record)
    label = await connection.fetchval(
        statements()["ensure_cluster"], record.cluster, name, record.epoch, seen_at, admission.topic
    )
    if label in (None, name):
        return []
    message = f"another cluster is called {name!r} already: the one with uid {record.cluster} is shown as {label!r}"
    return [Warned(message=message, remedy="set CLUSTER_NAME of one of their collectors")]


async def name_cluster(
    connection: Connection, record: Record, cluster: ClusterRow, at: dt.datetime
) -> list[Observation]:
    """Take in what a snapshot calls its cluster; return what to warn of."""
    observations: list[Observation] = []
    name = record.cluster_name
    label = await connection.fetchval(statements()["rename_cluster"], cluster.id, name, at)
    if label is not None:
        message = f"the cluster with uid {record.cluster} is called {name!r} now and shown as {label!r}"
        observations.append(Warned(message=message))
    await connection.execute(statements()["record_name"], cluster.id, name, at)
    row = await connection.fetchrow(statements()["contest_cluster"], cluster.id)
    if row is None:
        return observations
    if row["is_contested"] is not cluster.is_contested:
        await _unverify(connection, cluster.id, at)
    if row["names"]:
        observations.append(_contested(record.cluster, row["names"]))
    return observations


def _contested(uid: str, names: list[str]) -> Warned:
    shown = " and ".join(map(repr, names))
    return Warned(
        message=f"clusters named {shown} have the same uid, {uid} (a copied etcd?): nothing of them is verified",
        remedy="set CLUSTER_ID of the collectors of one of them; if it is one cluster, give them one CLUSTER_NAME",
    )


async def _unverify(connection: Connection, cluster_id: int, at: dt.datetime) -> None:
    """What is stored of a cluster counts as older than whatever comes next."""
    units = [row["id"] for row in await connection.fetch(statements()["lock_cluster_units"], cluster_id)]
    await connection.execute(statements()["unverify_units"], units, at, CONTESTED)
    await mark_units_unverified(connection, units, at)
