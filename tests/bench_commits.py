"""What the transaction of a small batch costs: versions of objects that are followed, 1, 10 and 50 at a time.

`python -m tests.bench --commits`. The sink runs in this process, on a server that has fsync. Beside seconds, which say
much about the machine and what else runs on it, stand what is sent to the server in a batch, its statements and the
processor's time of both sides.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import random
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from msgspec.structs import replace

from clusterinfo.model import PartitionLane, Record, RecordType
from clusterinfo.postgres.connection import Pool
from clusterinfo.postgres.migrations import migrate
from clusterinfo.postgres.sink import PostgresSink
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from clusterinfo.settings import Settings, load
from clusterinfo.statements import WatchProgress
from tests.support.records import LANE, Feed, Listing, watched

SERVER = {
    "fsync": "on", "full_page_writes": "on", "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track_planning": "on",
}  # fmt: skip
SIZES = (1, 10, 50)
LANES = 4
OBJECTS = 2_000
BODY_LINES = 60  # of 80 bytes: a pod of 5 kB
WARM_UP, BATCHES = 30, 200

STATEMENTS = """
select sum(calls) as calls,
    array_agg(row (left(regexp_replace(query, '\\s+', ' ', 'g'), 60), calls, total_plan_time, total_exec_time)
        order by total_plan_time + total_exec_time desc) as slowest
from pg_stat_statements where dbid = (select oid from pg_database where datname = current_database())
    and query !~ 'pg_stat_statements|pg_backend_pid'
"""
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Found:
    """Of a batch of `records`, in milliseconds and microseconds."""

    records: int
    p50_ms: float
    p95_ms: float
    server_us: float
    client_us: float
    sent: float
    """Times that something was sent to the server."""
    statements: float
    slowest: list[tuple[str, float, float, float]]
    """Statement, calls a batch, microseconds of planning and of running it a batch."""


@dataclass(slots=True)
class Followed:
    """A kind that comes by a lane of its own, and is followed."""

    number: int
    names: int = OBJECTS
    version: int = 1000
    said: int = 0
    feed: Feed = field(init=False)
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.feed = Feed(PartitionLane(LANE.kafka_cluster, LANE.topic, self.number, LANE.group_id))
        self.random = random.Random(self.number)

    def listing(self) -> Listing:
        return Listing(str(self.version), dt.datetime.now(dt.UTC), resource=f"configmaps{self.number}")

    def first(self) -> list[Record]:
        listing = self.listing()
        return [*(self._item(listing, place) for place in range(self.names)), listing.completed(1)]

    def progress(self) -> Record:
        self.said += 1
        now = dt.datetime.now(dt.UTC)
        said = self.listing().watch(RecordType.WATCH_PROGRESS, self.said, WatchProgress(now, [], 10.0))
        return replace(said, partition=self.number)

    def changes(self, records: int) -> list[Record]:
        """New versions of so many objects."""
        listing, made = self.listing(), []
        for place in self.random.sample(range(self.names), records):
            self.said += 1
            made.append(watched(self._item(listing, place), self.said))
        return made

    def _item(self, listing: Listing, place: int) -> Record:
        self.version += 1
        content = [f"{self.random.getrandbits(128):032x} some words that are like others" for _ in range(BODY_LINES)]
        return listing.item(f"a{place}", str(self.version), content)


async def store(sink: PostgresSink, kind: Followed, *records: Record) -> float:
    """Seconds."""
    batch = kind.feed.batch(*records)
    began = time.perf_counter()
    await sink.write(batch)
    return time.perf_counter() - began


def cpu_us(pid: int, *, ended: bool = False) -> float:
    """Of a process, user and system; or of those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = fields[13:15] if ended else fields[11:13]
    return (int(user) + int(system)) * TICK_US


