"""What must be stored after each committed batch, stated again in plain Python that shares nothing with the merge.

A key is a chain of sightings in the order of (epoch, live_at); its last is the row, what it superseded is history.
Lists are counted as they come; one that adds up ends every chain in its reach that is older.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from clusterinfo.model import CLOCK, Batch, PartitionLane, Record, RecordType, item_digest
from tests.model.state import CONTENTS, FIDELITIES, Key, World, began

FAILURES = {403: "forbidden"}
FOR_EVER = (1 << 63, 0)
NEVER = dt.datetime.min.replace(tzinfo=dt.UTC)
Moment = tuple[int, int]
"""(epoch, live_at)."""

DatedState = tuple[str, dt.datetime]
"""(state, when)."""

UnitId = tuple[int, str, str]
"""(number of the cluster, group, resource)."""


@dataclass
class Row:
    """A key's stored row: an object, or the tombstone of one."""

    moment: Moment
    uid: str
    version: str
    deleted: bool
    content: int | str | None
    shape: tuple[int, int]
    """(normalization, fidelity)."""
    since: dt.datetime
    seen: dt.datetime
    hash: str = ""
    last_hash: str = ""
    """Of the newest sighting; `hash` is that of the best one. They differ where rules went back and forth."""
    created: bool = True
    """What it shows began with it: there was no object of that name and uid before."""

    def same_version(self, other: Row) -> bool:
        return (self.moment[0], self.version, self.deleted) == (other.moment[0], other.version, other.deleted)

    def same_content(self, other: Row) -> bool:
        """Of two deletions in a row, that of another uid included, the first one says since when it is gone."""
        if self.deleted or other.deleted:
            return self.deleted and other.deleted and self.last_hash == other.last_hash
        return (self.uid, self.last_hash) == (other.uid, other.last_hash)


@dataclass(frozen=True)
class Past:
    """A row of history; `content` stands for body and hash."""

    key: Key
    uid: str
    version: str
    content: int | str | None
    created: bool
    deleted: bool
    since: dt.datetime
    until: dt.datetime


@dataclass
class Count:
    """What arrived of one list."""

    reach: str
    moment: Moment
    count: int = 0
    digest: int = 0
    expected: tuple[int, int] | None = None
    settled: bool = False
    began_at: dt.datetime = NEVER
    done_at: dt.datetime = NEVER

    @property
    def adds_up(self) -> bool:
        return self.expected == (self.count, self.digest % (1 << 128))


@dataclass
class UnitTruth:
    """One kind of one cluster as it must be stored."""

    gone_before: dt.datetime = NEVER
    state: DatedState | None = None
    """Excluded or gone; None: what the states of its reaches say."""
    reach_states: dict[str, DatedState] = field(default_factory=dict)
    floors_done: dict[str, dt.datetime] = field(default_factory=dict)
    """When the lists that set the floors were complete."""
    api_version: str = ""
    by_clock: bool = False
    rows: dict[Key, Row] = field(default_factory=dict)
    floors: dict[str, Moment] = field(default_factory=dict)
    counts: dict[str, Count] = field(default_factory=dict)
    past: list[Past] = field(default_factory=list)
    seen_by_older_rules: set[tuple[Key, str]] = field(default_factory=set)
    """Versions that came by older rules than what was seen before: what they are compared by says little of changes."""

    def covered(self, namespace: str, moment: Moment) -> bool:
        """True if a proven list says what existed in that namespace at that moment."""
        return any(floor >= moment for reach, floor in self.floors.items() if reach in ("", namespace))

    @property
    def stated_at(self) -> dt.datetime:
        """Of the newest statement about it."""
        return max([self.state[1] if self.state else NEVER, *(at for _, at in self.reach_states.values())])

    def end(self, key: Key, at: dt.datetime) -> None:
        """The key's object is gone as of `at`."""
        row = self.rows.pop(key)
        if not row.deleted:
            self.past.append(self._past(key, row, True, max(row.since, at)))

    def supersede(self, key: Key, row: Row, new: Row, gone_at: dt.datetime | None) -> None:
        """`new` follows `row`; `gone_at` is when a list in between did not name the key."""
        if row.deleted:
            return
        another = new.deleted or new.uid != row.uid
        until = max(row.since, gone_at) if gone_at and another and not new.deleted else new.since
        self.past.append(self._past(key, row, another, until))

    @staticmethod
    def _past(key: Key, row: Row, deleted: bool, until: dt.datetime) -> Past:
        return Past(key, row.uid, row.version, row.content, row.created, deleted, row.since, until)


