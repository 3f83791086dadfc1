"""What the transaction of a small batch costs: versions of objects that are followed, 1, 10 and 50 at a time.

`python -m tests.bench --commits`: by one lane and by four, with synchronous_commit and without, on a server that has
fsync, its files on the disk and in memory. The sink runs in this process. Beside seconds, which say much about the
machine and what else runs on it, stand what is sent to the server in a batch, its statements and the processor's time
of both sides.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
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
from tests.support.scratch import IN_MEMORY

SERVER = {
    "fsync": "on", "full_page_writes": "on", "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track_planning": "on",
}  # fmt: skip
SIZES = (1, 10, 50)
LANES = (1, 4)
OBJECTS = 2_000
BODY_LINES = 60  # of 80 bytes: a pod of 5 kB
WARM_UP, BATCHES = 20, 150  # of a lane

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
    """Of a batch of `records`, by so many lanes at once; processor time in microseconds."""

    records: int
    lanes: int
    times_ms: list[float]
    commits_s: float
    server_us: float
    client_us: float
    sent: float
    """Times that something was sent to the server."""
    statements: float
    slowest: list[tuple[str, float, float, float]]
    """Statement, calls a batch, microseconds of planning and of running it a batch."""

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.times_ms)

    def __str__(self) -> str:
        p99_ms = statistics.quantiles(self.times_ms, n=100)[-1]
        return (
            f"{self.records:7} {self.lanes:6} {self.p50_ms:7.2f} ms {p99_ms:7.2f} ms {self.commits_s:10.0f} "
            f"{self.server_us:6.0f} us {self.client_us:6.0f} us {self.sent:5.1f} {self.statements:11.1f}"
        )


HEADER = "records  lanes        p50        p99  commits/s    server    client  sent  statements"


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


def cpu_us(pids: Sequence[int], *, ended: bool = False) -> float:
    """Of processes, user and system; or of those of their children that have ended."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    first = 13 if ended else 11
    return sum(int(of_one[first]) + int(of_one[first + 1]) for of_one in fields) * TICK_US


@asynccontextmanager
async def counted(pool: Pool, lanes: int) -> AsyncIterator[tuple[list[int], list[int]]]:
    """The connections of a pool: their backends, and the number of times that something is sent by them."""
    sent = [0]
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(pool.acquire()) for _ in range(lanes)]
        pids = [await connection.fetchval("select pg_backend_pid()") for connection in connections]
        transports = [connection._con._transport for connection in connections]  # type: ignore[attr-defined]
    for transport in transports:
        transport.write = _counting(transport.write, sent)
    try:
        yield pids, sent
    finally:
        for transport in transports:
            del transport.write


def _counting(write: Callable[[bytes], None], sent: list[int]) -> Callable[[bytes], None]:
    def count(data: bytes) -> None:
        sent[0] += 1
        write(data)

    return count


async def follow(sink: PostgresSink, number: int) -> Followed:
    kind = Followed(number)
    await sink.open(kind.feed.lane)
    await store(sink, kind, *kind.first())
    await store(sink, kind, kind.progress())
    return kind


Todo = Sequence[tuple[Followed, list[list[Record]]]]


def changes(kinds: Sequence[Followed], records: int, batches: int) -> Todo:
    """Batches of so many changes for each lane."""
    return [(kind, [kind.changes(records) for _ in range(batches)]) for kind in kinds]


async def stored(sink: PostgresSink, todo: Todo) -> tuple[list[float], float]:
    """The time of each batch in milliseconds, of all lanes at once; and the seconds of all."""

    async def run(kind: Followed, batches: list[list[Record]]) -> list[float]:
        return [1000 * await store(sink, kind, *of_batch) for of_batch in batches]

    began = time.perf_counter()
    times = await asyncio.gather(*(run(kind, batches) for kind, batches in todo))
    return [one for of_lane in times for one in of_lane], time.perf_counter() - began


async def measured(sink: PostgresSink, admin: asyncpg.Connection, kinds: Sequence[Followed], records: int) -> Found:
    await stored(sink, changes(kinds, records, WARM_UP))
    todo, of_all = changes(kinds, records, BATCHES), BATCHES * len(kinds)
    async with counted(sink._pool, len(kinds)) as (pids, sent):
        await admin.execute("select pg_stat_statements_reset()")
        sent[0], server_us, client_s = 0, cpu_us(pids), time.process_time()
        times_ms, seconds = await stored(sink, todo)
        client_s = time.process_time() - client_s
        server_us = cpu_us(pids) - server_us
        row = await admin.fetchrow(STATEMENTS)
    slowest = [
        (text, calls / of_all, 1000 * plan / of_all, 1000 * run / of_all) for text, calls, plan, run in row["slowest"]
    ]
    return Found(
        records, len(kinds), times_ms, of_all / seconds, server_us / of_all, 1e6 * client_s / of_all, sent[0] / of_all,
        int(row["calls"]) / of_all, slowest,
    )  # fmt: skip


async def commits(*, details: bool) -> None:
    """Print all of it; with `details` also what the server spends on each statement."""
    for directory in dict.fromkeys((tempfile.gettempdir(), str(IN_MEMORY))):
        tempfile.tempdir = directory
        async with EmbeddedPostgres(SERVER) as postgres:
            settings = load(postgres.env())
            admin = await asyncpg.connect(postgres.dsn(), timeout=60)
            try:
                await admin.execute("create extension pg_stat_statements")
                await migrate(admin, settings.db_schema)
                for number, synchronous in enumerate(("on", "off")):
                    print(f"files in {directory}, synchronous_commit = {synchronous}", HEADER, sep="\n", flush=True)
                    chosen = settings.model_copy(update={"db_synchronous_commit": synchronous})
                    await _measure(chosen, admin, first=number * sum(LANES), details=details)
            finally:
                await admin.close()


async def by_lanes(settings: Settings, admin: asyncpg.Connection, numbers: Sequence[int]) -> AsyncIterator[Found]:
    """Of each size, by lanes of these numbers at once."""
    pool = settings.model_copy(update={"db_pool_size": len(numbers)})
    async with PostgresSink.connect(pool, lambda _: None) as sink:
        kinds = [await follow(sink, number) for number in numbers]
        for records in SIZES:
            yield await measured(sink, admin, kinds, records)


async def _measure(settings: Settings, admin: asyncpg.Connection, first: int, *, details: bool) -> None:
    for lanes in LANES:
        async for found in by_lanes(settings, admin, range(first, first + lanes)):
            print(found, flush=True)
            for text, calls, plan_us, run_us in found.slowest if details else ():
                print(f"    {calls:5.2f} calls  plan {plan_us:7.1f} us  run {run_us:7.1f} us  {text}")
        first += lanes
