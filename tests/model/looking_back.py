"""Looking back at a followed cluster: at a moment within an interval the objects are as they were recorded by then.

What was recorded follows from what reached the topic. A change counts from when the first record observed it that shows
it; of records that are stored at once, it may be any of them. One that comes after what took its place may be kept or
not. The database may not know more of a moment, nor less.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterinfo.model import Record, RecordType
from clusterinfo.statements import ListCompleted, read
from tests.model.state import began

if TYPE_CHECKING:
    from tests.model.following import Change, World

SECOND = dt.timedelta(seconds=1)
NEVER = dt.datetime.min.replace(tzinfo=dt.UTC)
Interval = tuple[dt.datetime, dt.datetime]

AS_OF = """
select name, resource_version from resources_as_of($2) where resource = $3 and cluster = (
    select label from cluster where uid = $1)
"""
NOT_OBSERVED = """
select resource, begins_at, ends_at from not_observed($2, $3) where cluster = (
    select label from cluster where uid = $1)
"""


async def check(world: World, moments: int) -> list[str]:
    """What is wrong at so many random moments of each kind, up to the last."""
    random, began, ended = world.random, world.moment(0), world.moment(world.cluster.second)
    gaps: dict[str, list[Interval]] = {kind: [] for kind in world.cluster.changes}
    for row in await world.connection.fetch(NOT_OBSERVED, world.cluster.uid, began, ended):
        gaps[row["resource"]].append((row["begins_at"], row["ends_at"]))
    intervals = await world.intervals()
    found: list[str] = []
    for kind in world.cluster.changes:
        for _ in range(moments):
            at = began + random.random() * (ended - began)
            covering = [begins for begins, ends in intervals[kind] if begins <= at < ends]
            if bool(covering) == any(begins <= at < ends for begins, ends in gaps[kind]):
                found.append(f"{kind} at {at}: covered from {covering}, not observed in {gaps[kind]}")
            world.counts["moments looked back at" if covering else "moments nobody looked"] += 1
            if covering:
                found += await _wrong(world, kind, at)
    return found


async def _wrong(world: World, kind: str, at: dt.datetime) -> list[str]:
    rows = await world.connection.fetch(AS_OF, world.cluster.uid, at, kind)
    stored = {row["name"]: int(row["resource_version"]) for row in rows}
    found: list[str] = []
    for name in {change.name for change in world.cluster.changes[kind]}:
        recorded = _recorded(list(_effects(world, kind, name)), at)
        if stored.get(name, 0) not in recorded:
            second = (at - world.moment(0)) / SECOND
            found.append(f"{kind}/{name} as of {second:g} is {stored.get(name, 0)}, recorded was {recorded}")
    return found


@dataclass(frozen=True)
class Effect:
    """A change of an object (0: a deletion); when it was observed, at the earliest and at the latest; if it is kept."""

    version: int
    first: dt.datetime
    last: dt.datetime
    is_certain: bool


def _recorded(effects: list[Effect], at: dt.datetime) -> set[int]:
    """The versions of which an object may have been, as far as was recorded by then; 0: there was none."""
    allowed, first, last = {0}, NEVER, NEVER
    for effect in effects:
        last = max(last, effect.last)
        if max(first, effect.first) <= at:
            if effect.is_certain and last <= at:
                allowed.clear()
            allowed.add(effect.version)
        if effect.is_certain:
            first = max(first, effect.first)
    return allowed


def _effects(world: World, kind: str, name: str) -> Iterator[Effect]:
    """What is stored of an object, in order."""
    number = world.partition(kind)
    log = [(place, one) for place, one in enumerate(world.logs[number]) if one.resource == kind]
    changes = [change for change in world.cluster.changes[kind] if change.name == name]
    shown = [
        [(place, one) for place, one in log if _shows(world, one, change) or _lacks(one, change, after)]
        for change, after in zip(changes, [*changes[1:], None], strict=True)
    ]
    for place, (change, records) in enumerate(zip(changes, shown, strict=True)):
        if records:
            until = world.stored_with(number, records[0][0])
            dates = [_observed_at(one) for at, one in records if at < until]
            is_certain = not any(later and later[0][0] < until for later in shown[place + 1 :])
            if records[0][1].type is RecordType.LIST_COMPLETED and (world.lost or world.cluster.is_restored):
                is_certain = False  # the list may have proven nothing
            yield Effect(change.version, min(dates), max(dates), is_certain)
        elif not change.version:
            yield Effect(0, world.moment(change.second), world.moment(change.second), True)


def _shows(world: World, record: Record, change: Change) -> bool:
    """A version may be there twice, the second time after the cluster was restored."""
    if record.name != change.name or record.observed_at < world.moment(change.second):
        return False
    if record.type is RecordType.DELETED:
        return not change.version and record.resource_version == str(change.revision)
    return bool(change.version) and record.resource_version == str(change.version)


def _lacks(record: Record, change: Change, after: Change | None) -> bool:
    """Whether a list as of a version between a deletion and what followed it is complete."""
    if change.version or record.type is not RecordType.LIST_COMPLETED:
        return False
    version = int(record.list_version)
    return change.revision <= version and (after is None or version < after.revision)


def _observed_at(record: Record) -> dt.datetime:
    """Of a list, when its first page had come."""
    if record.type is not RecordType.LIST_COMPLETED:
        return record.observed_at
    return read(record, ListCompleted).seen or began(record.list)
