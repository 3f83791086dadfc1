"""What `clusterinfo status` shows: a verdict, a table a person reads at a glance, JSON for scripts. Pure: no I/O.

Healthy means: of every cluster a run of lists has ended, which knew all of its kinds; every kind that has rows was
verified not long ago, nothing waits among the dead letters, and what waits in Kafka waits in partitions that a consumer
holds. Lag is shown and no reason for alarm by itself: it comes and goes with every run of lists. Nor is it one that
nobody consumes while nothing waits: jobs consume now and then.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from clusterinfo.durations import short_duration
from clusterinfo.model import ListLane, Unit, partition_name
from clusterinfo.postgres.admin.overview import ClusterRow, KindRow, Overview

WELL = ("verified", "excluded", "gone", "forbidden")
"""States that need nobody's attention by themselves, unless they have rows that grow old: that a kind is forbidden or
excluded is somebody's decision."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of a topic: up to where it is stored, where it ends (None: Kafka was not asked)."""

    topic: str
    partition: int
    stored: int
    end: int | None

    def __str__(self) -> str:
        return partition_name(self.topic, self.partition)

    @property
    def lag(self) -> int | None:
        return None if self.end is None else max(0, self.end - self.stored)


@dataclass(frozen=True, slots=True)
class Consumers:
    """The consumer group as Kafka has it: its state there, how many members, which (topic, partition) of ours they
    hold.

    `error`: why Kafka did not tell; `state` is unknown then, `members` None. `owner`: the group that the database's
    offsets belong to.
    """

    group: str
    state: str
    members: int | None
    held: frozenset[tuple[str, int]]
    error: str
    owner: str