@dataclass
class ClusterTruth:
    """A cluster's own row; `last_seen` as of which its name is."""

    name: str
    first_seen: dt.datetime
    last_seen: dt.datetime
    epoch: int

    @classmethod
    def of(cls, record: Record) -> ClusterTruth:
        """As the first record of it that is stored makes it."""
        since = record.list or record.snapshot
        at = min(began(since), record.observed_at) if since else record.observed_at
        return cls(record.cluster_name, at, at, record.epoch)

    def learn(self, record: Record) -> None:
        """Take in a statement about a snapshot."""
        at = record.observed_at
        if record.type is RecordType.SNAPSHOT_STARTED and at >= self.last_seen:
            self.name = record.cluster_name
        self.first_seen, self.last_seen = min(self.first_seen, at), max(self.last_seen, at)
        self.epoch = max(self.epoch, record.epoch)


class Reference:
    """All that must be stored. `committed` is given every batch whose transaction took effect."""

    def __init__(self, world: World, counts: Counter[str]) -> None:
        self.world, self.stats = world, counts
        self.units: dict[UnitId, UnitTruth] = {}
        self.clusters: dict[int, ClusterTruth] = {}
        self.discovered: dict[int, dt.datetime] = {}
        self.snapshots: dict[str, dt.datetime] = {}
        """Completed ones and when they ended."""
        self.offsets: dict[int, int | None] = {}
        self.generations: dict[int, int] = {}
        self.given: set[tuple[int, int]] = set()
        self.pages: Counter[str] = Counter()
        self.replays = 0
        self.proven: set[str] = set()
        self.letters: Counter[tuple[int, int]] = Counter()

    def cluster_of(self, record: Record) -> int:
        """The number of the cluster that a record speaks of."""
        for cluster in self.world.clusters:
            if record.cluster == cluster.uid:
                return cluster.number
        raise AssertionError(f"no cluster {record.cluster}")

    def claimed(self, partition: int, generation: int) -> None:
        """A claim took effect; nobody else was ever given its generation."""
        assert generation > self.generations.get(partition, 0), "a claim goes beyond the one before"
        assert (partition, generation) not in self.given, "a generation has one owner"
        self.given.add((partition, generation))
        self.generations[partition] = generation
        self.offsets.setdefault(partition, None)

    def forgotten(self) -> None:
        """The offsets were reset."""
        self.generations.clear()
        self.offsets.clear()
        self.replays += 1

    def takes(self, batch: Batch, generation: int) -> bool:
        """True if this batch, written by an owner of that generation, is the one that has to be stored now."""
        if isinstance(batch.lane, PartitionLane):
            partition = batch.lane.partition
            at = self.offsets.get(partition)
            return generation == self.generations.get(partition, 0) and at in (None, batch.start)
        return self.pages[batch.list] == batch.start

    def committed(self, batch: Batch) -> set[UnitId]:
        """The batch is stored; return the units it touched."""
        if isinstance(batch.lane, PartitionLane):
            self.offsets[batch.lane.partition] = batch.end
            self.letters.update((batch.lane.partition, rejected.offset) for rejected in batch.rejected)
        elif batch.list:
            self.pages[batch.list] += 1
        self._take_clusters(batch.records)
        by_unit: dict[UnitId, list[Record]] = {}
        for record in batch.records:
            if record.resource:
                by_unit.setdefault((self.cluster_of(record), record.group, record.resource), []).append(record)
        done = [record for record in batch.records if record.type is RecordType.SNAPSHOT_COMPLETED]
        named = [(self.cluster_of(record), *kind) for record in done for kind in SNAPSHOTS[record.snapshot][0]]
        for unit_id in [*by_unit, *named]:
            self._unit(unit_id)
        for unit_id, records in by_unit.items():
            self._take(unit_id, self.units[unit_id], records)
        touched = set(by_unit)
        for record in sorted(done, key=lambda record: record.observed_at):
            touched |= self._discover(record)
        return touched

    def _take_clusters(self, records: list[Record]) -> None:
        for record in records:
            self.clusters.setdefault(self.cluster_of(record), ClusterTruth.of(record))
        for record in sorted(records, key=lambda record: record.observed_at):
            if record.type in (RecordType.SNAPSHOT_STARTED, RecordType.SNAPSHOT_COMPLETED):
                self.clusters[self.cluster_of(record)].learn(record)

    def _unit(self, unit_id: UnitId) -> UnitTruth:
        if unit_id not in self.units:
            since = self.discovered.get(unit_id[0], NEVER)
            self.units[unit_id] = UnitTruth(gone_before=since, state=None if since == NEVER else ("gone", since))
        return self.units[unit_id]

    def guesses(self, unit_id: UnitId) -> bool:
        """True if only the end is certain: its cluster's versions ran backwards and nobody reported so."""
        return self.world.clusters[unit_id[0]].was_tainted

    def _take(self, unit_id: UnitId, unit: UnitTruth, records: list[Record]) -> None:
        for record in records:
            unit.by_clock = unit.by_clock or record.ordering == CLOCK
            unit.api_version = record.api_version
        failed = [record for record in records if record.type is RecordType.LIST_FAILED]
        settled = {list_id for list_id, count in unit.counts.items() if count.settled}
        complete = self._count(unit, [record for record in records if record not in failed])
        self._store(unit_id, unit, [record for record in records if record.is_object], complete)
        states = [
            (r.reach, (FAILURES.get(orjson.loads(r.body)["http_status"], "failed"), r.observed_at)) for r in failed
        ]
        for reach in {record.reach for record in records if record.list}:
            unit.reach_states.setdefault(reach, ("unverified", NEVER))
        states += self._unproven(unit, records, settled | complete.keys())
        states += [(count.reach, (self._verdict(unit, count, complete), count.done_at)) for count in complete.values()]
        self._set_states(unit, states)
        self._prove(unit, complete)
        for record in failed:
            unit.counts.pop(record.list, None)

    @staticmethod
    def _unproven(unit: UnitTruth, records: list[Record], settled: set[str]) -> list[tuple[str, DatedState]]:
        """Lists that are reported complete and do not add up, unless what is proven by now is newer."""
        states = []
        for record in records:
            if record.type is RecordType.LIST_COMPLETED and record.list not in settled:
                count = unit.counts[record.list]
                if count.moment > unit.floors.get(count.reach, (0, -1)):
                    states.append((record.reach, ("unverified", record.observed_at)))
        return states

    def _verdict(self, unit: UnitTruth, count: Count, complete: dict[str, Count]) -> str:
        """Failed: it began when a newer one that covers it had ended, so that revisions must have run backwards."""
        proven = [(unit.floors[reach], done) for reach, done in unit.floors_done.items() if reach in ("", count.reach)]
        proven += [(other.moment, other.done_at) for other in complete.values() if other.reach in ("", count.reach)]
        backwards = any(moment > count.moment and done < count.began_at for moment, done in proven)
        self.stats["alarms: a cluster runs backwards"] += backwards
        return "failed" if backwards else "verified"

    @staticmethod
    def _set_states(unit: UnitTruth, states: list[tuple[str, DatedState]]) -> None:
        newest: dict[str, DatedState] = {}
        for reach, (state, at) in states:
            newest[reach] = max(newest.get(reach, (state, at)), (state, at), key=lambda one: (one[1], one[0]))
        for reach, (state, at) in newest.items():
            if reach in unit.reach_states and at >= unit.reach_states[reach][1]:
                unit.reach_states[reach] = state, at
        if newest and unit.state and unit.state[1] <= max(at for _, at in newest.values()):
            unit.state = None

    def _moment(self, unit: UnitTruth, record: Record) -> Moment:
        if not unit.by_clock:
            return record.epoch, int(record.list_version)
        at = began(record.list) if record.list else record.observed_at
        return record.epoch, round(at.timestamp() * 1000) * 1000 if record.list else int(at.timestamp() * 1_000_000)

    def _count(self, unit: UnitTruth, records: Iterable[Record]) -> dict[str, Count]:
        touched: dict[str, Count] = {}
        brought: dict[str, Count] = {}
        for record in records:
            if not record.list:
                continue
            moment = self._moment(unit, record)
            new = brought.setdefault(record.list, Count(record.reach, moment, began_at=began(record.list)))
            if record.type is RecordType.LIST_COMPLETED:
                listing = self.world.lists[record.list].listing
                digest = sum(item_digest(i.namespace, i.name, i.resource_version) for i in listing.items)
                new.expected, new.done_at = (len(listing.items), digest % (1 << 128)), record.observed_at
            else:
                new.count += 1
                new.digest += item_digest(record.namespace, record.name, record.resource_version)
        for list_id, new in brought.items():
            held = unit.counts.setdefault(list_id, Count(new.reach, new.moment, began_at=new.began_at))
            if held.settled:
                continue
            held.count += new.count
            held.digest = (held.digest + new.digest) % (1 << 128)
            held.expected = new.expected or held.expected
            held.done_at = max(held.done_at, new.done_at)
            touched[list_id] = held
        return {list_id: count for list_id, count in touched.items() if count.adds_up}

    def _store(self, unit_id: UnitId, unit: UnitTruth, records: list[Record], complete: dict[str, Count]) -> None:
        new: dict[Key, list[Row]] = {}
        for record in records:
            row = self._row(unit, record)
            key = record.namespace, record.name
            if self._counts_for_something(unit, key, row):
                new.setdefault(key, []).append(row)
        for key, rows in new.items():
            self._chain(unit, key, rows, complete)

    def _row(self, unit: UnitTruth, record: Record) -> Row:
        deleted = record.type is RecordType.DELETED
        content: int | str | None = None
        fidelity = 3
        if not deleted:
            content = CONTENTS[record.content_hash]
            fidelity = 1 if record.state else FIDELITIES.get(content, 3)
        moment = self._moment(unit, record)
        at = record.observed_at
        shape = record.normalization, fidelity
        hashed = record.content_hash
        seen = at if deleted or not record.list else min(at, began(record.list))
        return Row(moment, record.uid, record.resource_version, deleted, content, shape, at, seen, hashed, hashed)

    @staticmethod
    def _counts_for_something(unit: UnitTruth, key: Key, new: Row) -> bool:
        row = unit.rows.get(key)
        if row is None:
            return new.seen >= unit.gone_before and not unit.covered(key[0], new.moment)
        if new.moment > row.moment:
            return True
        if not new.same_version(row):
            return False
        known = row.shape[1] in (0, 2) and new.shape[0] == row.shape[0]
        return new.moment == row.moment or (not row.deleted and new.shape > row.shape and not known)

    def _chain(self, unit: UnitTruth, key: Key, rows: list[Row], complete: dict[str, Count]) -> None:
        row = unit.rows.get(key)
        seen = max([r.seen for r in rows] + ([row.seen] if row else []))
        for new in sorted(rows, key=lambda r: r.moment):
            if row is None:
                row = new
            elif new.same_version(row):
                if new.moment >= row.moment:
                    row.last_hash = new.hash
                    self._note_older_rules(unit, key, new, row)
                if new.shape > row.shape:
                    row.shape, row.hash = new.shape, new.hash
                row.moment = max(row.moment, new.moment)
            else:
                new.since = max(new.since, row.since)
                self._note_older_rules(unit, key, new, row)
                new.created = row.deleted or new.deleted or new.uid != row.uid
                if row.same_content(new):
                    new.since, new.created = row.since, row.created
                    if (key, row.version) in unit.seen_by_older_rules:
                        unit.seen_by_older_rules.add((key, new.version))
                else:
                    unit.supersede(key, row, new, self._gone_between(complete, key, row.moment, new.moment))
                row = new
        assert row
        row.seen, row.last_hash = seen, row.hash
        unit.rows[key] = row

    @staticmethod
    def _note_older_rules(unit: UnitTruth, key: Key, new: Row, row: Row) -> None:
        if new.shape[0] < row.shape[0]:
            unit.seen_by_older_rules.add((key, new.version))

    @staticmethod
    def _gone_between(complete: dict[str, Count], key: Key, after: Moment, before: Moment) -> dt.datetime | None:
        return min(
            (c.began_at for c in complete.values() if c.reach in ("", key[0]) and after < c.moment < before),
            default=None,
        )

    def _prove(self, unit: UnitTruth, complete: dict[str, Count]) -> None:
        for count in complete.values():
            count.settled = True
        self.stats["lists proven"] += len(complete.keys() - self.proven)
        self.proven.update(complete)
        best: dict[str, Count] = {}
        for count in complete.values():
            if count.moment > unit.floors.get(count.reach, (0, -1)):
                best[count.reach] = max(best.get(count.reach, count), count, key=lambda c: (c.moment, c.done_at))
        for key, row in list(unit.rows.items()):
            over = [c for c in best.values() if c.reach in ("", key[0])]
            if any(row.moment < c.moment or (row.deleted and row.moment == c.moment) for c in over):
                self.stats["rows deleted by absence"] += not row.deleted
                self.stats["tombstones dropped"] += row.deleted
                unit.end(key, self._gone_between(complete, key, row.moment, FOR_EVER) or row.since)
        for count in best.values():
            unit.floors[count.reach] = count.moment
            unit.floors_done[count.reach] = count.done_at
        self._forget(unit, complete, raised="" in best)

    @staticmethod
    def _forget(unit: UnitTruth, complete: dict[str, Count], *, raised: bool) -> None:
        """What needs no bookkeeping any more; `raised`: a list of all namespaces raised its floor."""
        whole = unit.floors_done.get("")
        if raised:
            for reach, (_, at) in list(unit.reach_states.items()):
                if reach and unit.floors.get(reach, (0, -1)) <= unit.floors[""] and whole and at <= whole:
                    del unit.reach_states[reach]
                    unit.floors.pop(reach, None)
                    unit.floors_done.pop(reach, None)
        for done in complete.values():
            for list_id, held in list(unit.counts.items()):
                if held is not done and held.reach == done.reach and held.moment <= done.moment:
                    del unit.counts[list_id]

    def _discover(self, record: Record) -> set[UnitId]:
        states, whole, _ = SNAPSHOTS[record.snapshot]
        self.snapshots[record.snapshot] = record.observed_at
        cluster, since = self.cluster_of(record), began(record.snapshot)
        for group, resource in states:
            unit = self._unit((cluster, group, resource))
            if states[group, resource] == "excluded" and record.observed_at >= unit.stated_at:
                unit.state = "excluded", record.observed_at
        for unit_id, unit in self.units.items():
            if not whole or unit_id[0] != cluster or unit_id[1:] in states:
                continue
            for key in [key for key, row in unit.rows.items() if row.seen < since]:
                self.stats["rows deleted with their kind"] += not unit.rows[key].deleted
                unit.end(key, since)
            if unit.stated_at < since and unit.gone_before < since:
                unit.state = "gone", record.observed_at
            unit.gone_before = max(unit.gone_before, since)
        if whole:
            self.discovered[cluster] = max(self.discovered.get(cluster, NEVER), since)
        return {unit_id for unit_id in self.units if unit_id[0] == cluster}


class SaidSnapshot(NamedTuple):
    """What the completion of a snapshot says: of each kind how it fared, whether discovery was complete, counts."""

    outcomes: dict[tuple[str, str], str]
    whole: bool
    counts: dict[tuple[str, str], int]

    @property
    def figures(self) -> tuple[int, int, int]:
        """(kinds completed, kinds failed or forbidden, objects): what its row says once the completion is stored."""
        fared = Counter(self.outcomes.values())
        return fared["completed"], fared["failed"] + fared["forbidden"], sum(self.counts.values())


SNAPSHOTS: dict[str, SaidSnapshot] = {}
"""By snapshot id."""
