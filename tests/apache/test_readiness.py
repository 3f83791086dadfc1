"""`/readyz` of each command says which end is away, though the command rests; `/livez` is not moved by it."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from clusterinfo.commands import pipelines
from clusterinfo.model import Pace
from clusterinfo.observations import Observation, SnapshotEnded, UnitVerified
from clusterinfo.sandbox.processes import free_port
from clusterinfo.settings import Settings, load
from clusterinfo.telemetry import probes
from clusterinfo.telemetry.server import Telemetry
from tests.conftest import Database
from tests.kafka.apache import ApacheKafka
from tests.support.programs import Api, simulated_api
from tests.support.proxy import Proxy

INTERVAL_S = 0.5
"""Instead of 15 s."""
NEEDS = {"collect": {"Kubernetes", "Kafka"}, "consume": {"Kafka", "PostgreSQL"}, "legacy": {"Kubernetes", "PostgreSQL"}}
Command = Callable[[Settings, Telemetry, asyncio.Event], Awaitable[int]]
COMMANDS: dict[str, Command] = {
    "collect": lambda settings, tell, stop: pipelines.collect(settings, tell.observe, stop, how=Pace.LISTS),
    "consume": lambda settings, tell, stop: pipelines.consume(
        settings, tell.observe, stop, until_idle_s=None, do_migrate=False
    ),
    "legacy": lambda settings, tell, stop: pipelines.legacy(
        settings, tell.observe, stop, how=Pace.LISTS, do_migrate=False
    ),
}


@dataclass(slots=True)
class Serving:
    """A command at its work, and where its endpoints are."""

    address: str
    seen: list[Observation] = field(default_factory=list)

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(f"http://{self.address}{path}") as response:
            return response.status, await response.text()

    def rests(self) -> bool:
        """Everything was done once, and the next run is an hour away."""
        return any(isinstance(one, SnapshotEnded | UnitVerified) for one in self.seen)


@contextlib.asynccontextmanager
async def served(name: str, env: dict[str, str]) -> AsyncIterator[Serving]:
    """A command of ours, until the block ends."""
    serving = Serving(f"127.0.0.1:{free_port()}")
    settings, stopping = load(env | {"METRICS_ADDRESS": serving.address}), asyncio.Event()
    telemetry = Telemetry(serving.seen.append)
    async with telemetry.served(settings, wanted=True):
        task = asyncio.ensure_future(COMMANDS[name](settings, telemetry, stopping))
        try:
            yield serving
        finally:
            stopping.set()
            assert await asyncio.wait_for(task, 60) == 0


@dataclass(frozen=True, slots=True)
class Ends:
    """The three ends, each of which can go and come back."""

    env: dict[str, str]
    kubernetes: Proxy
    postgres: Proxy
    kafka: ApacheKafka

    async def take(self, end: str) -> None:
        if end == "Kafka":
            return await self.kafka.stop("hard")
        return self._proxy(end).refuse()

    async def give_back(self, end: str) -> None:
        if end == "Kafka":
            return await self.kafka.start()
        return await self._proxy(end).restore()

    def _proxy(self, end: str) -> Proxy:
        return {"Kubernetes": self.kubernetes, "PostgreSQL": self.postgres}[end]


@pytest.fixture(scope="module")
async def kafka() -> AsyncIterator[ApacheKafka]:
    """One to take away: each test gives it back."""
    async with ApacheKafka() as started:
        yield started


@pytest.fixture(scope="module")
async def api() -> AsyncIterator[Api]:
    async with simulated_api(30, 8) as started:
        yield started


@pytest.fixture
async def ends(database: Database, kafka: ApacheKafka, api: Api, tmp_path: Path) -> AsyncIterator[Ends]:
    named = f"readiness-{uuid.uuid4().hex[:8]}"
    kafka_env = {"KAFKA_ENABLED": "true", "KAFKA_TOPIC": named, "KAFKA_GROUP_ID": named, "KAFKA_TOPIC_PARTITIONS": "1"}
    async with (
        Proxy(str(urlsplit(api.url).hostname), int(urlsplit(api.url).port or 0)) as kubernetes,
        Proxy(database.env["DB_HOST"], int(database.env["DB_PORT"])) as postgres,
    ):
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(Path(api.kubeconfig).read_text().replace(api.url, f"http://127.0.0.1:{kubernetes.port}"))
        env = database.env | kafka_env | {"KAFKA_BROKERS": kafka.bootstrap, "DB_PORT": str(postgres.port)}
        yield Ends(env | {"KUBECONFIG": str(kubeconfig), "BATCH_WAIT": "100ms"}, kubernetes, postgres, kafka)


async def until(reached: Callable[[], Awaitable[bool]], state: Callable[[], Any]) -> None:
    try:
        async with asyncio.timeout(60):
            while not await reached():
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise AssertionError(state()) from error


@pytest.mark.parametrize("end", ["Kubernetes", "Kafka", "PostgreSQL"])
async def test_readiness_names_the_end_that_is_away(end: str, ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "INTERVAL_S", INTERVAL_S)
    answers: dict[str, tuple[int, str]] = {}
    async with contextlib.AsyncExitStack() as stack:
        env = ends.env | {"COLLECT_INTERVAL": "1h"}
        running = {name: await stack.enter_async_context(served(name, env)) for name in NEEDS}

        async def rest() -> bool:
            return all(one.rests() for one in running.values())

        async def not_ready() -> set[str]:
            answers.update({name: await one.get("/readyz") for name, one in running.items()})
            return {name for name, (status, _) in answers.items() if status == 503}

        async def shows_it() -> bool:
            return await not_ready() == {name for name, needed in NEEDS.items() if end in needed}

        async def well_again() -> bool:
            return await not_ready() == set()

        await until(rest, lambda: {name: one.seen[-5:] for name, one in running.items()})
        assert await well_again()
        await ends.take(end)
        await until(shows_it, lambda: answers)
        assert {await one.get("/livez") for one in running.values()} == {(200, "ok\n")}
        await ends.give_back(end)
        await until(well_again, lambda: answers)


async def test_a_run_that_cannot_begin_is_no_readiness(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "INTERVAL_S", 3600.0)
    async with served("legacy", ends.env | {"COLLECT_INTERVAL": "100ms"}) as serving:

        async def ready() -> bool:
            return serving.rests() and (await serving.get("/readyz"))[0] == 200

        async def not_ready() -> bool:
            status, text = await serving.get("/readyz")
            return status == 503 and "run of lists" in text

        await until(ready, lambda: serving.seen)
        ends.kubernetes.refuse()
        await until(not_ready, lambda: serving.seen[-5:])
        await ends.kubernetes.restore()
        await until(ready, lambda: serving.seen[-5:])


async def test_nobody_is_ready_before_it_is_connected(ends: Ends) -> None:
    """Or a rollout would replace consumers that work by ones that end after 20 s, one after the other."""
    ends.postgres.refuse()
    async with served("consume", ends.env) as serving:

        async def connecting() -> bool:
            return await serving.get("/readyz") == (503, "not connected yet\n")

        async def connected() -> bool:
            return await serving.get("/readyz") == (200, "ok\n")

        await until(connecting, lambda: serving.seen)
        assert await serving.get("/livez") == (200, "ok\n")
        await ends.postgres.restore()
        await until(connected, lambda: serving.seen)
