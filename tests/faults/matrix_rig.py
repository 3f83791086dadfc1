"""The rig that faults are injected into: a pipeline whose roads to Kafka and PostgreSQL lead through proxies.

It also knows what a fault cost, from what the programs logged, and what must hold after every round.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import asyncpg
import orjson

from clusterinfo import observations as seen
from clusterinfo.sandbox.processes import free_port
from clusterinfo.telemetry.logs import MESSAGES
from tests.faults.pipeline import OBJECTS, PARTITIONS, Servers, World, pipeline, servers
from tests.support.proxy import Proxy

GROUP = "faults-matrix"
"""One database has one consumer group, and all pipelines of a run share the database."""
RECOVERY_TIMEOUT_S = 200.0
"""The longest of the program's own deadlines is that of a database command, 90 s; two may follow one another."""
START_TIMEOUT_S = 150.0
INTERVAL = "2s"
"""Of the collector: what recovery is measured against. Shorter, and two cores are busy with lists alone."""
LOOK_S = 0.25
RESTARTS_ALLOWED = 3
"""Of one program in one round; more is a crash loop."""
MEMORY_MIB = 300.0
"""A program of this pipeline takes 100 MiB; three times that is no longer explained by retries."""

_seeds = itertools.count(1)
"""Of the churn: two pipelines on one cluster must not make objects of one name."""

LOGGED = {
    MESSAGES[seen.Retrying][1]: "retries",
    MESSAGES[seen.LaneRestarted][1]: "lanes begun again",
    MESSAGES[seen.LaneLost][1]: "lanes released",
    MESSAGES[seen.ListRestarted][1]: "lists begun again",
    MESSAGES[seen.UnitFailed][1]: "kinds unverified",
    MESSAGES[seen.DeadLettered][1]: "dead letters",
    MESSAGES[seen.OffsetGap][1]: "gaps",
    "the Kafka consumer broke down": "consumers rebuilt",
    MESSAGES[seen.RunFailed][1]: "runs begun again",
    MESSAGES[seen.PartitionsAssigned][1]: "assignments",
}
"""What a log line begins with -> what it is counted as."""


@dataclass(frozen=True, slots=True)
class Ends:
    """Servers behind proxies. `postgres_proxy` and `kafka_proxy` are the only roads that programs know."""

    servers: Servers
    kafka_proxy: Proxy
    postgres_proxy: Proxy


@contextlib.asynccontextmanager
async def ends(objects: int = OBJECTS) -> AsyncIterator[Ends]:
    """Servers of its own, until the block ends, and a cluster of that many objects."""
    port = free_port()  # Kafka must know where its clients see it before it starts
    async with (
        servers(objects=objects, kafka={"advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}"}) as three,
        Proxy(three.broker.host, three.broker.port, port=port) as kafka,
        Proxy(three.postgres.host, three.postgres.port) as postgres,
    ):
        yield Ends(three, kafka, postgres)


@dataclass(slots=True)
class Rig:
    """A pipeline to break. `problems` and `ended_at_s` are the fault's to set: what it saw, when it was over."""

    ends: Ends
    world: World
    is_small: bool
    problems: list[str] = field(default_factory=list)
    ended_at_s: float = 0.0

    @property
    def kafka(self) -> Proxy:
        return self.ends.kafka_proxy

    @property
    def postgres(self) -> Proxy:
        return self.ends.postgres_proxy

    @property
    def connections(self) -> int:
        """Made so far, to both."""
        return self.kafka.accepted + self.postgres.accepted

    async def stop_kafka(self, mode: Literal["clean", "hard"]) -> None:
        """Nobody listens at its address any more."""
        await self.world.broker.stop(mode)
        self.kafka.refuse()

    async def start_kafka(self) -> None:
        await self.world.broker.start()
        await self.kafka.restore()

    async def stop_postgres(self) -> None:
        """As by `pg_ctl -m immediate`; nobody listens at its address any more."""
        await self.world.postgres.stop("immediate")
        self.postgres.refuse()

    async def start_postgres(self) -> None:
        await self.world.postgres.start()
        await self.postgres.restore()

    def is_over(self) -> None:
        """From now on it recovers."""
        self.ended_at_s = time.monotonic()


async def _disown(connection: asyncpg.Connection) -> None:
    """The cluster belonged to the topic of the pipeline before; it is the next one's."""
    await connection.execute("update cluster set topic = ''")


