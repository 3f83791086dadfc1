"""The whole pipeline, to be broken: a simulated Kubernetes API, Apache Kafka, PostgreSQL, a collector, consumers.

    async with pipeline() as world:
        ...                                  # break things; programs that end unasked are started again
        seconds = await world.converged()      # the cluster is at rest, and the database equals it

`servers` are the three ends alone. To stand between a program and an end, open them first and tell the programs another
address:

    async with servers() as ends, Proxy(ends.postgres.port) as proxy:
        async with pipeline(ends, env={"DB_PORT": str(proxy.port)}) as world:

Kafka's clients go where the broker says it is: give `servers` the property `advertised.listeners` for that. The API
lives in this process, the other servers and the programs are children of it. The judge is `tests.support.checker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import tempfile
import time
import uuid
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from clusterinfo.sandbox.kubernetes import SimulatedCluster, SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.populate import churn, populate, serve_few
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from tests.faults.supervised import Kept
from tests.kafka.apache import ApacheKafka
from tests.support import checker
from tests.support.programs import EMPTY, run

ROOT = Path(__file__).parents[2]
PARTITIONS = 6
OBJECTS = 300
KINDS = 12
CONVERGE_TIMEOUT_S = 240.0
ENDINGS_SHOWN = 3
FAILURES = 5
LOOK_S = 0.25
CHURN_S = 0.1
CHURNED_AT_ONCE = 5

GIZMOS = ("gizmos", "churn.example.com")
"""A custom kind that comes and goes with the churn."""
GIZMOS_AT_ONCE = 5
GIZMOS_TURN_S = 5.0

ODD = "odd-"
"""How ConfigMaps are called that hold a number PostgreSQL's numeric refuses: what must be bisected."""
ODD_MEMBER = b'"odd":0.' + b"0" * 16_383 + b"1"  # numeric has 16,383 digits after the point

PROGRAM = (sys.executable, "-m", "tests.faults.program")


@dataclass(frozen=True, slots=True)
class Servers:
    """The three ends. `api.cluster` is the cluster, `api.faults` what goes wrong with it."""

    api: SimulatedKubernetes
    broker: ApacheKafka
    postgres: EmbeddedPostgres


@contextlib.asynccontextmanager
async def servers(
    *, objects: int = OBJECTS, kinds: int = KINDS, seed: int = 0, kafka: Mapping[str, str] | None = None,
    postgres: Mapping[str, str] | None = None,
) -> AsyncIterator[Servers]:  # fmt: skip
    """Start them. `kafka` and `postgres` are further server properties and settings."""
    cluster = SimulatedCluster(seed=seed)
    populate(cluster, objects, kinds, seed)
    serve_few(cluster, EMPTY)
    properties: dict[str, Any] = {"group.min.session.timeout.ms": "500"} | dict(kafka or {})
    async with (
        SimulatedKubernetes(cluster) as api,
        ApacheKafka(**properties) as broker,
        EmbeddedPostgres(settings=postgres) as database,
    ):
        yield Servers(api, broker, database)


@contextlib.asynccontextmanager
async def database(ends: Servers) -> AsyncIterator[asyncpg.Connection]:
    """A connection straight to the server, with search_path set."""
    connection = await checker.connect(ends.postgres.dsn())
    try:
        yield connection
    finally:
        await connection.close()


@dataclass(frozen=True, slots=True)
class Made:
    """A version that an object was given between two moments, seconds since 1970."""

    kind: tuple[str, str]
    """(API group, resource)."""
    key: str
    version: int
    after: float
    before: float


