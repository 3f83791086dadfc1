"""A cluster that is followed into PostgreSQL, through Kafka and directly: rows, history, who, what is known of it."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from clusterinfo.commands.pipelines import collect, consume, legacy
from clusterinfo.kafka.consumer.connection import CONSUMER
from clusterinfo.kubernetes import collector, following
from clusterinfo.model import Pace
from clusterinfo.observations import Drifted, ListEnded, Observation, WatchFailing, WatchLost, WatchRecovered
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.settings import Settings, load
from clusterinfo.telemetry.logs import MESSAGES
from tests.conftest import Database
from tests.integration.lists import configmap
from tests.integration.test_troubleshooting import ENTRIES
from tests.support import checker

KINDS = "configmaps,secrets,namespaces"
CRDS = "customresourcedefinitions.apiextensions.k8s.io"
GADGETS = "gadgets.shop.example.com"
PARTITIONS, MORE_PARTITIONS = 4, 12


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

    def __init__(self, api: SimulatedKubernetes, connection: asyncpg.Connection, settings: Settings) -> None:
        self.api = api
        self.connection = connection
        self.settings = settings
        self.seen: list[Observation] = []
        self.stopping = asyncio.Event()
        self.first_stopping = asyncio.Event()
        """Ends the first collector."""
        self.kinds = KINDS.split(",")
        self.running: list[asyncio.Task[int]] = []

    def start(self, program: Coroutine[Any, Any, int]) -> None:
        self.running.append(asyncio.create_task(program))

    def start_collector(self, stopping: asyncio.Event | None = None) -> None:
        """It is the last of what runs. `stopping`: what ends it, if not what ends everything."""
        stopping = stopping or self.stopping
        if self.settings.kafka_enabled:
            self.start(collect(self.settings, self.seen.append, stopping, how=Pace.FOLLOW))
        else:
            self.start(legacy(self.settings, self.seen.append, stopping, how=Pace.FOLLOW, do_migrate=False))

    async def kill_collector(self) -> None:
        """End it where it stands, without a word to anybody."""
        killed = self.running.pop()
        killed.cancel()
        await asyncio.wait([killed])

    async def settled(self) -> None:
        """Equal to the cluster and followed, and nothing had to be corrected."""
        await self.until_equal()
        await self.until_followed()
        await self.until_equal()
        assert [one for one in self.seen if isinstance(one, Drifted)] == []
        assert await checker.wrong_history(self.connection) == []
        assert await self.connection.fetchval("select count(*) from dead_letter") == 0

    async def until(self, holds: Callable[[], Awaitable[bool]], what: Callable[[], Awaitable[Any]]) -> None:
        try:
            async with asyncio.timeout(120):
                while not await holds():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(await what()) from None

    async def differences(self) -> set[tuple[str, ...]]:
        """What cluster and database do not have in common, of the kinds that are followed."""
        rows = await self.connection.fetch("select resource, namespace, name, uid, resource_version from resources")
        stored = {tuple(value or "" for value in row.values()) for row in rows}
        known = {kind.split(".")[0] for kind in self.kinds}
        true = {
            (one.resource, one.namespace, one.name, one.uid, one.resource_version)
            for one in self.api.cluster.identities()
            if one.resource in known
        }
        return stored ^ true

    async def until_equal(self) -> None:
        async def equal() -> bool:
            return not await self.differences()

        await self.until(equal, self.differences)

    async def freshness(self) -> dict[str, tuple[str, bool]]:
        rows = await self.connection.fetch("select api_group, resource, state, following from freshness")
        return {f"{row[1]}.{row[0]}".strip("."): (row["state"], row["following"]) for row in rows}

    async def until_followed(self) -> None:
        async def followed() -> bool:
            found = await self.freshness()
            return {found.get(kind) for kind in self.kinds} == {("verified", True)}

        await self.until(followed, self.freshness)

    async def until_state(self, kind: str, state: str) -> None:
        async def reached() -> bool:
            return (await self.freshness()).get(kind) == (state, False)

        await self.until(reached, self.freshness)

    async def until_followed_by(self, sessions: int) -> None:
        """Until so many sessions, in all, have followed every kind."""

        async def followed() -> bool:
            counts = await sessions_each()
            return len(counts) == len(self.kinds) and {row["count"] for row in counts} == {sessions}

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
    api: SimulatedKubernetes, database: Database, env: dict[str, str], kubeconfig: Path
) -> AsyncIterator[Live]:
    given = {"KUBECONFIG": str(api.write_kubeconfig(kubeconfig)), "INCLUDE": KINDS, "BATCH_WAIT": "20ms"}
    settings = load(database.env | given | {"COLLECT_INTERVAL": "2s"} | env)
    live = Live(api, await database.connect(), settings)
    if settings.kafka_enabled:
        live.start(consume(settings, live.seen.append, live.stopping, until_idle_s=None, do_migrate=False))
    live.start_collector(live.first_stopping)
    try:
        yield live
    finally:
        live.first_stopping.set()
        live.stopping.set()
        async with asyncio.timeout(60):
            codes = await asyncio.gather(*live.running)
        await live.connection.close()
        assert set(codes) == {0}


@pytest.fixture
def given() -> dict[str, str]:
    """Settings of a test's own."""
    return {}