@asynccontextmanager
async def counted(pool: Pool) -> AsyncIterator[tuple[int, list[int]]]:
    """The one connection of a pool: its backend, and the number of times that something is sent."""
    sent = [0]
    async with pool.acquire() as connection:
        pid = await connection.fetchval("select pg_backend_pid()")
        transport = connection._con._transport  # type: ignore[attr-defined]
    write = transport.write

    def count(data: bytes) -> None:
        sent[0] += 1
        write(data)

    transport.write = count
    try:
        yield pid, sent
    finally:
        del transport.write


async def one_lane(settings: Settings, admin: asyncpg.Connection, batches: int) -> list[Found]:
    found = []
    async with PostgresSink.connect(replace_pool(settings, 1), lambda _: None) as sink:
        kind = await follow(sink, 0)
        for records in SIZES:
            for _ in range(WARM_UP):
                await store(sink, kind, *kind.changes(records))
            todo = [kind.changes(records) for _ in range(batches)]
            async with counted(sink._pool) as (pid, sent):
                await admin.execute("select pg_stat_statements_reset()")
                sent[0], before_us, client_s = 0, cpu_us(pid), time.process_time()
                times = [1000 * await store(sink, kind, *changes) for changes in todo]
                client_s = time.process_time() - client_s
                server_us = cpu_us(pid) - before_us
                row = await admin.fetchrow(STATEMENTS)
            slowest = [
                (text, calls / batches, 1000 * plan / batches, 1000 * run / batches)
                for text, calls, plan, run in row["slowest"]
            ]
            found.append(
                Found(
                    records, statistics.median(times), statistics.quantiles(times, n=20)[-1], server_us / batches,
                    1e6 * client_s / batches, sent[0] / batches, int(row["calls"]) / batches, slowest,
                )
            )  # fmt: skip
    return found


def replace_pool(settings: Settings, size: int) -> Settings:
    return settings.model_copy(update={"db_pool_size": size})


async def follow(sink: PostgresSink, number: int) -> Followed:
    kind = Followed(number)
    await sink.open(kind.feed.lane)
    await store(sink, kind, *kind.first())
    await store(sink, kind, kind.progress())
    return kind


async def four_lanes(settings: Settings, batches: int) -> dict[int, float]:
    """Records of a batch -> commits a second over all lanes."""
    found = {}
    async with PostgresSink.connect(replace_pool(settings, LANES), lambda _: None) as sink:
        kinds = [await follow(sink, 1 + number) for number in range(LANES)]

        async def run(kind: Followed, todo: list[list[Record]]) -> None:
            for changes in todo:
                await store(sink, kind, *changes)

        for records in SIZES:
            for count in (WARM_UP, batches):
                todo = [(kind, [kind.changes(records) for _ in range(count)]) for kind in kinds]
                began = time.perf_counter()
                async with asyncio.TaskGroup() as lanes:
                    for kind, of_kind in todo:
                        lanes.create_task(run(kind, of_kind))
            found[records] = LANES * batches / (time.perf_counter() - began)
    return found


async def commits(*, details: bool) -> None:
    """Print all of it; with `details` also what the server spends on each statement."""
    async with EmbeddedPostgres(SERVER) as postgres:
        settings = load(postgres.env())
        admin = await asyncpg.connect(postgres.dsn(), timeout=10)
        try:
            await admin.execute("create extension pg_stat_statements")
            await migrate(admin, settings.db_schema)
            await _measure(settings, admin, details=details)
        finally:
            await admin.close()


async def _measure(settings: Settings, admin: asyncpg.Connection, *, details: bool) -> None:
    lanes = await four_lanes(settings, BATCHES)
    print("records      p50      p95   server   client   sent  statements   commits/s of 4 lanes")
    for one in await one_lane(settings, admin, BATCHES):
        print(
            f"{one.records:7} {one.p50_ms:5.2f} ms {one.p95_ms:5.2f} ms {one.server_us:5.0f} us "
            f"{one.client_us:5.0f} us {one.sent:6.1f} {one.statements:11.1f} {lanes[one.records]:11.0f}"
        )
        for text, calls, plan_us, run_us in one.slowest if details else ():
            print(f"    {calls:5.2f} calls  plan {plan_us:7.1f} us  run {run_us:7.1f} us  {text}")
