"""A cluster that is followed, under load: `python -m tests.faults.trial [--seconds 600] [--rate 100] [--calm]`.

5,000 objects of 12 kinds, changes of every sort, Apache Kafka, two consumers. Unless it is to be calm, the ends fail in
turn: watches are cut, expire, are throttled, fall silent or say garbage; the API, PostgreSQL and twice the broker are
started again; programs are killed. In the end the database has to equal the cluster; every version that was made has to
be stored once, unless its kind was not being followed then, and none twice.

With `--legacy` nothing fails, and one program stores what it sees without Kafka.

Each kind is listed again every minute meanwhile, and what a list corrects (drift) has to be nothing.

The delay of a change is the time from the change to the commit of its row, by PostgreSQL's times of commits, of what
was changed while no fault lasted. Every version differs from the last, so that each is history as soon as it is
superseded, by a commit that is the successor's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import quantiles

import asyncpg

from clusterinfo import observations as seen
from clusterinfo.sandbox.kubernetes import SimulatedCluster
from clusterinfo.telemetry.logs import MESSAGES
from tests.faults.pipeline import World, pipeline, servers
from tests.faults.rest import processor_s
from tests.support.forkserver import forking

OBJECTS, CONSUMERS = 5000, 2
WARM_UP_S = 20.0
FAULT_EVERY_S = 40.0
STEP_S = 0.01
AFTERMATH_S = 1.0
SHOWN = 20
RESYNC = "60s"
WANTED_P99_S = 0.25
FIXED = frozenset(("namespaces", "nodes", "customresourcedefinitions"))
OPERATIONS = {"update": 7, "recreate": 1, "delete": 1, "create": 1}

STORED = """
select uid, resource_version::bigint as version, extract(epoch from pg_xact_commit_timestamp(xmin))::float8 as at
from resource_history where resource_version ~ '^\\d{1,18}$'
"""
NEWEST = """
select concat_ws('.', unit.resource, nullif(unit.api_group, '')), max(resource.resource_version::bigint)
from resource join unit on unit.id = resource.unit_id where resource_version ~ '^\\d{1,18}$' group by 1
"""
PRESENT = "select resource_version::bigint from resource where body is not null and resource_version ~ '^\\d{1,18}$'"


@dataclass(slots=True)
class Changes:
    """What is changed, when: uid -> (version or revision of the deletion, time), in order."""

    cluster: SimulatedCluster
    rate: float
    random: random.Random
    made: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    deletions: set[int] = field(default_factory=set)
    kinds: dict[int, str] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    """Kind -> its newest version, deletions aside."""
    operations: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        """Until it is cancelled."""
        due, then = 0.0, time.monotonic()
        while True:
            now = time.monotonic()
            due, then = due + (now - then) * self.rate, now
            for _ in range(int(due)):
                self.change()
            due %= 1
            await asyncio.sleep(STEP_S)

    def change(self) -> None:
        """One object, at random."""
        cluster = self.cluster
        counts = {name: cluster.count(name) for name in cluster.resources() if name.partition(".")[0] not in FIXED}
        [resource] = self.random.choices(list(counts), list(counts.values()))
        stored = cluster.table(cluster.catalog.preferred(resource)).pick(self.random.random())
        [operation] = self.random.choices(list(OPERATIONS), list(OPERATIONS.values()))
        self.operations[operation] += 1
        body = cluster.get(resource, stored.namespace, stored.name)
        at = time.time()
        if operation in ("delete", "recreate"):
            self._note(resource, body["metadata"]["uid"], cluster.delete(resource, stored.namespace, stored.name), at)
            self.deletions.add(self.made[body["metadata"]["uid"]][-1][0])
        if operation == "update":
            made = cluster.update(resource, stored.namespace, stored.name)
        elif operation == "delete":
            return
        else:
            name = stored.name if operation == "recreate" else f"{stored.name[:40]}-{self.random.getrandbits(40):010x}"
            kept = {key: body["metadata"][key] for key in ("labels", "annotations") if key in body["metadata"]}
            place = {"namespace": stored.namespace} if stored.namespace else {}
            made = cluster.create(resource, {**body, "metadata": kept | place | {"name": name}})
        self._note(resource, made.uid, int(made.resource_version), at)
        self.newest[resource] = int(made.resource_version)

    def _note(self, resource: str, uid: str, version: int, at: float) -> None:
        self.made.setdefault(uid, []).append((version, at))
        self.kinds[version] = resource


@dataclass(slots=True)
class Span:
    """A fault: from when to when. `blinds`: the kinds of which versions may be lost meanwhile; "": any."""

    name: str
    begins: float
    ends: float = 0.0
    blinds: str | None = None


class Faults:
    """What goes wrong, one after the other."""

    def __init__(self, world: World, changes: Changes, kinds: list[str], rng: random.Random) -> None:
        self.world = world
        self.changes = changes
        self.random = rng
        self.kinds = kinds
        self.spans: list[Span] = []

    def plan(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """For ever."""
        while True:
            yield from (
                self.cut, self.broker, self.expire, self.throttle, self.consumer, self.api, self.garbage, self.postgres,
                self.silence, self.collector, self.broker,
            )  # fmt: skip

    async def run(self) -> None:
        """Until it is cancelled."""
        for fault in self.plan():
            await asyncio.sleep(FAULT_EVERY_S)
            span = Span(fault.__name__, time.time())
            self.spans.append(span)
            await fault()
            await asyncio.sleep(AFTERMATH_S)
            async with self.world.database() as connection:
                await self._until_caught_up(connection, dict(self.changes.newest))
            span.ends = time.time() + AFTERMATH_S
            print(f"  {span.name}: {span.ends - AFTERMATH_S - span.begins:.1f} s until all is followed", flush=True)

    async def _until_caught_up(self, connection: asyncpg.Connection, newest: dict[str, int]) -> None:
        """Until every kind is followed, and what was changed after the fault is stored: kind -> its version then."""
        query = "select count(*) from freshness where state = 'verified' and not following"
        while True:
            try:
                stored = dict(await connection.fetch(NEWEST))
                is_stored = all(stored.get(kind, 0) >= version for kind, version in newest.items())
                if is_stored and await connection.fetchval(query) == 0:
                    return
            except (asyncpg.PostgresError, OSError, asyncpg.InterfaceError):
                connection = await asyncpg.connect(self.world.postgres.dsn())
                await connection.execute("set search_path = clusterinfo")
            await asyncio.sleep(0.2)

    async def cut(self) -> None:
        for kind in self.kinds:
            self.world.api.faults.cut_watch(kind)

    async def expire(self) -> None:
        """The server starts again and knows no version of the past."""
        self.spans[-1].blinds = ""
        self.world.api.cluster.compact()
        for kind in self.kinds:
            self.world.api.cluster.drop_watches(kind)

    async def throttle(self) -> None:
        for kind in self.kinds:
            self.world.api.faults.throttle(kind, times=3)
            self.world.api.cluster.drop_watches(kind)

    async def garbage(self) -> None:
        self.spans[-1].blinds = self.kinds[0]
        self.world.api.faults.say_on_watch(self.kinds[0], "garbage")

    async def silence(self) -> None:
        self.world.api.faults.silence_watch(self.kinds[1], 5.0)

    async def api(self) -> None:
        await self.world.api.stop()
        await asyncio.sleep(3)
        await self.world.api.start()

    async def broker(self) -> None:
        await self.world.broker.stop()
        await asyncio.sleep(2)
        await self.world.broker.start()

    async def postgres(self) -> None:
        await self.world.postgres.stop("immediate")
        await asyncio.sleep(1)
        await self.world.postgres.start()

    async def consumer(self) -> None:
        self.random.choice(self.world.consumers).signal(signal.SIGKILL)

    async def collector(self) -> None:
        self.spans[-1].blinds = ""
        self.world.collector.signal(signal.SIGKILL)


def seconds_until_back(of: Span, until: float, delays: list[tuple[float, float]]) -> int | None:
    """Whole seconds from a fault's beginning after which the p99 of each second stays as wanted; None: never."""
    by_second: dict[int, list[float]] = {}
    for at, delay in delays:
        if of.begins <= at < until - AFTERMATH_S:  # what comes last has the next fault's delay
            by_second.setdefault(int(at - of.begins), []).append(delay)
    slow = [second for second, found in by_second.items() if sorted(found)[int(len(found) * 0.99)] > WANTED_P99_S]
    back = max(slow, default=-1) + 1
    return back if back <= max(by_second, default=-1) else None


