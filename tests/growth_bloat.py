"""What a day of changes leaves in the tables: `python -m tests.growth bloat N ...` and `hot N ...`.

- bloat: a cluster of N pods is listed, and has a day of 20 versions a pod: half are changes of pods, of which a fifth
  change most; a twentieth each are new pods and those that go; the rest are events, which go after an hour. It goes
  through the real sink in small batches, both kinds are followed, and listed again four times. A day is a minute or
  so, and autovacuum comes each second of that, without its pauses: each quarter of an hour of the day. Then each table
  is held against what VACUUM FULL leaves of it.
- hot: N rows of each small table that every batch changes, each changed 20 times in random order.

`--try PATTERN` takes, of the storage parameters in VARIANTS, those whose names match.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import orjson
from msgspec.structs import replace

from clusterinfo.model import PartitionLane, Record, RecordType
from clusterinfo.postgres.migrations import migrate
from clusterinfo.postgres.sink import PostgresSink
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from clusterinfo.settings import load
from clusterinfo.statements import WatchProgress
from tests.bench_commits import cpu_us
from tests.support.past import BODIES
from tests.support.records import LANE, Feed, Listing, watched

SERVER = {
    "autovacuum_naptime": "1s", "autovacuum_vacuum_cost_delay": "0", "shared_buffers": "512MB", "max_wal_size": "8GB",
    "synchronous_commit": "off",
}  # fmt: skip
VERSIONS = 20
"""Of each pod, in a day."""
RESYNCS, HOURS = 4, 24
STEP = 100
"""Records between two progresses."""
PAGE = 500
VARIANTS = {
    "as shipped": "select",
    "fillfactor 100": "alter table resource set (fillfactor = 100)",
    "fillfactor 90": "alter table resource set (fillfactor = 90)",
    "fillfactor 70": "alter table resource set (fillfactor = 70)",
    "vacuum 0.2": "alter table resource set (autovacuum_vacuum_scale_factor = 0.2)",
    "vacuum 0.02": "alter table resource set (autovacuum_vacuum_scale_factor = 0.02)",
    "history insert 0.02": "alter table {month} set (autovacuum_vacuum_insert_scale_factor = 0.02)",
    "history insert off": "alter table {month} set (autovacuum_vacuum_insert_threshold = -1)",
    "toast target 1024": "alter table resource set (toast_tuple_target = 1024); "
    "alter table {month} set (toast_tuple_target = 1024)",
    "toast target 4080": "alter table resource set (toast_tuple_target = 4080); "
    "alter table {month} set (toast_tuple_target = 4080)",
    "pglz": "alter table resource alter body set compression pglz; alter table {month} alter body set compression pglz",
    "external": "alter table resource alter body set storage external; "
    "alter table {month} alter body set storage external",
}
SIZES = """
select c.relname as name, pg_relation_size(c.oid) as heap,
    coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0) as toast,
    pg_indexes_size(c.oid) as indexes, s.n_live_tup as live, s.n_dead_tup as dead,
    s.n_tup_hot_upd::float8 / nullif(s.n_tup_upd, 0) as hot,
    s.autovacuum_count + coalesce(t.autovacuum_count, 0) as vacuums
