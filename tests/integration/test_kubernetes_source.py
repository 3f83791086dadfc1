"""Client and sources over real sockets, against the simulated API and its faults."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from clusterinfo.budget import ByteBudget
from clusterinfo.errors import ConfigError, FatalError, TransientError
from clusterinfo.kubernetes import client as client_module
from clusterinfo.kubernetes.client import KubernetesClient
from clusterinfo.kubernetes.collector import Snapshot, StatementSource
from clusterinfo.kubernetes.discovery import Discovery, Selection
from clusterinfo.kubernetes.errors import ApiStatusError, PageTooLargeError
from clusterinfo.kubernetes.list_source import ListSource
from clusterinfo.kubernetes.unit_source import KindSource
from clusterinfo.model import (
    Batch,
    GroupVersionResource,
    ListLane,
    Outcome,
    Receipt,
    Record,
    RecordType,
    digest_hex,
    item_digest,
)
from clusterinfo.observations import ItemSetAside, ListEnded, ListRestarted, Observation, PageListed
from clusterinfo.sandbox.kubernetes.populate import populate
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.settings import Settings

pytestmark = pytest.mark.embedded_only

PODS = GroupVersionResource("", "v1", "pods", "Pod", namespaced=True)
CONFIGMAPS = GroupVersionResource("", "v1", "configmaps", "ConfigMap", namespaced=True)


@pytest.fixture
async def api() -> AsyncIterator[SimulatedKubernetes]:
    cluster = SimulatedCluster(seed=1)
    cluster.create_namespace("shop")
    for number in range(25):
        cluster.create("configmaps", _configmap(f"cm-{number:02}"))
    async with SimulatedKubernetes(cluster) as serving:
        yield serving


def _configmap(name: str, size: int = 10, namespace: str = "shop") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "data": {"text": "x" * size}}


@pytest.fixture
def make_settings(api: SimulatedKubernetes, tmp_path: Path) -> Callable[..., Settings]:
    def make(**given: Any) -> Settings:
        given.setdefault("kubeconfig", api.write_kubeconfig(tmp_path / "kubeconfig"))
        return Settings(**given)

    return make


class Run:
    """A snapshot over a live connection, with what it observed."""

    def __init__(self, client: KubernetesClient, snapshot: Snapshot, seen: list[Observation]) -> None:
        self.client = client
        self.snapshot = snapshot
        self.seen = seen

    def open(self, name: str, reach: str = "") -> ListSource | KindSource:
        planned = [p for p in self.snapshot.lanes() if p.gvr.dotted == name and p.lane.reach == reach]
        return planned[0].open()

    def observed(self, kind: type[Observation]) -> list[Any]:
        return [one for one in self.seen if isinstance(one, kind)]


@pytest.fixture
async def start(make_settings: Callable[..., Settings]) -> AsyncIterator[Callable[..., Any]]:
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:

        async def begin(budget: ByteBudget | None = None, **given: Any) -> Run:
            settings = make_settings(**{"page_size": 10, **given})
            client = await stack.enter_async_context(KubernetesClient.connect(settings))
            seen: list[Observation] = []
            discovery = await client.discover()
            snapshot = Snapshot(
                client.cluster, discovery, client, settings, budget=budget or ByteBudget(), observe=seen.append
            )
            return Run(client, snapshot, seen)

        yield begin


async def drain(source: ListSource | KindSource | StatementSource, retries: int = 0) -> list[Batch]:
    """All batches, each acked; up to `retries` TransientErrors are met by reading again."""
    await source.open(source.lane, None)
    batches: list[Batch] = []
    try:
        while True:
            try:
                batch = await source.read()
            except TransientError:
                if (retries := retries - 1) < 0:
                    raise
                continue
            if batch is None:
                return batches
            assert await source.read() is batch, "read gives the same batch until it is acked"
            batches.append(batch)
            await source.ack(Receipt(lane=source.lane, position=batch.end))
    finally:
        await source.close()


def statement(batches: list[Batch]) -> tuple[Record, dict[str, Any]]:
    """The list's last word, and what it says; nothing else is said of the list."""
    *objects, record = [record for batch in batches if batch.list == batches[-1].list for record in batch.records]
    assert all(item.is_object for item in objects)
    assert not record.is_object
    return record, json.loads(record.body)


