"""A cluster that is followed, over real sockets: what is said of it, whatever its server does meanwhile.

The sink numbers what is watched, as Kafka's does; a copy of the cluster is kept by the rules of the merge.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from clusterinfo.errors import FatalError, RestartError
from clusterinfo.kubernetes import collector as collector_module
from clusterinfo.kubernetes import following, watch_health
from clusterinfo.kubernetes.client import KubernetesClient
from clusterinfo.kubernetes.collector import Collector
from clusterinfo.kubernetes.live import FOLLOWED, State
from clusterinfo.kubernetes.watch import WatchContext
from clusterinfo.model import Batch, ListLane, Receipt, Record, RecordType, Unit, WatchLane, list_start
from clusterinfo.observations import (
    ListEnded,
    Observation,
    RunScheduled,
    WatchesCounted,
    WatchFailing,
    WatchInterrupted,
    WatchLost,
    WatchRecovered,
)
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.statements import ListCompleted, SnapshotCompleted, WatchEnded, WatchProgress, read
from tests.integration.lists import MakeSettings, Stored, configmap

pytestmark = pytest.mark.embedded_only

KINDS = ["configmaps", "secrets", "namespaces", "customresourcedefinitions.apiextensions.k8s.io", "*.example.com"]
Key = tuple[str, str, str, str]


class Numbered(Stored):
    """A sink in memory with one partition, which numbers what is watched before it waits."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 1
        self.is_renewed = False

    async def write(self, batch: Batch) -> Receipt:
        if isinstance(batch.lane, WatchLane):
            records = [msgspec.structs.replace(one, number=n) for n, one in enumerate(batch.records, start=self.number)]
            self.number += len(records)
            batch = msgspec.structs.replace(batch, records=records)
        return await super().write(batch)

    def next_number(self, lane: WatchLane) -> int:
        return self.number

    def progress_lane(self, lane: WatchLane) -> tuple[WatchLane, int]:
        return WatchLane(Unit(lane.unit.cluster, "", ""), "", lane.session), 0

    def numbers_with(self, lane: WatchLane, listed: ListLane) -> bool:
        return True

    async def renewed(self) -> bool:
        is_renewed, self.is_renewed = self.is_renewed, False
        return is_renewed


class Copy:
    """What a reader knows after `records`: rows by the rules of the merge, and which kinds are followed since when."""

    def __init__(self, records: list[Record]) -> None:
        self.rows: dict[Key, tuple[int, str, bool]] = {}
        self.followed: dict[str, list[int]] = {}
        self.corrected: list[Key] = []
        """What a list beside a watch changed: nothing, if the watch said everything."""
        self._reaches = set[tuple[str, str]]()
        """Of the followed kinds, those that were proven."""
        self._lists: dict[str, set[Key]] = {}
        for record in records:
            self._add(record)

    def _add(self, record: Record) -> None:
        if record.is_object:
            self._add_object(record)
        elif record.type is RecordType.LIST_COMPLETED:
            self._complete(record)
        elif record.type is RecordType.WATCH_ENDED:
            for unit in read(record, WatchEnded).units:
                kind = _dotted(unit.group, unit.resource)
                rows = self.followed.get(kind, [])
                rows[:] = [number for number in rows if number > record.number]
                self._reaches = {one for one in self._reaches if one[0] != kind or rows}

    def _add_object(self, record: Record) -> None:
        key = (record.group, record.resource, record.namespace, record.name)
        self._lists.setdefault(record.list, set()).add(key)
        row, live_at = self.rows.get(key), int(record.list_version)
        if row is None or live_at > row[0]:
            is_new = row is None or row[1] != record.resource_version
            kind = _dotted(record.group, record.resource)
            if record.list and is_new and self._reaches & {(kind, ""), (kind, record.namespace)}:
                self.corrected.append(key)
            self.rows[key] = (live_at, record.resource_version, record.type is RecordType.DELETED)

    def _complete(self, record: Record) -> None:
        unit, version = (record.group, record.resource), int(record.list_version)
        statement = read(record, ListCompleted)
        named = self._lists.get(record.list, set())
        assert statement.count == len(named)
        rows = self.followed.setdefault(_dotted(*unit), [])
        for key, (live_at, _, deleted) in list(self.rows.items()):
            if key[:2] == unit and record.reach in ("", key[2]) and live_at < version:
                if (_dotted(*unit), record.reach) in self._reaches and not deleted:
                    self.corrected.append(key)
                del self.rows[key]
        if statement.session:
            rows.append(statement.from_)
            self._reaches.add((_dotted(*unit), record.reach))

    def live(self) -> set[tuple[str, str, str, str, str]]:
        return {(*key, version) for key, (_, version, deleted) in self.rows.items() if not deleted}


