"""What of a batch is admitted, and under which date: nothing that its topic may not say, nothing of what was forgotten
since, nothing from the future, and nothing of an epoch that leaps ahead.

One statement (`admit`) moves the lane's position past the batch, which locks it, and reads the rest: the present, what
was forgotten, the clusters. It holds a lock on the table `forgotten` until the batch commits: whoever forgets waits for
that, and it is taken before any unit is locked, so that the two never deadlock.

The newest statement of a kind counts, and what was observed before a kind was gone is not there: a date far ahead, from
a collector whose clock is wrong, would silence whatever comes until then. It is replaced by the database's present.
Dates that are a little ahead, and all that lie in the past, are taken as they are.

A cluster belongs to the topic that spoke of it first, so that whoever may write to one topic changes nothing of the
clusters of another: what it says of them becomes a dead letter, and nothing of that is applied, not even an identity.
Who writes without Kafka has the topic "": nothing is refused there, since whoever writes the database itself needs no
topic's leave, and a cluster that is met there first belongs to the first topic that speaks of it afterwards.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clusterinfo.errors import RecordError
from clusterinfo.model import Lane, PartitionLane, Record, list_start
from clusterinfo.observations import Observe, Warned
from clusterinfo.postgres.connection import Connection, Row
from clusterinfo.postgres.merge.census import Census
from clusterinfo.postgres.sql import statements
from clusterinfo.wire import quoted

MOST_AHEAD = dt.timedelta(minutes=5)
"""Clocks that nobody synchronises are off by seconds a day; one set wrong is off by hours or years."""

MAX_EPOCH_STEP = 1000
"""CLUSTER_EPOCH is raised by one after a restore. A record far above it would make all that comes after it look old."""

Forgotten = dict[tuple[str, str, str], dt.datetime]
"""(cluster, group, resource; "" and "" for all of it) -> when it was forgotten."""


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """What is stored of a cluster, as far as the merge wants to know it."""

    id: int
    is_contested: bool
    """True if two names alternate under its identity: nothing of it is verified."""
    epoch: int = 0
    """The highest that a snapshot of it had."""
    topic: str = ""
    """The one it belongs to; "": none has spoken of it, it was written without Kafka."""


Clusters = Mapping[str, ClusterRow]
"""Identity -> row."""


def clusters_of(rows: Iterable[Any]) -> Clusters:
    """Of rows (identity, id, whether it is contested, epoch, topic)."""
    return {uid: ClusterRow(id_, contested, epoch, topic) for uid, id_, contested, epoch, topic in rows}


def topic_of(lane: Lane) -> str:
    """The topic that a lane's records come by."""
    return lane.topic if isinstance(lane, PartitionLane) else ""


Foreign = Mapping[str, str]
"""Identity -> the topic it belongs to: the clusters of a batch that belong to another than its own."""


def foreign_among(clusters: Clusters, topic: str) -> Foreign:
    """Those that belong to another topic than this one; none for "", which is no topic."""
    return {uid: row.topic for uid, row in clusters.items() if row.topic != topic} if topic else {}


def foreign_reason(record: Record, owner: str, topic: str) -> str:
    """Why a record is refused whose cluster belongs to topic `owner` and not to `topic`."""
    name = quoted(record.cluster_name or record.cluster)
    return (
        f"cluster {name} belongs to topic {quoted(owner)}: nothing of it is taken from topic {quoted(topic)}; "
        "if that is meant, `clusterinfo clusters move` gives it another owner"
    )


@dataclass(frozen=True, slots=True)
class Admission:
    """What decides which records of a batch are stored, and as of when."""

    now: dt.datetime
    """The database's present."""
    forgotten: Forgotten
    clusters: Clusters
    """Those of the batch that are stored already."""
    topic: str = ""
    """The one that its records came by."""

    @classmethod
    def from_row(cls, row: Row, topic: str) -> Admission:
        """Of the row that the statement `admit` returned for a batch of `topic`."""
        return cls(
            now=row["now"],
            forgotten={(cluster, group, resource): at for cluster, group, resource, at in row["forgotten"]},
            clusters=clusters_of(row["clusters"]),
            topic=topic,
        )

    @property
    def ownerless(self) -> list[str]:
        """The identities of stored clusters that belong to no topic, and to this one from now on."""
        return [uid for uid, row in self.clusters.items() if self.topic and not row.topic]

    @property
    def latest(self) -> dt.datetime:
        """The latest date that is believed."""
        return self.now + MOST_AHEAD

    def date(self, record: Record) -> dt.datetime:
        """When it counts as observed."""
        return self.now if record.observed_at > self.latest else record.observed_at

    def began_at(self, record: Record) -> dt.datetime:
        """When its list or snapshot began, to the millisecond; what was watched, when it was observed."""
        began = record.list or record.snapshot
        return min(list_start(began), self.date(record)) if began else self.date(record)

    def run_began_at(self, record: Record) -> dt.datetime:
        """When the run of lists began that it came by: not after any statement of that run was made."""
        return min(list_start(record.snapshot), self.date(record)) if record.snapshot else self.date(record)

    def admits(self, record: Record) -> bool:
        """False if its list or snapshot began before what it is about was forgotten."""
        moments = [self.forgotten.get((record.cluster, "", ""))]
        if record.resource:
            moments.append(self.forgotten.get((record.cluster, record.group, record.resource)))
        return all(moment is None or self.began_at(record) >= moment for moment in moments)

    def last_epoch(self, record: Record) -> int:
        """Of its cluster; 0 if that is new."""
        cluster = self.clusters.get(record.cluster)
        return cluster.epoch if cluster else 0

    def leaps(self, record: Record) -> bool:
        """True if its epoch is more than 1,000 above the last one of its cluster."""
        return record.epoch > MAX_EPOCH_STEP and record.epoch > self.last_epoch(record) + MAX_EPOCH_STEP

    def check_epoch(self, record: Record) -> None:
        """Raise RecordError if it leaps."""
        if self.leaps(record):
            raise RecordError(
                f"its epoch is {record.epoch}, more than {MAX_EPOCH_STEP} above {self.last_epoch(record)}, the last of "
                "its cluster: CLUSTER_EPOCH is raised by one"
            )

    def takes(self, record: Record) -> bool:
        """True if anything of it may be applied, as far as is known without its cluster's owner."""
        return not self.leaps(record) and self.admits(record)


async def lock_forgotten(connection: Connection) -> None:
    """Wait until no batch is under way, and hold all others off until this transaction ends."""
    await connection.execute(statements()["lock_forgotten"])


class Clocks:
    """The collectors' clocks, as far as they were seen to be ahead: each is reported once, until it is right again."""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._ahead: set[str] = set()

    def compare(self, census: Census, admission: Admission) -> None:
        """Report the clusters of a batch whose collectors' clocks turn out to be ahead."""
        latest = admission.latest
        for cluster, record in census.newest.items():
            if record.observed_at <= latest:
                self._ahead.discard(cluster)
            elif cluster not in self._ahead:
                self._ahead.add(cluster)
                self._observe(_warning(record, admission.now))


def _warning(record: Record, now: dt.datetime) -> Warned:
    ahead = dt.timedelta(seconds=round((record.observed_at - now).total_seconds()))
    return Warned(
        message=f"cluster {record.cluster_name!r}: its collector's clock is {ahead} ahead of the database's, whose "
        "time is taken instead",
        remedy="set the clock of the collector's host, or of the database's",
    )
