"""A cluster that is followed into PostgreSQL, through Kafka and directly: rows, history, who, what is known of it."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from clusterinfo.commands.pipelines import collect, consume, legacy
from clusterinfo.kubernetes import following
from clusterinfo.model import Pace
from clusterinfo.observations import ListEnded, Observation, WatchFailing, WatchLost, WatchRecovered
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.settings import load
from clusterinfo.telemetry.logs import MESSAGES
from tests.conftest import Database
from tests.integration.lists import configmap
from tests.integration.test_troubleshooting import ENTRIES
from tests.support import checker

KINDS = "configmaps,secrets,namespaces"


@pytest.fixture
async def api() -> AsyncIterator[SimulatedKubernetes]:
    cluster = SimulatedCluster(seed=1)
    cluster.create_namespace("shop")
    for number in range(60):
        cluster.create("configmaps", configmap(f"cm-{number:02}"))
    async with SimulatedKubernetes(cluster, bookmark_interval_s=0.2) as serving:
        yield serving


class Live:
    """A cluster, and the database that follows it."""

    def __init__(self, api: SimulatedKubernetes, connection: asyncpg.Connection, seen: list[Observation]) -> None:
        self.api = api
        self.connection = connection
        self.seen = seen

    async def until(self, holds: Callable[[], Awaitable[bool]], what: Callable[[], Awaitable[Any]]) -> None:
        try:
            async with asyncio.timeout(40):
                while not await holds():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(await what()) from None

    async def differences(self) -> set[tuple[str, ...]]:
        """What cluster and database do not have in common, of the kinds that are followed."""
        rows = await self.connection.fetch("select resource, namespace, name, resource_version from resources")
        stored = {tuple(value or "" for value in row.values()) for row in rows}
        known = set(KINDS.split(","))
        true = {
            (one.resource, one.namespace, one.name, one.resource_version)
            for one in self.api.cluster.identities()
            if one.resource in known
        }
        return stored ^ true

    async def until_equal(self) -> None:
        async def equal() -> bool:
            return not await self.differences()

        await self.until(equal, self.differences)

    async def freshness(self) -> dict[str, tuple[str, bool]]:
        rows = await self.connection.fetch("select resource, state, following from freshness")
        return {row["resource"]: (row["state"], row["following"]) for row in rows}

    async def until_followed(self) -> None:
        async def followed() -> bool:
            found = await self.freshness()
            return {found.get(kind) for kind in KINDS.split(",")} == {("verified", True)}

        await self.until(followed, self.freshness)


@asynccontextmanager
async def lived(
    api: SimulatedKubernetes, database: Database, env: dict[str, str], kubeconfig: Path, *, through_kafka: bool
) -> AsyncIterator[Live]:
    given = {"KUBECONFIG": str(api.write_kubeconfig(kubeconfig)), "INCLUDE": KINDS, "BATCH_WAIT": "20ms"}
    given |= {"COLLECT_INTERVAL": "2s"}
    settings, stopping, seen = load(env | database.env | given), asyncio.Event(), list[Observation]()
    connection = await database.connect()
    if through_kafka:
        running = [
            collect(settings, seen.append, stopping, how=Pace.FOLLOW),
            consume(settings, seen.append, stopping, until_idle_s=None, do_migrate=False),
        ]
    else:
        running = [legacy(settings, seen.append, stopping, how=Pace.FOLLOW, do_migrate=False)]
    tasks = [asyncio.create_task(one) for one in running]
    try:
        yield Live(api, connection, seen)
    finally:
        stopping.set()
        async with asyncio.timeout(60):
            codes = await asyncio.gather(*tasks)
        await connection.close()
        assert set(codes) == {0}


@pytest.fixture(params=["through Kafka", "directly"])
async def live(
    request: pytest.FixtureRequest,
    api: SimulatedKubernetes,
    database: Database,
    kafka_env: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Live]:
    monkeypatch.setattr(following, "PROGRESS_S", 0.5)
    through_kafka = request.param == "through Kafka"
    env = kafka_env if through_kafka else {}
    async with lived(api, database, env, tmp_path / "kubeconfig", through_kafka=through_kafka) as running:
        yield running


async def test_every_change_is_a_row_and_every_version_history_once(live: Live) -> None:
    await live.until_equal()
    await live.until_followed()
    rng, cluster = random.Random(3), live.api.cluster
    versions: list[tuple[str, str]] = []
    names = [f"cm-{number:02}" for number in range(60)]
    for step in range(200):
        name = rng.choice(names)
        if step in (50, 150):
            live.api.faults.cut_watch("configmaps")
        if rng.random() < 0.15:
            made = cluster.recreate("configmaps", "shop", name)
        else:
            made = cluster.update("configmaps", "shop", name, {"data": {"text": f"step {step}"}})
        versions.append((name, made.resource_version))
        await asyncio.sleep(0.005)
    cluster.delete("configmaps", "shop", names[0])
    await live.until_equal()
    stored = await live.connection.fetch(
        "select name, resource_version from resource_history union all select name, resource_version from resource"
    )
    counted = [(row["name"], row["resource_version"]) for row in stored]
    for version in versions:
        assert counted.count(version) == 1, version
    assert sum(isinstance(one, ListEnded) and one.resource == "configmaps" for one in live.seen) == 1
    await live.until_followed()
    assert await checker.wrong_history(live.connection) == []


async def test_who_changed_it_is_in_the_row(live: Live) -> None:
    await live.until_equal()
    fields = [{"manager": "kubectl-edit", "operation": "Update", "time": "2030-01-02T03:04:05Z", "fieldsV1": {}}]
    live.api.cluster.update("configmaps", "shop", "cm-09", {"data": {"x": "y"}, "metadata": {"managedFields": fields}})
    await live.until_equal()
    row = await live.connection.fetchrow("select changed_by, changed_at from resources where name = 'cm-09'")
    assert row is not None
    assert (row["changed_by"], row["changed_at"].isoformat()) == ("kubectl-edit", "2030-01-02T03:04:05+00:00")


async def test_what_is_not_followed_any_more_is_shown_and_followed_again(live: Live) -> None:
    await live.until_equal()
    await live.until_followed()
    live.api.faults.say_on_watch("configmaps", "garbage")
    live.api.cluster.delete("configmaps", "shop", "cm-11")
    live.api.cluster.create("configmaps", configmap("cm-99"))
    await live.until_equal()
    await live.until_followed()
    assert sum(isinstance(one, ListEnded) and one.resource == "configmaps" for one in live.seen) == 2


async def test_a_watch_that_keeps_failing_is_shown_with_its_error(live: Live) -> None:
    await live.until_followed()
    live.api.faults.forbid("configmaps", verb="watch")
    live.api.cluster.drop_watches("configmaps")
    live.api.cluster.create("configmaps", configmap("meanwhile"))
    await live.until_equal()
    entry = ENTRIES["A watch keeps failing"]
    (query,) = re.findall(r"```sql\n(.*?)```", entry, re.DOTALL)

    async def shown() -> list[tuple[str, str | None]]:
        return [(row["resource"], row["last_error"]) for row in await live.connection.fetch(query)]

    async def is_shown() -> bool:
        found = await shown()
        return [resource for resource, _ in found] == ["configmaps"] and "403" in str(found[0][1])

    await live.until(is_shown, shown)
    assert [one.resource for one in live.seen if isinstance(one, WatchLost)] == ["configmaps"]
    for kind in (WatchFailing, WatchLost, WatchRecovered):
        assert f"`{MESSAGES[kind][1]}`" in entry
    live.api.faults.clear()
    await live.until_followed()
    assert (await live.connection.fetchval("select max(last_error) from freshness")) is None
