"""`make bench`: what collecting costs beside downloading, and storing beside COPY; two ratios, measured in one run.

Each side is timed within a process of its own, from its first request to its last answer, so that neither the start of
an interpreter nor the wait for idleness counts; rounds alternate, and medians are compared. `--memory` shows peak
memory at two sizes instead, `--profile` what the time goes to, `--commits` what small batches of changes cost.
CLUSTERINFO_TEST_KAFKA=apache takes Apache Kafka.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import os
import pstats
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import asyncpg

from clusterinfo.postgres.merge.rows import COLUMNS
from clusterinfo.sandbox.broker import EmbeddedBroker
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from tests.bench_commits import commits
from tests.kafka.apache import ApacheKafka
from tests.support import checker
from tests.support.memory import measure
from tests.support.programs import Api, Ended, run, simulated_api, started

LIMIT, CONCURRENCY = "500", 4
"""Defaults of PAGE_SIZE and COLLECT_CONCURRENCY."""
TIMEOUT_S = 600.0
TOP = 15
WAIT = {"BATCH_WAIT": "100ms"}
"""At the end of a partition a batch waits for more, 1 s by default: of a topic that ends here, that is no work."""


@dataclass(slots=True)
class Servers:
    """Where everything runs."""

    postgres: EmbeddedPostgres
    bootstrap: str
    api: Api

    def env(self, topic: str, database: str) -> dict[str, str]:
        kafka = {"KAFKA_ENABLED": "true", "KAFKA_BROKERS": self.bootstrap, "KAFKA_PARTITION": "auto"}
        kafka |= {"KAFKA_TOPIC": topic, "KAFKA_GROUP_ID": database}
        return self.api.env | kafka | self.postgres.env(database)

    async def fresh(self) -> str:
        """A new database."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        admin = await asyncpg.connect(self.postgres.dsn(), timeout=10)
        await admin.execute(f"create database {name}")
        await admin.close()
        return name


@asynccontextmanager
async def servers(objects: int, *arguments: str) -> AsyncIterator[Servers]:
    """`arguments`: further ones of the simulated API."""
    apache = os.environ.get("CLUSTERINFO_TEST_KAFKA") == "apache"
    async with (
        EmbeddedPostgres() as postgres,
        ApacheKafka() if apache else EmbeddedBroker() as broker,
        simulated_api(objects, None, *arguments) as api,
    ):
        yield Servers(postgres, broker.bootstrap, api)


# --- collecting beside downloading -----------------------------------------------------------------------------------


async def download(url: str, token: str) -> float:
    """Seconds to list what `collect` lists, pages of the same size, as many kinds at a time, and throw it away."""
    async with checker.Truth(url, token) as api:
        paths = list((await api.kinds()).values())
    turns = asyncio.Semaphore(CONCURRENCY)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}, auto_decompress=True) as session:

        async def one(path: str) -> None:
            token = ""
            async with turns:
                while True:
                    query = {"limit": LIMIT} | ({"continue": token} if token else {})
                    async with session.get(url + path, params=query) as response:
                        response.raise_for_status()
                        token = _continue(await response.read())
                    if not token:
                        return

        began = time.perf_counter()
        async with asyncio.TaskGroup() as lists:
            for path in paths:
                lists.create_task(one(path))
        return time.perf_counter() - began


def _continue(page: bytes) -> str:
    """The continue token, found without reading the page: metadata stands before items."""
    head = page[:4096]
    at = head.find(b'"continue":"')
    if at < 0 or (0 <= head.find(b'"items"') < at):
        return ""
    return head[at + 12 : head.index(b'"', at + 12)].decode()


async def _downloaded(bench: Servers) -> float:
    argv = (sys.executable, "-m", "tests.bench", f"--download={bench.api.url}", f"--token={bench.api.token}")
    async with started(argv, {"PYTHONPATH": str(Path.cwd())}) as program:
        ended = await program.ended(TIMEOUT_S)
    ended.expect(0)
    return float(ended.stdout)


async def collected(bench: Servers, topic: str) -> float:
    ended = (await run("collect", "--once", env=bench.env(topic, "postgres"), timeout_s=TIMEOUT_S)).expect(0)
    return float(ended.logged("Snapshot ended")[0]["seconds"])


# --- storing beside COPY ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stored:
    """What a consumer did: rows written or seen again, and the seconds from its first claim to its last batch."""

    rows: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


async def _consumed(bench: Servers, topic: str, database: str) -> Stored:
    ended = await run("consume", "--until-idle", "2s", env=bench.env(topic, database) | WAIT, timeout_s=TIMEOUT_S)
    return stored(ended.expect(0))


def stored(ended: Ended) -> Stored:
    batches = ended.logged("Batch stored")
    claims = ended.logged("Partition claimed")
    rows = sum(batch["rows_written"] + batch["rows_unchanged"] for batch in batches)
    times = [dt.datetime.fromisoformat(line["timestamp"]) for line in (claims[0], batches[-1])]
    return Stored(rows, (times[1] - times[0]).total_seconds())