class Churn:
    """Changes a cluster at random while it is on: creates, changes, deletes, recreates; a custom kind comes and goes.

    Attributes: `odd`, how many ConfigMaps that PostgreSQL refuses are replaced at each step.
    """

    def __init__(self, cluster: SimulatedCluster, seed: int = 0) -> None:
        self.odd = 0
        self._steps: list[tuple[int, float, float]] = []
        """Last revision of each step, and when it began and ended."""
        self._cluster = cluster
        self._first = cluster.revision
        self._random = random.Random(seed)
        self._odds: list[tuple[str, str]] = []
        self._task: asyncio.Task[None] | None = None
        self._turn_at = 0.0

    def start(self) -> None:
        """Begin, unless it is on already."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="churn")

    async def stop(self) -> None:
        """End. Raises what went wrong."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()

    def step(self, changes: int = CHURNED_AT_ONCE) -> None:
        """Some changes, now."""
        began = time.time()
        churn(self._cluster, changes, self._random.getrandbits(32))
        self._replace_odd()
        if time.monotonic() >= self._turn_at:
            self._turn_at = time.monotonic() + GIZMOS_TURN_S
            self.turn_gizmos()
        self._steps.append((self._cluster.revision, began, time.time()))

    def made(self) -> Iterator[Made]:
        """The versions that it made of all kinds but the one that comes and goes, whose past goes with it."""
        for resource in self._cluster.resources():
            served = self._cluster.catalog.preferred(resource)
            if served.table == (GIZMOS[1], GIZMOS[0]):
                continue
            for change in self._cluster.table(served).changes_after(0):
                step = bisect_left(self._steps, (change.revision, 0.0, 0.0))
                if change.type != "DELETED" and self._is_of_a_step(change.revision):
                    yield Made(served.table, change.after.key, change.revision, *self._steps[step][1:])

    def _is_of_a_step(self, revision: int) -> bool:
        """What was there before it began was made by nobody."""
        return bool(self._steps) and self._first < revision <= self._steps[-1][0]

    def turn_gizmos(self) -> None:
        """The custom kind comes with a few objects, or goes with all it has."""
        resource = ".".join(GIZMOS)
        if resource in self._cluster.resources():
            self._cluster.remove_crd(*GIZMOS)
            return
        self._cluster.add_crd(*GIZMOS, "Gizmo")
        for number in range(GIZMOS_AT_ONCE):
            metadata = {"name": f"gizmo-{number}", "namespace": "default"}
            self._cluster.create(resource, {"metadata": metadata, "spec": {"size": self._random.random()}})

    def _replace_odd(self) -> None:
        """Others of them in place of the last: a body that was refused once is not asked for again."""
        live = self._cluster.table(self._cluster.catalog.preferred("configmaps")).live
        for namespace, name in self._odds:
            if f"{namespace}/{name}" in live:
                self._cluster.delete("configmaps", namespace, name)
        names = [f"{ODD}{self._random.getrandbits(40):010x}" for _ in range(self.odd)]
        self._odds = [("default", name) for name in names]
        for namespace, name in self._odds:
            self._cluster.create("configmaps", {"metadata": {"name": name, "namespace": namespace}}, ODD_MEMBER)

    async def _run(self) -> None:
        while True:
            self.step()
            await asyncio.sleep(CHURN_S)