def drifted(world: World) -> int:
    """How many times a list had something to correct in what was followed."""
    said = MESSAGES[seen.Drifted][1]
    return sum(path.read_text().count(said) for path in world.logs())


def shown(delays: list[float]) -> dict[str, float]:
    """Milliseconds."""
    if len(delays) < 2:
        return {}
    cut = quantiles(delays, n=1000, method="inclusive")
    return {"p50_ms": round(cut[499] * 1e3, 1), "p90_ms": round(cut[899] * 1e3, 1), "p99_ms": round(cut[989] * 1e3, 1),
            "max_ms": round(max(delays) * 1e3, 1)}  # fmt: skip


async def judged(world: World, changes: Changes, spans: list[Span], began: float) -> dict[str, object]:
    """Figures, and what is wrong."""
    async with world.database() as connection:
        rows = await connection.fetch(STORED)
        present = [row[0] for row in await connection.fetch(PRESENT)]
    stored = Counter([*(row["version"] for row in rows), *present])
    superseded = {(row["uid"], row["version"]): row["at"] for row in rows}
    all_delays, missing, blind = list[tuple[float, float]](), list[str](), 0
    for uid, versions in changes.made.items():
        for (before, _), (_, at) in pairwise(versions):
            committed = superseded.get((uid, before))
            if committed is not None and at > began:
                all_delays.append((at, committed - at))
        for version, at in versions:
            if version in changes.deletions or stored[version]:
                continue
            kind = changes.kinds[version]
            if any(s.blinds in ("", kind) and s.begins - 1 <= at <= s.ends for s in spans if s.blinds is not None):
                blind += 1
            elif at > began:
                missing.append(f"{kind} {uid} {version}")
    delays = [delay for at, delay in all_delays if not any(span.begins <= at <= span.ends for span in spans)]
    ends = [*(span.begins for span in spans[1:]), float("inf")]
    back = [(span.name, seconds_until_back(span, end, all_delays)) for span, end in zip(spans, ends, strict=False)]
    return {
        "changes": sum(map(len, changes.made.values())),
        "operations": dict(changes.operations),
        "delay": {"measured": len(delays)} | shown(delays),
        "seconds until p99 is back": back,
        "drift": drifted(world),
        "missing": missing[:SHOWN],
        "missing_count": len(missing),
        "twice": [version for version, count in stored.items() if count > 1][:SHOWN],
        "made while not followed, not stored": blind,
    }


