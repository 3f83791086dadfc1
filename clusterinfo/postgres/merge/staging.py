"""A batch as the rows the merge wants: records, list tallies, statements. Pure: no database, no clock."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from clusterinfo.errors import RecordError
from clusterinfo.model import (
    Batch,
    Record,
    RecordType,
    Unit,
    item_digest,
    list_start_us,
    version_number,
)
from clusterinfo.postgres.merge.dead_letters import DeadLetter, dead_letter
from clusterinfo.postgres.merge.jsonb_checks import is_suspect, plain, sanitise
from clusterinfo.postgres.sql import statements
from clusterinfo.statements import WHOLE_GROUP, ListCompleted, ListFailed, SnapshotCompleted, SnapshotStarted, read

VERSION = "version"
CLOCK = "clock"
IDENTITY_ONLY, STUB, SANITISED, WHOLE = range(4)
"""Fidelity: how much of an object is stored."""

_EPOCH, _MICROSECOND = dt.datetime.fromtimestamp(0, dt.UTC), dt.timedelta(microseconds=1)

MAX_NAME_CHARACTERS = 512
"""An entry of the primary key's index holds 2,704 bytes; Kubernetes allows 253 characters in nearly all names."""


@dataclass(slots=True)
class UnitRow:
    """A unit as the database has it: locked for this transaction."""

    id: int
    cluster_id: int
    kind: str
    api_version: str
    namespaced: bool | None
    live_at_source: str | None


def _later_source(one: str | None, other: str | None) -> str | None:
    """What live_at counts after two statements: a clock, once needed, is never given up."""
    return CLOCK if CLOCK in (one, other) else one or other


@dataclass(slots=True)
class UnitNews:
    """What a batch states about a unit: enough to make its row, and to keep its description current."""

    kind: str = ""
    api_version: str = ""
    namespaced: bool | None = None
    live_at_source: str | None = None

    def learn(self, record: Record) -> None:
        """Take in one record; of two statements the last one counts."""
        self.kind = record.kind or self.kind
        self.api_version = record.api_version or self.api_version
        if record.type is RecordType.OBSERVED and record.name:
            self.namespaced = bool(record.namespace)
        if record.type is not RecordType.LIST_FAILED:
            if version_number(record.list_version) is not None:
                self.live_at_source = _later_source(self.live_at_source, VERSION)
            elif record.list:
                self.live_at_source = CLOCK

    def changes(self, row: UnitRow) -> bool:
        """True if `row` has to be written: something here differs from it."""
        self.live_at_source = _later_source(row.live_at_source, self.live_at_source)
        return (
            (self.kind or row.kind, self.api_version or row.api_version) != (row.kind, row.api_version)
            or self.namespaced not in (None, row.namespaced)
            or self.live_at_source != row.live_at_source
        )


@dataclass(slots=True)
class Tally:
    """What a batch brings of one list."""

    unit: Unit
    unit_id: int
    reach: str
    snapshot: uuid.UUID | None
    epoch: int
    live_at: int
    count: int = 0
    digest: int = 0
    expected_count: int | None = None
    expected_digest: int | None = None
    completed_at: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class State:
    """A statement about a unit's list: `state` as the unit table spells it."""

    unit: Unit
    unit_id: int
    reach: str
    state: str
    at: dt.datetime
    error: str | None = None
    objects: int | None = None


@dataclass(slots=True)
class Staged:
    """A batch, ready for the merge. `rows` are staged_record's columns; a row's first is its index in `records`."""

    records: list[Record] = field(default_factory=list)
    rows: list[tuple[object, ...]] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)
    failures: list[State] = field(default_factory=list)
    failed_lists: list[Record] = field(default_factory=list)
    snapshots: list[tuple[Record, SnapshotStarted | SnapshotCompleted]] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    stalled: set[int] = field(default_factory=set)
    """Units whose list versions are known to have stalled since this batch."""


def staging_tables() -> str:
    """SQL that begins a transaction of the merge: its staging tables, which are empty again at its end."""
    return statements()["begin"]


def news_of(records: Iterable[Record]) -> dict[Unit, UnitNews]:
    """The units a batch is about and what it states about them; snapshot statements are about none."""
    news: dict[Unit, UnitNews] = {}
    for record in records:
        if not record.resource:
            continue
        unit = Unit(record.cluster, record.group, record.resource)
        if unit not in news:
            news[unit] = UnitNews()
        news[unit].learn(record)
    return news