def tasks_left() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if "page " in task.get_name()]


# --- the connection --------------------------------------------------------------------------------------------------


async def test_identifies_the_cluster_by_kube_system(api: SimulatedKubernetes, start: Any) -> None:
    run = await start()

    assert run.client.cluster.id == api.cluster.uid()
    assert run.client.cluster.identity_known
    assert run.client.cluster.name not in ("", api.cluster.uid())
    assert run.client.cluster.server_version.startswith("v1.")


async def test_a_forbidden_kube_system_makes_the_name_the_identity(
    api: SimulatedKubernetes, make_settings: Any
) -> None:
    api.faults.forbid("namespaces", verb="get")

    async with KubernetesClient.connect(make_settings(cluster_name="blue")) as client:
        assert (client.cluster.id, client.cluster.name, client.cluster.identity_known) == ("blue", "blue", False)


async def test_any_other_error_on_kube_system_fails_the_run(api: SimulatedKubernetes, make_settings: Any) -> None:
    api.faults.fail("namespaces", status=404, verb="get")

    with pytest.raises(FatalError, match="kube-system"):
        async with KubernetesClient.connect(make_settings()):
            pass


async def test_refused_credentials_are_fatal(api: SimulatedKubernetes, make_settings: Any) -> None:
    api.faults.unauthorized()

    with pytest.raises(FatalError, match="401"):
        async with KubernetesClient.connect(make_settings()):
            pass


async def test_a_new_token_in_the_kubeconfig_is_read_after_a_401(
    api: SimulatedKubernetes, make_settings: Any, tmp_path: Path
) -> None:
    async with KubernetesClient.connect(make_settings()) as client:
        api.users.clear()
        api.token = "rotated-token"
        api.users["rotated-token"] = "admin"
        api.write_kubeconfig(tmp_path / "kubeconfig")

        assert (await client.discover()).resources


async def test_an_api_that_is_not_there_is_fatal_in_time(
    make_settings: Any, monkeypatch: pytest.MonkeyPatch, api: SimulatedKubernetes
) -> None:
    monkeypatch.setattr(client_module, "CONNECT_WITHIN_S", 0.3)
    settings = make_settings()
    await api.stop()

    with pytest.raises(FatalError, match=r"was not reached within .* cannot be reached"):
        async with KubernetesClient.connect(settings):
            pass


