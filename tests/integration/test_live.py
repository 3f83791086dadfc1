"""A cluster that is followed into PostgreSQL, through Kafka and directly: rows, history, who, what is known of it."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from clusterinfo.commands.pipelines import collect, consume, legacy
from clusterinfo.kubernetes import following
from clusterinfo.model import Pace
from clusterinfo.observations import Drifted, ListEnded, Observation
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.settings import load
from tests.conftest import Database
from tests.integration.lists import configmap
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


Command = Callable[[asyncio.Event], Coroutine[Any, Any, int]]


@asynccontextmanager
async def until_left(command: Command) -> AsyncIterator[None]:
    """A command that runs until the block ends; then it is asked to stop."""
    stopping = asyncio.Event()
    task = asyncio.create_task(command(stopping))
    try:
        yield
    finally:
        stopping.set()
        async with asyncio.timeout(60):
            assert await task == 0


class Live:
    """A cluster, and the database that follows it; `collects` is a collector, to be run again beside the first."""

    def __init__(
        self,
        api: SimulatedKubernetes,
        connection: asyncpg.Connection,
        seen: list[Observation],
        collects: Command,
        first: AsyncExitStack,
    ) -> None:
        self.api = api
        self.connection = connection
        self.seen = seen
        self.collects = collects
        self.first = first
        """Has the first collector; closing it ends that."""

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

    async def until_followed_by(self, sessions: int) -> None:
        """Until so many sessions, in all, have followed every kind."""

        async def followed() -> bool:
            counts = await sessions_each()
            return len(counts) == len(KINDS.split(",")) and {row["count"] for row in counts} == {sessions}

        async def sessions_each() -> list[asyncpg.Record]:
            query = "select unit_id, count(distinct session_id) from coverage group by 1"
            return list(await self.connection.fetch(query))

        await self.until(followed, sessions_each)

    async def missed(self, since: dt.datetime, until: dt.datetime) -> list[tuple[dt.datetime, dt.datetime]]:
        """In which ConfigMaps were not followed, once it was heard what came until then."""

        async def heard() -> bool:
            query = "select max(heard) from followed() where resource = 'configmaps' and begins_at is not null"
            return bool(await self.connection.fetchval(query) > until)

        await self.until(heard, self.freshness)
        query = "select begins_at, ends_at from not_observed($1, $2) where resource = 'configmaps'"
        return [tuple(row) for row in await self.connection.fetch(query, since, until)]

    async def claimed_until(self, session: int) -> dt.datetime:
        """Up to when that session, of those that there were, is said to have followed anything."""
        found: dt.datetime = await self.connection.fetchval(
            "select max(coalesce(c.ends_at, f.heard)) from coverage c left join followed() f using (id) "
            "join watch_session s on s.id = c.session_id "
            "where s.session = (select session from watch_session group by 1 order by 1 offset $1 limit 1)",
            session,
        )
        return found


@asynccontextmanager
async def lived(
    api: SimulatedKubernetes, database: Database, env: dict[str, str], kubeconfig: Path, *, through_kafka: bool
) -> AsyncIterator[Live]:
    given = {"KUBECONFIG": str(api.write_kubeconfig(kubeconfig)), "INCLUDE": KINDS, "BATCH_WAIT": "20ms"}
    settings, seen = load(env | database.env | given), list[Observation]()
    connection = await database.connect()

    def collects(stopping: asyncio.Event) -> Coroutine[Any, Any, int]:
        if through_kafka:
            return collect(settings, seen.append, stopping, how=Pace.FOLLOW)
        return legacy(settings, seen.append, stopping, how=Pace.FOLLOW, do_migrate=False)

    def consumes(stopping: asyncio.Event) -> Coroutine[Any, Any, int]:
        return consume(settings, seen.append, stopping, until_idle_s=None, do_migrate=False)

    async with AsyncExitStack() as stack:
        stack.push_async_callback(connection.close)
        if through_kafka:
            await stack.enter_async_context(until_left(consumes))
        first = await stack.enter_async_context(AsyncExitStack())
        await first.enter_async_context(until_left(collects))
        yield Live(api, connection, seen, collects, first)


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


class Changes:
    """Changes of the ConfigMaps as long as nobody cancels `task`: half of them are of five objects."""

    def __init__(self, cluster: SimulatedCluster, pause_s: float) -> None:
        self.made: list[tuple[str, str, dt.datetime]] = []
        """Name and resourceVersion of each version, and when it was made."""
        self.task = asyncio.create_task(self._change(cluster, pause_s))

    async def _change(self, cluster: SimulatedCluster, pause_s: float) -> None:
        rng = random.Random(7)
        while True:
            name = f"cm-{rng.randrange(5 if len(self.made) % 2 else 60):02}"
            if rng.random() < 0.15:
                made = cluster.recreate("configmaps", "shop", name)
            else:
                made = cluster.update("configmaps", "shop", name, {"data": {"text": f"step {len(self.made)}"}})
            self.made.append((name, made.resource_version, dt.datetime.now(dt.UTC)))
            await asyncio.sleep(pause_s)

    async def more(self, count: int) -> None:
        enough = len(self.made) + count
        while len(self.made) < enough:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("live", ["through Kafka"], indirect=True)
async def test_two_collectors_at_once_do_no_harm(live: Live) -> None:
    """As in a rolling update: the second begins while the first follows, and goes on when that has ended.

    A list of one may overtake what the other watches: of two versions of an object that are late the first is lost.
    """
    await live.until_followed()
    began = dt.datetime.now(dt.UTC)
    changes = Changes(live.api.cluster, 0.01)
    await changes.more(30)
    async with until_left(live.collects):
        await live.until_followed_by(2)
        await changes.more(150)
        await live.first.aclose()
        first_ended = dt.datetime.now(dt.UTC)
        await changes.more(100)
        changes.task.cancel()
        await live.until_equal()
        missed = await live.missed(began, dt.datetime.now(dt.UTC))
    counts = Counter(
        (row["name"], row["resource_version"])
        for row in await live.connection.fetch(
            "select name, resource_version from resource_history union all select name, resource_version from resource"
        )
    )
    assert [made for made in changes.made if counts[made[:2]] > 1] == []
    lost = [made for made in changes.made if not counts[made[:2]]]
    assert [made for made in lost if not any(begin <= made[2] <= end for begin, end in missed)] == []
    assert await checker.wrong_history(live.connection) == []
    assert [one for one in live.seen if isinstance(one, Drifted)] == []
    assert await live.claimed_until(session=0) <= first_ended
