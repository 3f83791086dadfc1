"""What a collector that was taken over may say of its own cluster, by its own topic, to freeze it.

Leaps, sessions, ends of watches: through a broker, into one consumer. Each is refused, or does what a collector may do,
and is put right by what comes next: the list of a collector that was restarted, if need be under the epoch that
`status` says. What another topic says is another matter: see test_topic_owners.py.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from msgspec.structs import replace

from clusterinfo import wire
from clusterinfo.commands.pipelines import consume
from clusterinfo.kafka.topics import ensure_topic
from clusterinfo.model import MAX_VERSION, Record, RecordType
from clusterinfo.postgres.merge.admission import MAX_EPOCH_STEP
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from clusterinfo.settings import load
from clusterinfo.statements import WatchedUnit, WatchEnded, WatchProgress
from tests.conftest import fresh_database
from tests.integration.brokers import Broker
from tests.support.records import Listing, uuid7, watched

pytestmark = pytest.mark.embedded_only

FAR = dt.datetime(9999, 12, 31, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Said:
    """A cluster, and when its collector began: all is said in the minute after that."""

    cluster: str
    began: dt.datetime

    @classmethod
    def new(cls) -> Said:
        return cls(str(uuid.uuid4()), dt.datetime.now(dt.UTC).replace(microsecond=0) - 60 * SECOND)

    def listing(self, second: int = 20, version: str = "200", **attributes: Any) -> Listing:
        at = self.began + second * SECOND
        return Listing(version, at, cluster=self.cluster, cluster_name=self.cluster[:8], **attributes)

    def honest(self) -> list[Record]:
        """A run that lists and follows ConfigMaps; two numbers."""
        listing = self.listing(0, "100")
        items = [listing.item("a", "50"), listing.item("b", "60")]
        start, end = listing.snapshot_started(), listing.completed(from_=1)
        return [start, *items, end, self.progress(1, 1), watched(listing.item("b", "110", "new"), 2)]

    def cure(self, epoch: int) -> list[Record]:
        """What a collector says that was started again."""
        session, listing = uuid7(self.began + 40 * SECOND), self.listing(40, "300", epoch=epoch)
        items = [listing.item("a", "50"), listing.item("c", "250")]
        end = listing.completed(from_=1, session=session)
        return [listing.snapshot_started(), *items, end, replace(self.progress(41, 1), session=session)]

    def progress(self, second: int, number: int, **attributes: Any) -> Record:
        heard = attributes.pop("heard", self.began + second * SECOND)
        return replace(
            self.listing(second).watch(RecordType.WATCH_PROGRESS, number, WatchProgress(heard)), **attributes
        )

    def configmaps(self, since: dt.datetime | None = None) -> WatchedUnit:
        return WatchedUnit("", "configmaps", since or self.began)

    def leaps(self, steps: Sequence[int]) -> list[Record]:
        return [self.listing(epoch=epoch).snapshot_started() for epoch in steps]


@dataclass(frozen=True, slots=True)
class Row:
    """An attack, and what comes of it: the reason by which it is refused ("": it is taken, as a collector's word on its
    own cluster), whether ConfigMaps are followed after it, which there are; `epoch`: CLUSTER_EPOCH of the cure.
    """

    said: Callable[[Said], Sequence[Record]]
    refused: str = ""
    is_followed: bool = True
    leaves: Mapping[str, str] = field(default_factory=lambda: {"a": "50", "b": "110"})
    epoch: int = 0


OTHER: dict[str, Any] = {"resource": "secrets", "kind": "Secret"}
ATTACKS: dict[str, Row] = {
    "an epoch that leaps": Row(lambda it: it.leaps([MAX_EPOCH_STEP + 1]), "more than 1000 above 0"),
    "epochs that climb by what is allowed": Row(lambda it: it.leaps(range(1000, 10_001, 1000)), epoch=10_001),
    "the highest version": Row(lambda it: [it.listing(version=str(MAX_VERSION)).completed()], leaves={}, epoch=1),
    "a version above that": Row(lambda it: [it.listing(version=str(MAX_VERSION + 1)).completed()], "above 2^62"),
    "the highest number": Row(
        lambda it: [watched(it.listing().item("a", "120"), 2**62)], leaves={"a": "120", "b": "110"}
    ),
    "a number above that": Row(lambda it: [watched(it.listing().item("a", "120"), 2**62 + 1)], "ce_number"),
    "the highest number, twice": Row(lambda it: [it.progress(20, 2**62), it.progress(21, 2**62)], is_followed=False),
    "a progress heard in the future": Row(lambda it: [it.progress(20, 3, heard=FAR)]),
    "a progress of another partition": Row(lambda it: [it.progress(20, 3, partition=5)]),
    "a progress that is behind with 5,001 kinds": Row(
        lambda it: [
            it.listing().watch(RecordType.WATCH_PROGRESS, 3, WatchProgress(it.began, [it.configmaps()] * 5001))
        ],
        "length <= 5000",
    ),
    "an end of its watches": Row(
        lambda it: [it.listing().watch(RecordType.WATCH_ENDED, 3, WatchEnded([it.configmaps()]))], is_followed=False
    ),
    "an end of watches in the future": Row(
        lambda it: [it.listing().watch(RecordType.WATCH_ENDED, 3, WatchEnded([it.configmaps(FAR)]))], is_followed=False
    ),
    "an empty list of another kind": Row(lambda it: [it.listing(**OTHER).completed()]),
    "a list of another kind under its list's id": Row(
        lambda it: [it.listing(0, "100", id=it.honest()[1].list, **OTHER).completed()]
    ),
    "a list that is followed from a number that never comes": Row(
        lambda it: [it.listing().completed(from_=2**62)], is_followed=False, leaves={}
    ),
    "a list whose first page comes in the future": Row(
        lambda it: [it.listing().completed(from_=3, seen=FAR)], is_followed=False, leaves={}
    ),
}


class Consumed:
    """A topic of one partition, its consumer, and the database."""

    def __init__(self, producer: AIOKafkaProducer, connection: asyncpg.Connection, topic: str) -> None:
        self.producer, self.connection, self.topic = producer, connection, topic

    async def send(self, records: Sequence[Record]) -> list[str]:
        """One batch each; returns the reasons of dead letters."""
        before = await self.connection.fetchval("select count(*) from dead_letter")
        for record in records:
            key, value, headers = wire.encode(record)
            sent = await self.producer.send_and_wait(self.topic, value, key, partition=0, headers=headers)
            async with asyncio.timeout(60):
                while (await self.connection.fetchval("select max(next_offset) from kafka_offset") or 0) <= sent.offset:
                    await asyncio.sleep(0.01)
        letters = await self.connection.fetch("select reason from dead_letter order by id offset $1", before)
        return [letter["reason"] for letter in letters]

    async def known(self, it: Said) -> tuple[str, bool]:
        query = "select state, following, verified_at from freshness where cluster = $1 and resource = 'configmaps'"
        row = await self.connection.fetchrow(query, it.cluster[:8])
        assert row["verified_at"] <= dt.datetime.now(dt.UTC)
        return row["state"], row["following"]

    async def live(self, it: Said) -> dict[str, str]:
        query = "select name, resource_version from resources where cluster = $1 and resource = 'configmaps'"
        return {row["name"]: row["resource_version"] for row in await self.connection.fetch(query, it.cluster[:8])}


@pytest.fixture(scope="module")
async def consumed(broker: Broker, postgres: EmbeddedPostgres) -> AsyncIterator[Consumed]:
    topic, stopping = f"topic-{uuid.uuid4().hex[:8]}", asyncio.Event()
    async with fresh_database(postgres) as database:
        kafka = {"KAFKA_ENABLED": "true", "KAFKA_BROKERS": broker.bootstrap, "KAFKA_TOPIC": topic}
        settings = load(database.env | kafka | {"KAFKA_TOPIC_PARTITIONS": "1", "KAFKA_GROUP_ID": topic})
        await ensure_topic(settings, lambda _: None)
        connection = await database.connect()
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
        await producer.start()
        task = asyncio.create_task(consume(settings, lambda _: None, stopping, until_idle_s=None, do_migrate=False))
        yield Consumed(producer, connection, topic)
        stopping.set()
        await task
        await producer.stop()
        await connection.close()


@pytest.mark.parametrize("name", ATTACKS)
async def test_it_is_refused_or_cured_by_what_comes_next(consumed: Consumed, name: str) -> None:
    attack, it = ATTACKS[name], Said.new()
    assert await consumed.send(it.honest()) == []
    assert await consumed.known(it) == ("verified", True)

    reasons = await consumed.send(attack.said(it))
    assert len(reasons) == bool(attack.refused)
    assert attack.refused in "".join(reasons)
    assert await consumed.known(it) == ("verified", attack.is_followed)
    assert await consumed.live(it) == attack.leaves

    assert await consumed.send(it.cure(attack.epoch)) == []
    assert await consumed.known(it) == ("verified", True)
    assert await consumed.live(it) == {"a": "50", "c": "250"}
