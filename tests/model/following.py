"""Histories of collectors that follow: what a consumer claims to know of a cluster is never more than is true.

A cluster of two kinds, which may be restored from a backup; collectors that list and watch it as docs/DESIGN.md wants
it; a topic that loses and repeats what they say; two consumers, which are the program's own sinks, between which
partitions move, and which die at any statement. After each batch:

- fresh: of a kind that is followed up to a moment, every row is as its object was at that moment or later;
- whole: every version that began within an interval of a kind is a row or in the history;
- where nothing was lost, no list of a kind that was followed has anything to correct;

at some moments of the past, `not_observed` names what no interval covers, and within one the objects are as they were
recorded by then (`looking_back.py`); and in the end, with a collector in good health: what nothing was lost of is
followed up to the present, and after one more list of each kind all is, and the rows are the cluster's.

`python -m tests.model.following --histories 2000 --seed 1` runs many; what fails is told by its number.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

import asyncpg
from msgspec.structs import replace

from clusterinfo.errors import LostError
from clusterinfo.model import Batch, PartitionLane, Record, RecordType
from clusterinfo.observations import Drifted, Observation
from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.merge.offsets import forget_offsets
from clusterinfo.postgres.migrations import migrate
from clusterinfo.postgres.sink import PostgresSink
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from clusterinfo.settings import Settings, load
from clusterinfo.statements import WatchedUnit, WatchEnded, WatchProgress
from tests.model import looking_back
from tests.model.hunting import SERVER
from tests.support.records import NOON, Feed, Listing, uuid7, watched

STEPS, QUIET = 50, 40
MOMENTS = 4
"""At which each history looks back, at each kind."""
ON_ITS_WAY = 2
"""Seconds that an event may take to a watch."""
KINDS = ("configmaps", "pods")
KEYS = ("a", "b", "c")
PARTITIONS = 2
STUB = b'{"size_bytes":2000000,"sha256":"00"}'
SECOND = dt.timedelta(seconds=1)


class Violation(AssertionError):
    """The consumer claims what is not so."""


def moment(second: float) -> dt.datetime:
    return NOON + second * SECOND


@dataclass
class Change:
    """An object is created or changed (`version` is its own), or deleted (0), at a revision."""

    revision: int
    second: int
    name: str
    version: int
    uid: str = ""


@dataclass
class Cluster:
    """What is true."""

    random: Random
    uid: str
    revision: int = 10
    second: int = 0
    epoch: int = 0
    is_restored: bool = False
    uids: dict[int, str] = field(default_factory=dict)
    """Of what has a version."""
    begins: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    """How many changes it knows nothing of, since it was restored."""
    changes: dict[str, list[Change]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    objects: dict[str, dict[str, int]] = field(default_factory=lambda: {kind: {} for kind in KINDS})

    def change(self) -> None:
        """Something happens to an object."""
        kind, name = self.random.choice(KINDS), self.random.choice(KEYS)
        self.revision += 2
        uid = self.uids.get(self.objects[kind].get(name, 0), f"uid-{self.revision}")
        deleted = name in self.objects[kind] and self.random.random() < 0.45
        if deleted:
            del self.objects[kind][name]
        else:
            self.objects[kind][name] = self.revision
            self.uids[self.revision] = uid
        self.changes[kind].append(Change(self.revision, self.second, name, 0 if deleted else self.revision, uid))

    def restore(self) -> None:
        """From a backup, in 90 s: objects are as they were at a revision, from which versions go on, none twice."""
        self.second += 90
        self.is_restored = True
        self.revision = self.random.randrange(10, self.revision + 1, 2)
        for kind in KINDS:
            past = [change for change in self.changes[kind] if change.revision <= self.revision]
            before = {change.name: change.version for change in past}
            self.objects[kind] = {name: version for name, version in before.items() if version}
            self.changes[kind] += [Change(0, self.second, name, before.get(name, 0)) for name in KEYS]
            self.begins[kind] = len(self.changes[kind])
        self.revision += 1

    def after(self, kind: str, revision: int) -> list[Change]:
        """What a watch from there on shows."""
        return [change for change in self.changes[kind][self.begins[kind] :] if change.revision > revision]

    def since(self, kind: str, name: str, second: float) -> set[int]:
        """What the object was at that moment or later: versions, 0 for none."""
        now, later = 0, set[int]()
        for change in self.changes[kind]:
            if change.name == name:
                if change.second <= second:
                    now = change.version
                else:
                    later.add(change.version)
        return later | {now}


@dataclass
class Watch:
    """An open watch: up to which revision it was read, and what is read and not numbered yet."""

    revision: int
    heard: int
    id: int
    is_half_open: bool = False
    is_behind: bool = False
    read: list[tuple[Change, int]] = field(default_factory=list)
    sent: int = 0


@dataclass
class List:
    """A list under way. `watch`: the one beside it."""

    began: int
    from_: int
    watch: Watch | None
    newest: int
    """What was there already when it began."""
    listing: Listing | None = None
    seen: int = 0
    revision: int = 0
    items: list[tuple[str, int]] = field(default_factory=list)


class Collector:
    """One life of a collector: lists and watches both kinds, and says on each kind's partition what it sees."""

    def __init__(self, world: World) -> None:
        self.world, self.cluster = world, world.cluster
        self.session = uuid7(moment(self.cluster.second))
        self.epoch = self.cluster.epoch
        self.newest = dict.fromkeys(KINDS, 0)
        self.numbers = [1] * PARTITIONS
        self.queue: list[tuple[int, Record]] = []
        self.lists: dict[str, List] = {}
        self.watches: dict[str, Watch] = {}
        self.made = 0
        for kind in KINDS:
            self.begin_list(kind)

    # -- saying

    def say(self, kind: str, record: Record) -> None:
        said = replace(record, cluster=self.cluster.uid, epoch=self.epoch)
        self.queue.append((self.world.partition(kind), said))

    def say_numbered(self, partition: int, record: Record) -> None:
        said = replace(record, cluster=self.cluster.uid, epoch=self.epoch)
        numbered = replace(said, session=self.session, number=self.numbers[partition])
        self.numbers[partition] += 1
        self.queue.append((partition, numbered))

    def next_number(self, kind: str) -> int:
        return self.numbers[self.world.partition(kind)]

    # -- listing

    def begin_list(self, kind: str) -> None:
        if kind not in self.lists:
            watch, newest = self.watches.get(kind), self.newest[kind]
            self.lists[kind] = List(self.cluster.second, self.next_number(kind), watch, newest)

    def go_on_listing(self, kind: str) -> None:
        """The first page comes; once the watch beside the list is up to it, pages are sent, and it is complete."""
        under_way = self.lists[kind]
        watch = self.watches.get(kind)
        if under_way.listing is None:
            self._see_first_page(kind, under_way)
        elif watch and watch.sent < under_way.revision:
            return
        elif under_way.revision < under_way.newest:
            self._give_up(kind, under_way.listing)
        elif under_way.items:
            name, version = under_way.items.pop(0)
            item = under_way.listing.item(name, str(version), version, uid=self.cluster.uids[version])
            self.say(kind, replace(self._fitting(item), observed_at=moment(under_way.seen)))
        else:
            self._complete(kind, under_way, watch)

    def _see_first_page(self, kind: str, under_way: List) -> None:
        under_way.revision, under_way.seen = self.cluster.revision, self.cluster.second
        under_way.items = sorted(self.cluster.objects[kind].items())
        began = moment(under_way.began)
        under_way.listing = Listing(
            str(under_way.revision), began, resource=kind, id=uuid7(began), cluster=self.cluster.uid
        )

    def _give_up(self, kind: str, listing: Listing) -> None:
        """A list of less than was there already: the cluster was restored, which its epoch has to say."""
        del self.lists[kind]
        self.say(kind, replace(listing.failed(0, "below what was there"), observed_at=moment(self.cluster.second)))

    def _fitting(self, record: Record) -> Record:
        """Or its stub: now and then an object is too large for the broker."""
        is_large = record.type is RecordType.OBSERVED and self.cluster.random.random() < 0.05
        self.world.counts["oversize"] += is_large
        return replace(record, state="oversize", body=STUB) if is_large else record

    def _complete(self, kind: str, under_way: List, watch: Watch | None) -> None:
        """A list beside a watch that has ended names no session."""
        assert under_way.listing
        del self.lists[kind]
        from_ = under_way.from_ if watch is under_way.watch else 0
        if under_way.watch is None and watch is None:
            self.made += 1
            heard = under_way.seen - ON_ITS_WAY
            self.watches[kind] = Watch(under_way.revision, heard, self.made, sent=under_way.revision)
            from_ = self.next_number(kind)
        completed = under_way.listing.completed(from_, self.session, moment(under_way.seen))
        self.say(kind, replace(completed, observed_at=moment(self.cluster.second)))
        if kind not in self.watches:
            self.begin_list(kind)

    # -- watching

    def read(self, kind: str) -> None:
        """One event, or all that has arrived and a bookmark; it is heard as of before what may be on its way."""
        watch, random = self.watches[kind], self.cluster.random
        if watch.is_half_open:
            return
        new = self.cluster.after(kind, watch.revision)
        on_its_way = random.randrange(ON_ITS_WAY)
        arrived = [change for change in new if change.second <= self.cluster.second - on_its_way]
        one = bool(arrived) and random.random() < 0.7
        for change in arrived[:1] if one else arrived:
            watch.read.append((change, self.cluster.second))
            watch.revision = change.revision
        if not one:
            watch.heard = max(watch.heard, self.cluster.second - ON_ITS_WAY)
            if len(arrived) == len(new):
                watch.revision = max(watch.revision, self.cluster.revision)

    def number(self, kind: str) -> None:
        """What was read is said."""
        watch = self.watches[kind]
        for change, second in watch.read:
            listing = Listing(str(change.revision), moment(second), resource=kind)
            if change.version:
                record = listing.item(change.name, str(change.version), change.version, uid=change.uid)
            else:
                record = listing.deleted(change.name, str(change.revision), uid=change.uid)
            self.say_numbered(self.world.partition(kind), watched(self._fitting(record), 1))
        watch.read, watch.sent = [], watch.revision

    def progress(self) -> None:
        for kind in self.watches:
            self.number(kind)
        behind = [WatchedUnit("", kind, moment(watch.heard)) for kind, watch in self.watches.items() if watch.is_behind]
        heard = min([w.heard for w in self.watches.values() if not w.is_behind], default=self.cluster.second)
        said = Listing("0", moment(self.cluster.second))
        for partition in range(PARTITIONS):
            statement = WatchProgress(moment(heard), behind)
            record = said.watch(RecordType.WATCH_PROGRESS, 1, statement)
            self.say_numbered(partition, replace(record, partition=partition))

    def end_watch(self, kind: str) -> None:
        """410 Gone: a list follows, and one that is under way counts for nothing."""
        oversize = self.world.counts["oversize"]
        self.number(kind)
        self.world.counts["410 after an oversize"] += self.world.counts["oversize"] > oversize
        watch = self.watches.pop(kind)
        self.newest[kind] = max(self.newest[kind], watch.revision)
        statement = WatchEnded([WatchedUnit("", kind, moment(watch.heard))], "410 Gone")
        record = Listing("0", moment(self.cluster.second)).watch(RecordType.WATCH_ENDED, 1, statement)
        self.say_numbered(self.world.partition(kind), record)
        if self.cluster.random.random() < 0.5:
            self.lists.pop(kind, None)
        self.begin_list(kind)

    @staticmethod
    def _befall(watch: Watch, random: Random) -> None:
        """A connection goes silent, which is noticed after a while, and comes back."""
        if random.random() < 0.03:
            watch.is_half_open = True
        elif watch.is_half_open and random.random() < 0.3:
            watch.is_behind |= random.random() < 0.5
            if random.random() < 0.4:
                watch.is_half_open = watch.is_behind = False

    def live(self) -> None:
        """A step of its life."""
        random = self.cluster.random
        for kind in KINDS:
            if kind in self.lists and random.random() < 0.6:
                self.go_on_listing(kind)
            elif kind not in self.watches and random.random() < 0.1:
                self.begin_list(kind)
        for kind in list(self.watches):
            self._befall(self.watches[kind], random)
            if random.random() < 0.8:
                self.read(kind)
            if random.random() < 0.5:
                self.number(kind)
            if random.random() < 0.03:
                self.begin_list(kind)
            if random.random() < 0.02:
                self.end_watch(kind)
        if random.random() < 0.2:
            self.progress()