def processor_times(world: World) -> dict[str, float]:
    """Program -> seconds of processor time of its present life."""
    return {kept.name: processor_s(kept.pid) for kept in world.programs if kept.pid is not None}


async def unfollowed(connection: asyncpg.Connection) -> int:
    """How many kinds are not followed."""
    return int(await connection.fetchval("select count(*) from freshness where state = 'verified' and not following"))


async def trial(
    seconds: float, rate: float, *, calm: bool, legacy: bool, seed: int, batch_wait: str
) -> dict[str, object]:
    """Run it; the figures."""
    rng, env = random.Random(seed), {"RESYNC_INTERVAL": RESYNC, "BATCH_WAIT": batch_wait}
    ways = {"consumers": 0 if legacy else CONSUMERS, "legacy": legacy}
    async with (
        servers(objects=OBJECTS, seed=seed, postgres={"track_commit_timestamp": "on"}) as ends,
        pipeline(ends, interval="30s", follow=True, seed=seed, env=env, **ways) as world,  # type: ignore[arg-type]
    ):
        await world.converged()
        changes = Changes(ends.api.cluster, rate, rng)
        kinds = [name for name in ends.api.cluster.resources() if ends.api.cluster.count(name)]
        faults = Faults(world, changes, kinds, rng)
        async with world.database() as connection:
            while await unfollowed(connection):
                await asyncio.sleep(0.2)
        running = asyncio.create_task(changes.run())
        await asyncio.sleep(min(WARM_UP_S, seconds / 4))
        began, used = time.time(), processor_times(world)
        failing = None if calm else asyncio.create_task(faults.run())
        await asyncio.sleep(seconds)
        used = {name: spent - used[name] for name, spent in processor_times(world).items()} if calm else {}
        for task in filter(None, (failing, running)):
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()
        for span in faults.spans:
            span.ends = span.ends or time.time()
        took = await world.converged()
        figures = await judged(world, changes, faults.spans, began)
        a_change = {name: round(spent / seconds / rate * 1e6) for name, spent in used.items()}
        return (
            figures
            | {"processor_us_a_change": a_change}
            | {"converged_s": round(took, 1), "endings": list(world.endings())}
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.trial", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rate", type=float, default=100, help="changes a second")
    parser.add_argument("--calm", action="store_true", help="nothing fails")
    parser.add_argument("--legacy", action="store_true", help="without Kafka; nothing fails")
    parser.add_argument("--batch-wait", default="20ms", help="BATCH_WAIT of the consumers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    with forking():
        figures = asyncio.run(
            trial(
                given.seconds,
                given.rate,
                calm=given.calm or given.legacy,
                legacy=given.legacy,
                seed=given.seed,
                batch_wait=given.batch_wait,
            )
        )
    text = json.dumps(figures, indent=2)
    print(text)
    if given.report:
        given.report.write_text(text + "\n")
    sys.exit(bool(figures["missing"] or figures["twice"] or figures["drift"]))


if __name__ == "__main__":
    main()
