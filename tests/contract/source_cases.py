"""Every Source, ready to be held to the contract: connected through a proxy, with a lane whose content is known.

A case stands for the pump and the sink behind the source as well: it stores what it acks, and knows where the lane goes
on, as a sink does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiokafka.client
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from clusterinfo.budget import ByteBudget
from clusterinfo.errors import RestartError
from clusterinfo.kafka.aiokafka_patches.pacing import pace_empty_fetches
from clusterinfo.kafka.client import client_arguments
from clusterinfo.kafka.consumer import batching, connection, partition, source
from clusterinfo.kafka.consumer.batching import Limits
from clusterinfo.kafka.consumer.source import PartitionSource
from clusterinfo.kubernetes import client, watch
from clusterinfo.kubernetes.client import KubernetesClient
from clusterinfo.kubernetes.list_source import OBJECTS_IN_A_ROW, ListContext, ListSource
from clusterinfo.kubernetes.recording import Recorder
from clusterinfo.kubernetes.watch import WatchContext, WatchSource
from clusterinfo.model import Batch, Lane, ListLane, PartitionLane, Position, Receipt, Unit, WatchLane
from clusterinfo.observations import unobserved
from clusterinfo.pump import Source
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.settings import Settings
from tests.contract.contract import LONGEST_S, error_of, our_tasks
from tests.integration.brokers import Broker, kafka_settings
from tests.integration.lists import CONFIGMAPS, SNAPSHOT, configmap
from tests.support.members import fill
from tests.support.proxy import Proxy

SOURCES: dict[type, str] = {
    ListSource: "list_source",
    WatchSource: "watch_source",
    PartitionSource: "partition_source",
}
"""Each class and the fixture that makes a case of it."""

PERMITS = 2
SHORT_S = 1.5
PAUSE_S = 0.02
"""Between two fetches that bring nothing: the embedded broker holds none back, and a core would do nothing else."""


class SourceCase:
    """A source, and a sink's view of its lane: `names`, all it holds, in order; `stored`, what was acked of that."""

    heals_itself = False
    """It waits for its peer inside instead of raising TransientError."""

    def __init__(self, source: Source, lane: Lane, names: list[str], budget: ByteBudget, proxy: Proxy) -> None:
        self.source = source
        self.lane = lane
        self.names = names
        self.budget = budget
        self.proxy = proxy
        self.stored: list[str] = []
        self.position: Position = None
        self._tasks_before = our_tasks()

    async def open(self) -> None:
        """Open the lane where it goes on."""
        await self.source.open(self.lane, self.position)

    async def read(self) -> Batch:
        """The next batch; there is one."""
        async with asyncio.timeout(LONGEST_S):
            batch = await self.source.read()
        assert batch is not None
        return batch

    async def ack(self, batch: Batch) -> None:
        """Store it."""
        names = [record.name for record in batch.records if record.is_object]
        self.stored = [*([] if self.begins(batch) else self.stored), *names]
        self.position = self.position_after(batch)
        await self.source.ack(Receipt(lane=self.lane, position=batch.end))

    async def take(self) -> Batch:
        """Read the next batch, the second time if need be, and store it."""
        call = asyncio.ensure_future(self.read())
        await asyncio.wait({call})
        batch = await self.recover(error_of(call), SourceCase.read) or call.result()
        await self.ack(batch)
        return batch

    async def recover(self, error: BaseException | None, run: Callable[[SourceCase], Awaitable[Any]]) -> Any:
        """What the pump does after an error; None if there was none."""
        if error is None:
            return None
        if isinstance(error, RestartError):
            await self.source.restart()
            await self.open()
        return await run(self)

    async def take_rest(self) -> None:
        """All that is left."""
        while not self.is_last(await self.take()):
            pass

    async def start_over(self) -> None:
        """As another pump with an empty sink: close and open at the beginning."""
        await self.source.close()
        self.stored, self.position = [], None
        await self.open()

    def held(self) -> list[str]:
        """What the source holds: nothing, once it is closed."""
        bytes_ = [f"{self.budget.held_bytes} bytes"] if self.budget.held_bytes else []
        return [*bytes_, *map(str, self.under_way())]

    def under_way(self) -> set[asyncio.Task[Any]]:
        """The tasks that it began."""
        return our_tasks() - self._tasks_before

    def is_ahead(self) -> bool:
        """Whether what was to be fetched ahead is there."""
        return not self.under_way()

    def begins(self, batch: Batch) -> bool:
        """Whether what was stored before this batch does not count any more."""
        raise NotImplementedError

    def is_last(self, batch: Batch) -> bool:
        raise NotImplementedError

    def position_after(self, batch: Batch) -> Position:
        """Where a sink has the lane go on once the batch is stored."""
        raise NotImplementedError

    def end(self) -> None:
        """End the lane, all of which has been read."""
        raise NotImplementedError