def _dotted(group: str, resource: str) -> str:
    return f"{resource}.{group}" if group else resource


class Following:
    """A collector that follows, its sink, and the cluster it follows."""

    def __init__(self, collector: Collector, api: SimulatedKubernetes, sink: Numbered, seen: list[Observation]) -> None:
        self.collector = collector
        self.api = api
        self.sink = sink
        self.seen = seen
        self.stopping = asyncio.Event()
        self.task = asyncio.create_task(collector.follow(self.stopping, sink))

    @property
    def copy(self) -> Copy:
        return Copy(self.sink.records)

    def states(self) -> dict[str, State]:
        followers = self.collector._followers
        return {lane.unit.dotted: one.state for lane, one in followers._all.items()} if followers else {}

    def truth(self) -> set[tuple[str, str, str, str, str]]:
        known = set(self.states())
        return {
            (one.group, one.resource, one.namespace, one.name, one.resource_version)
            for one in self.api.cluster.identities()
            if _dotted(one.group, one.resource) in known
        }

    def observed(self, kind: type[Observation]) -> list[Any]:
        return [one for one in self.seen if isinstance(one, kind)]

    def lists_of(self, resource: str) -> int:
        return sum(one.resource == resource for one in self.observed(ListEnded))

    async def until(self, holds: Callable[[], bool], within_s: float = 120) -> None:
        try:
            async with asyncio.timeout(within_s):
                while not holds():
                    assert not self.task.done(), self.task
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{self.states()} {self.seen[-5:]}") from None

    async def until_followed(self, *but: str) -> None:
        def followed() -> bool:
            states = self.states()
            return "configmaps" in states and all(one in FOLLOWED for name, one in states.items() if name not in but)

        await self.until(followed)

    async def until_equal(self) -> None:
        await self.until(lambda: self.copy.live() == self.truth())

    async def stop(self) -> None:
        self.stopping.set()
        async with asyncio.timeout(60):
            await asyncio.wait([self.task])
        self.task.result()


Follow = Callable[..., Awaitable[Following]]


@pytest.fixture
async def follow(api: SimulatedKubernetes, make_settings: MakeSettings) -> AsyncIterator[Follow]:
    api.resources._bookmark_interval_s = 0.1
    async with AsyncExitStack() as stack:

        async def begin(**given: Any) -> Following:
            settings = make_settings(**{"include": KINDS, **given})
            client = await stack.enter_async_context(KubernetesClient.connect(settings))
            sink, seen = Numbered(), list[Observation]()
            following = Following(Collector(client, sink, settings, seen.append), api, sink, seen)
            stack.push_async_callback(following.stop)
            return following

        yield begin


async def test_it_is_listed_once_and_what_changes_comes_by_itself(follow: Follow) -> None:
    run = await follow()
    await run.until_followed()
    await run.until_equal()
    cluster = run.api.cluster
    cluster.create("configmaps", configmap("new"))
    cluster.update("configmaps", "shop", "cm-03", {"data": {"text": "y"}})
    cluster.delete("configmaps", "shop", "cm-04")
    cluster.recreate("configmaps", "shop", "cm-05")
    await run.until_equal()
    progress, *watched = [one for one in run.sink.records if one.number]
    assert read(progress, WatchProgress).interval_s == 15, "said as soon as anything is followed, and not 15 s later"
    assert [(one.name, one.type) for one in watched] == [
        ("new", RecordType.OBSERVED),
        ("cm-03", RecordType.OBSERVED),
        ("cm-04", RecordType.DELETED),
        ("cm-05", RecordType.DELETED),
        ("cm-05", RecordType.OBSERVED),
    ]
    assert [one.number for one in watched] == [2, 3, 4, 5, 6]
    assert {one.manager for one in watched} != {""}
    assert run.lists_of("configmaps") == 1
    [session] = {one.session for one in watched}
    [completed] = [
        one for one in run.sink.records if one.type is RecordType.LIST_COMPLETED and one.resource == "secrets"
    ]
    statement = read(completed, ListCompleted)
    assert (statement.session, statement.from_) == (session, 1)
    assert statement.seen is not None
    assert statement.seen <= completed.observed_at


