"""Every Sink, ready to be held to the contract: connected through a proxy if it has a peer, with batches to store."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from clusterinfo.errors import RestartError
from clusterinfo.kafka import producer
from clusterinfo.kafka.producer import KafkaSink
from clusterinfo.kubernetes.unit_lister import _Names
from clusterinfo.model import Batch, Lane, ListLane, PartitionLane, Position, Receipt, Unit, WatchLane
from clusterinfo.numbering import NumberingLanes
from clusterinfo.observations import unobserved
from clusterinfo.postgres import pool as connecting
from clusterinfo.postgres import transactions
from clusterinfo.postgres.connection import Pool
from clusterinfo.postgres.pool import open_pool
from clusterinfo.postgres.sink import PostgresSink
from clusterinfo.pump import Sink
from clusterinfo.settings import Settings
from tests.conftest import Database
from tests.contract.contract import error_of, our_tasks, until
from tests.contract.source_cases import SHORT_S, through_proxy
from tests.integration.brokers import Broker, kafka_settings
from tests.support.kafka import completed, item, lane_of, new_list, page_of, records_of
from tests.support.members import Store
from tests.support.proxy import Proxy
from tests.support.records import CLUSTER, LANE, Feed, Listing, page

SINKS: dict[type, tuple[str, ...]] = {
    KafkaSink: ("kafka_sink",),
    PostgresSink: ("postgres_sink_of_a_partition", "postgres_sink_of_a_list"),
    _Names: ("names_sink",),
    NumberingLanes: ("numbering_lanes",),
    Store: ("store_of_the_tests",),
}
"""Each class and the fixtures that make cases of it; `Store` stands in for the database in tests of the group."""

REMOTE_CALLS = [
    ("kafka_sink", "write"),
    ("kafka_sink", "connect"),
    ("postgres_sink_of_a_partition", "open"),
    ("postgres_sink_of_a_partition", "write"),
    ("postgres_sink_of_a_partition", "connect"),
    ("postgres_sink_of_a_list", "write"),
]
"""Those that need a server."""

LOCAL_CALLS = [
    *(("kafka_sink", "open"), ("postgres_sink_of_a_list", "open")),
    *((name, call) for name in ("names_sink", "numbering_lanes", "store_of_the_tests") for call in ("open", "write")),
]


class SinkCase:
    """A sink and one lane of it.

    Attributes: `batch`, what is to be written next; `given`, the names of all that was written, in order.
    """

    is_atomic = True
    """Whether a batch whose writing was interrupted is stored whole or not at all."""

    def __init__(self, sink: Sink, lane: Lane, proxy: Proxy | None = None) -> None:
        self.sink = sink
        self.lane = lane
        self.given: list[str] = []
        self._proxy = proxy
        self._numbers = itertools.count()
        self._tasks_before = our_tasks()
        self.position: Position = None
        self.batch = self._next_batch()

    @property
    def proxy(self) -> Proxy:
        """The road to its peer."""
        assert self._proxy is not None
        return self._proxy

    async def open(self) -> None:
        """Open the lane: it goes on behind what was written."""
        assert await self.sink.open(self.lane) == self.position

    async def write(self) -> None:
        """Write the batch in hand; the next one is in hand then."""
        receipt = await self.sink.write(self.batch)
        assert receipt == Receipt(lane=self.lane, position=self.batch.end)
        self.given += self.names_in_hand()
        self.position = self.position_after(self.batch)
        self.batch = self._next_batch()

    async def connect(self) -> None:
        """The first call that needs its peer."""
        await self.open()

    async def disconnect(self) -> None:
        """Have the next call begin with a new connection."""
        raise NotImplementedError

    def names_in_hand(self) -> list[str]:
        return [record.name for record in self.batch.records if record.is_object]

    def held(self) -> list[str]:
        """What is under way or lent out: nothing between two calls."""
        return [*map(str, our_tasks() - self._tasks_before)]

    async def is_at_rest(self) -> None:
        """Wait until nothing is held any more: a cancelled statement has an answer to come. Raises TimeoutError."""
        await until(lambda: not self.held())

    def batch_of(self, numbers: list[int]) -> Batch:
        raise NotImplementedError

    def position_after(self, batch: Batch) -> Position:
        """Where the lane goes on once the batch is stored."""
        return None

    async def stored(self) -> list[str]:
        """The names that it holds, each as often as that, in their order."""
        raise NotImplementedError

    def _next_batch(self) -> Batch:
        """Three objects that no other names."""
        return self.batch_of([next(self._numbers) for _ in range(3)])


@dataclass(frozen=True, slots=True)
class Operation:
    """A call of a sink, to be interrupted, and what comes before it."""

    case: SinkCase
    prepare: Callable[[], Awaitable[None]]
    run: Callable[[], Coroutine[Any, Any, None]]

    @classmethod
    def of(cls, case: SinkCase, name: str) -> Operation:
        """`open`, `write`, or `connect`."""
        return cls(case, case.disconnect if name == "connect" else case.open, getattr(case, name))


async def recover(task: asyncio.Task[Any], case: SinkCase, run: Callable[[], Awaitable[None]]) -> None:
    """What the pump does after an error that a task has ended with, if any."""
    if (error := error_of(task)) is None:
        return
    if isinstance(error, RestartError):
        await case.open()
    await run()


class KafkaCase(SinkCase):
    """A log: what is sent twice is in it twice, and who reads it takes it once."""

    is_atomic = False

    def __init__(self, sink: KafkaSink, settings: Settings, proxy: Proxy) -> None:
        self._settings = settings
        self._kafka = sink
        super().__init__(sink, lane_of("pods"), proxy)

    def batch_of(self, numbers: list[int]) -> Batch:
        list_id = new_list()
        return page_of("pods", 0, [*(item(n, "pods", list_id) for n in numbers), completed("pods", list_id)])

    async def stored(self) -> list[str]:
        found = [record for records in (await records_of(self._settings)).values() for record in records]
        return list(dict.fromkeys(record.name for record in found if record.is_object))

    async def connect(self) -> None:
        await self.write()

    async def disconnect(self) -> None:
        if self._kafka._producer is not None:
            self._kafka._retire(self._kafka._producer)


class PostgresCase(SinkCase):
    """Rows, moved with the position of the lane."""

    def __init__(self, sink: PostgresSink, lane: Lane, connection: asyncpg.Connection, pool: Pool, proxy: Proxy):
        self._connection = connection
        self._pool = pool
        self._feed = Feed()
        super().__init__(sink, lane, proxy)

    async def stored(self) -> list[str]:
        rows = await self._connection.fetch("select name from resource order by substr(name, 3)::int")
        return [row["name"] for row in rows]

    def held(self) -> list[str]:
        lent = self._pool.get_size() - self._pool.get_idle_size()
        return [*super().held(), *([f"{lent} connections"] if lent else [])]

    async def disconnect(self) -> None:
        await self._pool.expire_connections()

    def batch_of(self, numbers: list[int]) -> Batch:
        listing = Listing("100")
        items = [listing.item(f"o-{number}", str(number + 1)) for number in numbers]
        return self._feed.batch(*items) if isinstance(self.lane, PartitionLane) else page(listing, 0, *items)

    def position_after(self, batch: Batch) -> Position:
        return batch.end if isinstance(self.lane, PartitionLane) else None


class NamesCase(SinkCase):
    """The names of one list."""

    def batch_of(self, numbers: list[int]) -> Batch:
        return page_of("namespaces", numbers[0] // 3, [item(number, "namespaces", SOME_LIST) for number in numbers])

    async def stored(self) -> list[str]:
        assert isinstance(self.sink, _Names)
        return self.sink.names


class NumberingCase(SinkCase):
    """What is watched, on its way to a sink in memory."""

    def __init__(self) -> None:
        self._behind = _Names()
        unit = lane_of("namespaces").unit
        super().__init__(NumberingLanes(self._behind, unobserved), WatchLane(unit, "", SOME_LIST))

    def batch_of(self, numbers: list[int]) -> Batch:
        records = [item(number, "namespaces", "") for number in numbers]
        return Batch(lane=self.lane, start=numbers[0] // 3, end=numbers[0] // 3 + 1, records=records)

    async def stored(self) -> list[str]:
        return self._behind.names


class StoreCase(SinkCase):
    """A partition in memory."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._feed = Feed()
        super().__init__(store, LANE)  # type: ignore[arg-type]  # it takes partitions alone

    def batch_of(self, numbers: list[int]) -> Batch:
        return self._feed.batch(*(item(number, "pods", SOME_LIST) for number in numbers))

    async def stored(self) -> list[str]:
        return [record.name for record in self._store.records]

    def position_after(self, batch: Batch) -> Position:
        return batch.end