@dataclass(frozen=True, slots=True)
class Status:
    """An overview, the topics' partitions, and after how many seconds a kind counts as stale.

    `every_kind`: the table names all kinds, not only those that need attention. `consumers`: None if Kafka was not
    asked.
    """

    overview: Overview
    partitions: list[Partition]
    stale_after_s: float
    kafka_error: str = ""
    every_kind: bool = False
    consumers: Consumers | None = None

    @property
    def attention(self) -> list[tuple[KindRow, str]]:
        """Kinds that somebody should look at, and why."""
        pairs = ((kind, self._complaint(kind)) for kind in self.overview.kinds)
        return [(kind, complaint) for kind, complaint in pairs if complaint]

    @property
    def is_healthy(self) -> bool:
        troubles = self.attention, self.unfinished, self.unattended, self.overview.dead_letters, self.kafka_error
        well = not any(troubles)
        return well and bool(self.overview.clusters)

    @property
    def unfinished(self) -> list[str]:
        """Clusters of which no run of lists has ended, or the last one did not learn of all kinds."""
        return [line for row in self.overview.clusters if (line := _unfinished(row))]

    @property
    def unattended(self) -> str:
        """What waits in partitions that no consumer holds; "" if nothing does, or nobody knows who holds what."""
        if self.consumers is None or self.consumers.error:
            return ""
        left = [row for row in self.partitions if row.lag and (row.topic, row.partition) not in self.consumers.held]
        if not left:
            return ""
        waiting = sum(row.lag or 0 for row in left)
        text = f"{waiting:,} messages wait" if waiting > 1 else "1 message waits"
        if self.consumers.held:
            return f"{text} in partitions that no consumer holds: {', '.join(map(str, left))}"
        return f"{text} and no consumer holds a partition{_other_group(self.consumers)}"

    def _complaint(self, kind: KindRow) -> str:
        is_stale = kind.age_s is not None and kind.age_s > self.stale_after_s
        if kind.state == "verified":
            return f"not verified again for {short_duration(kind.age_s or 0)}" if is_stale else ""
        reasons = [] if kind.state in WELL else [kind.last_error or "not proven yet"]
        if kind.objects and is_stale:
            reasons.append(f"{kind.objects:,} rows as of {kind.verified_at:%Y-%m-%d %H:%M:%S}")
        elif kind.objects and kind.state in WELL and kind.age_s is None:
            reasons.append(f"{kind.objects:,} rows, never proven")
        return "; ".join(reasons)

    def as_json(self) -> dict[str, Any]:
        """Everything, for scripts; times are RFC 3339, durations seconds."""
        overview = dataclasses.asdict(self.overview)
        partitions = [dataclasses.asdict(partition) | {"lag": partition.lag} for partition in self.partitions]
        complaints = [
            {
                "cluster": kind.cluster,
                "api_group": kind.api_group,
                "resource": kind.resource,
                "reach": kind.reach,
                "why": why,
            }
            for kind, why in self.attention
        ]
        return {
            "healthy": self.is_healthy,
            "attention": complaints,
            "unfinished": self.unfinished,
            "clusters": overview["clusters"],
            "kinds": overview["kinds"],
            "partitions": partitions,
            "dead_letters": overview["dead_letters"],
            "kafka_error": self.kafka_error,
            "consumers": self._consumers_as_json(),
        }

    def _consumers_as_json(self) -> dict[str, Any] | None:
        if self.consumers is None:
            return None
        return {
            "group": self.consumers.group,
            "state": self.consumers.state,
            "members": self.consumers.members,
            "held": None if self.consumers.error else [partition_name(*held) for held in sorted(self.consumers.held)],
            "error": self.consumers.error,
            "why": self.unattended,
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        parts: list[Any] = [self._clusters()]
        if self.attention or self.every_kind:
            parts.append(self._kinds())
        if self.partitions:
            parts.append(self._partitions())
        yield Group(*parts, *self._words())

    def _clusters(self) -> Table:
        table = _table("cluster", "version", "last run", "took", "kinds", "objects", "oldest proof", "objects/hour")
        for row in self.overview.clusters:
            kinds = [kind for kind in self.overview.kinds if kind.cluster == row.cluster]
            table.add_row(*_cluster_cells(row, kinds))
        return table

    def _kinds(self) -> Table:
        table = _table("cluster", "kind", "state", "objects", "proven", "why")
        all_of_them = [(kind, self._complaint(kind)) for kind in self.overview.kinds]
        for kind, complaint in all_of_them if self.every_kind else self.attention:
            age = "never" if kind.age_s is None else f"{short_duration(kind.age_s)} ago"
            table.add_row(kind.cluster, _named(kind), kind.state, _number(kind.objects), age, complaint)
        return table

    def _partitions(self) -> Table:
        table = _table("topic", "partition", "stored up to", "ends at", "lag")
        for row in self.partitions:
            table.add_row(row.topic, str(row.partition), f"{row.stored:,}", _number(row.end), _number(row.lag))
        return table

    def _words(self) -> list[Text]:
        letters, words = self.overview.dead_letters, []
        if not self.overview.clusters:
            words.append("no cluster is stored here yet")
        if self.kafka_error:
            words.append(f"lag unknown: {self.kafka_error}")
        if self.consumers is not None:
            words.append(f"consumers: {_described(self.consumers, len(self.partitions))}")
        words += self.unfinished
        if self.unattended:
            words.append(self.unattended)
        words.append(f"dead letters: {letters}" + ("; see `clusterinfo dead-letters list`" if letters else ""))
        words.append("healthy" if self.is_healthy else "needs attention")
        return [Text(line) for line in words]


def _unfinished(row: ClusterRow) -> str:
    if row.last_run_at is None:
        return f"{row.cluster}: no run of lists has ended yet: what is stored is not all there is"
    if row.knows_all_kinds is False:
        return f"{row.cluster}: the last run of lists could not discover all kinds; its collector's log says why"
    return ""


def _described(consumers: Consumers, partitions: int) -> str:
    if consumers.error:
        return f"unknown: {consumers.error}"
    if not consumers.members:
        return f"none in group {consumers.group}"
    state = "" if consumers.state == "Stable" else f" ({consumers.state})"
    held = f"{len(consumers.held)} of {partitions} partitions held"
    return f"{consumers.members} in group {consumers.group}, {held}{state}"


def _other_group(consumers: Consumers) -> str:
    """A hint, where it may be that another group was asked about than the one that consumes."""
    if consumers.owner == consumers.group:
        return ""
    return f" (KAFKA_GROUP_ID is {consumers.group!r}, but this database belongs to group {consumers.owner!r})"


def _cluster_cells(row: ClusterRow, kinds: list[KindRow]) -> list[str]:
    states = Counter(kind.state for kind in kinds)
    ages = [kind.age_s for kind in kinds if kind.state == "verified" and kind.age_s is not None]
    return [
        row.cluster,
        row.server_version or "",
        "never" if row.last_run_at is None else f"{row.last_run_at:%Y-%m-%d %H:%M:%S}",
        "" if row.last_run_s is None else f"{row.last_run_s:.1f} s",
        ", ".join(f"{count} {state}" for state, count in states.most_common()),
        _number(sum(kind.objects or 0 for kind in kinds)),
        short_duration(max(ages)) if ages else "none",
        _number(row.objects_last_hour),
    ]


def _named(kind: KindRow) -> str:
    return str(ListLane(Unit(kind.cluster, kind.api_group, kind.resource), kind.reach))


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
