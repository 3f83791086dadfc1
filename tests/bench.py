"""`make bench`: what collecting costs beside downloading, and storing beside COPY; two ratios, measured in one run.

Each side is timed within a process of its own, from its first request to its last answer, so that neither the start of
an interpreter nor the wait for idleness counts; rounds alternate, and medians are compared. Processor time is that of
the whole process, its start included. A MB is one of manifests as the API serves them, before compression, and objects
differ from each other as those of clusters do (`populate`, noise). `--json FILE` has every run. `--memory` shows peak
memory at several sizes instead, `--profile` what the time goes to, `--commits` what small batches of changes cost.
`make bench-peers` (`bench_peers.py`) has other ways to do the same. CLUSTERINFO_TEST_KAFKA=apache takes Apache Kafka.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import pstats
import resource
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
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
from tests.support.rounds import Rounds, Run

LIMIT, CONCURRENCY = "500", 4
"""Defaults of PAGE_SIZE and COLLECT_CONCURRENCY."""
TIMEOUT_S = 1800.0
NOISE = "1024"
"""Digits that nothing compresses, in each object: a page then compresses 7 times, as of real clusters."""
TOP = 15
WAIT = {"BATCH_WAIT": "100ms"}
"""How long a batch waits for more than has come, 20 ms by default: at the end of a topic, that is no work."""


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
        admin = await asyncpg.connect(self.postgres.dsn(), timeout=60)
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
        simulated_api(objects, None, f"--noise={NOISE}", *arguments) as api,
    ):
        yield Servers(postgres, broker.bootstrap, api)


# --- collecting beside downloading -----------------------------------------------------------------------------------


async def download(url: str, token: str, only: str = "") -> float:
    """Seconds to list what `collect` lists, pages of the same size, as many kinds at a time, and throw it away."""
    async with checker.Truth(url, token) as api:
        paths = [only] if only else list((await api.kinds()).values())
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


@contextmanager
def processor_time() -> Iterator[list[float]]:
    """Seconds of it, of the programs that begin and end within the block."""
    found = [0.0]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    yield found
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found[0] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def seconds_of(module: str, *arguments: str) -> float:
    """What a program of ours prints."""
    async with started((sys.executable, "-m", module, *arguments), {"PYTHONPATH": str(Path.cwd())}) as program:
        return float((await program.ended(TIMEOUT_S)).expect(0).stdout)


async def downloaded(bench: Servers, size: Run, only: str = "") -> Run:
    """The download of what a collector took in `size`; `only` pages of that path."""
    arguments = (f"--download={bench.api.url}", f"--token={bench.api.token}", f"--only={only}")
    with processor_time() as cpu_s:
        seconds = await seconds_of("tests.bench", *arguments)
    return replace(size, seconds=seconds, cpu_s=cpu_s[0])


async def collected(bench: Servers, topic: str, **env: str) -> Run:
    with processor_time() as cpu_s:
        ended = await run("collect", "--once", env=bench.env(topic, "postgres") | env, timeout_s=TIMEOUT_S)
    line = ended.expect(0).logged("Snapshot ended")[0]
    return Run(line["objects"], line["size_bytes"], float(line["seconds"]), cpu_s[0])


# --- storing beside COPY ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stored:
    """What a consumer did: rows written or seen again, and the seconds from its first claim to its last batch."""

    rows: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


async def consumed(bench: Servers, topic: str, database: str, size: Run) -> Run:
    env = bench.env(topic, database) | WAIT
    with processor_time() as cpu_s:
        ended = await run("consume", "--until-idle", "2s", env=env, timeout_s=TIMEOUT_S)
    found = stored(ended.expect(0))
    return Run(found.rows, size.size_bytes, found.seconds, cpu_s[0])


def stored(ended: Ended) -> Stored:
    batches = ended.logged("Batch stored")
    claims = ended.logged("Partition claimed")
    rows = sum(batch["rows_written"] + batch["rows_unchanged"] for batch in batches)
    times = [dt.datetime.fromisoformat(line["timestamp"]) for line in (claims[0], batches[-1])]
    return Stored(rows, (times[1] - times[0]).total_seconds())


async def copied(bench: Servers, database: str, size: Run) -> Run:
    """The rows of `database`, as binary COPY data made beforehand, into an empty table of the same structure."""
    connection = await checker.connect(bench.postgres.dsn(database))
    try:
        with TemporaryDirectory(prefix="clusterinfo-bench-") as directory:
            data = Path(directory) / "rows"
            await connection.copy_from_table(
                "resource", columns=COLUMNS, output=data, format="binary", timeout=TIMEOUT_S
            )
            await connection.execute("drop table if exists copied; create table copied (like resource including all)")
            cpu_s, began = time.process_time(), time.perf_counter()
            await connection.copy_to_table("copied", columns=COLUMNS, source=data, format="binary", timeout=TIMEOUT_S)
            seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
        rows = await connection.fetchval("select count(*) from copied")
        await connection.execute("drop table copied")
        return Run(rows, size.size_bytes, seconds, cpu_s)
    finally:
        await connection.close()


# --- what is printed -------------------------------------------------------------------------------------------------


async def collecting(objects: int, rounds: int, *arguments: str) -> Rounds:
    found = Rounds("download")
    async with servers(objects, *arguments) as bench:
        for n in range(rounds):
            size = await collected(bench, f"collect-{n}")
            found.add("download", await downloaded(bench, size))
            found.add("collect", size)
    return found


async def storing(objects: int, rounds: int) -> Rounds:
    found = Rounds("COPY")
    async with servers(objects) as bench:
        for n in range(rounds):
            database, topic = await bench.fresh(), f"consume-{n}"
            size = await collected(bench, topic)
            new = await consumed(bench, topic, database, size)
            found.add("COPY", await copied(bench, database, size))
            found.add("consume, all new", new)
            await collected(bench, topic)
            found.add("consume, all unchanged", await consumed(bench, topic, database, size))
    return found


async def ratios(objects: int, rounds: int, into: str) -> None:
    print(f"{objects:,} objects, medians of {rounds} rounds", flush=True)
    found = {"pages as they are": await collecting(objects, rounds)}
    show("pages as they are", found["pages as they are"])
    found["pages gzipped"] = await collecting(objects, rounds, "--gzip")
    show("pages gzipped", found["pages gzipped"])
    found["storing"] = await storing(objects, rounds)
    show("storing", found["storing"])
    write(into, objects, found)


def show(what: str, found: Rounds) -> None:
    print(f"\n{what}; the ratio is to {found.base}", *found.lines(), sep="\n", flush=True)


def write(into: str, objects: int, found: Mapping[str, Rounds]) -> None:
    """All runs as JSON; nothing without a file."""
    if into:
        text = {"objects": objects, "noise": NOISE} | {what: rounds.as_json() for what, rounds in found.items()}
        Path(into).write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


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
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is measured (default 5)")
    parser.add_argument("--json", default="", metavar="FILE", help="write every run there")
    parser.add_argument("--memory", metavar="N,...", help="peak memory at so many objects instead (5000,50000,300000)")
    parser.add_argument("--profile", action="store_true", help="what the time of collect and consume goes to instead")
    parser.add_argument("--commits", action="store_true", help="transactions of 1, 10 and 50 changes instead")
    parser.add_argument("--statements", action="store_true", help="with --commits: what the server spends on each")
    parser.add_argument("--download", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--token", help=argparse.SUPPRESS)  # joined by `=`: a random one may begin with a dash
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.download:
        print(asyncio.run(download(options.download, options.token, options.only)))
    elif options.commits:
        asyncio.run(commits(details=options.statements))
    elif options.memory:
        asyncio.run(memory([int(size) for size in options.memory.split(",")]))
    elif options.profile:
        asyncio.run(profile(options.objects))
    else:
        asyncio.run(ratios(options.objects, options.rounds, options.json))


if __name__ == "__main__":
    main()
