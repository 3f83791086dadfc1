"""A batch as the rows the merge wants: objects, list tallies, statements. Pure: no database, no clock.

One pass over the records, in which what `admission.py` decided is applied. A batch is never rewritten.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from clusterinfo.errors import RecordError
from clusterinfo.model import (
    Batch,
    Record,
    RecordType,
    Rejected,
    Unit,
    item_digest,
    list_start_us,
    page_of,
    version_number,
)
from clusterinfo.observations import ForeignRecords, Observation
from clusterinfo.postgres.merge.admission import Admission, Foreign, foreign_reason
from clusterinfo.postgres.merge.bodies import IDENTITY_ONLY, fidelity_of, plain
from clusterinfo.postgres.merge.dead_letters import DeadLetter, dead_letter
from clusterinfo.postgres.merge.units import UnitRow, Units
from clusterinfo.statements import ListCompleted, ListFailed, read

_EPOCH, _MICROSECOND = dt.datetime.fromtimestamp(0, dt.UTC), dt.timedelta(microseconds=1)
_LAST_US = (dt.datetime.max.replace(tzinfo=dt.UTC) - _EPOCH) // _MICROSECOND

ERROR_CHARS = 1000
"""Of an error that a statement gives for the state of its kind."""
MAX_NAME_CHARACTERS = 512
"""An entry of the primary key's index holds 2,704 bytes; Kubernetes allows 253 characters in nearly all names."""


class ObjectRow(NamedTuple):
    """An object as a record shows it; the columns that a sighting is compared by."""

    unit_id: int
    namespace: str
    name: str
    uid: str
    resource_version: str
    epoch: int
    live_at: int
    deleted: bool
    fidelity: int
    normalization: int
    content_hash: bytes
    observed_at: dt.datetime
    seen_at: dt.datetime
    """When it was there for certain: what is listed, when its list began."""
    reach: str | None
    """The reach of the list that shows it; None: no list does."""


@dataclass(slots=True)
class Tally:
    """What a batch brings of one list."""

    unit: Unit
    unit_id: int
    reach: str
    epoch: int
    live_at: int
    began_at: dt.datetime
    count: int = 0
    digest: int = 0
    expected_count: int | None = None
    expected_digest: int | None = None
    completed_at: dt.datetime | None = None
    unfollowed: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """A statement about a kind within a reach: `state` as the table unit_floor spells it."""

    unit: Unit
    unit_id: int
    reach: str
    state: str
    at: dt.datetime
    error: str | None = None
    objects: int | None = None