class Killed(Exception):
    """The consumer is no more."""


class Mortal(PostgresSink):
    """The program's sink, whose process dies before statement `dies_at` of a transaction; 0: not."""

    dies_at = 0

    @asynccontextmanager
    async def transaction(self, afterwards: Sequence[str] = ()) -> AsyncIterator[Connection]:
        async with super().transaction(afterwards) as connection:
            yield cast(Connection, Doomed(connection, self.dies_at)) if self.dies_at else connection
        if self.dies_at:
            raise Killed  # the answer to its commit was lost


@dataclass
class Doomed:
    """A connection that has so many statements left."""

    _connection: Connection
    _left: int

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._connection, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            self._left -= 1
            if not self._left:
                raise Killed
            return found(*arguments, **options)

        return counted if callable(found) else found


@dataclass
class Consumers:
    """Two of a group, and what they observed."""

    sinks: list[Mortal]
    seen: list[Observation]

    @classmethod
    @asynccontextmanager
    async def on(cls, settings: Settings) -> AsyncIterator[Consumers]:
        seen: list[Observation] = []
        async with Mortal.connect(settings, seen.append) as one, Mortal.connect(settings, seen.append) as other:
            yield cls([cast(Mortal, one), cast(Mortal, other)], seen)


class World:
    """A cluster, its collectors, a topic, and the consumers of it."""

    def __init__(self, consumers: Consumers, connection: asyncpg.Connection, random: Random, *, loses: bool) -> None:
        self.sinks, self.seen = consumers.sinks, consumers.seen
        self.owners = [0] * PARTITIONS
        self.connection, self.random, self.loses = connection, random, loses
        name = uuid.uuid4().hex
        self.cluster = Cluster(random, f"uid-{name}")
        lanes = [PartitionLane("kafka-1", f"topic-{name}", number, "group") for number in range(PARTITIONS)]
        self.feeds = [Feed(lane) for lane in lanes]
        self.logs: list[list[Record]] = [[] for _ in lanes]
        self.batches: list[list[tuple[int, int]]] = [[] for _ in lanes]
        self.apart = random.random() < 0.5
        self.lost = 0
        self.counts: Counter[str] = Counter()

    moment = staticmethod(moment)

    def partition(self, kind: str) -> int:
        return KINDS.index(kind) if self.apart else 0

    # -- the topic

    def send(self, collector: Collector, *, everything: bool = False) -> None:
        """Some of what a collector says reaches the topic; a little of it never does, or comes twice."""
        count = len(collector.queue) if everything else self.random.randrange(3)
        out, collector.queue = collector.queue[:count], collector.queue[count:]
        if out and self.loses and not everything and self.random.random() < 0.04:
            out.pop(self.random.randrange(len(out)))
            self.lost += 1
        # A list is sent by a producer that repeats nothing: with an item twice it proves nothing.
        again = [one for one in out[-2:] if not one[1].list] if self.random.random() < 0.1 else []
        if len(out) > 1 and self.loses and self.random.random() < 0.03:
            out.reverse()  # a broker's refusal, after which the collector did not begin at the first one again
            self.lost += 1
        for partition, record in out + again:
            self.logs[partition].append(record)

    async def consume(self, most: int, *, calmly: bool = False) -> bool:
        """So many records of each partition at most; True if there were any."""
        stored = False
        for number, (feed, log) in enumerate(zip(self.feeds, self.logs, strict=True)):
            records = log[feed.next_offset : feed.next_offset + most]
            if records:
                fate = 1.0 if calmly else self.random.random()
                batch = feed.batch(*records)
                self.batches[number].append((batch.start, batch.end))
                if fate < 0.04:
                    await self._die(number, batch)
                elif fate < 0.08:
                    await self._lose(number, batch)
                else:
                    await self.sinks[self.owners[number]].write(batch)
                self.counts["batches"] += 1
                stored = True
        return stored

    def stored_with(self, number: int, place: int) -> int:
        """Up to where a partition's log may have been stored at once with what stands at that place."""
        return max((end for start, end in self.batches[number] if start <= place < end), default=place + 1)

    async def claim(self, number: int) -> None:
        """Whoever owns the partition now begins where it is stored up to."""
        feed = self.feeds[number]
        feed.next_offset = await self.sinks[self.owners[number]].open(feed.lane) or 0

    async def _die(self, number: int, batch: Batch) -> None:
        """In the middle of storing it, or right after; somebody goes on."""
        sink = self.sinks[self.owners[number]]
        sink.dies_at = self.random.randrange(1, 25)
        try:
            await sink.write(batch)
        except Killed:
            self.counts["consumers killed"] += 1
        finally:
            sink.dies_at = 0
        await self.claim(number)

    async def _lose(self, number: int, batch: Batch) -> None:
        """The partition has gone to the other consumer, and this one does not know yet."""
        before, self.owners[number] = self.owners[number], 1 - self.owners[number]
        await self.claim(number)
        try:
            await self.sinks[before].write(batch)
        except LostError:
            self.counts["partitions moved"] += 1
        else:
            raise Violation("a consumer stored a batch of a partition that another one has")

    async def begin_again(self) -> None:
        """The offsets are reset, and each partition is read again from somewhere."""
        await forget_offsets(self.connection, "clusterinfo", self.feeds[0].lane.topic)
        for number, feed in enumerate(self.feeds):
            before = feed.next_offset
            await self.claim(number)
            feed.next_offset = self.random.randrange(before + 1)
        self.lost += 1  # a list that is under way is counted twice in part
        self.counts["offsets reset"] += 1

    # -- what is claimed

    async def check(self) -> dict[str, int]:
        """Raise Violation for what is claimed and not so; return up to which second each kind is followed."""
        rows = {kind: dict[str, int]() for kind in KINDS}
        for row in await self.connection.fetch(ROWS, self.cluster.uid):
            rows[row["resource"]][row["name"]] = int(row["resource_version"])
        heard = dict.fromkeys(KINDS, -1)
        for row in await self.connection.fetch(FOLLOWED, self.cluster.uid):
            heard[row["resource"]] = second = round((row["heard"] - NOON) / SECOND)
            self._check_fresh(row["resource"], second, rows[row["resource"]])
        await self._check_intervals()
        return heard

    def _check_fresh(self, kind: str, second: int, rows: dict[str, int]) -> None:
        for name in KEYS:
            found, allowed = rows.get(name, 0), self.cluster.since(kind, name, second - 1)
            if found not in allowed:
                raise Violation(f"{kind}/{name} is {found}, followed up to {second}, when it was {allowed}")
        self.counts["claims of freshness"] += 1

    async def _check_intervals(self) -> None:
        intervals = await self.connection.fetch(INTERVALS, self.cluster.uid)
        stored = {tuple(row) for row in await self.connection.fetch(VERSIONS, self.cluster.uid)} if intervals else set()
        drift = [one for one in self.seen if isinstance(one, Drifted)]
        if drift and not self.lost:
            raise Violation(f"a list corrected what was followed: {drift}")
        for row in intervals:
            begins, ends = ((row[at] - NOON) / SECOND for at in ("begins_at", "ends_at"))
            for change in self.cluster.changes[row["resource"]]:
                version = (row["resource"], change.name, str(change.version))
                if change.version and begins < change.second < ends and version not in stored:
                    raise Violation(f"{version} of second {change.second} is missing in {begins:g} to {ends:g}")
            self.counts["claims of an interval"] += 1

    async def intervals(self) -> dict[str, list[tuple[dt.datetime, dt.datetime]]]:
        """In which each kind is said to have been followed."""
        found: dict[str, list[tuple[dt.datetime, dt.datetime]]] = {kind: [] for kind in KINDS}
        for row in await self.connection.fetch(INTERVALS, self.cluster.uid):
            found[row["resource"]].append((row["begins_at"], row["ends_at"]))
        return found

    # -- a history

    async def run(self) -> None:
        for number in range(PARTITIONS):
            await self.claim(number)
        collectors = [Collector(self)]
        for _ in range(STEPS):
            self.cluster.second += 1
            if self.random.random() < 0.5:
                self.cluster.change()
            for collector in collectors:
                collector.live()
                self.send(collector)
            if self.random.random() < 0.02:
                collectors[0] = Collector(self)  # the other one was killed
                self.counts["collectors killed"] += 1
            if self.random.random() < 0.015 and len(collectors) < 2:
                collectors.append(Collector(self))
                self.counts["second collectors"] += 1
            self._be_restored(collectors)
            stored = await self.consume(self.random.randrange(1, 5))
            if self.random.random() < 0.02:
                await self.begin_again()
            if stored:
                await self.check()
        self._raise_epoch(collectors)
        await self._calm(collectors)
        await self._list_once_more(collectors)
        if wrong := await looking_back.check(self, MOMENTS):
            raise Violation("\n".join(wrong))

    def _be_restored(self, collectors: list[Collector]) -> None:
        """The cluster is, from a backup; after a while its collectors begin again and say so."""
        if not self.cluster.is_restored and self.random.random() < 0.005:
            self.cluster.restore()
            self.counts["clusters restored"] += 1
            for collector in collectors:
                for kind in list(collector.watches):
                    collector.end_watch(kind)
                for kind in KINDS:
                    collector.lists.pop(kind, None)
                self.send(collector, everything=True)
        elif self.random.random() < 0.1:
            self._raise_epoch(collectors)

    def _raise_epoch(self, collectors: list[Collector]) -> None:
        if self.cluster.is_restored and not self.cluster.epoch:
            self.cluster.epoch = 1
            collectors[:] = [Collector(self) for _ in collectors]

    async def _calm(self, collectors: Sequence[Collector]) -> None:
        """Nothing goes wrong any more: what nothing was lost of is followed."""
        for step in range(QUIET):
            self.cluster.second += 1
            for collector in collectors:
                self._be_well(collector, step)
                self.send(collector, everything=True)
            if step % 5 == 4:
                await self.consume(1000, calmly=True)
        for kind, second in (await self.check()).items():
            if not self.lost and not self.cluster.is_restored and second < self.cluster.second - 15:
                raise Violation(f"{kind} is followed up to {second} of {self.cluster.second}, and nothing was lost")
            self.counts["kinds followed in the end"] += second >= self.cluster.second - 15

    @staticmethod
    def _be_well(collector: Collector, step: int) -> None:
        for kind in KINDS:
            if kind not in collector.watches:
                collector.begin_list(kind)
            if kind in collector.lists:
                collector.go_on_listing(kind)
        for kind, watch in collector.watches.items():
            watch.is_half_open = watch.is_behind = False
            for _ in range(4):
                collector.read(kind)
            collector.number(kind)
        if step % 5 == 4:
            collector.progress()

    async def _list_once_more(self, collectors: Sequence[Collector]) -> None:
        self.cluster.revision += 2
        for collector in collectors:
            for kind in KINDS:
                collector.begin_list(kind)
        for step in range(12):
            self.cluster.second += 1
            for collector in collectors:
                self._be_well(collector, step)
                self.send(collector, everything=True)
            await self.consume(1000, calmly=True)
        rows = {kind: dict[str, int]() for kind in KINDS}
        for row in await self.connection.fetch(ROWS, self.cluster.uid):
            rows[row["resource"]][row["name"]] = int(row["resource_version"])
        if rows != self.cluster.objects:
            raise Violation(f"stored are {rows}, there are {self.cluster.objects}")
        for kind, second in (await self.check()).items():
            if second < self.cluster.second - 15:
                raise Violation(f"{kind} is followed up to {second} of {self.cluster.second}, after another list")


