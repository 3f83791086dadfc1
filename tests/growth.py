"""What an object costs as everything around it grows: `python -m tests.growth WHAT N ...`.

Beside microseconds, which say much about the machine, stand processor time, memory and bytes, which say less of it: the
figures of one column are to be the same in all lines. Each line is a database and a topic of its own.

Processor time has the start of the program in it, about a second: 200 us of each of 5,000 objects.

- size: a cluster of N objects: listed and stored, listed again with nothing changed, and with 1 % changed;
- clusters: `--objects` in N clusters, each of its own CLUSTER_ID, stored by one consumer;
- consumers: N of them store `--objects` of two clusters from 12 partitions;
- history: small batches of changes, as `tests.bench --commits` has them, beside N versions;
- bloat: what a day of changes leaves in the tables of N pods, under the storage parameters that `--try` matches;
- hot: N rows of each small table that batches update (both in `growth_bloat.py`).

CLUSTERINFO_TEST_KAFKA=apache takes Apache Kafka, CLUSTERINFO_TEST_POSTGRES_BIN another PostgreSQL.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import chain

import asyncpg

from clusterinfo.postgres.migrations import migrate
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from clusterinfo.settings import load
from tests.bench import TIMEOUT_S, WAIT, Servers, processor_time, servers
from tests.bench_commits import SERVER, by_lanes
from tests.growth_bloat import of_day, of_hot
from tests.support.past import Past, make_past
from tests.support.programs import Ended, Program, run

SIZES = {
    "size": [5_000, 50_000], "clusters": [1, 10], "consumers": [1, 2, 4], "history": [0, 1_000_000],
    "bloat": [5_000], "hot": [500],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """`objects` of clusters and consumers; the storage parameters whose names match `variants`."""

    objects: int
    variants: str


async def collect(bench: Servers, topic: str, **env: str) -> str:
    """One run of lists; what it cost an object."""
    with processor_time() as cpu_s:
        ended = await run(
            "collect", "--once", env=bench.env(topic, "postgres") | env, timeout_s=TIMEOUT_S, launch=Program
        )
    line = ended.expect(0).logged("Snapshot ended")[0]
    return per_object("collect", line["objects"], line["seconds"], cpu_s[0], ended.peak_mib)


def per_object(what: str, objects: int, seconds: float, cpu_s: float, peak_mib: float) -> str:
    return f"{what} {1e6 * seconds / objects:6.0f} us, CPU {1e6 * cpu_s / objects:5.0f} us, {peak_mib:4.0f} MiB"


async def consume(bench: Servers, topic: str, database: str, consumers: int = 1) -> str:
    """Until nothing is left, by so many consumers; what it cost an object, the most that one had, and bytes of WAL."""
    env = bench.env(topic, database) | WAIT
    place = "select pg_current_wal_insert_lsn()"
    connection = await asyncpg.connect(bench.postgres.dsn(database), timeout=60)
    try:
        before = await connection.fetchval(place)
        with processor_time() as cpu_s:
            one = ("consume", "--until-idle", "3s")
            runs = [run(*one, env=env, timeout_s=TIMEOUT_S, launch=Program) for _ in range(consumers)]
            ended = await asyncio.gather(*runs)
        wal_bytes = await connection.fetchval(place) - before
    finally:
        await connection.close()
    rows, seconds = together(ended)
    peak_mib = max(one.peak_mib for one in ended)
    return f"{per_object('consume', rows, seconds, cpu_s[0], peak_mib)}, WAL {wal_bytes / rows:5.0f} B"


def together(ended: list[Ended]) -> tuple[int, float]:
    """Rows, and seconds from the first claim to the last batch."""
    batches = list(chain.from_iterable(one.expect(0).logged("Batch stored") for one in ended))
    claims = chain.from_iterable(one.logged("Partition claimed") for one in ended)
    began, stopped = (min(map(_at, claims)), max(map(_at, batches)))
    return sum(line["rows_written"] + line["rows_unchanged"] for line in batches), (stopped - began).total_seconds()


def _at(line: dict[str, str]) -> dt.datetime:
    return dt.datetime.fromisoformat(line["timestamp"])


async def of_size(objects: int, _: Options) -> None:
    async with servers(objects) as bench:
        for what, changes in (("new", 0), ("unchanged", 0), ("1 % changed", objects // 100)):
            if changes:
                await bench.api.control("churn", changes=changes)
            collected = await collect(bench, "size")
            print(f"{objects:9,} {what:12} {collected}; {await consume(bench, 'size', 'postgres')}", flush=True)
        connection = await asyncpg.connect(bench.postgres.dsn(), timeout=60)
        size = await connection.fetchval("select pg_database_size(current_database())")
        await connection.close()
        print(f"{objects:9,} {'database':12} {size / objects:,.0f} B an object", flush=True)


async def of_clusters(clusters: int, options: Options) -> None:
    async with servers(options.objects // clusters) as bench:
        for number in range(clusters):
            await collect(bench, "clusters", CLUSTER_ID=f"cluster-{number}", CLUSTER_NAME=f"c{number}")
        print(f"{clusters:9,} {await consume(bench, 'clusters', 'postgres')}", flush=True)


async def of_consumers(consumers: int, options: Options) -> None:
    async with servers(options.objects // 2) as bench:
        for number in range(2):
            await collect(bench, "consumers", CLUSTER_ID=f"cluster-{number}", CLUSTER_NAME=f"c{number}")
        print(f"{consumers:9,} {await consume(bench, 'consumers', 'postgres', consumers)}", flush=True)


async def of_history(versions: int, _: Options) -> None:
    async with EmbeddedPostgres(
        SERVER | {"max_wal_size": "8GB", "fsync": "off", "full_page_writes": "off"}
    ) as postgres:
        settings = load(postgres.env())
        admin = await asyncpg.connect(postgres.dsn(), timeout=60)
        try:
            await admin.execute("create extension pg_stat_statements")
            await migrate(admin, settings.db_schema)
            objects = max(1000, min(25_000, versions))
            await make_past(admin, Past(50, objects, versions // objects, largest=1))
            await admin.execute("reset search_path")
            async for one in by_lanes(settings, admin, [0]):
                cpu = f"CPU of the server {one.server_us:5.0f} us, of the consumer {one.client_us:5.0f} us"
                print(f"{versions:9,} {one.records:3} changes: {one.p50_ms:6.2f} ms, {cpu}", flush=True)
        finally:
            await admin.close()


GROWTHS: dict[str, Callable[[int, Options], Awaitable[None]]] = {
    "size": of_size, "clusters": of_clusters, "consumers": of_consumers, "history": of_history,
    "bloat": lambda pods, options: of_day(pods, options.variants), "hot": lambda rows, _: of_hot(rows),
}  # fmt: skip


async def grow(what: str, sizes: list[int], options: Options) -> None:
    for size in sizes:
        await GROWTHS[what](size, options)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.growth", description=__doc__)
    parser.add_argument("what", choices=GROWTHS)
    parser.add_argument("sizes", nargs="*", type=int, metavar="N", help="how much of it (small ones)")
    parser.add_argument("--objects", type=int, default=20_000, help="of clusters and consumers (default 20,000)")
    parser.add_argument("--try", dest="variants", default="", metavar="PATTERN", help="of bloat: some of them")
    asked = parser.parse_args()
    asyncio.run(grow(asked.what, asked.sizes or SIZES[asked.what], Options(asked.objects, asked.variants)))


if __name__ == "__main__":
    main()