@dataclass(slots=True)
class Staged:
    """A batch, ready for the merge. `rows` and `records` go together, object by object."""

    rows: list[ObjectRow] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    """The places in `rows` of objects that the batch shows more than once, in order."""
    tallies: dict[str, Tally] = field(default_factory=dict)
    failures: list[State] = field(default_factory=list)
    failed_lists: list[str] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)
    """id() of records that are dead letters and no more: their numbers have not come."""
    foreign: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(Identity, owner) -> records of a cluster that belongs to another topic; each is a dead letter."""
    uses_savepoints: bool = False
    """True if PostgreSQL refused something of it before: COPY goes behind savepoints, row by row if need be."""

    def foreign_records(self, topic: str) -> list[Observation]:
        """What to report of clusters that belong to another topic than this one, by which records of them came."""
        return [
            ForeignRecords(topic=topic, cluster=cluster, owner=owner, records=records)
            for (cluster, owner), records in sorted(self.foreign.items())
        ]


def stage(
    batch: Batch, units: Units, admission: Admission, foreign: Foreign | None = None, *, uses_savepoints: bool = False
) -> Staged:
    """Turn a batch into rows. `units` has every unit that admitted records are about, none of `foreign` clusters."""
    staged = Staged(uses_savepoints=uses_savepoints, dead_letters=[_letter(message) for message in batch.rejected])
    last: tuple[object, ...] | None = None
    of_last: _Sighting | None = None
    for record in batch.records:
        try:
            if (page := page_of(record)) and page == last and of_last:  # admitted as the one before it was
                _stage_object(staged, record, of_last)
                continue
            last, of_last = page, None
            admission.check_epoch(record)
            if admission.forgotten and not admission.admits(record):
                continue
            if foreign and (owner := foreign.get(record.cluster)) is not None:
                staged.foreign[record.cluster, owner] += 1
                raise RecordError(foreign_reason(record, owner, admission.topic))
            at = admission.date(record)
            if record.is_object:
                unit = units[record.unit]
                if not (record.number and unit.by_clock):  # what orders such a unit is when its lists began
                    of_last = _sighting(staged, record, unit, at)
                    _stage_object(staged, record, of_last)
            elif record.type is RecordType.LIST_COMPLETED:
                _stage_completion(staged, record, units[record.unit], at)
            elif record.type is RecordType.LIST_FAILED:
                _stage_failure(staged, record, units[record.unit], at)
        except RecordError as error:
            staged.refused.add(id(record))
            staged.dead_letters.append(dead_letter(record, str(error)))
    staged.repeated = _repeated(staged.rows)
    return staged


def _letter(message: Rejected) -> DeadLetter:
    return DeadLetter(
        message.offset,
        plain(message.reason),
        message.key,
        message.headers,
        message.value,
        message.sqlstate,
        message.omitted_bytes,
    )


def _repeated(rows: list[ObjectRow]) -> list[int]:
    keys = [row[:3] for row in rows]
    if len(set(keys)) == len(keys):
        return []
    places: dict[tuple[int, str, str], list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return sorted(place for of_key in places.values() if len(of_key) > 1 for place in of_key)


def _live_at(record: Record, unit: UnitRow, observed_at: dt.datetime) -> int:
    """As of when `record` was seen, counted as its unit counts: list versions, or microseconds."""
    if not unit.by_clock and (number := version_number(record.list_version)) is not None:
        return number
    observed_us = max(0, (observed_at - _EPOCH) // _MICROSECOND)  # below 0 stands for what nobody has seen
    return min(list_start_us(record.list), observed_us) if record.list else observed_us


class _Sighting(NamedTuple):
    """Which kind was looked at, and when: the same for all items of a page."""

    unit_id: int
    at: dt.datetime
    live_at: int
    seen_at: dt.datetime
    tally: Tally | None
    """Of the list that counts it; None: none does."""


def _sighting(staged: Staged, record: Record, unit: UnitRow, at: dt.datetime) -> _Sighting:
    live_at = _live_at(record, unit, at)
    if not record.list or record.type is RecordType.DELETED:
        return _Sighting(unit.id, at, live_at, at, None)
    tally = _tally(staged, record, unit, live_at)
    return _Sighting(unit.id, at, live_at, min(at, tally.began_at), tally)


def _stage_object(staged: Staged, record: Record, seen: _Sighting) -> None:
    namespace, name, uid, version = record.namespace, record.name, record.uid, record.resource_version
    deleted = record.type is RecordType.DELETED
    reach = None
    # Counted before it may be refused: the list's count and digest are of all its items, stored or dead-lettered.
    if (tally := seen.tally) is not None:
        tally.count += 1
        tally.digest += item_digest(namespace, name, version)
        reach = record.reach if not record.reach or record.reach == namespace else None
    if len(namespace) > MAX_NAME_CHARACTERS or len(name) > MAX_NAME_CHARACTERS or len(uid) > MAX_NAME_CHARACTERS:
        raise RecordError(f"a namespace, name or uid of more than {MAX_NAME_CHARACTERS} characters")
    fidelity = fidelity_of(record)
    if fidelity == IDENTITY_ONLY and not deleted:
        reason = f"its body has {len(record.body)} bytes, more than are repaired, and may be what jsonb cannot hold"
        staged.dead_letters.append(dead_letter(record, reason))
    staged.records.append(record)
    row = (
        seen.unit_id,
        namespace,
        name,
        uid,
        version,
        record.epoch,
        seen.live_at,
        deleted,
        fidelity,
        record.normalization,
        bytes.fromhex(record.content_hash),
        seen.at,
        seen.seen_at,
        reach,
    )
    staged.rows.append(ObjectRow._make(row))  # faster than calling the class


def _tally(staged: Staged, record: Record, unit: UnitRow, live_at: int) -> Tally:
    tally = staged.tallies.get(record.list)
    if tally is None:
        began_at = _EPOCH + min(list_start_us(record.list), _LAST_US) * _MICROSECOND
        tally = Tally(record.unit, unit.id, record.reach, record.epoch, live_at, began_at)
        staged.tallies[record.list] = tally
    return tally


def _stage_completion(staged: Staged, record: Record, unit: UnitRow, at: dt.datetime) -> None:
    statement = read(record, ListCompleted)
    tally = _tally(staged, record, unit, _live_at(record, unit, at))
    tally.expected_count, tally.expected_digest = statement.count, int(statement.digest, 16)
    tally.completed_at, tally.unfollowed = at, plain(statement.unfollowed)[:ERROR_CHARS]


def _stage_failure(staged: Staged, record: Record, unit: UnitRow, at: dt.datetime) -> None:
    statement = read(record, ListFailed)
    status, reason = statement.http_status, statement.reason
    state = "forbidden" if status == 403 else "failed"
    error = plain(f"{status} {reason}" if status else reason)
    staged.failures.append(State(record.unit, unit.id, record.reach, state, at, error[:ERROR_CHARS]))
    if record.list:
        staged.failed_lists.append(record.list)
