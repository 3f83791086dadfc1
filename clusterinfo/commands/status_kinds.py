"""Which kinds need attention and why, each by itself, and those with one cause in one line. Pure: no I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from clusterinfo.durations import short_duration
from clusterinfo.model import ListLane, Unit
from clusterinfo.postgres.admin.overview import KindRow

WELL = ("verified", "excluded", "gone", "forbidden")
"""States that need nobody's attention by themselves, unless they have rows that grow old: that a kind is forbidden or
excluded is somebody's decision."""
WORST = ("failed", "unverified", "forbidden", "excluded", "gone", "verified")
MOST_NAMED = 3
HEARD_WITHIN_S = 150.0
"""A kind that is followed is heard of so often: a watch may be silent for two minutes, and two progresses come late."""
_NUMBERS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d+")
"""What differs between errors that are the same: ids, counts, partitions."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """A kind that needs attention. `error`: why it is not verified, if that is not somebody's decision; `is_old`: it
    has rows that were not verified for too long.
    """

    kind: KindRow
    error: str
    is_old: bool
    was_followed: bool = False
    """True if what it lacks is being followed."""

    @property
    def name(self) -> str:
        return name_of(self.kind)

    @property
    def why(self) -> str:
        """`not verified for 2h`; `500 boom; 4,000 rows, 2h old`."""
        return _why([self])


@dataclass(frozen=True, slots=True)
class Stale:
    """After how many seconds without proof kinds of a cluster are stale: those that are listed, and those that were
    followed and are no more. What is followed is not."""

    listed_s: float
    followed_s: float = HEARD_WITHIN_S
    even_followed: bool = False
    """True if somebody asked for it."""

    def is_stale(self, kind: KindRow) -> bool:
        if kind.old_s is None or (kind.following and not self.even_followed):
            return False
        return kind.old_s > (self.followed_s if kind.state == "verified" and was_followed(kind) else self.listed_s)


def was_followed(kind: KindRow) -> bool:
    """Whether no list came since it was last followed."""
    return kind.followed_s is not None and kind.followed_s == kind.old_s


def complaint_of(kind: KindRow, stale: Stale) -> Complaint | None:
    """What is wrong with a kind; None: nothing."""
    is_stale = stale.is_stale(kind)
    if kind.state == "verified":
        lost = was_followed(kind) and not kind.following
        return Complaint(kind, "", is_old=True, was_followed=lost) if is_stale else None
    error = "" if kind.state in WELL else kind.last_error or "not proven yet"
    is_old = bool(kind.objects) and (is_stale or (not error and kind.old_s is None))
    return Complaint(kind, error, is_old) if error or is_old else None


def severity(complaint: Complaint) -> tuple[int, float]:
    """What to sort by, the worst last: the state, then the age."""
    return -WORST.index(complaint.kind.state), complaint.kind.old_s or 0.0


def grouped(complaints: Sequence[Complaint], *, with_cluster: bool = True) -> list[str]:
    """A line for each cluster and cause: `58 kinds of prod not verified for 4m`. The worst states come first."""
    groups: dict[tuple[str, str, str, bool], list[Complaint]] = {}
    for one in sorted(complaints, key=severity, reverse=True):
        cause = one.kind.cluster, one.kind.state, _NUMBERS.sub("#", one.error), one.was_followed
        groups.setdefault(cause, []).append(one)
    return [_line(group, with_cluster) for group in groups.values()]


def _line(group: list[Complaint], with_cluster: bool) -> str:
    first, names = group[0].kind, sorted(one.name for one in group)
    more = f", {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    who = names[0] if len(names) == 1 else f"{len(names)} kinds"
    of = f" of {first.cluster}" if with_cluster else ""
    state = "" if first.state == "verified" else f" {first.state}:"
    named = f" ({', '.join(names[:MOST_NAMED])}{more})" if len(names) > 1 else ""
    return f"{who}{of}{state} {_why(group)}{named}"


def _why(group: list[Complaint]) -> str:
    """Of kinds with one cause."""
    if group[0].kind.state == "verified":
        return f"not {'followed' if group[0].was_followed else 'verified'} for {_age(group)}"
    parts = [group[0].error] if group[0].error else []
    if old := [one for one in group if one.is_old]:
        rows = sum(one.kind.objects or 0 for one in old)
        parts.append(f"{rows:,} row{'' if rows == 1 else 's'}, {_age(old, ' old') or 'never proven'}")
    return "; ".join(parts)


def _age(group: list[Complaint], suffix: str = "") -> str:
    """`4m`, or `up to 6m` where it differs; "" where none was ever proven."""
    ages = [one.kind.old_s for one in group if one.kind.old_s is not None]
    if not ages:
        return ""
    up_to = "up to " if short_duration(min(ages)) != short_duration(max(ages)) else ""
    return f"{up_to}{short_duration(max(ages))}{suffix}"


def name_of(kind: KindRow) -> str:
    """`deployments.apps`, and the namespace where it is listed by itself."""
    return str(ListLane(Unit(kind.cluster, kind.api_group, kind.resource), kind.reach))