class ListCase(SourceCase):
    """A list ends by itself, and always begins at its beginning."""

    def __init__(self, source: ListSource, names: list[str], context: ListContext, proxy: Proxy) -> None:
        super().__init__(source, source.lane, names, context.budget, proxy)
        self._context = context

    def begins(self, batch: Batch) -> bool:
        return batch.start == 0

    def is_last(self, batch: Batch) -> bool:
        return not batch.records[-1].is_object

    def position_after(self, batch: Batch) -> Position:
        return None

    def end(self) -> None:
        pass

    def held(self) -> list[str]:
        pages: Any = self._context.pages
        requests = pages._api.api.rest_client.pool_manager.connector._acquired
        permits = [] if self._context.permits._value == PERMITS else ["a permit"]
        return [*super().held(), *permits, *(f"a connection: {one}" for one in requests)]


class PartitionCase(SourceCase):
    """A partition has no end but the order to stop, and goes on at the stored offset."""

    heals_itself = True

    def __init__(
        self, source: PartitionSource, names: list[str], budget: ByteBudget, proxy: Proxy, stopping: asyncio.Event
    ) -> None:
        super().__init__(source, source.lane, names, budget, proxy)
        self._stopping = stopping

    def begins(self, batch: Batch) -> bool:
        return False

    def is_last(self, batch: Batch) -> bool:
        return batch.end == len(self.names)

    def position_after(self, batch: Batch) -> Position:
        return batch.end

    def end(self) -> None:
        self._stopping.set()


class WatchCase(SourceCase):
    """A watch has no end but the one that is said, and goes on where it was confirmed."""

    heals_itself = True

    def __init__(
        self, source: WatchSource, names: list[str], context: WatchContext, proxy: Proxy, sessions: Any
    ) -> None:
        super().__init__(source, source.lane, names, context.room, proxy)
        self._watch = source
        self._sessions = sessions

    def begins(self, batch: Batch) -> bool:
        return False

    def is_last(self, batch: Batch) -> bool:
        return batch.records[-1].name == self.names[-1]

    def position_after(self, batch: Batch) -> Position:
        return None

    def end(self) -> None:
        self._watch._has_ended = True

    def is_ahead(self) -> bool:
        return bool(self._watch._pending)  # it reads for as long as it is open

    def held(self) -> list[str]:
        connections = self._sessions.watches.rest_client.pool_manager.connector._acquired
        return [*super().held(), *(f"a connection: {one}" for one in connections)]


@pytest.fixture
async def watch_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WatchCase]:
    """A watch of three batches, whose connection is opened again as often as it ends."""
    monkeypatch.setattr(client, "FIRST_BYTE_S", SHORT_S)
    monkeypatch.setattr(watch, "BATCH_RECORDS", 10)
    monkeypatch.setattr(watch, "WORDLESS_RENEWALS", 1000)
    cluster = SimulatedCluster(seed=1)
    cluster.create_namespace("shop")
    version, names = cluster.revision, [f"cm-{number:03}" for number in range(30)]
    for name in names:
        cluster.create("configmaps", configmap(name))
    async with (
        SimulatedKubernetes(cluster, bookmark_interval_s=0.1) as api,
        Proxy(api.host, api.port) as proxy,
    ):
        kubeconfig = api.write_kubeconfig(tmp_path / "kubeconfig")
        kubeconfig.write_text(kubeconfig.read_text().replace(f":{api.port}", f":{proxy.port}"))
        async with KubernetesClient.connect(Settings(kubeconfig=kubeconfig)) as connected:
            recorder = Recorder(cluster=connected.cluster.id, cluster_name="test", snapshot=SNAPSHOT)
            context = WatchContext(opener=connected, recorder=recorder, observe=unobserved, silence_s=SHORT_S)
            lane = WatchLane(Unit(connected.cluster.id, "", "configmaps"), "", SNAPSHOT)
            tested = WatchSource(
                lane, CONFIGMAPS, context, version=version, seen=context.now(), report=lambda _: tested.reopen()
            )
            case = WatchCase(tested, names, context, proxy, connected._api)
            yield case
            await tested.close()