def named_by_snapshots(records: Iterable[Record]) -> dict[Unit, UnitNews]:
    """The units that completed snapshots name, and no more about them. One that is malformed names none."""
    units: dict[Unit, UnitNews] = {}
    for record in records:
        if record.type is RecordType.SNAPSHOT_COMPLETED:
            with suppress(RecordError):  # `stage` makes it a dead letter
                outcomes = read(record, SnapshotCompleted).units
                named = [Unit(record.cluster, plain(unit.group), plain(unit.resource)) for unit in outcomes]
                units |= {unit: UnitNews() for unit in named if unit.resource != WHOLE_GROUP}
    return units


def stage(batch: Batch, units: dict[Unit, UnitRow]) -> Staged:
    """Turn a batch into rows. `units` has every unit `news_of` named, with its final live_at_source."""
    staged = Staged(records=batch.records)
    for message in batch.rejected:
        staged.dead_letters.append(
            DeadLetter(
                message.offset,
                plain(message.reason),
                message.key,
                message.headers,
                message.value,
                message.sqlstate,
                message.omitted_bytes,
            )
        )
    for index, record in enumerate(batch.records):
        try:
            _STAGERS[record.type](staged, index, record, units)
        except RecordError as error:
            staged.dead_letters.append(dead_letter(record, str(error)))
    return staged


def _live_at(record: Record, unit: UnitRow) -> int:
    """As of when `record` was seen, counted as its unit counts: list versions, or microseconds."""
    number = version_number(record.list_version)
    if unit.live_at_source != CLOCK and number is not None:
        return number
    observed_us = (record.observed_at - _EPOCH) // _MICROSECOND
    return min(list_start_us(record.list), observed_us) if record.list else observed_us


def _fidelity(record: Record) -> int:
    if record.state == "oversize":
        return STUB
    return SANITISED if is_suspect(record.body) and sanitise(record.body) != record.body else WHOLE


def _stage_object(staged: Staged, index: int, record: Record, units: dict[Unit, UnitRow]) -> None:
    row = units[record.unit]
    live_at = _live_at(record, row)
    deleted = record.type is RecordType.DELETED
    # Counted before it may be refused: the list's count and digest are of all its items, stored or dead-lettered.
    if record.list and not deleted:
        tally = _tally(staged, record, row, live_at)
        tally.count += 1
        tally.digest += item_digest(record.namespace, record.name, record.resource_version)
    if max(len(record.namespace), len(record.name), len(record.uid)) > MAX_NAME_CHARACTERS:
        raise RecordError(f"a namespace, name or uid of more than {MAX_NAME_CHARACTERS} characters")
    staged.rows.append(
        (
            index,
            row.id,
            record.namespace,
            record.name,
            record.uid,
            record.resource_version,
            record.epoch,
            live_at,
            deleted,
            _fidelity(record),
            record.normalization,
            bytes.fromhex(record.content_hash),
            record.observed_at,
        )
    )


def _tally(staged: Staged, record: Record, row: UnitRow, live_at: int) -> Tally:
    tally = staged.tallies.get(record.list)
    if tally is None:
        snapshot = uuid.UUID(record.snapshot) if record.snapshot else None
        tally = Tally(record.unit, row.id, record.reach, snapshot, record.epoch, live_at)
        staged.tallies[record.list] = tally
    return tally


def _stage_completion(staged: Staged, index: int, record: Record, units: dict[Unit, UnitRow]) -> None:
    statement = read(record, ListCompleted)
    row = units[record.unit]
    tally = _tally(staged, record, row, _live_at(record, row))
    tally.expected_count, tally.expected_digest = statement.count, int(statement.digest, 16)
    tally.completed_at = record.observed_at


def _stage_failure(staged: Staged, index: int, record: Record, units: dict[Unit, UnitRow]) -> None:
    statement = read(record, ListFailed)
    status, reason = statement.http_status, statement.reason
    state = "forbidden" if status == 403 else "failed"
    error = plain(f"{status} {reason}" if status else reason)
    unit = record.unit
    staged.failures.append(State(unit, units[unit].id, record.reach, state, record.observed_at, error[:1000]))
    staged.failed_lists.append(record)


def _stage_snapshot(staged: Staged, index: int, record: Record, units: dict[Unit, UnitRow]) -> None:
    started = record.type is RecordType.SNAPSHOT_STARTED
    staged.snapshots.append((record, read(record, SnapshotStarted) if started else read(record, SnapshotCompleted)))


_STAGERS = {
    RecordType.OBSERVED: _stage_object,
    RecordType.DELETED: _stage_object,
    RecordType.LIST_COMPLETED: _stage_completion,
    RecordType.LIST_FAILED: _stage_failure,
    RecordType.SNAPSHOT_STARTED: _stage_snapshot,
    RecordType.SNAPSHOT_COMPLETED: _stage_snapshot,
}
