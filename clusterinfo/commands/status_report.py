"""What `clusterinfo status` tells: a verdict with its reasons, a line a cluster, the lag; JSON. Pure: no I/O.

Healthy means: of every cluster a run of lists has ended, which knew all of its kinds; every kind that has rows was
verified not long ago; nothing waits among the dead letters; what waits in Kafka waits in partitions that a consumer
holds, and is being stored. Lag is no reason for alarm by itself: it comes and goes with every run of lists. Nor is it
one that nobody consumes while nothing waits: jobs consume now and then.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter
from dataclasses import dataclass
from typing import Any

from clusterinfo.commands.status_kinds import Complaint, complaint_of, grouped, severity
from clusterinfo.durations import short_duration
from clusterinfo.model import partition_name
from clusterinfo.postgres.admin.overview import ClusterRow, KindRow, Overview

STALE_INTERVALS = 3
"""A kind that was not verified for so many intervals missed more than one run of lists that was merely slow."""
STALLED_S = 60.0
"""A batch takes a second or two; a statement is ended after a minute."""
MOVING_S = 30.0
"""A partition of which something was stored so long ago is being stored."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of a topic: up to where it is stored, where it ends (None: Kafka was not asked).

    `moved_at`: when something of it was last stored; `waiting_since`: when the first message that waits was sent, or
    what was stored before it observed; `rate`: messages of it stored a second. None: not known.
    """

    topic: str
    partition: int
    stored: int
    end: int | None
    moved_at: dt.datetime | None = None
    waiting_since: dt.datetime | None = None
    rate: float | None = None

    def __str__(self) -> str:
        return partition_name(self.topic, self.partition)

    @property
    def lag(self) -> int | None:
        return None if self.end is None else max(0, self.end - self.stored)


@dataclass(frozen=True, slots=True)
class Lag:
    """What waits in Kafka: messages, and how many are stored a second (None: nothing of it is being stored, or it has
    begun just now), in how many seconds all of it is at that rate, how many the oldest has waited, and for how many
    nothing of it was stored (None: none of it ever).
    """

    messages: int
    rate: float | None = None
    catch_up_s: float | None = None
    behind_s: float | None = None
    idle_s: float | None = None

    @classmethod
    def of(cls, partitions: list[Partition], now: dt.datetime) -> Lag:
        """Of all partitions together."""
        late = [row for row in partitions if row.lag]
        messages = sum(row.lag or 0 for row in late)
        moved = [_seconds(now, row.moved_at) for row in late if row.moved_at]
        waits = [_seconds(now, row.waiting_since) for row in late if row.waiting_since]
        moving = [row for row in late if row.moved_at and _seconds(now, row.moved_at) <= MOVING_S]
        rate = sum(row.rate or 0.0 for row in moving)
        return cls(
            messages,
            rate or None,
            messages / rate if rate else None,
            max(waits) if waits else None,
            min(moved) if moved else None,
        )

    def __str__(self) -> str:
        """`37,728 messages waiting, 900/s stored, caught up in 42s, 70s behind`."""
        if not self.messages:
            return "none"
        parts = [waiting(self.messages)]
        if self.rate:
            parts += [f"{self.rate:,.0f}/s stored", f"caught up in {short_duration(self.catch_up_s or 0)}"]
        elif idle := idle_for(self):
            parts.append(idle)
        if self.behind_s is not None:
            parts.append(f"{short_duration(self.behind_s)} behind")
        return ", ".join(parts)


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

    def described(self, partitions: int) -> str:
        """`2 in group us, 12 of 12 partitions held`."""
        if self.error:
            return f"unknown: {self.error}"
        if not self.members:
            return f"no consumer in group {self.group}"
        state = "" if self.state == "Stable" else f" ({self.state})"
        return f"{self.members} in group {self.group}, {len(self.held)} of {partitions} partitions held{state}"


@dataclass(frozen=True, slots=True)
class Attention:
    """One thing that somebody should look at: a kind, a cluster, the consumers, Kafka, the dead letters, the database.

    `kind`: its row, if it is one.
    """

    about: str
    why: str
    cluster: str = ""
    kind: KindRow | None = None

    def as_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"about": self.about, "why": self.why}
        if self.cluster:
            shown["cluster"] = self.cluster
        if self.kind is not None:
            shown |= {"api_group": self.kind.api_group, "resource": self.kind.resource, "reach": self.kind.reach}
        return shown


@dataclass(frozen=True, slots=True)
class ClusterLine:
    """A cluster on one line. `age_s`: how long ago the kind was proven that was proven longest ago, of those that are
    verified; None: none is. `worst`: the kind that needs attention most, and why it or the cluster does.
    """

    row: ClusterRow
    age_s: float | None
    kinds: int
    states: dict[str, int]
    objects: int
    stale_after_s: float
    worst: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """An overview, the topics' partitions, who consumes them (None: Kafka was not asked), and when a kind is stale.

    `stale_after_s`: after how many seconds, of every cluster; None: after three times the interval that its collector
    states, or `interval_s` where it states none. `every_kind`: kinds are named that need no attention, too.
    """

    overview: Overview
    partitions: list[Partition]
    stale_after_s: float | None
    interval_s: float
    kafka_error: str = ""
    every_kind: bool = False
    consumers: Consumers | None = None

    # --- the verdict -------------------------------------------------------------------------------------------------

    @property
    def is_healthy(self) -> bool:
        return not self.attention

    @property
    def attention(self) -> list[Attention]:
        """Everything that somebody should look at."""
        kinds = [Attention("kind", one.why, one.kind.cluster, one.kind) for one in self.complaints()]
        return [*self._ends(), *self._clusters(), *kinds, *self._letters()]

    @property
    def reasons(self) -> list[str]:
        """The same, a line each, kinds with one cause together."""
        clusters = [f"{one.cluster}: {one.why}" for one in self._clusters()]
        before, after = [one.why for one in self._ends()], [one.why for one in self._letters()]
        return [*before, *clusters, *grouped(self.complaints()), *after]

    def complaints(self, cluster: str | None = None) -> list[Complaint]:
        """Kinds that need attention, of one cluster or of all."""
        stale = {row.cluster: self.stale_s(row) for row in self.overview.clusters}
        kinds = (kind for kind in self.overview.kinds if cluster in (None, kind.cluster))
        return [one for kind in kinds if (one := complaint_of(kind, stale[kind.cluster]))]

    def stale_s(self, cluster: ClusterRow) -> float:
        """After how many seconds a kind of it is stale."""
        return self.stale_after_s or STALE_INTERVALS * (cluster.interval_s or self.interval_s)

    def _ends(self) -> list[Attention]:
        """What is wrong with Kafka, the consumers, and the database as a whole."""
        found = [Attention("kafka", f"lag unknown: {self.kafka_error}")] if self.kafka_error else []
        if not self.overview.clusters:
            found.append(Attention("database", "no cluster is stored here yet"))
        if why := self.unattended or self.stalled:
            found.append(Attention("consumers", why))
        return found

    def _clusters(self) -> list[Attention]:
        return [Attention("cluster", why, row.cluster) for row in self.overview.clusters if (why := _unfinished(row))]

    def _letters(self) -> list[Attention]:
        count = self.overview.dead_letters
        letters = "1 dead letter" if count == 1 else f"{count:,} dead letters"
        return [Attention("dead_letters", f"{letters}; see `clusterinfo dead-letters list`")] if count else []

    # --- what waits --------------------------------------------------------------------------------------------------

    @property
    def lag(self) -> Lag | None:
        """None: Kafka was not asked, or did not answer."""
        if any(row.end is None for row in self.partitions) or self.consumers is None:
            return None
        return Lag.of(self.partitions, self.overview.now)

    @property
    def unattended(self) -> str:
        """What waits in partitions that no consumer holds; "" if nothing does, or nobody knows who holds what."""
        if self.consumers is None or self.consumers.error:
            return ""
        left = [row for row in self.partitions if row.lag and (row.topic, row.partition) not in self.consumers.held]
        if not left:
            return ""
        lag = Lag.of(left, self.overview.now)
        waits = ", ".join(filter(None, [waiting(lag.messages), idle_for(lag)]))
        if self.consumers.held:
            return f"no consumer holds {', '.join(map(str, left))}: {waits}"
        who = f"no consumer in group {self.consumers.group}"
        if self.consumers.members:
            who = f"no consumer of {self.consumers.members} in group {self.consumers.group} holds a partition"
        return f"{who}: {waits}{_other_group(self.consumers)}"

    @property
    def stalled(self) -> str:
        """What has waited for a minute in partitions of which nothing was stored for as long; "" if nothing has."""
        now = self.overview.now
        still = [row for row in self.partitions if row.lag and _is_stalled(row, now)]
        if not still:
            return ""
        lag = Lag.of(still, now)
        return f"{waiting(lag.messages)}, {idle_for(lag)}: {', '.join(map(str, still))}"

    # --- a line a cluster --------------------------------------------------------------------------------------------

    def cluster_lines(self) -> list[ClusterLine]:
        """Each cluster, in the order of their names."""
        return [self._line(row) for row in self.overview.clusters]

    def _line(self, row: ClusterRow) -> ClusterLine:
        kinds = [kind for kind in self.overview.kinds if kind.cluster == row.cluster]
        ages = [kind.age_s for kind in kinds if kind.state == "verified" and kind.age_s is not None]
        complaints = sorted(self.complaints(row.cluster), key=severity, reverse=True)
        worst = complaints[0] if complaints else None
        causes = grouped(complaints, with_cluster=False)
        more = f" (and {len(causes) - 1} more)" if len(causes) > 1 else ""
        return ClusterLine(
            row=row,
            age_s=max(ages) if ages else None,
            kinds=len(kinds),
            states=dict(Counter(kind.state for kind in kinds).most_common()),
            objects=sum(kind.objects or 0 for kind in kinds),
            stale_after_s=self.stale_s(row),
            worst=worst.name if worst else "",
            why=_unfinished(row) or (causes[0] + more if causes else ""),
        )

    # --- for scripts -------------------------------------------------------------------------------------------------

    def as_json(self) -> dict[str, Any]:
        """Everything, for scripts; times are RFC 3339, durations seconds. docs/STATUS.md has the keys."""
        overview, lag = dataclasses.asdict(self.overview), self.lag
        lines = {line.row.cluster: line for line in self.cluster_lines()}
        return {
            "healthy": self.is_healthy,
            "reasons": self.reasons,
            "attention": [one.as_json() for one in self.attention],
            "clusters": [row | _shown(lines[row["cluster"]]) for row in overview["clusters"]],
            "kinds": overview["kinds"],
            "lag": None if lag is None else dataclasses.asdict(lag),
            "partitions": [dataclasses.asdict(row) | {"lag": row.lag} for row in self.partitions],
            "dead_letters": overview["dead_letters"],
            "kafka_error": self.kafka_error,
            "consumers": self._consumers_as_json(),
            "at": overview["now"],
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
        }


def waiting(messages: int) -> str:
    """`37,728 messages waiting`."""
    return f"{messages:,} message{'' if messages == 1 else 's'} waiting"


def idle_for(lag: Lag) -> str:
    """`nothing stored for 70s`; "" if something is being stored."""
    if lag.idle_s is None:
        return "nothing of it was ever stored"
    return f"nothing stored for {short_duration(lag.idle_s)}" if lag.idle_s > MOVING_S else ""


def _is_stalled(row: Partition, now: dt.datetime) -> bool:
    """Its messages have waited for a minute, and nothing of it was stored for as long."""
    waits = row.waiting_since is not None and _seconds(now, row.waiting_since) >= STALLED_S
    return waits and (row.moved_at is None or _seconds(now, row.moved_at) >= STALLED_S)


def _seconds(now: dt.datetime, then: dt.datetime) -> float:
    """From then to now; 0 if a clock is ahead."""
    return max(0.0, (now - then).total_seconds())


def _shown(line: ClusterLine) -> dict[str, Any]:
    shown = {field.name: getattr(line, field.name) for field in dataclasses.fields(line)}
    del shown["row"]
    return shown


def _unfinished(row: ClusterRow) -> str:
    if row.last_run_at is None:
        return "no run of lists has ended yet: what is stored is not all there is"
    if row.knows_all_kinds is False:
        return "the last run of lists could not discover all kinds; its collector's log says why"
    return ""


def _other_group(consumers: Consumers) -> str:
    """A hint, where it may be that another group was asked about than the one that consumes."""
    if consumers.owner == consumers.group:
        return ""
    return f" (KAFKA_GROUP_ID is {consumers.group!r}, but this database belongs to group {consumers.owner!r})"