async def test_what_changes_while_it_is_listed_is_sent_after_the_list(follow: Follow) -> None:
    run = await follow(include=["configmaps"])

    async def change(batch: Batch) -> None:
        if batch.list and batch.start == 0:
            for number in range(5):
                run.api.cluster.update("configmaps", "shop", f"cm-{number:02}", {"data": {"text": "changed"}})
            run.api.cluster.delete("configmaps", "shop", "cm-24")
            await asyncio.sleep(0.3)

    run.sink.before_write = change
    await run.until_followed()
    await run.until_equal()
    types = [
        one.type for one in run.sink.records if (one.is_object and one.number) or one.type is RecordType.LIST_COMPLETED
    ]
    assert types == [RecordType.LIST_COMPLETED, *[RecordType.OBSERVED] * 5, RecordType.DELETED]


async def test_a_connection_that_ends_is_opened_again_without_a_list(follow: Follow) -> None:
    run = await follow()
    await run.until_followed()
    faults, cluster = run.api.faults, run.api.cluster
    faults.cut_watch("configmaps")
    cluster.create("configmaps", configmap("cut"))
    await run.until_equal()
    faults.throttle("configmaps", retry_after_s=1)
    faults.fail("configmaps", 503, times=1, verb="watch")
    cluster.drop_watches("configmaps")
    cluster.create("configmaps", configmap("later"))
    await run.until_equal()
    assert run.lists_of("configmaps") == 1
    assert len(run.observed(WatchInterrupted)) >= 3
    assert not run.observed(WatchLost)


@pytest.mark.parametrize("how", ["expired", "garbage", "too large"])
async def test_a_watch_that_cannot_go_on_is_said_to_have_ended_and_its_kind_listed(follow: Follow, how: str) -> None:
    run = await follow()
    await run.until_followed()
    cluster = run.api.cluster
    if how == "expired":
        run.api.faults.fail("configmaps", 503, times=1, verb="watch")
        cluster.drop_watches("configmaps")
        cluster.delete("configmaps", "shop", "cm-07")
        cluster.compact()
    else:
        line = {
            "garbage": "garbage",
            "too large": '{"type":"ERROR","object":{"code":504,"message":"Too large resource version: 9"}}',
        }
        run.api.faults.say_on_watch("configmaps", line[how])
        cluster.delete("configmaps", "shop", "cm-07")
    await run.until(lambda: run.lists_of("configmaps") == 2)
    await run.until_followed()
    cluster.create("configmaps", configmap("after"))
    await run.until_equal()
    [ended] = [one for one in run.sink.records if one.type is RecordType.WATCH_ENDED]
    assert [one.resource for one in read(ended, WatchEnded).units] == ["configmaps"]
    assert len(run.copy.followed["configmaps"]) == 1, "the second list opens what the end of the first does not close"
    assert run.lists_of("secrets") == 1


async def test_a_role_is_taken_away_and_given_back(follow: Follow) -> None:
    run = await follow(collect_interval=0.5)
    await run.until_followed()
    run.api.faults.forbid("secrets")
    run.api.cluster.drop_watches("secrets")
    await run.until(lambda: run.states()["secrets"] is State.FORBIDDEN)
    assert run.copy.followed["secrets"] == []
    run.api.faults.clear()
    await run.until_followed()
    run.api.cluster.create("secrets", configmap("again"))
    await run.until_equal()