@dataclass(slots=True)
class World:
    """A pipeline that runs. `env` is what every program is given; `topic` and `group` are Kafka's."""

    ends: Servers
    env: dict[str, str]
    collector: Kept
    consumers: list[Kept]
    churn: Churn
    directory: Path
    partitions: int = PARTITIONS
    started_at: float = field(default_factory=time.monotonic)

    @property
    def api(self) -> SimulatedKubernetes:
        return self.ends.api

    @property
    def broker(self) -> ApacheKafka:
        return self.ends.broker

    @property
    def postgres(self) -> EmbeddedPostgres:
        return self.ends.postgres

    @property
    def topic(self) -> str:
        return self.env["KAFKA_TOPIC"]

    @property
    def group(self) -> str:
        return self.env["KAFKA_GROUP_ID"]

    @property
    def programs(self) -> list[Kept]:
        return [self.collector, *self.consumers]

    @contextlib.asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection of our own, straight to the server, with search_path set."""
        async with database(self.ends) as connection:
            yield connection

    async def converged(self, timeout_s: float = CONVERGE_TIMEOUT_S) -> float:
        """End the churn and wait until the checker finds nothing; the seconds it took.

        Raises AssertionError with what is still wrong after `timeout_s`, or when a program ends whenever it is started.
        """
        await self.churn.stop()
        began = time.monotonic()
        truth = await checker.truth(self.api.base_url, self.api.token)
        while found := await self._problems(truth):
            if time.monotonic() - began > timeout_s or any(kept.failures >= FAILURES for kept in self.programs):
                ended = list(self.endings())[-ENDINGS_SHOWN:]
                raise AssertionError("\n".join(["not converged:", *found, *ended]))
            await asyncio.sleep(LOOK_S)
        return time.monotonic() - began

    async def caught_up(self, timeout_s: float = CONVERGE_TIMEOUT_S) -> dict[int, int]:
        """Wait until the stored offsets are the ends of the partitions; partition -> lag, all 0.

        The collector must be paused meanwhile (`collector.paused()`), or there is always something new.
        """
        began = time.monotonic()
        while any((lag := await self.lag()).values()) and time.monotonic() - began < timeout_s:
            await asyncio.sleep(LOOK_S)
        return lag

    async def lag(self) -> dict[int, int]:
        """Partition -> messages in Kafka that the stored offset does not cover."""
        async with self.database() as connection:
            return await checker.lag(connection, self.broker.bootstrap, self.topic, self.partitions)

    async def problems(self) -> list[str]:
        """Everything in which the database differs from the API as it is now; empty if nothing does."""
        return await self._problems(await checker.truth(self.api.base_url, self.api.token))

    async def _problems(self, truth: dict[checker.Identity, checker.JSON]) -> list[str]:
        async with self.database() as connection:
            try:
                difference = checker.compare(truth, await checker.live(connection))
                if difference:
                    return [str(difference)]
                even = {identity: item for identity, item in truth.items() if not identity.name.startswith(ODD)}
                found = (await checker.wrong_bodies(connection, even))[: checker.SHOWN]
                found += await checker.wrong_history(connection)
                return found + await unexpected_dead_letters(connection)
            except asyncpg.UndefinedTableError:
                return ["the schema is not there yet"]

    async def leaks(self) -> list[str]:
        """Where a planted secret stands: in a table, or in what a program printed."""
        planted = await checker.secrets(self.api.base_url, self.api.token, self.api.cluster.canaries())
        async with self.database() as connection:
            found = await checker.leaks(connection, planted)
        secrets = checker.Secrets(planted)
        for path in self.logs():
            found += [f"{path.parent.name}: {secret}" for secret in secrets.within(path.read_bytes())]
        return found

    def logs(self) -> Iterator[Path]:
        """What every life of every program wrote to stderr."""
        for kept in self.programs:
            yield from kept.logs()

    def endings(self) -> Iterable[str]:
        """How programs ended of their own accord: a program that was killed had no say in it."""
        for kept in self.programs:
            for ending in kept.endings:
                if ending.code >= 0:
                    yield f"{kept.name} ended with {ending.code} after {ending.seconds:.1f} s: {ending.tail}"


async def unexpected_dead_letters(connection: asyncpg.Connection) -> list[str]:
    """Dead letters of anything but the ConfigMaps that were made to be refused."""
    rows = await connection.fetch(
        "select topic, partition, record_offset, reason from dead_letter "
        "where not starts_with(coalesce(headers->>'name', ''), $1) limit 5",
        ODD,
    )
    return [f"dead letter: {dict(row)}" for row in rows]


@contextlib.asynccontextmanager
async def pipeline(
    ends: Servers | None = None,
    *,
    consumers: int = 3,
    interval: str = "1s",
    follow: bool = False,
    legacy: bool = False,
    partitions: int = PARTITIONS,
    session_timeout_s: float = 2.0,
    env: Mapping[str, str] | None = None,
    collector_env: Mapping[str, str] | None = None,
    consumer_env: Mapping[str, str] | None = None,
    prepare: Callable[[asyncpg.Connection], Awaitable[None]] | None = None,
    seed: int = 0,
) -> AsyncIterator[World]:
    """A collector and consumers on `ends` (its own servers unless given), which have a topic and a group of their own.

    `env` goes to all programs, `collector_env` and `consumer_env` to those; each beats what is set here. Before any
    program starts, the schema is migrated and `prepare` is done to it. The collector lists every `interval`, or follows
    the cluster, and lists what cannot be followed as often; where it is `legacy` it writes into PostgreSQL itself.
    Nothing churns yet: `world.churn.start()`.
    """
    async with contextlib.AsyncExitStack() as stack:
        if ends is None:
            ends = await stack.enter_async_context(servers(seed=seed))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clusterinfo-faults-")))
        shared = _environment(ends, directory, partitions, session_timeout_s) | dict(env or {})
        (await run("migrate", env=shared | ends.postgres.env())).expect(0)  # no proxy stands in that way
        if prepare is not None:
            async with database(ends) as connection:
                await prepare(connection)
        collector = Kept(
            "collect",
            (*PROGRAM, "legacy" if legacy else "collect", *(["--watch"] if follow else ["--interval", interval])),
            shared | {"COLLECT_INTERVAL": interval} | dict(collector_env or {}),
            directory,
        )
        members = [
            Kept(f"consume{number}", (*PROGRAM, "consume"), shared | dict(consumer_env or {}), directory)
            for number in range(consumers)
        ]
        churn = Churn(ends.api.cluster, seed)
        stack.push_async_callback(churn.stop)
        for kept in (collector, *members):
            await stack.enter_async_context(kept)
        yield World(ends, shared, collector, members, churn, directory, partitions)


def _environment(ends: Servers, directory: Path, partitions: int, session_timeout_s: float) -> dict[str, str]:
    name = uuid.uuid4().hex[:8]
    return ends.postgres.env() | {
        "PYTHONPATH": str(ROOT),
        "SESSION_TIMEOUT_S": str(session_timeout_s),
        "KUBECONFIG": str(ends.api.write_kubeconfig(directory / "kubeconfig")),
        "KAFKA_ENABLED": "true",
        "KAFKA_BROKERS": ends.broker.bootstrap,
        "KAFKA_TOPIC": f"topic-{name}",
        "KAFKA_GROUP_ID": f"group-{name}",
        "KAFKA_PARTITION": "auto",
        "KAFKA_TOPIC_PARTITIONS": str(partitions),
        "PAGE_SIZE": "50",
        "BATCH_WAIT": "100ms",
        "METRICS_ADDRESS": "",
    }