@pytest.fixture(params=["through Kafka", "directly"])
async def live(
    request: pytest.FixtureRequest,
    api: SimulatedKubernetes,
    database: Database,
    kafka_env: dict[str, str],
    given: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Live]:
    monkeypatch.setattr(following, "PROGRESS_S", 0.5)
    monkeypatch.setitem(CONSUMER, "metadata_max_age_ms", 1000)
    kafka = kafka_env | {"KAFKA_TOPIC_PARTITIONS": str(PARTITIONS)} if request.param == "through Kafka" else {}
    async with lived(api, database, kafka | given, tmp_path / "kubeconfig") as running:
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


@pytest.mark.parametrize("way", ["through Kafka", "directly"])
async def test_what_is_listed_namespace_by_namespace(
    api: SimulatedKubernetes,
    database: Database,
    kafka_env: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """One watch follows all of it, where it is numbered beside the lists; else it is listed time and again."""
    monkeypatch.setattr(following, "PROGRESS_S", 0.5)
    api.cluster.create_namespace("cart")
    api.cluster.create("configmaps", configmap("one", namespace="cart"))
    api.faults.expire_token("configmaps", times=None)
    follows = way == "through Kafka"
    env = {"PAGE_SIZE": "60", "INCLUDE": "configmaps,namespaces", "RESYNC_INTERVAL": "4s"} | (
        kafka_env if follows else {}
    )

    async with lived(api, database, env, tmp_path / "kubeconfig") as live:

        async def reaches() -> dict[str, tuple[str, bool]]:
            found = await live.connection.fetch("select * from freshness where resource = 'configmaps'")
            return {row["reach"]: (row["state"], row["following"]) for row in found}

        async def as_it_should() -> bool:
            found = await reaches()
            return found.pop("", None) == ("failed", False) and set(found.values()) == {("verified", follows)}

        await live.until(as_it_should, reaches)
        api.cluster.create_namespace("later")
        api.cluster.create("configmaps", configmap("new", namespace="later"))
        api.cluster.delete("configmaps", "cart", "one")
        live.kinds = ["configmaps", "namespaces"]
        await live.until_equal()

        def lists() -> int:
            return sum(isinstance(one, ListEnded) and one.reach == "cart" for one in live.seen)

        before = lists()
        while lists() < before + 2:
            await asyncio.sleep(0.05)
        await live.until(as_it_should, reaches)
        await live.until_equal()
        assert [one for one in live.seen if isinstance(one, Drifted)] == []


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


# --- while it is followed --------------------------------------------------------------------------------------------


async def killed_and_started(live: Live) -> None:
    await live.kill_collector()
    cluster = live.api.cluster
    cluster.delete("configmaps", "shop", "cm-01")
    cluster.recreate("configmaps", "shop", "cm-02")
    cluster.create("secrets", configmap("while it was away"))
    live.start_collector()


async def resources_come_change_and_go(live: Live) -> None:
    cluster = live.api.cluster
    cluster.add_crd("gadgets", "shop.example.com", "Gadget")
    cluster.create(GADGETS, {"metadata": {"name": "one", "namespace": "shop"}, "spec": {}})
    live.kinds.append(GADGETS)
    await live.settled()
    (entry,) = cluster.catalog.group("shop.example.com").versions[0]["resources"]  # type: ignore[union-attr]
    cluster.catalog.remove_custom("shop.example.com", "gadgets")
    cluster.catalog.add_custom("shop.example.com", ["v2"], entry)
    cluster.drop_watches(GADGETS)
    cluster.update(CRDS, "", GADGETS, {"spec": {"versions": [{"name": "v2", "served": True, "storage": True}]}})
    cluster.update(GADGETS, "shop", "one", {"spec": {"x": 1}})
    cluster.create(GADGETS, {"metadata": {"name": "two", "namespace": "shop"}, "spec": {}})
    await live.settled()
    cluster.remove_crd("gadgets", "shop.example.com")
    live.kinds.remove(GADGETS)
    await live.until_state(GADGETS, "gone")
    assert await live.connection.fetchval("select count(*) from resources where resource = 'gadgets'") == 0


async def a_namespace_goes_with_all_in_it(live: Live) -> None:
    cluster = live.api.cluster
    cluster.create_namespace("cart")
    for number in range(20):
        cluster.create("configmaps", configmap(f"c-{number}", namespace="cart"))
        cluster.create("secrets", configmap(f"s-{number}", namespace="cart"))
    await live.settled()
    for number in range(20):
        cluster.delete("configmaps", "cart", f"c-{number}")
        cluster.delete("secrets", "cart", f"s-{number}")
    cluster.delete("namespaces", "", "cart")


async def a_role_is_taken_away_and_given_back(live: Live) -> None:
    cluster = live.api.cluster
    live.api.faults.forbid("secrets")
    cluster.drop_watches("secrets")
    await live.until_state("secrets", "forbidden")
    cluster.create("secrets", configmap("unseen"))
    cluster.delete("secrets", "shop", "after-0")
    live.api.faults.clear()


async def the_token_is_exchanged(live: Live) -> None:
    kubeconfig = live.settings.kubeconfig
    assert kubeconfig is not None
    kubeconfig.write_text(kubeconfig.read_text().replace(live.api.token, "another"))
    live.api.users = {"another": "admin"}
    for kind in live.kinds:
        live.api.cluster.drop_watches(kind)
    live.api.cluster.create("secrets", configmap("after the token"))


async def there_are_more_partitions(live: Live) -> None:
    if not live.settings.kafka_enabled:
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=live.settings.kafka_brokers)
    await admin.start()
    try:
        await admin.create_partitions({live.settings.kafka_topic: NewPartitions(MORE_PARTITIONS)})
    finally:
        await admin.close()
    live.api.cluster.create("configmaps", configmap("among more"))

    async def sessions() -> int:
        found = await live.connection.fetchval("select count(*) from watch_session where partition >= $1", PARTITIONS)
        return int(found)

    async def spread() -> bool:
        return await sessions() > 0

    await live.until(spread, sessions)


CHANGES = [
    resources_come_change_and_go,
    a_namespace_goes_with_all_in_it,
    a_role_is_taken_away_and_given_back,
    the_token_is_exchanged,
    there_are_more_partitions,
    killed_and_started,  # the last: what it followed counts as followed until it was silent for two minutes
]


@pytest.mark.parametrize("given", [{"INCLUDE": f"{KINDS},{CRDS},*.example.com", "RESYNC_INTERVAL": "4s"}])
async def test_whatever_changes_around_it_it_is_followed_again_and_nothing_was_missed(
    live: Live, given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del given
    monkeypatch.setattr(collector, "DISCOVER_AFTER_S", 0.2)
    live.kinds.append(CRDS)
    await live.settled()
    for number, change in enumerate(CHANGES):
        await change(live)
        live.api.cluster.update("configmaps", "shop", "cm-10", {"data": {"after": change.__name__}})
        live.api.cluster.create("secrets", configmap(f"after-{number}"))
        await live.settled()


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
    first = live.running[-1]
    live.start_collector()
    await live.until_followed_by(2)
    await changes.more(150)
    live.first_stopping.set()
    assert await first == 0
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
