"""What of a batch is admitted, and under which date: nothing of what was forgotten since, nothing from the future.

Every batch reads the table `forgotten` before it touches a unit, and so holds a lock on it until it commits.

The newest statement of a kind counts, and what was observed before a kind was gone is not there: a date far ahead, from
a collector whose clock is wrong, would silence whatever comes until then. It is replaced by the database's present.
Dates that are a little ahead, and all that lie in the past, are taken as they are.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import msgspec

from clusterinfo.model import Batch, Record
from clusterinfo.observations import Observation, Warned
from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.merge.identities import clone_identity
from clusterinfo.postgres.sql import statements

MOST_AHEAD = dt.timedelta(minutes=5)
"""Clocks that nobody synchronises are off by seconds a day; one set wrong is off by hours or years."""

Forgotten = dict[tuple[str, str, str], dt.datetime]
"""(cluster, group, resource; "" and "" for all of it) -> when it was forgotten."""


# --- what was forgotten ----------------------------------------------------------------------------------------------


async def read_forgotten(connection: Connection, batch: Batch) -> Forgotten:
    """What was forgotten of the clusters in `batch`. To be called before anything else of the batch is locked."""
    named = {(record.cluster, record.cluster_name) for record in batch.records}
    if not named:
        return {}
    clusters = {cluster for cluster, _ in named} | {clone_identity(cluster, name) for cluster, name in named}
    rows = await connection.fetch(statements()["read_forgotten"], sorted(clusters))
    return {(row["cluster"], row["api_group"], row["resource"]): row["forgotten_at"] for row in rows}


def without_forgotten(batch: Batch, forgotten: Forgotten) -> Batch:
    """`batch` without the records of lists and snapshots that began before what they are about was forgotten."""
    if not forgotten:
        return batch
    kept = [record for record in batch.records if not _is_forgotten(record, forgotten)]
    return msgspec.structs.replace(batch, records=kept)


async def lock_forgotten(connection: Connection) -> None:
    """Wait until no batch is under way, and hold all others off until this transaction ends."""
    await connection.execute(statements()["lock_forgotten"])


def _is_forgotten(record: Record, forgotten: Forgotten) -> bool:
    moments = [forgotten.get((record.cluster, "", ""))]
    if record.resource:
        moments.append(forgotten.get((record.cluster, record.group, record.resource)))
    return any(moment is not None and record.began_at < moment for moment in moments)


# --- clocks that are ahead -------------------------------------------------------------------------------------------


class Clocks:
    """The collectors' clocks, as far as they were seen to be ahead: each is reported once, until it is right again."""

    def __init__(self, observe: Callable[[Observation], None]) -> None:
        self._observe = observe
        self._ahead: set[str] = set()

    async def dated(self, connection: Connection, batch: Batch) -> Batch:
        """`batch` with nothing in it observed more than five minutes after the database's present."""
        if not batch.records:
            return batch
        now: dt.datetime = await connection.fetchval("select clock_timestamp()")
        limit = now + MOST_AHEAD
        if max(record.observed_at for record in batch.records) <= limit:
            if self._ahead:
                self._ahead -= {record.cluster for record in batch.records}
            return batch
        for record in batch.records:
            if record.observed_at > limit and record.cluster not in self._ahead:
                self._ahead.add(record.cluster)
                self._observe(_warning(record, now))
        return msgspec.structs.replace(batch, records=[_dated(record, limit, now) for record in batch.records])


def _dated(record: Record, limit: dt.datetime, now: dt.datetime) -> Record:
    return msgspec.structs.replace(record, observed_at=now) if record.observed_at > limit else record


def _warning(record: Record, now: dt.datetime) -> Warned:
    ahead = dt.timedelta(seconds=round((record.observed_at - now).total_seconds()))
    return Warned(
        message=f"cluster {record.cluster_name!r}: its collector's clock is {ahead} ahead of the database's, whose "
        "time is taken instead",
        remedy="set the clock of the collector's host, or of the database's",
    )
