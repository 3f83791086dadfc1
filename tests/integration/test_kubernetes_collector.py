"""The collector over real sockets: runs of lists into a sink in memory, what it remembers, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Literal
from unittest.mock import AsyncMock, Mock

import pytest

from clusterinfo.budget import ByteBudget
from clusterinfo.errors import FatalError, LostError, RestartError, TransientError
from clusterinfo.kubernetes import client as client_module
from clusterinfo.kubernetes import collector as collector_module
from clusterinfo.kubernetes import discovery
from clusterinfo.kubernetes.client import KubernetesClient
from clusterinfo.kubernetes.collector import Collector, RunResult
from clusterinfo.model import CLOCK, Batch, Outcome, Record, RecordType
from clusterinfo.observations import (
    Discovered,
    LaneRestarted,
    Noted,
    Observation,
    Retrying,
    RunFailed,
    RunScheduled,
    SnapshotEnded,
    Warned,
)
from clusterinfo.sandbox.kubernetes.populate import populate
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.settings import DEFAULT_EXCLUDE
from tests.integration.lists import MakeSettings, Stored, configmap, fetching, until

pytestmark = [pytest.mark.usefixtures("no_waiting"), pytest.mark.embedded_only]


APISERVICES = "apiservices.apiregistration.k8s.io"


class Collecting:
    """A collector on a sink in memory, and what it observed."""

    def __init__(self, collector: Collector, sink: Stored, client: KubernetesClient, seen: list[Observation]) -> None:
        self.collector = collector
        self.sink = sink
        self.client = client
        self.seen = seen
        self.stopping = asyncio.Event()

    async def once(self) -> RunResult:
        """One run; what was stored before is forgotten."""
        self.sink.batches.clear()
        async with asyncio.timeout(60):
            result = await self.collector.run(self.stopping, once=True)
        assert result is not None
        return result

    def observed(self, kind: type[Observation]) -> list[Any]:
        return [one for one in self.seen if isinstance(one, kind)]

    def of(self, type_: RecordType) -> list[Record]:
        return [record for record in self.sink.records if record.type is type_]


Begin = Callable[..., Awaitable[Collecting]]


@pytest.fixture
async def collecting(make_settings: MakeSettings) -> AsyncIterator[Begin]:
    async with AsyncExitStack() as stack:

        async def begin(budget: ByteBudget | None = None, **given: Any) -> Collecting:
            settings = make_settings(**given)
            client = await stack.enter_async_context(KubernetesClient.connect(settings))
            sink, seen = Stored(), list[Observation]()
            return Collecting(Collector(client, sink, settings, seen.append, budget=budget), sink, client, seen)

        yield begin


# --- one run ---------------------------------------------------------------------------------------------------------


async def test_a_run_states_how_every_kind_fared(api: SimulatedKubernetes, collecting: Begin) -> None:
    run = await collecting(include=["configmaps", "secrets", "pods", "namespaces"], exclude=["pods"])
    api.faults.forbid("secrets")
    api.faults.fail("namespaces", status=404)

    result = await run.once()

    started, *lists, completed = run.sink.records
    assert (started.type, completed.type) == (RecordType.SNAPSHOT_STARTED, RecordType.SNAPSHOT_COMPLETED)
    assert {one.type for one in lists} & {started.type, completed.type} == set()
    assert json.loads(started.body)["server_version"] == run.client.cluster.server_version
    assert (started.resource, completed.resource) == ("", "")
    assert {one.snapshot for one in run.sink.records} == {started.snapshot}
    body = json.loads(completed.body)
    outcomes = {(unit["group"], unit["resource"]): unit["outcome"] for unit in body["units"]}
    assert body["discovery_complete"] is True
    assert outcomes["", "configmaps"] == "completed"
    assert outcomes["", "secrets"] == "forbidden"
    assert outcomes["", "namespaces"] == "failed"
    assert outcomes["", "pods"] == outcomes["apps", "deployments"] == "excluded"
    assert result.outcomes == {
        ("", "configmaps"): Outcome.COMPLETED,
        ("", "namespaces"): Outcome.FAILED,
        ("", "secrets"): Outcome.FORBIDDEN,
    }
    assert (result.objects, result.is_whole) == (25, False)
    (ended,) = run.observed(SnapshotEnded)
    assert (ended.kinds, ended.failed, ended.forbidden, ended.objects) == (3, 1, 1, 25)
    assert ended.size_bytes == result.size_bytes > 0
    assert run.observed(Discovered)[0].units == 3


def counts(run: Collecting) -> dict[str, int]:
    """Of the kinds that were listed, as snapshot.completed has them."""
    (completed,) = run.of(RecordType.SNAPSHOT_COMPLETED)
    units = json.loads(completed.body)["units"]
    return {unit["resource"]: unit["count"] for unit in units if unit["outcome"] != "excluded"}


async def test_a_run_states_how_many_objects_its_completed_lists_sent(
    api: SimulatedKubernetes, collecting: Begin
) -> None:
    """What was sent before a list failed is not counted: nobody knows how much of the kind it was."""
    run = await collecting(include=["configmaps", "namespaces", "secrets"])
    for number in range(12):
        api.cluster.create("secrets", configmap(f"s-{number:02}"))
    api.faults.fail("secrets", status=404, page=2)

    await run.once()

    assert counts(run) == {"configmaps": 25, "namespaces": 5, "secrets": 0}


async def test_counts_are_those_of_all_reaches(
    api: SimulatedKubernetes, collecting: Begin, many_namespaces: list[str]
) -> None:
    run = await collecting(namespaces=["team-01", "shop", "team-02"], include=["configmaps"])
    await run.once()
    assert counts(run) == {"configmaps": 3 + 25 + 3}
    api.faults.forbid("configmaps", namespace="shop")
    await run.once()
    assert counts(run) == {"configmaps": 3 + 3}


async def test_a_kind_listed_namespace_by_namespace_is_counted_once(
    api: SimulatedKubernetes, collecting: Begin, many_namespaces: list[str]
) -> None:
    run = await collecting(include=["configmaps"], page_size=30)
    api.faults.expire_token("configmaps", times=None)
    await run.once()
    assert counts(run) == {"configmaps": 25 + 36}


@pytest.mark.parametrize(("include", "is_whole"), [([], True), (["configmaps", "secrets"], False)])
async def test_a_forbidden_kind_matters_if_it_was_asked_for(
    api: SimulatedKubernetes, collecting: Begin, include: list[str], is_whole: bool
) -> None:
    run = await collecting(include=include)
    api.faults.forbid("secrets")
    assert (await run.once()).is_whole is is_whole


async def test_a_group_that_does_not_answer_keeps_a_run_from_being_whole(
    api: SimulatedKubernetes, collecting: Begin
) -> None:
    run = await collecting()
    api.faults.stale_discovery("apps")
    assert not (await run.once()).is_whole
    (completed,) = run.of(RecordType.SNAPSHOT_COMPLETED)
    assert json.loads(completed.body)["discovery_complete"] is False


async def test_a_pattern_that_matches_nothing_is_warned_of(collecting: Begin) -> None:
    redaction = {"redact": ["configmap:/data/a"], "redact_not": ["configmaps:/data/a"]}
    run = await collecting(include=["configmaps", "unicorns"], exclude=["secret", *DEFAULT_EXCLUDE], **redaction)
    assert (await run.once()).is_whole
    assert (await run.once()).is_whole, "of which nothing is said again"
    assert [(warned.message, warned.remedy) for warned in run.observed(Warned)] == [
        ("INCLUDE names 'unicorns', which matches no kind this cluster serves", ""),
        ("EXCLUDE names 'secret', which matches no kind this cluster serves", "did you mean secrets?"),
        (
            "REDACT names 'configmap:/data/a', which matches no kind this cluster serves",
            "did you mean configmaps:/data/a?",
        ),
    ]


async def test_where_a_misspelt_name_leaves_nothing_to_list_nothing_is_stated(collecting: Begin) -> None:
    """Not that every kind is left out on purpose, nor that any is gone."""
    run = await collecting(include=["deployments"])
    assert not (await run.once()).is_whole
    first, last = run.observed(Warned)
    assert (first.remedy, last.message) == ("did you mean deployments.apps?", collector_module.NOTHING_LEFT)
    assert run.sink.records == []
    assert run.observed(Discovered) == run.observed(SnapshotEnded) == []


async def test_leaving_everything_out_is_no_mistake(collecting: Begin) -> None:
    run = await collecting(exclude=["*"])
    assert (await run.once()).is_whole
    assert run.of(RecordType.SNAPSHOT_COMPLETED)


@pytest.mark.parametrize(
    ("namespaces", "is_whole", "missing"),
    [
        (["shop", "shopp"], True, {"shopp": "did you mean shop?"}),
        (["nope", "shopp"], False, {"nope": "", "shopp": "did you mean shop?"}),
    ],
)
async def test_a_namespace_that_there_is_not_is_warned_of(
    collecting: Begin, namespaces: list[str], is_whole: bool, missing: dict[str, str]
) -> None:
    """It is listed all the same: of one that was deleted nothing is left."""
    run = await collecting(namespaces=namespaces, include=["configmaps"])
    assert (await run.once()).is_whole is is_whole
    assert {warned.message: warned.remedy for warned in run.observed(Warned)} == {
        f"NAMESPACES names {name!r}, and there is no such namespace": remedy for name, remedy in missing.items()
    }
    assert {record.reach for record in run.of(RecordType.LIST_COMPLETED)} == set(namespaces)


@pytest.mark.parametrize(("verb", "questions"), [("get", []), ("list", [""])])
async def test_where_namespaces_may_not_be_read_none_is_missing(
    api: SimulatedKubernetes, collecting: Begin, verb: Literal["get", "list"], questions: list[str]
) -> None:
    run = await collecting(namespaces=["shopp"], include=["configmaps"], cluster_id="here")
    api.faults.forbid("namespaces", verb=verb)
    assert (await run.once()).is_whole is (not questions)
    assert [warned.remedy for warned in run.observed(Warned)] == questions


async def test_a_unit_in_several_reaches_has_the_worst_outcome(api: SimulatedKubernetes, collecting: Begin) -> None:
    run = await collecting(namespaces=["default", "shop", "default"], include=["configmaps", "namespaces"])
    api.faults.forbid("configmaps", namespace="shop")

    result = await run.once()

    reaches = Counter((one.resource, one.reach) for one in run.sink.records if one.list and not one.is_object)
    assert reaches == {("configmaps", "default"): 1, ("configmaps", "shop"): 1, ("namespaces", ""): 1}
    assert result.outcomes["", "configmaps"] is Outcome.FORBIDDEN


async def test_no_canary_leaves_a_populated_cluster(api: SimulatedKubernetes, collecting: Begin) -> None:
    populate(api.cluster, objects=600, seed=3)
    run = await collecting(page_size=200, redaction_key="a key of 16 bytes")

    result = await run.once()

    everything = b"\n".join(record.body for record in run.sink.records)
    assert result.is_whole
    assert api.cluster.canaries()
    assert {canary for canary in api.cluster.canaries() if canary.encode() in everything} == set()
    assert result.objects > 600


async def test_what_a_run_states_is_stored_whatever_the_sink_does_first(collecting: Begin) -> None:
    run = await collecting(include=["configmaps"])
    errors = [TransientError("away"), RestartError("moved"), TransientError("away")]

    async def fail_first(batch: Batch) -> None:
        if not batch.list and errors:
            raise errors.pop()

    run.sink.before_write = fail_first

    assert (await run.once()).is_whole

    assert [len(run.of(type_)) for type_ in (RecordType.SNAPSHOT_STARTED, RecordType.SNAPSHOT_COMPLETED)] == [1, 1]
    assert {one.lane for one in run.observed(Retrying)} == {one.lane for one in run.observed(LaneRestarted)}


async def test_a_list_whose_lane_was_lost_has_failed(collecting: Begin) -> None:
    run = await collecting(include=["configmaps", "namespaces"])

    async def lose(batch: Batch) -> None:
        if batch.records[0].resource == "configmaps":
            raise LostError("another one's")

    run.sink.before_write = lose

    result = await run.once()

    assert result.outcomes == {("", "configmaps"): Outcome.FAILED, ("", "namespaces"): Outcome.COMPLETED}


# --- as many at once as COLLECT_CONCURRENCY --------------------------------------------------------------------------


@pytest.mark.parametrize("permits", [1, 3])
async def test_no_more_kinds_are_listed_at_once_than_there_are_permits(collecting: Begin, permits: int) -> None:
    run = await collecting(collect_concurrency=permits)
    open_lists, most, all_at_once = set[str](), 0, asyncio.Event()

    async def follow(batch: Batch) -> None:
        nonlocal most
        if batch.list:
            open_lists.add(batch.list)
            most = max(most, len(open_lists))
            if most == permits:
                all_at_once.set()
            await all_at_once.wait()
            await asyncio.sleep(0.005)
            if not batch.records[-1].is_object:
                open_lists.remove(batch.list)

    run.sink.before_write = follow

    assert (await run.once()).is_whole

    assert most == permits


# --- run after run ---------------------------------------------------------------------------------------------------


async def test_a_list_older_than_in_an_earlier_run_fails(collecting: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await collecting(include=["configmaps"])
    versions = iter(["9", "9", "10", "9", "10"])

    async def get_page(*_: Any, **__: Any) -> bytes:
        return json.dumps({"metadata": {"resourceVersion": next(versions)}, "items": None}).encode()

    monkeypatch.setattr(run.client, "get_page", get_page)

    ends = []
    for _ in range(5):
        await run.once()
        ends += [record.type for record in run.sink.records if record.list]

    whole, failed = RecordType.LIST_COMPLETED, RecordType.LIST_FAILED
    assert ends == [whole, whole, whole, failed, whole]


async def test_a_run_that_cannot_be_done_is_begun_again(collecting: Begin) -> None:
    run = await collecting(collect_interval=3600, include=["configmaps"])
    discover = run.client.discover
    errors: list[Exception] = [TransientError("the API cannot be reached")]

    async def fail_first() -> Any:
        if errors:
            raise errors.pop()
        return await discover()

    run.client.discover = fail_first  # type: ignore[method-assign, assignment]
    running = asyncio.create_task(run.collector.run(run.stopping, once=False))
    await until(lambda: run.observed(RunScheduled))
    run.stopping.set()

    assert await running is None
    assert [3000 < one.wait_s < 3600 for one in run.observed(RunScheduled)] == [True]
    assert [one.error for one in run.observed(RunFailed)] == ["the API cannot be reached"]


async def test_with_once_a_run_that_cannot_be_done_is_fatal(api: SimulatedKubernetes, collecting: Begin) -> None:
    run = await collecting()
    await api.stop()
    with pytest.raises(FatalError, match="the run of lists could not be done"):
        await run.collector.run(run.stopping, once=True)


async def test_runs_follow_each_other_every_interval(collecting: Begin) -> None:
    run = await collecting(collect_interval=0.05, include=["configmaps"])
    running = asyncio.create_task(run.collector.run(run.stopping, once=False))
    await until(lambda: len(run.observed(SnapshotEnded)) >= 3)
    run.stopping.set()
    await running
    snapshots = [record.snapshot for record in run.of(RecordType.SNAPSHOT_STARTED)]
    assert len(set(snapshots)) == len(snapshots) >= 3
    assert {json.loads(record.body)["interval_s"] for record in run.of(RecordType.SNAPSHOT_COMPLETED)} == {0.05}


@pytest.mark.parametrize("interval_s", [None, 900.0])
async def test_a_run_that_is_the_only_one_states_an_interval_if_it_was_told_one(
    collecting: Begin, interval_s: float | None
) -> None:
    """As a CronJob knows it."""
    told = {} if interval_s is None else {"collect_interval": interval_s}
    run = await collecting(include=["configmaps"], **told)
    await run.once()
    (completed,) = run.of(RecordType.SNAPSHOT_COMPLETED)
    assert json.loads(completed.body)["interval_s"] == interval_s


# --- by what a kind is ordered ---------------------------------------------------------------------------------------


def orderings(run: Collecting, *type_: RecordType) -> dict[str, set[str]]:
    """Resource -> what the records of its lists say (of those types, or of all)."""
    found: dict[str, set[str]] = {}
    for record in run.sink.records:
        if record.list and (not type_ or record.type in type_):
            found.setdefault(record.resource, set()).add(record.ordering)
    return found


def serve_elsewhere(api: SimulatedKubernetes, group: str, *plurals: str) -> None:
    """Kinds of a group whose APIService names a server; and hundreds of kube-apiserver's own, as a real one has."""
    for plural in plurals:
        api.cluster.add_crd(plural, group, plural.rstrip("s").capitalize())
        api.cluster.create(f"{plural}.{group}", {"metadata": {"name": "one", "namespace": "shop"}})
    spec: dict[str, Any] = {"group": group, "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 1}
    spec["service"] = {"namespace": "shop", "name": "elsewhere"}
    api.cluster.create(APISERVICES, {"metadata": {"name": f"v1.{group}"}, "spec": spec})
    labels = {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
    for number in range(3):
        name = f"own-{number}.{group}"
        own = {"group": name, "version": "v1"}
        api.cluster.create(APISERVICES, {"metadata": {"name": f"v1.{name}", "labels": labels}, "spec": own})


async def test_kinds_of_an_aggregated_api_are_ordered_by_the_clock(
    api: SimulatedKubernetes, collecting: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "API_SERVICES_A_PAGE", 1)
    serve_elsewhere(api, "goods.example.com", "apples", "pears")
    serve_elsewhere(api, "staff.example.com", "clerks")
    run = await collecting(include=["*.example.com", "configmaps", "namespaces"])

    await run.once()

    clock, version = {CLOCK}, {""}
    assert orderings(run) == {
        "apples": clock, "pears": clock, "clerks": clock, "configmaps": version, "namespaces": version,
    }  # fmt: skip
    assert {record.ordering for record in run.sink.records if not record.list} == {""}
    asked = [one for one in api.requests if one.path.endswith("/apiservices")]
    assert len(asked) == 2, "those that the server made for itself are not asked for"


async def test_what_was_aggregated_once_stays_ordered_by_the_clock(api: SimulatedKubernetes, collecting: Begin) -> None:
    serve_elsewhere(api, "goods.example.com", "apples")
    run = await collecting(include=["apples.goods.example.com"])
    await run.once()
    api.cluster.delete(APISERVICES, "", "v1.goods.example.com")
    await run.once()
    assert orderings(run) == {"apples": {CLOCK}}


@pytest.mark.parametrize("trouble", ["forbidden", "not served", "down", "silent", "no document"])
async def test_where_that_is_not_told_a_run_goes_on(
    api: SimulatedKubernetes, collecting: Begin, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """It is noted once; and a kind whose list has no version is ordered by the clock all the same."""
    monkeypatch.setattr(collector_module, "AGGREGATED_WITHIN_S", 0.3)
    serve_elsewhere(api, "goods.example.com", "apples")
    api.faults.list_version("apples.goods.example.com", "")
    run = await collecting(include=["*.goods.example.com", "configmaps"])
    match trouble:
        case "forbidden":
            api.faults.forbid(APISERVICES)
        case "not served":
            api.faults.fail(APISERVICES, status=404)
        case "down":
            api.faults.fail(APISERVICES, status=503)
        case "silent":
            api.faults.stall(APISERVICES, seconds=5, times=None)
        case _:
            monkeypatch.setattr(discovery, "api_services", Mock(side_effect=FatalError("it is none")))

    assert (await run.once()).is_whole
    assert orderings(run) == {"apples": {CLOCK}, "configmaps": {""}}
    (await run.once())

    (noted,) = run.observed(Noted)
    assert noted.message.startswith("which APIs are aggregated is not known (")
    assert "\n" not in noted.message


async def test_more_api_services_than_anybody_has_are_not_read_for_ever(
    api: SimulatedKubernetes, collecting: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await collecting(include=["configmaps"])
    monkeypatch.setattr(run.client, "get", AsyncMock(return_value=b"{}"))
    monkeypatch.setattr(discovery, "api_services", lambda document: (set(), "more"))
    with pytest.raises(FatalError, match="more than 20 pages"):
        await run.client.aggregated_apis()


async def test_a_kind_whose_lists_contradict_each_other_is_ordered_by_the_clock(
    api: SimulatedKubernetes, collecting: Begin
) -> None:
    """Of the list that shows it the statement has been sent by then; the next one is ordered by when it began."""
    run = await collecting(include=["configmaps", "namespaces"])
    api.faults.list_version("configmaps", "7")
    said = []
    for change in ("none", "none", "one more", "none", "none"):
        if change == "one more":
            api.cluster.create("configmaps", configmap("late"))
        await run.once()
        said.append(orderings(run)["configmaps"])

    assert said == [{""}, {""}, {""}, {CLOCK}, {CLOCK}]
    assert orderings(run)["namespaces"] == {""}
    (warned,) = run.observed(Warned)
    assert warned.message.startswith("configmaps: two of its lists are of resourceVersion 7 and differ")


async def test_what_is_ordered_by_the_clock_cannot_run_backwards(api: SimulatedKubernetes, collecting: Begin) -> None:
    serve_elsewhere(api, "goods.example.com", "apples")
    run = await collecting(include=["apples.goods.example.com", "configmaps"])
    assert (await run.once()).is_whole
    for name in ("apples.goods.example.com", "configmaps"):
        api.faults.list_version(name, "3")

    result = await run.once()

    assert result.outcomes == {
        ("goods.example.com", "apples"): Outcome.COMPLETED,
        ("", "configmaps"): Outcome.FAILED,
    }
    assert orderings(run, RecordType.LIST_FAILED) == {"configmaps": {""}}


async def test_a_list_that_fails_says_what_was_known(api: SimulatedKubernetes, collecting: Begin) -> None:
    serve_elsewhere(api, "goods.example.com", "apples")
    run = await collecting(include=["apples.goods.example.com"])
    api.faults.fail("apples.goods.example.com", status=404)
    await run.once()
    assert orderings(run) == {"apples": {CLOCK}}


# --- stopped, cancelled, broken --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stopped", "cancelled"])
async def test_it_abandons_open_lists_and_completes_nothing(
    api: SimulatedKubernetes, collecting: Begin, how: str
) -> None:
    budget = ByteBudget()
    run = await collecting(budget=budget, include=["configmaps", "secrets"], collect_concurrency=2)
    api.faults.stall("configmaps", seconds=60, page=2)
    api.faults.stall("secrets", seconds=60)
    running = asyncio.create_task(run.collector.run(run.stopping, once=True))
    await until(lambda: fetching() and run.sink.records[-1].is_object)
    if how == "stopped":
        run.stopping.set()
        assert await running is None
    else:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    assert {record.type for record in run.sink.records} == {RecordType.SNAPSHOT_STARTED, RecordType.OBSERVED}
    assert (fetching(), budget.held_bytes) == ([], 0)
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("list ")] == []

    api.faults.clear()
    run.stopping.clear()
    assert (await run.once()).is_whole, "nothing is held that the next run needs"


async def test_what_no_retry_helps_ends_the_run_with_that_error(api: SimulatedKubernetes, collecting: Begin) -> None:
    budget = ByteBudget()
    for number in range(30):
        api.cluster.create("secrets", configmap(f"s-{number}"))
    run = await collecting(budget=budget, include=["configmaps", "secrets"])

    async def refuse(batch: Batch) -> None:
        if batch.records[0].resource == "secrets":
            raise FatalError("the topic was deleted")

    run.sink.before_write = refuse

    with pytest.raises(FatalError, match="the topic was deleted"):
        await run.once()

    assert run.of(RecordType.SNAPSHOT_COMPLETED) == []
    assert (fetching(), budget.held_bytes) == ([], 0)
