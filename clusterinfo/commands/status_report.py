"""What `clusterinfo status` tells: a verdict with its reasons, a line a cluster, the lag; JSON. Pure: no I/O.

Healthy means: of every cluster a run of lists has ended, which knew all of its kinds; every kind that has rows is
followed, or was verified not long ago; nothing waits among the dead letters; what waits in Kafka waits in partitions
that a consumer holds, and is being stored. Lag is no reason for alarm by itself: it comes and goes with every run of
lists. Nor is it one that nobody consumes while nothing waits: jobs consume now and then.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter
from dataclasses import dataclass
from typing import Any

from clusterinfo.commands.output import ago
from clusterinfo.commands.status_kinds import Complaint, Stale, complaint_of, grouped, severity
from clusterinfo.commands.status_lag import Lag, Partition, idle_for, is_stalled, waiting
from clusterinfo.durations import short_duration
from clusterinfo.model import partition_name
from clusterinfo.postgres.admin.overview import ClusterRow, KindRow, Overview

STALE_INTERVALS = 3
"""A kind that was not verified for so many intervals missed more than one run of lists that was merely slow."""


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

    @property
    def without_partitions(self) -> str:
        """What to say of members that hold nothing."""
        return f"no consumer of {self.members} in group {self.group} holds a partition"

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
    followed: int
    states: dict[str, int]
    objects: int
    stale_after_s: float
    worst: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """An overview, the topics' partitions, who consumes them (None: Kafka was not asked), and when a kind is stale.

    `stale_after_s`: after how many seconds, of every cluster; None: after three times the interval that its collector
    states, or `interval_s` where it states none, and if it was followed as soon as it is not. `every_kind`: kinds are
    named that need no attention, too.
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
        return [*self._ends(), *self._clusters(), *kinds, *self._silent(), *self._letters()]

    @property
    def reasons(self) -> list[str]:
        """The same, a line each, kinds with one cause together."""
        return [
            *(one.why for one in self._ends()),
            *(f"{one.cluster}: {one.why}" for one in self._clusters()),
            *grouped(self.complaints()),
            *(f"{one.cluster}: {one.why}" for one in self._silent()),
            *(one.why for one in self._letters()),
        ]

    def complaints(self, cluster: str | None = None) -> list[Complaint]:
        """Kinds that need attention, of one cluster or of all."""
        stale = {row.cluster: self.stale(row) for row in self.overview.clusters}
        kinds = (kind for kind in self.overview.kinds if cluster in (None, kind.cluster))
        return [one for kind in kinds if (one := complaint_of(kind, stale[kind.cluster]))]

    def stale(self, cluster: ClusterRow) -> Stale:
        """When kinds of it are stale. A run that takes longer than the interval is its own interval."""
        if (asked_s := self.stale_after_s) is not None:
            return Stale(asked_s, asked_s, even_followed=True)
        return Stale(STALE_INTERVALS * max(cluster.interval_s or self.interval_s, cluster.last_run_s or 0.0))

    def _ends(self) -> list[Attention]:
        """What is wrong with Kafka, the consumers, and the database as a whole."""
        found = [Attention("kafka", f"lag unknown: {self.kafka_error}")] if self.kafka_error else []
        if not self.overview.clusters:
            found.append(Attention("database", "no cluster is stored here yet"))
        return found + [Attention("consumers", why) for why in (self.unattended, self.stalled) if why]

    def _clusters(self) -> list[Attention]:
        return [Attention("cluster", why, row.cluster) for row in self.overview.clusters if (why := _unfinished(row))]

    def _silent(self) -> list[Attention]:
        """Clusters with stale kinds of which nothing else has come either, though what was sent is being stored."""
        if self.unattended or self.stalled:
            return []
        old = {one.kind.cluster for one in self.complaints() if one.is_old}
        rows = [row for row in self.overview.clusters if row.cluster in old]
        return [Attention("cluster", why, row.cluster) for row in rows if (why := self._silence(row))]

    def _silence(self, row: ClusterRow) -> str:
        """What has not come of a cluster for too long; "": something has."""
        if self._is_overdue(row):
            return f"{self._last_run(row)}; does its collector run?"
        lost = [one.kind.old_s or 0.0 for one in self.complaints(row.cluster) if one.was_followed]
        if not lost or any(kind.following for kind in self.overview.kinds if kind.cluster == row.cluster):
            return ""
        return f"its watches were last heard from {short_duration(min(lost))} ago; does its collector run?"

    def _is_overdue(self, row: ClusterRow) -> bool:
        """Whether its collector, as it states its interval, should have ended another run by now."""
        run_s = (row.last_run_s or 0.0) + STALE_INTERVALS * (row.interval_s or self.interval_s)
        return row.last_run_at is not None and self.overview.now - row.last_run_at > dt.timedelta(seconds=run_s)

    def _last_run(self, row: ClusterRow) -> str:
        return f"the last run of lists began {ago(row.last_run_at, self.overview.now)} ago"

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
    def moved_at(self) -> dt.datetime | None:
        """When anything that came by Kafka was last stored."""
        return max((row.moved_at for row in self.partitions if row.moved_at), default=None)

    @property
    def unattended(self) -> str:
        """What waits in partitions that no consumer holds; "" if nothing does, or nobody knows who holds what."""
        left = [row for row in self.partitions if row.lag and self._is_nobodys(row)]
        if self.consumers is None or not left:
            return self._idle_members()
        lag = Lag.of(left, self.overview.now)
        waits = ", ".join(filter(None, [waiting(lag.messages), idle_for(lag)]))
        if self.consumers.held:
            return f"no consumer holds {', '.join(map(str, left))}: {waits}"
        who = f"no consumer in group {self.consumers.group}"
        if self.consumers.members:
            who = self.consumers.without_partitions
        return f"{who}: {waits}{_other_group(self.consumers)}"

    def _idle_members(self) -> str:
        """What is wrong though nothing waits yet: members that hold nothing of topics that are there."""
        known = self.consumers if self.consumers is not None and not self.consumers.error else None
        if known is None or not known.members or known.held or known.state != "Stable" or not self.partitions:
            return ""
        return known.without_partitions

    @property
    def stalled(self) -> str:
        """What has waited for a minute in partitions of which nothing was stored for as long, though they are held, or
        nobody knows; "" if nothing has.
        """
        now = self.overview.now
        still = [row for row in self.partitions if row.lag and is_stalled(row, now) and not self._is_nobodys(row)]
        if not still:
            return ""
        lag = Lag.of(still, now)
        return f"{waiting(lag.messages)}, {idle_for(lag)}: {', '.join(map(str, still))}"

    def _is_nobodys(self, row: Partition) -> bool:
        """Whether it is known that no consumer holds a partition."""
        known = self.consumers if self.consumers is not None and not self.consumers.error else None
        return known is not None and (row.topic, row.partition) not in known.held

    # --- a line a cluster --------------------------------------------------------------------------------------------

    def cluster_lines(self) -> list[ClusterLine]:
        """Each cluster, in the order of their names."""
        return [self._line(row) for row in self.overview.clusters]

    def _line(self, row: ClusterRow) -> ClusterLine:
        kinds = [kind for kind in self.overview.kinds if kind.cluster == row.cluster]
        ages = [kind.old_s for kind in kinds if kind.state == "verified" and kind.old_s is not None]
        complaints = sorted(self.complaints(row.cluster), key=severity, reverse=True)
        worst = complaints[0] if complaints else None
        causes = grouped(complaints, with_cluster=False)
        more = f" (and {len(causes) - 1} more)" if len(causes) > 1 else ""
        return ClusterLine(
            row=row,
            age_s=max(ages) if ages else None,
            kinds=len(kinds),
            followed=sum(kind.following for kind in kinds),
            states=dict(Counter(kind.state for kind in kinds).most_common()),
            objects=sum(kind.objects or 0 for kind in kinds),
            stale_after_s=self.stale(row).listed_s,
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