from pg_stat_user_tables s
join pg_class c on c.oid = s.relid
left join pg_stat_all_tables t on t.relid = c.reltoastrelid
where s.schemaname = 'clusterinfo' and s.n_tup_ins > 0
"""


@dataclass(slots=True)
class Kind:
    """A kind that is followed, on a partition of its own: objects have numbers, each is at a version."""

    resource: str
    number: int
    body: Callable[[int, int], bytes]
    """Of an object, at a version."""
    lasting: int = 0
    """So many objects stay all day; the others go in the order in which they came."""
    random: random.Random = field(default_factory=lambda: random.Random(1))
    objects: list[int] = field(default_factory=list)
    versions: dict[int, int] = field(default_factory=dict)
    version: int = 1000
    said: int = 0
    made: int = 0
    feed: Feed = field(init=False)

    def __post_init__(self) -> None:
        self.feed = Feed(PartitionLane(LANE.kafka_cluster, LANE.topic, self.number, LANE.group_id))
        for _ in range(self.lasting):
            self._make()

    def listing(self) -> Listing:
        return Listing(str(self.version), dt.datetime.now(dt.UTC), resource=self.resource)

    def listed(self) -> list[Record]:
        """All there is, by a list from which it is followed."""
        listing = self.listing()
        return [*(self._item(listing, n) for n in self.objects), listing.completed(self.said + 1)]

    def changes(self, created: int, changed: int, live: int) -> list[Record]:
        """New objects, new versions, and deletions until `live` are left of those that do not stay; then a progress."""
        listing = self.listing()
        made = [self._changed(listing, n) for n in self._some(changed)]
        made += [self._changed(listing, self._make()) for _ in range(created)]
        while len(self.objects) > self.lasting + live:
            made.append(self._ended(listing, self.objects.pop(self.lasting)))
        return [*made, self.progress()]

    def progress(self) -> Record:
        now = dt.datetime.now(dt.UTC)
        self.said += 1
        said = self.listing().watch(RecordType.WATCH_PROGRESS, self.said, WatchProgress(now, [], 10.0))
        return replace(said, partition=self.number)

    def _some(self, count: int) -> set[int]:
        """A fifth of the objects have nearly half of the changes."""
        return {self.objects[int(self.random.random() ** 2 * len(self.objects))] for _ in range(count)}

    def _make(self) -> int:
        self.made += 1
        self.objects.append(self.made)
        self.versions[self.made] = self.version
        return self.made

    def _changed(self, listing: Listing, n: int) -> Record:
        self.version += 1
        self.versions[n] = self.version
        return self._watched(self._item(listing, n))

    def _ended(self, listing: Listing, n: int) -> Record:
        del self.versions[n]
        self.version += 1
        return self._watched(listing.deleted(f"{self.resource}-{n}", str(self.version), f"ns-{n % 50}"))

    def _item(self, listing: Listing, n: int) -> Record:
        version = self.versions[n]
        body, name = self.body(n, version), f"{self.resource}-{n}"
        return listing.item(name, str(version), version, f"ns-{n % 50}", body=body, manager="kubelet")

    def _watched(self, record: Record) -> Record:
        self.said += 1
        return watched(record, self.said)


def event(n: int, version: int) -> bytes:
    """One of 1 kB."""
    about = {"kind": "Pod", "namespace": f"ns-{n % 50}", "name": f"pods-{n}", "uid": f"{version:032x}"}
    metadata = {"name": f"events-{n}", "namespace": f"ns-{n % 50}", "creationTimestamp": "2026-09-20T08:15:30Z"}
    return orjson.dumps({
        "apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": about, "reason": "BackOff",
        "message": f"Back-off restarting failed container c1 in pod pods-{n} of ns-{n % 50} ({version:032x}) " * 4,
        "source": {"component": "kubelet", "host": f"node-{n % 200}"}, "type": "Warning", "count": version % 20,
        "firstTimestamp": "2026-09-20T08:15:30Z", "lastTimestamp": "2026-09-20T08:15:30Z",
    })  # fmt: skip


def pod(bodies: list[bytes]) -> Callable[[int, int], bytes]:
    def body(n: int, version: int) -> bytes:
        return bodies[n % len(bodies)].replace(b'"restartCount": 0', b'"restartCount": %d' % version)

    return body


async def store(sink: PostgresSink, kind: Kind, records: list[Record]) -> None:
    for begin in range(0, len(records), PAGE):
        await sink.write(kind.feed.batch(*records[begin : begin + PAGE]))


async def a_day(sink: PostgresSink, pods: Kind, events: Kind, versions: int) -> None:
    jobs, lasting_events = versions // 20 // HOURS, versions // 5 // HOURS
    steps = versions // STEP
    for step in range(1, steps + 1):
        await store(sink, pods, pods.changes(STEP // 20, STEP // 2, jobs))
        await store(sink, events, events.changes(STEP // 5, 0, lasting_events))
        if step % (steps // RESYNCS) == 0:
            await store(sink, pods, pods.listed())
            await store(sink, events, events.listed())


@asynccontextmanager
async def migrated() -> AsyncIterator[tuple[EmbeddedPostgres, asyncpg.Connection]]:
    async with EmbeddedPostgres(SERVER) as postgres:
        connection = await asyncpg.connect(postgres.dsn(), timeout=60)
        try:
            await migrate(connection, "clusterinfo")
            await connection.execute("set search_path = clusterinfo")
            await connection.execute("select make_history_month(current_date)")
            yield postgres, connection
        finally:
            await connection.close()


async def of_day(pods: int, pattern: str) -> None:
    for name, parameters in VARIANTS.items():
        if re.search(pattern, name):
            async with migrated() as (postgres, connection):
                await connection.execute(parameters.format(month=f"resource_history_{dt.datetime.now(dt.UTC):%Y_%m}"))
                print(f"{pods:,} pods, {name}", flush=True)
                await _day(postgres, connection, pods)


async def _day(postgres: EmbeddedPostgres, connection: asyncpg.Connection, objects: int) -> None:
    await connection.execute(BODIES.format(bodies=1000, largest=6))
    bodies = [row["body"].encode() for row in await connection.fetch("select body::text from past_body")]
    pods, events = Kind("pods", 0, pod(bodies), objects), Kind("events", 1, event)
    postmaster = int((Path(postgres.data) / "postmaster.pid").read_text().split()[0])
    settings = load(postgres.env()).model_copy(update={"db_pool_size": 1})
    async with PostgresSink.connect(settings, lambda _: None) as sink:
        for kind in (pods, events):
            await sink.open(kind.feed.lane)
            await store(sink, kind, kind.listed())
            await store(sink, kind, [kind.progress()])
        async with sink._pool.acquire() as one:
            pid = await one.fetchval("select pg_backend_pid()")
        began, server_us, ended_us = time.perf_counter(), cpu_us([pid]), cpu_us([postmaster], ended=True)
        await a_day(sink, pods, events, VERSIONS * objects)
        seconds, server_s = time.perf_counter() - began, (cpu_us([pid]) - server_us) / 1e6
    vacuum_s = (cpu_us([postmaster], ended=True) - ended_us) / 1e6
    print(f"    day {seconds:.0f} s, CPU of the server {server_s:.1f} s, of autovacuum {vacuum_s:.1f} s", flush=True)
    await show(connection)


async def show(connection: asyncpg.Connection) -> None:
    """Each table that has a MiB, or is updated in place: its sizes, and those that VACUUM FULL leaves."""
    await asyncio.sleep(2)  # counters are sent on once a second
    before = {row["name"]: row for row in await connection.fetch(SIZES)}
    for name in before:
        if not name.startswith("resource_history_"):
            await connection.execute(f"alter table {name} set (fillfactor = 100)")
    await connection.execute("vacuum full")
    ideal = {row["name"]: row for row in await connection.fetch(SIZES)}
    for name, row in before.items():
        mib = [(part, row[part] / 2**20, ideal[name][part] / 2**20) for part in ("heap", "toast", "indexes")]
        sizes = ", ".join(f"{part} {size:.1f} ({least:.1f})" for part, size, least in mib)
        if row["heap"] > 2**20 or row["hot"] is not None:
            dead = f"dead {row['dead']} of {row['live'] + row['dead']}"
            hot = "" if row["hot"] is None else f", HOT {row['hot']:.0%}"
            print(f"    {name:26} {sizes} MiB; {dead}{hot}, {row['vacuums']} vacuums", flush=True)


UNITS = """
insert into cluster (uid, name, label, first_seen, last_seen) values ('prod', 'prod', 'prod', now(), now());
insert into unit (cluster_id, api_group, resource) select id, '', n from cluster, generate_series(1, {rows}) n"""
HOT = {
    "kafka_offset": ("""
        insert into kafka_offset
        select 'kafka-1', 'topic', n, 'group', 1, 0, now(), now(), 1 from generate_series(1, {rows}) n""", """
        update kafka_offset set next_offset = next_offset + 1, moved_at = now(), observed_at = now(), rate = rate + 1
        where kafka_cluster = 'kafka-1' and topic = 'topic' and partition = $1"""),
    "watch_session": ("""
        insert into watch_session (kafka_cluster, topic, partition, cluster, session)
        select 'kafka-1', 'topic', n, gen_random_uuid(), gen_random_uuid() from generate_series(1, {rows}) n""", """
        update watch_session set next_number = next_number + 1, heard = now(), updated_at = now() where id = $1"""),
    "unit_floor": ("""
        insert into unit_floor (unit_id, reach) select id, '' from unit""", """
        update unit_floor set live_at = live_at + 1, proven_at = now(), state_at = now(), verified_at = now()
        where unit_id = $1"""),
    "list_progress": ("""
        insert into list_progress (list, unit_id, reach, epoch, live_at)
        select md5(id::text)::uuid, id, '', 0, 1 from unit""", """
        update list_progress set count = count + 500, digest = digest + 1, updated_at = now()
        where list = md5($1::bigint::text)::uuid"""),
}  # fmt: skip
"""Table -> what makes its rows, and what a batch does with the row of a number."""


async def of_hot(rows: int) -> None:
    for fillfactor in (100, 50):
        async with migrated() as (_, connection):
            await connection.execute(UNITS.format(rows=rows))
            for table, (make, change) in HOT.items():
                await connection.execute(f"alter table {table} set (fillfactor = {fillfactor})")
                await connection.execute(make.format(rows=rows))
                found = await _hot(connection, table, change, rows)
                print(f"{rows:,} rows, fillfactor {fillfactor}, {found}", flush=True)


async def _hot(connection: asyncpg.Connection, table: str, change: str, rows: int) -> str:
    update, numbers = await connection.prepare(change), random.Random(1)
    pid = await connection.fetchval("select pg_backend_pid()")
    began, before_us = await connection.fetchval(f"select pg_total_relation_size('{table}')"), cpu_us([pid])
    for _ in range(VERSIONS * rows):
        await update.fetch(numbers.randint(1, rows))
    update_us = (cpu_us([pid]) - before_us) / (VERSIONS * rows)
    await asyncio.sleep(2)
    row = next(row for row in await connection.fetch(SIZES) if row["name"] == table)
    size = row["heap"] + row["toast"] + row["indexes"]
    grown = f"{began / 2**10:.0f} -> {size / 2**10:.0f} KiB"
    return f"{table:14} {grown}, HOT {row['hot']:.0%}, {update_us:.0f} us an update"