@pytest.fixture
async def list_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ListCase]:
    """A list of three pages; the first two have so many objects that making records of them takes two turns."""
    monkeypatch.setattr(client, "FIRST_BYTE_S", SHORT_S)
    monkeypatch.setattr(client, "BETWEEN_CHUNKS_S", SHORT_S)
    names = [f"cm-{number:03}" for number in range(2 * OBJECTS_IN_A_ROW + 30)]
    cluster = SimulatedCluster(seed=1)
    cluster.create_namespace("shop")
    for name in names:
        cluster.create("configmaps", configmap(name))
    async with SimulatedKubernetes(cluster) as api, Proxy(api.host, api.port) as proxy:
        kubeconfig = api.write_kubeconfig(tmp_path / "kubeconfig")
        kubeconfig.write_text(kubeconfig.read_text().replace(f":{api.port}", f":{proxy.port}"))
        async with KubernetesClient.connect(Settings(kubeconfig=kubeconfig)) as connected:
            context = _context(connected)
            lane = ListLane(Unit(connected.cluster.id, "", "configmaps"))
            case = ListCase(ListSource(lane, CONFIGMAPS, context), names, context, proxy)
            yield case
            await case.source.close()


def _context(connected: KubernetesClient) -> ListContext:
    recorder = Recorder(cluster=connected.cluster.id, cluster_name="test", snapshot=SNAPSHOT, epoch=0)
    permits, page_size = asyncio.Semaphore(PERMITS), OBJECTS_IN_A_ROW + 10
    return ListContext(
        pages=connected,
        recorder=recorder,
        budget=ByteBudget(),
        permits=permits,
        observe=unobserved,
        page_size=page_size,
    )


@pytest.fixture
async def partition_source(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PartitionCase]:
    """A partition of three batches, read by a consumer of its own."""
    for module in (batching, source):
        monkeypatch.setattr(module, "POLL_S", 0.1, raising=False)
    monkeypatch.setattr(partition, "RETRY_S", 0.05)
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    names = [name for _, name in await fill(settings, each=25)]
    async with through_proxy(settings, monkeypatch) as proxy:
        consumer = AIOKafkaConsumer(
            **client_arguments(settings) | connection.CONSUMER | {"request_timeout_ms": int(2 * SHORT_S * 1000)}
        )
        await consumer.start()
        pace_empty_fetches(consumer, PAUSE_S)
        consumer.assign([TopicPartition(settings.kafka_topic, 0)])
        lane, budget, stopping = PartitionLane("kafka", settings.kafka_topic, 0, "group"), ByteBudget(), asyncio.Event()
        limits = Limits(10, 1 << 20, 0.05)
        tested = PartitionSource(consumer, lane, limits=limits, budget=budget, observe=unobserved, stopping=stopping)
        yield PartitionCase(tested, sorted(names, key=lambda name: int(name[2:])), budget, proxy, stopping)
        await tested.close()
        await consumer.stop()


@asynccontextmanager
async def through_proxy(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    """Lead aiokafka's clients to the broker by a proxy: it would tell them its own address."""
    (host, port), connect = settings.kafka_brokers[0].split(":"), aiokafka.client.create_conn
    async with Proxy(host, int(port)) as proxy:

        async def detour(host: str, port: int, **arguments: Any) -> Any:
            return await connect(proxy.host, proxy.port, **arguments)

        monkeypatch.setattr(aiokafka.client, "create_conn", detour)
        yield proxy
