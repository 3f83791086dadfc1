"""What a stolen collector may say of a cluster, and all that is stored of one, for tests of who may write what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
from msgspec.structs import replace

from clusterinfo.model import MAX_VERSION, Record, RecordType
from clusterinfo.statements import WatchedUnit, WatchEnded, WatchProgress
from tests.support.records import CLUSTER, MINUTE, NOON, Listing, watched

OF_CLUSTER = {
    "cluster": "id = {0}",
    "cluster_name": "cluster_id = {0}",
    "snapshot": "cluster_id = {0}",
    "watch_session": "cluster = (select uid from cluster where id = {0})",
    "unit": "cluster_id = {0}",
    **dict.fromkeys(
        ("unit_floor", "resource", "resource_history", "list_progress", "unit_partition", "coverage"),
        "unit_id in (select id from unit where cluster_id = {0})",
    ),
}
"""Table -> which of its rows are a cluster's."""


async def stored(connection: asyncpg.Connection, cluster: str = CLUSTER) -> dict[str, list[str]]:
    """Everything that is stored of a cluster."""
    row = await connection.fetchval("select id from cluster where uid = $1", cluster)
    return {
        table: [
            found["row"]
            for found in await connection.fetch(
                f"select t::text as row from {table} t where {whose.format(row)} order by 1"
            )
        ]
        for table, whose in OF_CLUSTER.items()
    }


def run(**attributes: Any) -> Listing:
    """A run of lists a minute later than what is stored, at a higher version."""
    return Listing("900", NOON + MINUTE, **attributes)


FORGED: dict[str, Callable[[Listing], Sequence[Record]]] = {
    "an empty list": lambda forged: [forged.completed()],
    "a list of other objects": lambda forged: [forged.item("mine", "1"), forged.completed()],
    "a changed object": lambda forged: [forged.item("a", "800", "forged")],
    "an object under another uid": lambda forged: [forged.item("a", "800", uid="forged")],
    "a deletion": lambda forged: [forged.deleted("a", "900")],
    "a list that failed": lambda forged: [forged.failed(500, "forged")],
    "a forbidden kind": lambda forged: [forged.failed(403, "forged")],
    "another name": lambda forged: [replace(forged.snapshot_started(), cluster_name="forged")],
    "alternating names": lambda forged: [
        replace(forged.snapshot_started(), cluster_name=name, observed_at=NOON + n * MINUTE, snapshot=Listing("1").id)
        for n, name in enumerate("ABAB")
    ],
    "a discovery of nothing": lambda forged: [forged.snapshot_completed({})],
    "an excluded kind": lambda forged: [forged.snapshot_completed({("", "configmaps"): "excluded"})],
    "a higher epoch": lambda forged: [
        replace(record, epoch=9) for record in (forged.snapshot_started(), forged.item("a", "800"), forged.completed())
    ],
    "a kind ordered by the clock": lambda forged: [replace(forged.completed(), ordering="clock")],
    "a kind that is not there": lambda forged: [replace(forged.item("w", "1"), group="forged.example", kind="Forged")],
    "a list of another kind": lambda forged: [replace(forged.completed(), resource="secrets", kind="Secret")],
    "the highest version": lambda forged: [replace(forged.completed(), list_version=str(MAX_VERSION))],
    "a watched change": lambda forged: [watched(forged.item("a", "800", "forged"), 3)],
    "the highest number of a session": lambda forged: [watched(forged.item("a", "800"), 2**62)],
    "a progress": lambda forged: [forged.watch(RecordType.WATCH_PROGRESS, 3, WatchProgress(forged.at))],
    "an end of its watches": lambda forged: [
        forged.watch(RecordType.WATCH_ENDED, 3, WatchEnded([WatchedUnit("", "configmaps", forged.at)]))
    ],
    "a statement nobody can read": lambda forged: [replace(forged.snapshot_completed({}), body=b"[]")],
    "a clock far ahead": lambda forged: [replace(forged.snapshot_started(), observed_at=NOON + 10**6 * MINUTE)],
}
"""What a stolen collector may say of a cluster that is not its own."""
