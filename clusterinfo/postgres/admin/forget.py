"""Forgetting a cluster, or one kind of it: hidden at once, deleted bit by bit.

Theory of operation. Every batch reads the table `forgotten` before it touches a unit (`merge/admission.py`), and so
holds a lock on it until it commits. Forgetting locks that table for a moment: no batch is under way then, and one short
transaction

1. notes what is forgotten, and when: records of lists that began before are ignored from now on, so that late ones
   bring nothing back in part;
2. takes the rows away from consumers: the cluster's row gets another uid and label, a single kind moves to such a
   row. What comes later makes rows of its own.

What was taken away belongs to no cluster that is shown. It is deleted in small transactions that meet no consumer; if
that is interrupted, the next call goes on with it.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass

from clusterinfo.errors import ClusterinfoError, ConfigError
from clusterinfo.model import Unit
from clusterinfo.postgres.admin.clusters import alone, begin, find_cluster, named
from clusterinfo.postgres.connection import Connection, Row
from clusterinfo.postgres.errors import FOREIGN, translate
from clusterinfo.postgres.sql import statements
from clusterinfo.spelling import did_you_mean

ROWS_AT_ONCE = 5000
"""Rows of one deleting transaction: some 0.1 s with bodies of 6 kB."""


@dataclass(slots=True)
class Deleted:
    """What was deleted for good."""

    units: int = 0
    objects: int = 0
    versions: int = 0


async def hide(connection: Connection, schema: str, name: str, kind: str | None) -> None:
    """Take a cluster (its label, name or uid), or one kind of it, away from readers' names and from consumers.

    Raises ConfigError if there is no such cluster or kind.
    """
    await alone(connection, schema, f"forgetting {name}", lambda: _hide(connection, name, kind))


async def delete_hidden(connection: Connection, schema: str) -> Deleted:
    """Delete what was hidden, by this call or one that was interrupted."""
    deleted = Deleted()
    try:
        async with connection.transaction():
            await begin(connection, schema)
            units = [row["id"] for row in await connection.fetch(statements()["find_hidden_units"])]
        # In steps, each a transaction: one of millions of rows would hold back vacuum and meet the statement timeout.
        for unit_id in units:
            deleted.objects += await _delete_in_steps(
                connection,
                schema,
                unit_id,
                first=("", ""),
                find_edge=statements()["find_edge_of_resource"],
                delete=statements()["delete_up_to_edge_of_resource"],
            )
            deleted.versions += await _delete_in_steps(
                connection,
                schema,
                unit_id,
                first=("", "", dt.datetime.min.replace(tzinfo=dt.UTC)),
                find_edge=statements()["find_edge_of_history"],
                delete=statements()["delete_up_to_edge_of_history"],
            )
        # Units and clusters last: without them, an interrupted call would leave rows that no later one finds.
        async with connection.transaction():
            await begin(connection, schema)
            deleted.units = len(await connection.fetch(statements()["delete_hidden_units"], units))
            await connection.execute(statements()["delete_hidden_clusters"])
    except FOREIGN as error:
        translated: ClusterinfoError = translate(error, "deleting what is forgotten (the next call goes on with it)")
        raise translated from error
    return deleted


async def _hide(connection: Connection, name: str, kind: str | None) -> None:
    cluster = await find_cluster(connection, "--cluster", name)
    group, resource = _split(kind) if kind else ("", "")
    if kind and not await connection.fetchval(statements()["find_unit"], cluster["id"], group, resource):
        raise ConfigError(await _no_such_kind(connection, cluster, kind))
    await connection.execute(statements()["note_forgotten"], cluster["uid"], group, resource)
    await connection.execute(statements()["drop_progress_of"], cluster["id"], group, resource)
    place = f"forgotten {uuid.uuid4()}"
    label = f"{cluster['label']} ({place})"
    if kind:
        await connection.execute(statements()["hide_unit"], cluster["id"], group, resource, place, label)
    else:
        await connection.execute(statements()["hide_cluster"], cluster["id"], place, label)


async def _no_such_kind(connection: Connection, cluster: Row, kind: str) -> str:
    rows = await connection.fetch(statements()["list_units"], cluster["id"])
    kinds = [Unit(cluster["uid"], row["api_group"], row["resource"]).dotted for row in rows]
    found = did_you_mean(kind, kinds) or f"stored are: {named(kinds)}"
    return f"--resource is {kind!r}, but cluster {cluster['label']!r} has no such kind; {found}"


def _split(kind: str) -> tuple[str, str]:
    """`deployments.apps` -> ("apps", "deployments")."""
    resource, _, group = kind.partition(".")
    return group, resource


async def _delete_in_steps(
    connection: Connection, schema: str, unit_id: int, *, first: tuple[object, ...], find_edge: str, delete: str
) -> int:
    """Delete a unit's rows in the order of their key, some thousand in each transaction; return how many."""
    count, before = 0, first
    while True:
        async with connection.transaction():
            await begin(connection, schema)
            edge = await connection.fetchrow(find_edge, unit_id, ROWS_AT_ONCE - 1, *before)
            if edge is None:
                return count
            done = await connection.execute(delete, unit_id, *before, *edge)
            before = tuple(edge)
            count += int(done.rpartition(" ")[2])