@pytest.mark.parametrize("how", ["503", "401", "garbage"])
async def test_a_watch_that_keeps_failing_is_told_once_and_its_kind_listed_meanwhile(
    follow: Follow, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(collector_module, "WatchContext", partial(WatchContext, silence_s=2.0))
    monkeypatch.setattr(watch_health, "FAILING_AFTER_S", 1.0)
    monkeypatch.setattr(following, "OVERDUE_AFTER_S", 0.1)
    monkeypatch.setattr(following, "PROGRESS_S", 0.1)
    run = await follow(collect_interval=0.5)
    await run.until_followed()
    if how == "garbage":
        run.api.faults.say_on_watch("configmaps", "garbage", times=None)
    else:
        run.api.faults.fail("configmaps", int(how), verb="watch")
    run.api.cluster.drop_watches("configmaps")
    run.api.cluster.create("configmaps", configmap("meanwhile"))
    await run.until(lambda: run.lists_of("configmaps") >= 4)
    await run.until_equal()
    assert run.lists_of("secrets") == 1
    if how != "garbage":
        assert run.copy.followed["configmaps"] == []
        lists = [one for one in run.sink.records if one.type is RecordType.LIST_COMPLETED]
        [*_, last] = [read(one, ListCompleted) for one in lists if one.resource == "configmaps"]
        assert how in last.unfollowed

    def told(*kinds: type[Observation]) -> list[str]:
        return [one.resource for kind in kinds for one in run.observed(kind)]

    assert told(WatchFailing, WatchLost) == ["configmaps"]
    await run.until(lambda: run.observed(WatchesCounted)[-1].failing == 1)
    run.api.faults.clear()
    await run.until_followed()
    await run.until(lambda: told(WatchRecovered) == ["configmaps"])
    await run.until(lambda: run.observed(WatchesCounted)[-1].failing == 0)
    listed = run.lists_of("configmaps")
    run.api.cluster.create("configmaps", configmap("after"))
    await run.until_equal()
    assert run.lists_of("configmaps") == listed


async def test_after_an_outage_all_is_followed_on_without_a_list(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector_module, "WatchContext", partial(WatchContext, silence_s=1.5))
    run = await follow(collect_interval=0.5)
    await run.until_followed()
    run.api.faults.fail("*", 503, verb="watch")
    for kind in run.states():
        run.api.cluster.drop_watches(kind)
    run.api.cluster.create("configmaps", configmap("during the outage"))
    runs = len(run.observed(RunScheduled))
    await run.until(lambda: len(run.observed(RunScheduled)) >= runs + 5)
    run.api.faults.clear()
    await run.until_equal()
    await run.until_followed()
    assert {one.outcome for one in run.observed(ListEnded)} == {"completed"}
    assert {run.lists_of(kind) for kind in run.states()} == {1}


async def test_what_may_be_listed_and_not_watched_is_polled(follow: Follow) -> None:
    run = await follow(collect_interval=0.5, include=["configmaps", "secrets"])
    run.api.faults.forbid("secrets", verb="watch")
    run.api.faults.fail("configmaps", 405, verb="watch")
    await run.until(lambda: min(run.lists_of("secrets"), run.lists_of("configmaps")) >= 3)
    assert set(run.states().values()) <= {State.POLLING, State.LISTING}
    ended = [read(one, ListCompleted) for one in run.sink.records if one.type is RecordType.LIST_COMPLETED]
    assert {one.session for one in ended} == {""}
    run.api.faults.clear()
    await run.until_followed()


async def test_a_kind_that_comes_is_followed_and_one_that_goes_is_said_to_be_gone(follow: Follow) -> None:
    run = await follow()
    await run.until_followed()
    cluster = run.api.cluster
    cluster.add_crd("gadgets", "shop.example.com", "Gadget")
    cluster.create("gadgets.shop.example.com", {"metadata": {"name": "one", "namespace": "shop"}, "spec": {}})
    await run.until(lambda: run.states().get("gadgets.shop.example.com") is State.WATCHING)
    cluster.create("gadgets.shop.example.com", {"metadata": {"name": "two", "namespace": "shop"}, "spec": {}})
    await run.until_equal()
    cluster.remove_crd("gadgets", "shop.example.com")
    await run.until(lambda: run.states()["gadgets.shop.example.com"] is State.GONE)
    assert run.copy.followed["gadgets.shop.example.com"] == []

    def last_named() -> set[str]:
        ended = [one for one in run.sink.records if one.type is RecordType.SNAPSHOT_COMPLETED]
        return {one.resource for one in read(ended[-1], SnapshotCompleted).units if one.outcome == "completed"}

    await run.until(lambda: "gadgets" not in last_named())
    assert {"configmaps", "secrets"} <= last_named(), "what is followed is named though it was not listed"


async def test_what_is_listed_namespace_by_namespace_is_followed_by_one_watch(
    follow: Follow, many_namespaces: list[str], api: SimulatedKubernetes
) -> None:
    api.faults.expire_token("configmaps", times=None)
    run = await follow(page_size=30, include=["configmaps", "namespaces"], resync_interval=2.0)

    async def change(batch: Batch) -> None:
        if str(batch.lane) == "configmaps in kube-system":
            run.api.cluster.update("configmaps", "shop", "cm-01", {"data": {"text": "before shop is listed"}})
            run.api.cluster.update("configmaps", "team-01", "cm-0", {"data": {"text": str(run.api.cluster.revision)}})

    run.sink.before_write = change
    await run.until_followed()
    assert len(run.copy.followed["configmaps"]) == len(many_namespaces)
    cluster = run.api.cluster
    cluster.create_namespace("later")
    cluster.create("configmaps", configmap("new", namespace="later"))
    for number in range(3):
        cluster.delete("configmaps", "team-03", f"cm-{number}")
    cluster.delete("namespaces", "", "team-03")
    await run.until_equal()
    listed = run.lists_of("configmaps")
    await run.until(lambda: run.lists_of("configmaps") >= listed + 1 + len(many_namespaces))
    await run.until_equal()
    assert run.copy.corrected == []
    assert {(one.reach, bool(one.number)) for one in run.sink.records if one.name == "new"} >= {("", True)}
    failed = [one for one in run.sink.records if one.type is RecordType.LIST_FAILED]
    assert {(one.resource, one.reach) for one in failed} == {("configmaps", "")}
    run.api.faults.say_on_watch("configmaps", "garbage")
    await run.until(lambda: [one for one in run.sink.records if one.type is RecordType.WATCH_ENDED] != [])
    await run.until_followed()
    cluster.create("configmaps", configmap("after", namespace="team-01"))
    await run.until_equal()


async def test_of_single_namespaces_each_is_followed_by_a_watch_of_its_own(
    follow: Follow, many_namespaces: list[str]
) -> None:
    run = await follow(namespaces=["shop", "team-01", "not-there"], collect_interval=0.5)
    await run.until_followed()
    cluster = run.api.cluster
    for namespace in ("shop", "team-01", "team-02"):
        cluster.create("configmaps", configmap("new", namespace=namespace))
    cluster.create_namespace("not-there")
    cluster.create("secrets", configmap("new", namespace="not-there"))
    wanted = {one for one in run.truth() if one[2] in ("", "shop", "team-01", "not-there")}
    await run.until(lambda: run.copy.live() == wanted)
    watched = {(one.resource, one.namespace, one.reach) for one in run.sink.records if one.number and one.is_object}
    assert watched == {
        ("configmaps", "shop", "shop"),
        ("configmaps", "team-01", "team-01"),
        ("namespaces", "", ""),
        ("secrets", "not-there", "not-there"),
    }
    run.api.faults.forbid("secrets", namespace="shop")
    run.api.cluster.drop_watches("secrets")
    followers = run.collector._followers
    assert followers is not None
    states = {lane.reach: one for lane, one in followers._all.items() if lane.unit.resource == "secrets"}
    await run.until(lambda: states["shop"].state is State.FORBIDDEN)
    assert states["team-01"].state in FOLLOWED
    run.api.faults.clear()
    await run.until(lambda: states["shop"].state in FOLLOWED)


async def test_what_is_served_again_has_nothing_listed_that_is_not_due(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector_module, "DISCOVER_AFTER_S", 0.1)
    run = await follow()
    run.api.faults.fail("secrets", 405, verb="watch")
    await run.until_followed("secrets")
    await run.until(lambda: run.states()["secrets"] is State.POLLING)
    for plural in ("gadgets", "gizmos"):
        run.api.cluster.add_crd(plural, "shop.example.com", plural.title())
        name = f"{plural}.shop.example.com"
        await run.until(lambda name=name: run.states().get(name) is State.WATCHING)  # type: ignore[misc]
    run.api.faults.fail("configmaps", 405, verb="watch")
    run.api.cluster.drop_watches("configmaps")
    await run.until(lambda: run.lists_of("configmaps") == 2)
    await run.until(lambda: run.states()["configmaps"] is State.POLLING)
    assert run.lists_of("secrets") == 1
    assert not [one for one in run.sink.records if one.type is RecordType.LIST_FAILED]


async def test_what_is_served_again_is_found_without_a_sign(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector_module, "DISCOVER_EVERY_S", 0.3)
    run = await follow(include=["configmaps", "*.example.com"])
    await run.until_followed()
    run.api.cluster.add_crd("gadgets", "shop.example.com", "Gadget")
    await run.until(lambda: run.states().get("gadgets.shop.example.com") is State.WATCHING)
    assert run.lists_of("configmaps") == 1


async def test_credentials_that_are_refused_for_good_end_it(follow: Follow) -> None:
    run = await follow()
    await run.until_followed()
    run.api.faults.unauthorized()
    run.api.cluster.drop_watches("configmaps")
    async with asyncio.timeout(60):
        await asyncio.wait([run.task])
    with pytest.raises(FatalError, match="credentials"):
        run.task.result()
    run.task = asyncio.create_task(asyncio.sleep(0))


async def test_a_watch_that_is_throttled_waits_as_long_as_it_is_told_and_is_not_listed(follow: Follow) -> None:
    run = await follow(include=["configmaps", "secrets"])
    await run.until_followed()

    def asked() -> list[float]:
        return [one.wait_s for one in run.observed(WatchInterrupted) if "429" in one.error]

    run.api.faults.throttle("configmaps", retry_after_s=2, times=2)
    run.api.cluster.drop_watches("configmaps")
    run.api.cluster.create("configmaps", configmap("throttled"))
    began_s = asyncio.get_running_loop().time()
    await run.until_equal()
    assert asyncio.get_running_loop().time() - began_s >= 4
    assert asked() == [2, 2]
    assert (run.lists_of("configmaps"), run.observed(WatchLost)) == (1, [])


async def test_a_resync_beside_the_watch_corrects_nothing_and_names_its_session(follow: Follow) -> None:
    run = await follow(resync_interval=1.0, include=["configmaps"])
    await run.until_followed()
    rng = random.Random(1)
    for _ in range(60):
        run.api.cluster.update("configmaps", "shop", f"cm-{rng.randrange(25):02}", {"data": {"x": str(rng.random())}})
        await asyncio.sleep(0.05)
    await run.until(lambda: run.lists_of("configmaps") >= 3)
    await run.until_equal()
    assert run.copy.corrected == []
    froms = run.copy.followed["configmaps"]
    assert len(froms) >= 3
    assert froms[-1] > 1
    assert not [one for one in run.sink.records if one.type is RecordType.WATCH_ENDED]


async def test_a_list_that_overtakes_its_watch_names_no_session(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "REACH_WITHIN_S", 0.3)
    monkeypatch.setattr(following, "RETRY_RESYNC_S", 0.5)
    run = await follow(resync_interval=1.0, include=["configmaps"])
    await run.until_followed()
    run.api.faults.fail("configmaps", 503, times=3, verb="list")
    await run.until(lambda: run.states()["configmaps"] is State.RESYNCING)
    before = run.lists_of("configmaps")
    run.api.faults.fail("configmaps", 503, verb="watch")
    run.api.cluster.drop_watches("configmaps")
    run.api.cluster.update("configmaps", "shop", "cm-01", {"data": {"x": "not watched yet"}})
    await run.until(lambda: run.lists_of("configmaps") > before)

    def said() -> list[ListCompleted]:
        return [read(one, ListCompleted) for one in run.sink.records if one.type is RecordType.LIST_COMPLETED]

    assert said()[-1].session == ""
    run.api.faults.clear()
    await run.until(lambda: said()[-1].session != "")
    await run.until_equal()
    assert not [one for one in run.sink.records if one.type is RecordType.WATCH_ENDED]


async def test_a_list_beside_a_watch_comes_after_what_it_shows_and_counts_from_its_beginning(follow: Follow) -> None:
    run = await follow(resync_interval=1.0, include=["configmaps"])
    await run.until_followed()

    async def slowly(batch: Batch) -> None:
        if isinstance(batch.lane, WatchLane):
            await asyncio.sleep(0.2)

    run.sink.before_write = slowly
    run.api.faults.stall("configmaps", 0.3, times=None)
    while run.lists_of("configmaps") < 4:
        run.api.cluster.update("configmaps", "shop", "cm-01", {"data": {"x": str(run.api.cluster.revision)}})
        await asyncio.sleep(0.03)
    records = run.sink.records
    watched = [(at, one) for at, one in enumerate(records) if one.number and one.is_object]
    for completed in [one for one in records if one.type is RecordType.LIST_COMPLETED][1:]:
        first = next(place for place, one in enumerate(records) if one.list == completed.list)
        version = int(completed.list_version)
        assert all(place < first for place, one in watched if int(one.list_version) <= version)
        since = [one.number for _, one in watched if one.observed_at > list_start(completed.list)]
        assert read(completed, ListCompleted).from_ <= min(since)


async def test_progress_says_until_when_all_were_heard(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PROGRESS_S", 0.2)
    run = await follow()
    await run.until_followed()

    def said() -> list[WatchProgress]:
        return [read(one, WatchProgress) for one in run.sink.records if one.type is RecordType.WATCH_PROGRESS]

    await run.until(lambda: len(said()) >= 3)
    heard = [one.heard for one in said()]
    assert heard == sorted(heard)
    assert said()[-1].behind == []
    followers = run.collector._followers
    assert followers is not None
    [secrets] = [one for lane, one in followers._all.items() if lane.unit.dotted == "secrets"]
    assert secrets.watch is not None
    secrets.watch.was_answered = False
    await run.until(lambda: bool(said()[-1].behind))
    assert [one.resource for one in said()[-1].behind] == ["secrets"]


async def test_whatever_its_server_does_the_copy_ends_up_equal(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "QUIET_S", 0.0)
    monkeypatch.setattr(collector_module, "DISCOVER_AFTER_S", 0.1)
    run = await follow(collect_interval=1.0, resync_interval=2.0)
    rng, cluster, faults = random.Random(5), run.api.cluster, run.api.faults
    live = {f"cm-{n:02}" for n in range(25)}

    def change() -> None:
        name = rng.choice(["new", *sorted(live)]) if live else "new"
        if name == "new":
            name = f"new-{rng.randrange(10**9)}"
            cluster.create("configmaps", configmap(name))
            live.add(name)
        elif rng.random() < 0.3:
            cluster.delete("configmaps", "shop", name)
            live.discard(name)
        else:
            cluster.update("configmaps", "shop", name, {"data": {"text": str(rng.random())}})

    def expire() -> None:
        cluster.compact()
        cluster.drop_watches("configmaps")

    breaks: list[Callable[[], object]] = [
        lambda: faults.cut_watch("configmaps"),
        lambda: faults.say_on_watch("configmaps", "garbage"),
        lambda: faults.say_on_watch("configmaps", '{"type":"ADDED","object":{"kind":"Pod","metadata":{"name":"x"}}}'),
        lambda: faults.silence_watch("configmaps", 0.5),
        lambda: cluster.drop_watches("configmaps"),
        expire,
        lambda: faults.throttle("configmaps", retry_after_s=1),
        lambda: faults.fail("configmaps", 500, times=1),
        lambda: faults.forbid("configmaps"),
        faults.clear,
        lambda: faults.cut_body("configmaps"),
        lambda: faults.expire_token("configmaps"),
    ]
    for step in range(300):
        change()
        if step % 12 == 0:
            rng.choice(breaks)()
        await asyncio.sleep(0.02)
    faults.clear()
    await run.until_followed()
    await run.until_equal()
    assert [one.number for one in run.sink.records if one.number] == list(range(1, run.sink.number))


async def test_a_list_that_begins_again_after_it_was_said_takes_that_back(follow: Follow) -> None:
    run = await follow(include=["configmaps"])
    store, failed = run.sink.batches.append, [False]

    async def lose_the_answer(batch: Batch) -> None:
        ends = any(one.type is RecordType.LIST_COMPLETED for one in batch.records)
        if ends and not failed[0]:
            failed[0] = True
            store(batch)  # it came, and nobody knows
            raise RestartError("no answer")

    run.sink.before_write = lose_the_answer
    await run.until_followed()
    run.api.cluster.create("configmaps", configmap("after"))
    await run.until_equal()
    said = [one.type for one in run.sink.records if one.number]
    assert said == [RecordType.WATCH_ENDED, RecordType.WATCH_PROGRESS, RecordType.OBSERVED]
    assert run.copy.followed["configmaps"] == [2]


async def test_a_kind_that_is_ordered_by_the_clock_is_listed_only(follow: Follow) -> None:
    run = await follow(collect_interval=0.5, include=["configmaps", "secrets"])
    run.api.faults.list_version("secrets", "computed")
    await run.until(lambda: run.lists_of("secrets") >= 3)
    assert run.states()["secrets"] in (State.POLLING, State.LISTING)
    ended = [one for one in run.sink.records if one.type is RecordType.LIST_COMPLETED and one.resource == "secrets"]
    assert {read(one, ListCompleted).session for one in ended} == {""}


async def test_stopping_leaves_nothing_behind(follow: Follow) -> None:
    before = asyncio.all_tasks()
    run = await follow()
    await run.until_followed()
    await run.stop()
    assert {task for task in asyncio.all_tasks() - before if "/clusterinfo/kubernetes/" in repr(task)} == set()


async def test_a_session_that_cannot_go_on_is_followed_by_another(follow: Follow) -> None:
    run = await follow(collect_interval=1.0)
    await run.until_followed()
    run.api.cluster.create("configmaps", configmap("before"))
    await run.until_equal()
    run.sink.is_renewed = True
    await run.until(lambda: run.lists_of("configmaps") == 2 and run.lists_of("secrets") == 2)
    await run.until_followed()
    run.api.cluster.create("configmaps", configmap("after"))
    await run.until_equal()
    before, after = [one.session for one in run.sink.records if one.name in ("before", "after") and one.number]
    assert before != after
    said = [read(one, ListCompleted).session for one in run.sink.records if one.type is RecordType.LIST_COMPLETED]
    assert set(said[-len(run.states()) :]) == {after}
    assert not [one for one in run.sink.records if one.type is RecordType.WATCH_ENDED]


async def test_stopping_does_not_wait_for_a_sink_that_is_away(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "STOP_WITHIN_S", 0.3)
    monkeypatch.setattr(following, "PROGRESS_S", 0.1)
    run = await follow()
    await run.until_followed()
    away, waiting = asyncio.Event(), list[str]()

    async def wait(batch: Batch) -> None:
        waiting.append(batch.records[0].type)
        await away.wait()

    run.sink.before_write = wait
    run.api.faults.say_on_watch("configmaps", "garbage")
    await run.until(lambda: {RecordType.WATCH_ENDED, RecordType.WATCH_PROGRESS} <= set(waiting))
    await run.stop()


@pytest.mark.parametrize("state", State)
def test_only_a_list_beside_a_watch_that_runs_holds_no_permit_while_it_waits(state: State) -> None:
    assert following._BesideList(Mock(state=state)).is_running is (state is State.RESYNCING)