@pytest.mark.parametrize("trusted", [True, False])
async def test_certificates_are_checked(
    api: SimulatedKubernetes, make_settings: Any, tmp_path: Path, trusted: bool
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = await asyncio.start_server(_relay_to(api), "127.0.0.1", 0, ssl=context)
    kubeconfig = yaml.safe_load(api.write_kubeconfig(tmp_path / "tls").read_text())
    cluster = kubeconfig["clusters"][0]["cluster"]
    cluster["server"] = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    if trusted:
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        cluster["certificate-authority"] = "ca.pem"
    (tmp_path / "tls").write_text(json.dumps(kubeconfig))
    settings = make_settings(kubeconfig=tmp_path / "tls")

    async with server:
        if trusted:
            async with KubernetesClient.connect(settings) as client:
                assert client.cluster.id == api.cluster.uid()
        else:
            with pytest.raises(FatalError, match="TLS"):
                async with KubernetesClient.connect(settings):
                    pass


def _relay_to(api: SimulatedKubernetes) -> Callable[..., Any]:
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", api.port)
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer), return_exceptions=True)

    return relay


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kubeconfig": Path("/nowhere/config")}, "KUBECONFIG is '/nowhere/config'"),
        ({"kube_context": "blue"}, "KUBE_CONTEXT is 'blue': allowed is one of sandbox"),
    ],
)
async def test_wrong_settings_name_the_variable(make_settings: Any, given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        async with KubernetesClient.connect(make_settings(**given)):
            pass


async def test_a_broken_kubeconfig_is_a_config_error(make_settings: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_text("clusters: [\n")

    with pytest.raises(ConfigError, match="KUBECONFIG"):
        async with KubernetesClient.connect(make_settings(kubeconfig=path)):
            pass


async def test_several_kubeconfigs_are_merged_as_kubectl_does(
    api: SimulatedKubernetes, make_settings: Any, tmp_path: Path
) -> None:
    first = api.write_kubeconfig(tmp_path / "first", context="one")
    second = api.write_kubeconfig(tmp_path / "second", context="two")

    async with KubernetesClient.connect(make_settings(kubeconfig=f"{first}:{tmp_path / 'none'}:{second}")) as client:
        assert client.cluster.id == api.cluster.uid()
    with pytest.raises(ConfigError, match="one, two"):
        async with KubernetesClient.connect(make_settings(kubeconfig=f"{first}:{second}", kube_context="three")):
            pass


async def test_an_answer_beyond_the_cap_is_dropped(api: SimulatedKubernetes, start: Any) -> None:
    run = await start()

    with pytest.raises(PageTooLargeError):
        await run.client.get_page(CONFIGMAPS, limit=10, max_bytes=1000)
    assert len(json.loads(await run.client.get_page(CONFIGMAPS, limit=10, max_bytes=10**6))["items"]) == 10


async def test_a_silent_server_is_transient(
    api: SimulatedKubernetes, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await start()
    monkeypatch.setattr(client_module, "BETWEEN_CHUNKS_S", 0.2)
    api.faults.stall("configmaps", seconds=5)

    with pytest.raises(TransientError, match="in time"):
        await run.client.get_page(CONFIGMAPS, limit=10, max_bytes=10**6)


async def test_throttling_says_how_long_to_wait(api: SimulatedKubernetes, start: Any) -> None:
    run = await start()
    api.faults.throttle("configmaps", retry_after_s=7)

    with pytest.raises(TransientError) as caught:
        await run.client.get_page(CONFIGMAPS, limit=10, max_bytes=10**6)
    assert caught.value.retry_after_s == 7


async def test_an_unknown_kind_is_a_status(start: Any) -> None:
    run = await start()

    with pytest.raises(ApiStatusError) as caught:
        await run.client.get_page(
            GroupVersionResource("nothing.example.com", "v1", "things", "Thing", namespaced=True),
            limit=1,
            max_bytes=10**6,
        )
    assert (caught.value.status, caught.value.reason) == (404, "NotFound")


async def test_gzip_is_read(make_settings: Any, tmp_path: Path) -> None:
    cluster = SimulatedCluster()
    cluster.create("configmaps", _configmap("big", 500_000, "default"))
    async with SimulatedKubernetes(cluster, gzip=True) as api:
        settings = make_settings(kubeconfig=api.write_kubeconfig(tmp_path / "gzip"))
        async with KubernetesClient.connect(settings) as client:
            body = await client.get_page(CONFIGMAPS, limit=10, max_bytes=10**6)
            with pytest.raises(PageTooLargeError):
                await client.get_page(CONFIGMAPS, limit=10, max_bytes=400_000)
    assert len(body) > 500_000


# --- discovery -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["v2", "v2beta1", "legacy"])
async def test_all_forms_of_discovery_find_the_same(api: SimulatedKubernetes, start: Any, form: str) -> None:
    run = await start()
    expected = run.snapshot.discovery
    if form == "v2beta1":
        api.faults.only_beta_discovery()
    if form == "legacy":
        api.faults.no_aggregated_discovery()

    found = await run.client.discover()

    assert sorted(found.resources) == sorted(expected.resources)
    assert sorted(found.excluded) == sorted(expected.excluded)
    assert found.complete


@pytest.mark.parametrize("legacy", [False, True])
async def test_a_stale_group_is_reported(api: SimulatedKubernetes, start: Any, legacy: bool) -> None:
    run = await start()
    api.faults.stale_discovery("apps")
    if legacy:
        api.faults.no_aggregated_discovery()

    found = await run.client.discover(Selection())

    assert found.failing == ("apps",)
    assert not found.complete
    assert PODS.dotted in {gvr.dotted for gvr in found.resources}


# --- lists -----------------------------------------------------------------------------------------------------------


async def test_a_list_is_paged_and_proven(api: SimulatedKubernetes, start: Any) -> None:
    run = await start()
    source = run.open("configmaps")

    batches = await drain(source)

    records = [record for batch in batches for record in batch.records if record.is_object]
    truth = [one for one in api.cluster.identities() if one.resource == "configmaps"]
    assert [len(batch.records) for batch in batches] == [10, 10, 6]
    assert [(batch.start, batch.end) for batch in batches] == [(0, 1), (1, 2), (2, 3)]
    assert {(r.namespace, r.name, r.uid, r.resource_version) for r in records} == {
        (one.namespace, one.name, one.uid, one.resource_version) for one in truth
    }
    assert len({batch.list for batch in batches} | {record.list for record in records}) == 1
    completed, body = statement(batches)
    assert completed.type is RecordType.LIST_COMPLETED
    digest = sum(item_digest(one.namespace, one.name, one.resource_version) for one in truth)
    assert body == {"count": 25, "digest": digest_hex(digest)}
    assert {record.list_version for record in [*records, completed]} == {completed.list_version}
    assert completed.list_version.isdecimal()
    assert (source.outcome, source.objects, source.error) == (Outcome.COMPLETED, 25, "")
    (ended,) = run.observed(ListEnded)
    assert (ended.outcome, ended.objects, ended.size_bytes) == ("completed", 25, source.size_bytes)
    assert [page.items for page in run.observed(PageListed)] == [10, 10, 5]


async def test_records_are_whole(start: Any) -> None:
    run = await start(cluster_epoch=3, cluster_name="blue")
    record = (await drain(run.open("configmaps")))[0].records[0]

    assert (record.cluster_name, record.epoch, record.snapshot) == ("blue", 3, run.snapshot.id)
    assert (record.kind, record.api_version, record.resource, record.group) == ("ConfigMap", "v1", "configmaps", "")
    assert record.observed_at.tzinfo is dt.UTC
    body = json.loads(record.body)
    assert (body["kind"], body["metadata"]["name"]) == ("ConfigMap", record.name)


async def test_a_list_asks_for_a_consistent_read(api: SimulatedKubernetes, start: Any) -> None:
    run = await start()
    api.requests.clear()

    await drain(run.open("configmaps"))

    asked = [str(vars(one) if hasattr(one, "__dict__") else one) for one in api.requests]
    assert all("limit" in one and "resourceVersion=" not in one for one in asked)
    assert len(asked) == 3


@pytest.mark.parametrize("null", [False, True])
async def test_an_empty_list_completes(api: SimulatedKubernetes, start: Any, null: bool) -> None:
    if null:
        api.faults.null_items("pods")
    run = await start()

    batches = await drain(run.open("pods"))

    assert len(batches) == 1
    assert statement(batches)[1] == {"count": 0, "digest": "0" * 32}


async def test_a_reach_lists_one_namespace(api: SimulatedKubernetes, start: Any) -> None:
    api.cluster.create("configmaps", _configmap("elsewhere", namespace="default"))
    run = await start(namespaces=["default", "shop"])

    batches = await drain(run.open("configmaps", "default"))

    assert [record.name for record in batches[0].records if record.is_object] == ["elsewhere"]
    assert {record.reach for batch in batches for record in batch.records} == {"default"}


@pytest.mark.parametrize(("break_it", "retries"), [("throttle", 1), ("cut_body", 1), ("fail", 4)])
async def test_a_passing_failure_costs_nothing_but_time(
    api: SimulatedKubernetes, start: Any, break_it: str, retries: int
) -> None:
    run = await start()
    getattr(api.faults, break_it)("configmaps", times=retries)

    batches = await drain(run.open("configmaps"), retries)

    assert statement(batches)[1]["count"] == 25


async def test_a_failure_that_stays_fails_the_list(api: SimulatedKubernetes, start: Any) -> None:
    run = await start()
    api.faults.fail("configmaps", status=500, page=2)
    source = run.open("configmaps")

    batches = await drain(source, retries=4)

    failed, body = statement(batches)
    assert failed.type is RecordType.LIST_FAILED
    assert (body["http_status"], body["sent"]) == (500, 10)
    assert (source.outcome, source.objects) == (Outcome.FAILED, 10)


async def test_a_forbidden_kind_is_said_at_once(api: SimulatedKubernetes, start: Any) -> None:
    run = await start()
    api.faults.forbid("configmaps")
    source = run.open("configmaps")

    batches = await drain(source)

    assert statement(batches)[1] == {"http_status": 403, "reason": "Forbidden", "sent": 0}
    assert source.outcome is Outcome.FORBIDDEN
    assert "configmaps" in source.error


async def test_a_kind_that_went_away_fails_at_once(api: SimulatedKubernetes, start: Any) -> None:
    run = await start()
    api.faults.fail("configmaps", status=404)

    _, body = statement(await drain(run.open("configmaps")))

    assert body["http_status"] == 404


async def test_an_expired_token_starts_a_new_list(api: SimulatedKubernetes, start: Any) -> None:
    run = await start()
    api.faults.expire_token("configmaps", after_page=1)
    source = run.open("configmaps")

    batches = await drain(source)

    assert [len(batch.records) for batch in batches] == [10, 10, 10, 6]
    assert batches[0].list not in {batch.list for batch in batches[1:]}
    assert len({batch.list for batch in batches[1:]}) == 1
    assert batches[1].start == 0
    assert statement(batches)[1]["count"] == 25
    assert source.objects == 25
    assert len(run.observed(ListRestarted)) == 1


# --- namespace by namespace ------------------------------------------------------------------------------------------


def statements_of(batches: list[Batch]) -> dict[str, tuple[RecordType, dict[str, Any]]]:
    """Reach -> type and value of the last statement about it."""
    return {
        record.reach: (record.type, json.loads(record.body))
        for batch in batches
        for record in batch.records
        if not record.is_object
    }


@pytest.fixture
def many_namespaces(api: SimulatedKubernetes) -> list[str]:
    """More namespaces than a page holds, each with a few objects, and one that has more than a page of them (shop)."""
    names = [f"team-{number:02}" for number in range(12)]
    for name in names:
        api.cluster.create_namespace(name)
        for number in range(3):
            api.cluster.create("configmaps", _configmap(f"cm-{number}", namespace=name))
    return sorted([*names, "default", "kube-node-lease", "kube-public", "kube-system", "shop"])


async def test_after_two_expiries_a_kind_is_listed_namespace_by_namespace(
    api: SimulatedKubernetes, start: Any, many_namespaces: list[str]
) -> None:
    run = await start(page_size=30)
    api.faults.expire_token("configmaps", times=None)
    source = run.open("configmaps")

    batches = await drain(source)

    said = statements_of(batches)
    assert list(said) == ["", *many_namespaces]
    kind, body = said.pop("")
    assert (kind, body["http_status"]) == (RecordType.LIST_FAILED, 410)
    assert "namespace by namespace" in body["reason"]
    assert {kind for kind, _ in said.values()} == {RecordType.LIST_COMPLETED}
    assert {name: body["count"] for name, (_, body) in said.items() if body["count"]} == {
        **{name: 3 for name in many_namespaces if name.startswith("team")},
        "shop": 25,
    }
    lists = {(record.reach, record.list) for batch in batches for record in batch.records if record.reach}
    assert len(lists) == len(many_namespaces) == len({list_id for _, list_id in lists}), "each is a list of its own"
    lanes = {(batch.lane, ListLane(record.unit, record.reach)) for batch in batches for record in batch.records}
    assert all(lane == said_of for lane, said_of in lanes)
    assert (source.outcome, source.objects, source.error) == (Outcome.COMPLETED, 25 + 36, "")
    assert run.snapshot.outcomes()["", "configmaps"] is Outcome.COMPLETED


async def test_a_namespace_that_is_too_large_as_well_fails_alone(
    api: SimulatedKubernetes, start: Any, many_namespaces: list[str]
) -> None:
    run = await start(page_size=10)
    api.faults.expire_token("configmaps", times=None)
    source = run.open("configmaps")

    said = statements_of(await drain(source))

    failed = {reach for reach, (kind, _) in said.items() if kind is RecordType.LIST_FAILED}
    assert failed == {"", "shop"}
    assert "PAGE_SIZE" in said["shop"][1]["reason"]
    assert (source.outcome, source.objects) == (Outcome.FAILED, 36 + 10)
    assert "expired 2 times" in source.error


async def test_namespaces_that_cannot_be_listed_are_the_kinds_last_word(api: SimulatedKubernetes, start: Any) -> None:
    run = await start()
    api.faults.expire_token("configmaps", times=None)
    api.faults.forbid("namespaces", verb="list")
    source = run.open("configmaps")

    batches = await drain(source)

    kind, body = statements_of(batches)[""]
    assert kind is RecordType.LIST_FAILED
    assert "NAMESPACES" in body["reason"]
    assert "orbidden" in body["reason"]
    assert source.outcome is Outcome.FAILED
    assert len({batch.list for batch in batches}) == 3, "two that expired, one for the last word"


async def test_failures_while_namespaces_are_listed_cost_nothing_but_time(
    api: SimulatedKubernetes, start: Any, many_namespaces: list[str]
) -> None:
    budget = ByteBudget()
    run = await start(page_size=10, budget=budget)
    api.faults.expire_token("configmaps", times=2)
    api.faults.expire_token("namespaces")
    api.faults.throttle("namespaces")

    batches = await drain(source := run.open("configmaps"), retries=1)

    assert list(statements_of(batches)) == ["", *many_namespaces]
    assert source.outcome is Outcome.COMPLETED
    assert budget.held_bytes == 0


async def test_a_restart_begins_the_open_namespace_again_and_no_other(
    api: SimulatedKubernetes, start: Any, many_namespaces: list[str]
) -> None:
    run = await start(page_size=10)
    api.faults.expire_token("configmaps", times=2)
    source = run.open("configmaps")
    await source.open(source.lane, None)
    batches: list[Batch] = []
    while (batch := await source.read()) is not None:
        batches.append(batch)
        if batch.records[0].reach == "team-03":
            break
        await source.ack(Receipt(lane=batch.lane, position=batch.end))
    await source.restart()

    rest = await drain(source)

    assert rest[0].lane == batches[-1].lane
    assert rest[0].list != batches[-1].list
    assert set(statements_of(rest)) == {name for name in many_namespaces if name >= "team-03"}
    assert source.outcome is Outcome.COMPLETED


async def test_a_kind_of_the_cluster_whose_tokens_expire_fails(api: SimulatedKubernetes, start: Any) -> None:
    for number in range(12):
        api.cluster.create_namespace(f"team-{number:02}")
    run = await start()
    api.faults.expire_token("namespaces", times=None)

    failed, body = statement(await drain(run.open("namespaces")))

    assert failed.type is RecordType.LIST_FAILED
    assert (body["http_status"], "PAGE_SIZE" in body["reason"]) == (410, True)


# --- what cannot belong to a list ------------------------------------------------------------------------------------


async def test_pages_of_two_lists_never_complete(api: SimulatedKubernetes, start: Any) -> None:
    run = await start()
    api.faults.wrong_resource_version("configmaps", page=2)

    batches = await drain(run.open("configmaps"))

    failed, body = statement(batches)
    assert failed.type is RecordType.LIST_FAILED
    assert "resourceVersion" in body["reason"]
    assert [len(batch.records) for batch in batches] == [10, 1]


async def test_a_page_beyond_page_bytes_is_asked_for_in_halves(api: SimulatedKubernetes, start: Any) -> None:
    for number in range(6):
        api.cluster.create("secrets", _configmap(f"s-{number}") | {"data": {"v": "eHh4" * 8000}})
    run = await start(page_bytes=80 * 1024)

    batches = await drain(run.open("secrets"))

    assert statement(batches)[1]["count"] == 6
    assert [len(batch.records) for batch in batches] == [2, 2, 3]


async def test_an_object_beyond_page_bytes_fails_the_list(api: SimulatedKubernetes, start: Any) -> None:
    api.cluster.create("secrets", _configmap("huge") | {"data": {"v": "eHh4" * 50_000}})
    run = await start(page_bytes=64 * 1024)

    _, body = statement(await drain(run.open("secrets")))

    assert "PAGE_BYTES" in body["reason"]


async def test_an_item_that_is_no_object_keeps_its_list_from_completing(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await start()
    page = {"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "a"}}, {"metadata": {}}, 5]}

    async def get_page(*_: Any, **__: Any) -> bytes:
        return json.dumps(page).encode()

    monkeypatch.setattr(run.client, "get_page", get_page)

    batches = await drain(run.open("configmaps"))

    assert [record.name for record in batches[0].records if record.is_object] == ["a"]
    failed, body = statement(batches)
    assert failed.type is RecordType.LIST_FAILED
    assert "no name" in body["reason"]
    assert len(run.observed(ItemSetAside)) == 2


async def test_a_list_older_than_the_one_before_fails(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await start()
    versions = iter(["9", "9", "10", "9"])

    async def get_page(*_: Any, **__: Any) -> bytes:
        return json.dumps({"metadata": {"resourceVersion": next(versions)}, "items": None}).encode()

    monkeypatch.setattr(run.client, "get_page", get_page)

    ends = [statement(await drain(run.open("configmaps"))) for _ in range(4)]

    assert [record.type for record, _ in ends] == [RecordType.LIST_COMPLETED] * 3 + [RecordType.LIST_FAILED]
    assert "from 10 to 9" in ends[-1][1]["reason"]
    assert "CLUSTER_EPOCH" in ends[-1][1]["reason"]


async def test_restart_is_a_new_list(start: Any) -> None:
    run = await start()
    source = run.open("configmaps")
    await source.open(source.lane, None)
    first = await source.read()
    await source.restart()

    batches = await drain(source)

    assert first is not None
    assert batches[0].list != first.list
    assert statement(batches)[1]["count"] == 25


# --- bytes in flight, and letting go ---------------------------------------------------------------------------------


async def test_lanes_share_a_small_budget_without_deadlock(api: SimulatedKubernetes, start: Any) -> None:
    for number in range(25):
        api.cluster.create("secrets", _configmap(f"s-{number}", size=2000))
    budget = ByteBudget(16 * 1024)
    run = await start(budget=budget)
    names = ["configmaps", "secrets", "namespaces", "pods"] * 2

    async with asyncio.timeout(10):
        lists = await asyncio.gather(*(drain(run.open(name)) for name in names))

    assert all(statement(batches)[0].type is RecordType.LIST_COMPLETED for batches in lists)
    assert budget.held_bytes == 0


async def test_what_is_held_is_given_back_on_failure(api: SimulatedKubernetes, start: Any) -> None:
    budget = ByteBudget()
    run = await start(budget=budget)
    api.faults.fail("configmaps", status=500)

    await drain(run.open("configmaps"), retries=4)

    assert budget.held_bytes == 0


async def test_the_next_page_is_fetched_while_this_one_is_written(api: SimulatedKubernetes, start: Any) -> None:
    run = await start()
    source = run.open("configmaps")
    api.requests.clear()
    await source.open(source.lane, None)

    await source.read()
    async with asyncio.timeout(5):
        while len(api.requests) < 2:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)

    assert len(api.requests) == 2
    await source.close()


@pytest.mark.parametrize("at", ["first page", "page fetched ahead"])
async def test_cancelling_a_read_leaves_nothing_behind(api: SimulatedKubernetes, start: Any, at: str) -> None:
    budget = ByteBudget()
    run = await start(budget=budget)
    source = run.open("configmaps")
    await source.open(source.lane, None)
    api.faults.stall("configmaps", seconds=30, page=1 if at == "first page" else 2)
    if at != "first page":
        batch = await source.read()
        assert batch is not None
        await asyncio.sleep(0.05)
        await source.ack(Receipt(lane=source.lane, position=batch.end))

    reading = asyncio.create_task(source.read())
    await asyncio.sleep(0.1)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading

    assert tasks_left() == []
    assert budget.held_bytes == 0
    assert source.outcome is None


async def test_close_cancels_the_page_fetched_ahead(api: SimulatedKubernetes, start: Any) -> None:
    budget = ByteBudget()
    run = await start(budget=budget)
    source = run.open("configmaps")
    await source.open(source.lane, None)
    api.faults.stall("configmaps", seconds=30, page=2)
    await source.read()
    await asyncio.sleep(0.05)

    await source.close()

    assert tasks_left() == []
    assert budget.held_bytes == 0


# --- the run ---------------------------------------------------------------------------------------------------------


async def test_a_snapshot_says_how_every_kind_fared(api: SimulatedKubernetes, start: Any) -> None:
    run = await start(include=["configmaps", "secrets", "pods", "namespaces"], exclude=["pods"])
    api.faults.forbid("secrets")
    (started,) = (await drain(run.snapshot.started()))[0].records
    for planned in run.snapshot.lanes():
        if planned.gvr.resource != "namespaces":
            await drain(planned.open())

    (completed,) = (await drain(run.snapshot.completed()))[0].records

    assert (started.type, completed.type) == (RecordType.SNAPSHOT_STARTED, RecordType.SNAPSHOT_COMPLETED)
    assert json.loads(started.body)["server_version"] == run.client.cluster.server_version
    assert (started.resource, started.snapshot, completed.snapshot) == ("", run.snapshot.id, run.snapshot.id)
    body = json.loads(completed.body)
    outcomes = {(unit["group"], unit["resource"]): unit["outcome"] for unit in body["units"]}
    assert body["discovery_complete"] is True
    assert outcomes["", "configmaps"] == "completed"
    assert outcomes["", "secrets"] == "forbidden"
    assert outcomes["", "namespaces"] == "failed", "a list that was not begun is not proven"
    assert outcomes["", "pods"] == outcomes["apps", "deployments"] == "excluded"
    assert run.snapshot.outcomes()["", "secrets"] is Outcome.FORBIDDEN
    assert sum(source.objects for source in run.snapshot.sources.values()) == 25


async def test_a_unit_in_several_reaches_has_the_worst_outcome(api: SimulatedKubernetes, start: Any) -> None:
    run = await start(namespaces=["default", "shop"], include=["configmaps", "namespaces"])
    assert [(p.gvr.resource, p.lane.reach) for p in run.snapshot.lanes()] == [
        ("configmaps", "default"),
        ("configmaps", "shop"),
        ("namespaces", ""),
    ]
    await drain(run.open("configmaps", "default"))
    assert run.snapshot.outcomes()["", "configmaps"] is Outcome.FAILED
    api.faults.forbid("configmaps", namespace="shop")
    await drain(run.open("configmaps", "shop"))
    assert run.snapshot.outcomes()["", "configmaps"] is Outcome.FORBIDDEN


async def test_no_canary_leaves_a_populated_cluster(api: SimulatedKubernetes, start: Any) -> None:
    populate(api.cluster, objects=600, seed=3)
    run = await start(page_size=200, redaction_key="a key")
    sent: list[bytes] = []
    for planned in run.snapshot.lanes():
        batches = await drain(planned.open())
        assert statement(batches)[0].type is RecordType.LIST_COMPLETED
        sent += [record.body for batch in batches for record in batch.records]
    everything = b"\n".join(sent)

    leaked = {canary for canary in api.cluster.canaries() if canary.encode() in everything}

    assert api.cluster.canaries()
    assert leaked == set()
    assert len(sent) > 600


def test_discovery_is_complete_without_failing_groups() -> None:
    assert Discovery(resources=()).complete
