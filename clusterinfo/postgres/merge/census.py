"""Census: what one pass over a batch's records tells every later step about it. Pure: no database, no clock.

Which clusters, kinds and snapshots it is about, and what its newest records state about a kind: enough to make the rows
that are missing, to lock all of them in one order, and to keep their description current.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from clusterinfo.errors import RecordError
from clusterinfo.model import CLOCK, Record, RecordType, Unit, page_of, version_number
from clusterinfo.postgres.merge.bodies import plain
from clusterinfo.postgres.merge.dead_letters import DeadLetter, dead_letter
from clusterinfo.postgres.merge.numbers import Said
from clusterinfo.statements import (
    WHOLE_GROUP,
    ListCompleted,
    SnapshotCompleted,
    SnapshotStarted,
    WatchEnded,
    WatchProgress,
    read,
)


@dataclass(slots=True)
class UnitNews:
    """What a batch states about a kind; of two statements the last one counts."""

    kind: str = ""
    api_version: str = ""
    namespaced: bool | None = None
    by_clock: bool = False

    def learn(self, record: Record) -> None:
        """Take in one record."""
        self.kind = record.kind or self.kind
        self.api_version = record.api_version or self.api_version
        if record.type is RecordType.OBSERVED:
            self.namespaced = bool(record.namespace)
        if not self.by_clock:
            self.by_clock = is_by_clock(record)


def is_by_clock(record: Record) -> bool:
    """True if its kind is ordered by when its lists began: its collector says so, or its list version is no integer."""
    if record.ordering == CLOCK:
        return True
    if not record.list or record.type is RecordType.LIST_FAILED:
        return False
    return version_number(record.list_version) is None


@dataclass(slots=True)
class Census:
    """What a batch is about."""

    clusters: dict[str, Record] = field(default_factory=dict)
    """Identity -> the first record about that cluster."""
    newest: dict[str, Record] = field(default_factory=dict)
    """Identity -> the record about that cluster that was observed last."""
    units: dict[Unit, UnitNews] = field(default_factory=dict)
    """The kinds that records are about."""
    snapshots: list[tuple[Record, SnapshotStarted | SnapshotCompleted]] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    """What sessions say by watching, and completed lists that name one, in order."""
    dead_letters: list[DeadLetter] = field(default_factory=list)
    """Statements about snapshots and watches that cannot be read."""
    _named: dict[Unit, UnitNews] | None = None

    @classmethod
    def of(cls, records: Iterable[Record]) -> Census:
        """Take in the records, each once."""
        census = cls()
        last: object = None
        for record in records:
            # An item says nothing that the one before it on its page did not; of its kind's scope it might.
            if (page := page_of(record)) and (page := (*page, not record.namespace)) == last:
                continue
            last = page
            newest = census.newest.get(record.cluster)
            if newest is None:
                census.clusters[record.cluster] = census.newest[record.cluster] = record
            elif record.observed_at > newest.observed_at:
                census.newest[record.cluster] = record
            if record.type is RecordType.SNAPSHOT_STARTED or record.type is RecordType.SNAPSHOT_COMPLETED:
                census._add_snapshot(record)
            elif record.is_of_watches:
                census._add_watches(record)
            else:
                census._news_of(record.unit).learn(record)
                if record.number:
                    census.said.append((record, None))
                elif record.type is RecordType.LIST_COMPLETED and b'"session"' in record.body:
                    census._add_completion(record)
        census.named_units()
        return census

    def _news_of(self, unit: Unit) -> UnitNews:
        if (news := self.units.get(unit)) is None:
            news = self.units[unit] = UnitNews()
        return news

    def _add_snapshot(self, record: Record) -> None:
        started = record.type is RecordType.SNAPSHOT_STARTED
        try:
            statement = read(record, SnapshotStarted) if started else read(record, SnapshotCompleted)
        except RecordError as error:
            self.dead_letters.append(dead_letter(record, str(error)))
        else:
            self.snapshots.append((record, statement))

    def _add_watches(self, record: Record) -> None:
        progress = record.type is RecordType.WATCH_PROGRESS
        try:
            statement = read(record, WatchProgress) if progress else read(record, WatchEnded)
        except RecordError as error:
            self.dead_letters.append(dead_letter(record, str(error)))
        else:
            self.said.append((record, statement))

    def _add_completion(self, record: Record) -> None:
        try:
            statement = read(record, ListCompleted)
        except RecordError:
            return  # which makes it a dead letter where it is staged
        if statement.session:
            self.said.append((record, statement))

    def named_units(self) -> dict[Unit, UnitNews]:
        """The kinds of all records, and those that completed snapshots name."""
        if self._named is None:
            self._named = {unit: UnitNews() for unit in self._units_of_snapshots()} | self.units
        return self._named

    def _units_of_snapshots(self) -> Iterator[Unit]:
        return (
            Unit(record.cluster, plain(outcome.group), plain(outcome.resource))
            for record, statement in self.snapshots
            if isinstance(statement, SnapshotCompleted)
            for outcome in statement.units
            if outcome.resource != WHOLE_GROUP
        )

    def completed_clusters(self) -> set[str]:
        """The clusters of which a snapshot completed."""
        return {record.cluster for record, statement in self.snapshots if isinstance(statement, SnapshotCompleted)}
