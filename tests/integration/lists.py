"""A simulated cluster of ConfigMaps over a real socket, what lists it, and a sink in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from clusterinfo.budget import ByteBudget
from clusterinfo.errors import TransientError
from clusterinfo.kubernetes.client import KubernetesClient
from clusterinfo.kubernetes.discovery import Discovery
from clusterinfo.kubernetes.list_source import ListContext, ListResult, ListSource
from clusterinfo.kubernetes.recording import Recorder
from clusterinfo.kubernetes.unit_lister import UnitLister
from clusterinfo.model import Batch, GroupVersionResource, Lane, ListLane, Receipt, Record, RecordType, Unit
from clusterinfo.observations import Observation
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.settings import Settings
from clusterinfo.waiting import Backoff

SNAPSHOT = "019ab000-0000-7000-8000-000000000000"
PODS = GroupVersionResource("", "v1", "pods", "Pod", namespaced=True)
CONFIGMAPS = GroupVersionResource("", "v1", "configmaps", "ConfigMap", namespaced=True)

Start = Callable[..., Awaitable["Lists"]]
MakeSettings = Callable[..., Settings]


def configmap(name: str, size: int = 10, namespace: str = "shop") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "data": {"text": "x" * size}}


@pytest.fixture
async def api() -> AsyncIterator[SimulatedKubernetes]:
    cluster = SimulatedCluster(seed=1)
    cluster.create_namespace("shop")
    for number in range(25):
        cluster.create("configmaps", configmap(f"cm-{number:02}"))
    async with SimulatedKubernetes(cluster) as serving:
        yield serving


@pytest.fixture
def make_settings(api: SimulatedKubernetes, tmp_path: Path) -> MakeSettings:
    def make(**given: Any) -> Settings:
        given.setdefault("kubeconfig", api.write_kubeconfig(tmp_path / "kubeconfig"))
        return Settings(**{"page_size": 10, **given})

    return make


@pytest.fixture
def many_namespaces(api: SimulatedKubernetes) -> list[str]:
    """More namespaces than a page holds, each with a few objects, and one that has more than a page of them (shop)."""
    names = [f"team-{number:02}" for number in range(12)]
    for name in names:
        api.cluster.create_namespace(name)
        for number in range(3):
            api.cluster.create("configmaps", configmap(f"cm-{number}", namespace=name))
    return sorted([*names, "default", "kube-node-lease", "kube-public", "kube-system", "shop"])


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "next_s", lambda self, error=None: 0.001)


class Stored:
    """A sink in memory: the batches it was given, in their order. `before_write` may wait or raise."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.opened: list[Lane] = []
        self.before_write: Callable[[Batch], Awaitable[None]] | None = None

    async def open(self, lane: Lane) -> None:
        self.opened.append(lane)

    async def write(self, batch: Batch) -> Receipt:
        if self.before_write is not None:
            await self.before_write(batch)
        self.batches.append(batch)
        return Receipt(lane=batch.lane, position=batch.end)

    @property
    def records(self) -> list[Record]:
        return [record for batch in self.batches for record in batch.records]


class Lists:
    """Lists and units of one cluster over a live connection, and what was observed."""

    def __init__(self, client: KubernetesClient, settings: Settings, discovery: Discovery, budget: ByteBudget) -> None:
        self.client = client
        self.discovery = discovery
        self.seen: list[Observation] = []
        self.results: list[tuple[ListLane, ListResult]] = []
        self.permits = asyncio.Semaphore(settings.collect_concurrency)
        recorder = Recorder(
            cluster=client.cluster.id,
            cluster_name=client.cluster.name,
            snapshot=SNAPSHOT,
            epoch=settings.cluster_epoch,
        )
        self.context = ListContext(
            pages=client,
            recorder=recorder,
            budget=budget,
            permits=self.permits,
            observe=self.seen.append,
            page_size=settings.page_size,
            page_bytes=settings.page_bytes,
        )

    def lane(self, gvr: GroupVersionResource, reach: str = "") -> ListLane:
        return ListLane(Unit(self.client.cluster.id, gvr.group, gvr.resource), reach)

    def open(self, name: str, reach: str = "", *, newest: int = 0) -> ListSource:
        """The source of one list."""
        (gvr,) = [gvr for gvr in self.discovery.resources if gvr.dotted == name]
        return ListSource(self.lane(gvr, reach), gvr, self.context, newest=newest)

    def unit(self, name: str, sink: Stored, reach: str = "") -> UnitLister:
        """A unit, to be sent to `sink`."""
        (gvr,) = [gvr for gvr in self.discovery.resources if gvr.dotted == name]
        return UnitLister(
            self.lane(gvr, reach),
            gvr,
            sink,
            open_list=lambda lane, what, failure: ListSource(lane, what, self.context, failure=failure),
            end_list=lambda lane, result: self.results.append((lane, result)),
            observe=self.seen.append,
        )

    def observed(self, kind: type[Observation]) -> list[Any]:
        return [one for one in self.seen if isinstance(one, kind)]


@pytest.fixture
async def start(make_settings: MakeSettings) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def begin(budget: ByteBudget | None = None, **given: Any) -> Lists:
            settings = make_settings(**given)
            client = await stack.enter_async_context(KubernetesClient.connect(settings))
            return Lists(client, settings, await client.discover(), budget or ByteBudget())

        yield begin


async def drain(source: ListSource, retries: int = 0) -> list[Batch]:
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
    """The list's statement, and its value; it is the last record of the list and the only one that is no object."""
    *objects, record = [record for batch in batches if batch.list == batches[-1].list for record in batch.records]
    assert all(item.is_object for item in objects)
    assert not record.is_object
    return record, json.loads(record.body)


def statements_of(batches: list[Batch]) -> dict[str, tuple[RecordType, dict[str, Any]]]:
    """Reach -> type and value of the last statement about it."""
    return {
        record.reach: (record.type, json.loads(record.body))
        for batch in batches
        for record in batch.records
        if not record.is_object
    }


def fetching() -> list[asyncio.Task[Any]]:
    """Tasks that fetch a page ahead."""
    return [task for task in asyncio.all_tasks() if "page " in task.get_name()]


async def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Wait for `condition`. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)