SOME_LIST = new_list()


@pytest.fixture
async def kafka_sink(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KafkaCase]:
    """Deadlines are short, or the silent broker would be waited for a minute."""
    monkeypatch.setattr(producer, "SEND_TIMEOUT_S", 2 * SHORT_S)
    monkeypatch.setattr(producer, "CONNECT_TIMEOUT_S", 2 * SHORT_S)
    settings = kafka_settings(broker, kafka_topic_partitions=1)
    async with through_proxy(settings, monkeypatch) as proxy, KafkaSink.connect(settings, unobserved) as sink:
        yield KafkaCase(sink, settings, proxy)
        await proxy.restore()


async def _postgres(lane: Lane, database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PostgresCase]:
    """Deadlines are short, or the silent server would be waited for a minute and a half."""
    for module, name in (
        (connecting, "COMMAND_TIMEOUT_S"),
        (connecting, "CONNECT_TIMEOUT_S"),
        (connecting, "CANCEL_TIMEOUT_S"),
        (transactions, "BEGIN_TIMEOUT_S"),
    ):
        monkeypatch.setattr(module, name, 2 * SHORT_S)
    settings = database.settings()
    async with (
        Proxy(settings.db_host, settings.db_port) as proxy,
        open_pool(settings.model_copy(update={"db_port": proxy.port})) as pool,
    ):
        connection = await database.connect()
        sink = PostgresSink(pool, settings, unobserved)
        yield PostgresCase(sink, lane, connection, pool, proxy)
        await connection.close()
        await proxy.restore()
        proxy.cut()


@pytest.fixture
async def postgres_sink_of_a_partition(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PostgresCase]:
    async for case in _postgres(LANE, database, monkeypatch):
        yield case


@pytest.fixture
async def postgres_sink_of_a_list(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PostgresCase]:
    async for case in _postgres(ListLane(Unit(CLUSTER, "", "configmaps")), database, monkeypatch):
        yield case


@pytest.fixture
async def names_sink() -> NamesCase:
    return NamesCase(_Names(), lane_of("namespaces"))


@pytest.fixture
async def numbering_lanes() -> NumberingCase:
    return NumberingCase()


@pytest.fixture
async def store_of_the_tests() -> StoreCase:
    return StoreCase(Store())