OF_CLUSTER = "join unit u on u.id = x.unit_id join cluster c on c.id = u.cluster_id where c.uid = $1"
ROWS = f"select u.resource, x.name, x.resource_version from resource x {OF_CLUSTER} and not x.deleted"
VERSIONS = f"""
select u.resource, x.name, x.resource_version from resource x {OF_CLUSTER}
union select u.resource, x.name, x.resource_version from resource_history x {OF_CLUSTER}
"""
FOLLOWED = """
select f.resource, max(f.heard) as heard from followed() f
join watch_session s on s.id = f.session_id join unit u on u.id = f.unit_id join cluster c on c.id = u.cluster_id
where c.uid = $1 and f.heard is not null and not s.is_unverified group by 1
"""
INTERVALS = f"""
select u.resource, x.begins_at, coalesce(x.ends_at, f.heard) as ends_at
from coverage x left join followed() f on f.id = x.id {OF_CLUSTER}
    and x.begins_at is not null and coalesce(x.ends_at, f.heard) is not null
"""


async def play(consumers: Consumers, connection: asyncpg.Connection, seed: int, number: int) -> Counter[str]:
    """One history; what fails tells its number."""
    consumers.seen.clear()
    random = Random(f"following/{seed}/{number}")
    world = World(consumers, connection, random, loses=random.random() < 0.7)
    try:
        await world.run()
    except Violation as violation:
        violation.add_note(f"history {number} of seed {seed}")
        raise
    return world.counts


def main() -> None:
    """Many histories, on a server of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.monotonic()
    counts = asyncio.run(_play_all(range(arguments.first, arguments.first + arguments.histories), arguments.seed))
    print(dict(counts), f"{arguments.histories} histories, {time.monotonic() - began:.0f} s")


async def _play_all(numbers: Iterable[int], seed: int) -> Counter[str]:
    counts = Counter[str]()
    async with EmbeddedPostgres(SERVER) as server:
        connection = await asyncpg.connect(server.dsn(), timeout=60)
        await migrate(connection, "clusterinfo")
        await connection.execute("set search_path = clusterinfo")
        settings = load({}, **{name.lower(): value for name, value in server.env().items()})
        async with Consumers.on(settings) as consumers:
            for number in numbers:
                counts += await play(consumers, connection, seed, number)
        await connection.close()
    return counts


if __name__ == "__main__":
    main()