async def _copied(bench: Servers, database: str) -> Stored:
    """The rows of `database`, as binary COPY data made beforehand, into an empty table of the same structure."""
    connection = await checker.connect(bench.postgres.dsn(database))
    try:
        with TemporaryDirectory(prefix="clusterinfo-bench-") as directory:
            data = Path(directory) / "rows"
            await connection.copy_from_table(
                "resource", columns=COLUMNS, output=data, format="binary", timeout=TIMEOUT_S
            )
            await connection.execute("drop table if exists copied; create table copied (like resource including all)")
            began = time.perf_counter()
            await connection.copy_to_table("copied", columns=COLUMNS, source=data, format="binary", timeout=TIMEOUT_S)
            seconds = time.perf_counter() - began
        rows = await connection.fetchval("select count(*) from copied")
        await connection.execute("drop table copied")
        return Stored(rows, seconds)
    finally:
        await connection.close()


# --- what is printed -------------------------------------------------------------------------------------------------


async def collecting(objects: int, rounds: int, *arguments: str) -> str:
    async with servers(objects, *arguments) as bench:
        pairs = [(await _downloaded(bench), await collected(bench, f"collect-{n}")) for n in range(rounds)]
    download_s, collect_s = (statistics.median(side) for side in zip(*pairs, strict=True))
    return f"{download_s:9.2f} s {collect_s:9.2f} s {collect_s / download_s:9.2f}"


async def storing(objects: int, rounds: int) -> tuple[float, ...]:
    """Rows a second: COPY, consume of what is new, consume of what is stored already."""
    found = []
    async with servers(objects) as bench:
        for n in range(rounds):
            database, topic = await bench.fresh(), f"consume-{n}"
            await collected(bench, topic)
            new, copied = await _consumed(bench, topic, database), await _copied(bench, database)
            await collected(bench, topic)
            found.append((copied.rate, new.rate, (await _consumed(bench, topic, database)).rate))
    return tuple(statistics.median(side) for side in zip(*found, strict=True))


async def ratios(objects: int, rounds: int) -> None:
    print(f"{objects:,} objects, medians of {rounds} rounds\n")
    print("                     download     collect     ratio")
    print(f"pages as they are {await collecting(objects, rounds)}")
    print(f"pages gzipped     {await collecting(objects, rounds, '--gzip')}", flush=True)
    copy, new, again = await storing(objects, rounds)
    print("\n                       rows/s     of COPY (wanted: 0.5)")
    print(f"binary COPY         {copy:9,.0f}")
    print(f"consume, all new    {new:9,.0f} {new / copy:9.2f}")
    print(f"consume, all stored {again:9,.0f} {again / copy:9.2f}")


async def memory(sizes: Iterable[int]) -> None:
    print("peak MiB      collect  consume")
    async with servers(100) as bench:
        for objects in sizes:
            peaks = await measure(objects, bench.bootstrap, bench.postgres.env(await bench.fresh()), TIMEOUT_S)
            print(f"{objects:8,}     {peaks.collect_mib:8.0f} {peaks.consume_mib:8.0f}", flush=True)


async def profile(objects: int) -> None:
    async with servers(objects) as bench:
        env = bench.env("profile", await bench.fresh()) | {"PYTHONPATH": str(Path.cwd())}
        for args in (("collect", "--once"), ("consume", "--until-idle", "1s")):
            with TemporaryDirectory(prefix="clusterinfo-bench-") as directory:
                found = f"{directory}/profile"
                argv = (sys.executable, "-m", "cProfile", "-o", found, "-m", "clusterinfo", *args)
                async with started(argv, env) as program:
                    (await program.ended(TIMEOUT_S)).expect(0)
                print(f"\nclusterinfo {' '.join(args)}")
                pstats.Stats(found).strip_dirs().sort_stats("tottime").print_stats(TOP)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--objects", type=int, default=20_000, help="objects of the simulated cluster (default 20,000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side is measured (default 3)")
    parser.add_argument("--memory", action="store_true", help="peak memory at 5,000 and 50,000 objects instead")
    parser.add_argument("--profile", action="store_true", help="what the time of collect and consume goes to instead")
    parser.add_argument("--commits", action="store_true", help="transactions of 1, 10 and 50 changes instead")
    parser.add_argument("--statements", action="store_true", help="with --commits: what the server spends on each")
    parser.add_argument("--download", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--token", help=argparse.SUPPRESS)  # joined by `=`: a random one may begin with a dash
    options = parser.parse_args()
    if options.download:
        print(asyncio.run(download(options.download, options.token)))
    elif options.commits:
        asyncio.run(commits(details=options.statements))
    elif options.memory:
        asyncio.run(memory((5_000, 50_000)))
    elif options.profile:
        asyncio.run(profile(options.objects))
    else:
        asyncio.run(ratios(options.objects, options.rounds))


if __name__ == "__main__":
    main()