@contextlib.asynccontextmanager
async def rig(on: Ends, *, partitions: int = PARTITIONS, is_small: bool) -> AsyncIterator[Rig]:
    """A pipeline on these servers with a topic of its own, converged."""
    env = {
        "DB_PORT": str(on.postgres_proxy.port),
        "KAFKA_BROKERS": f"{on.kafka_proxy.host}:{on.kafka_proxy.port}",
        "KAFKA_GROUP_ID": GROUP,
    }
    async with pipeline(
        on.servers, partitions=partitions, env=env, interval=INTERVAL, seed=next(_seeds), prepare=_disown
    ) as world:
        await world.collector.wait_for_output("Snapshot ended", START_TIMEOUT_S)
        for consumer in world.consumers:
            await consumer.wait_for_output("Partition claimed", START_TIMEOUT_S)
        await world.converged()
        yield Rig(on, world, is_small)


# --- what it cost ----------------------------------------------------------------------------------------------------


class Log:
    """What the programs say from now on, and how they fare."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sizes = {path: path.stat().st_size for path in world.logs()}
        self._endings = {kept.name: len(kept.endings) for kept in world.programs}

    def costs(self) -> Counter[str]:
        """How often what was logged, and how often a program ended unasked."""
        costs: Counter[str] = Counter()
        for path in self._world.logs():
            for line in _lines(path, self._sizes.get(path, 0)):
                costs.update(_counted(line))
        costs["restarts"] = sum(self.restarts().values())
        return +costs

    def batch_seconds(self) -> float:
        """What a batch took to be stored, its median."""
        lines = [line for path in self._world.logs() for line in _lines(path, self._sizes.get(path, 0))]
        batches = [line for line in lines if line["msg"] == "Batch stored"]
        assert batches, "no batch was stored"
        return float(statistics.median(line["copy_s"] + line["merge_s"] + line["commit_s"] for line in batches))

    def restarts(self) -> dict[str, int]:
        """Program -> how often it ended of its own accord."""
        return {
            kept.name: sum(ending.code >= 0 for ending in kept.endings[self._endings[kept.name] :])
            for kept in self._world.programs
        }


def _lines(path: Path, offset: int) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        file.seek(offset)
        return [orjson.loads(line) for line in file if line.startswith(b"{") and line.endswith(b"}\n")]


def _counted(line: dict[str, Any]) -> list[str]:
    message = str(line["msg"])
    if message == "List ended":
        return ["lists failed"] if line["outcome"] != "completed" else []
    return [name for beginning, name in LOGGED.items() if message.startswith(beginning)]


def peak_mib(world: World) -> float:
    """The largest resident memory any running program ever had."""
    return max((_high_water_kib(kept.pid) for kept in world.programs if kept.pid), default=0) / 1024


def _high_water_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:  # it has just ended
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


# --- what must hold --------------------------------------------------------------------------------------------------

UNPROVEN = "select resource || ': ' || state from freshness where state not in ('verified', 'excluded', 'gone') limit 5"

TWICE = """
    select namespace, name, resource_version, count(*) from (
        select unit_id, namespace, name, uid, resource_version from resource_history
        union all
        select unit_id, namespace, name, uid, resource_version from resource where not deleted
    ) versions
    group by unit_id, namespace, name, uid, resource_version having count(*) > 1 limit 5
"""
"""A version that is there twice: stored twice, or deleted and back again, which no object of Kubernetes can be."""


async def recovered(of: Rig) -> float:
    """Wait until the database equals the API and every kind is verified; seconds since the fault was over.

    Raises AssertionError with what is still wrong after 200 s.
    """
    await of.world.converged(RECOVERY_TIMEOUT_S)
    async with of.world.database() as connection:
        while unproven := [row[0] for row in await connection.fetch(UNPROVEN)]:
            assert time.monotonic() - of.ended_at_s < RECOVERY_TIMEOUT_S, f"not verified again: {unproven}"
            await asyncio.sleep(LOOK_S)
    return time.monotonic() - of.ended_at_s


async def judged(of: Rig, log: Log) -> list[str]:
    """What is wrong although the database equals the API; empty if nothing is."""
    async with of.world.database() as connection:
        found = [f"a version is there twice: {tuple(row)}" for row in await connection.fetch(TWICE)]
    found += [f"{name} ended {n} times" for name, n in log.restarts().items() if n > RESTARTS_ALLOWED]
    found += [f"{kept.name} does not run" for kept in of.world.programs if kept.pid is None]
    if (mib := peak_mib(of.world)) > MEMORY_MIB:
        found.append(f"a program took {mib:.0f} MiB")
    return of.problems + found
