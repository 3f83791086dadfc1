"""One topic is one trust domain: the tables of SECURITY.md, with Apache Kafka's own authorizer.

`north` is stolen: its login does all it can think of to the cluster `south`, whose collector has a topic of its own.
The consumer of both topics runs all the while, with the rights that SECURITY.md lists, on the prefix of both names.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.conn import create_conn
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError, for_code
from aiokafka.protocol.admin import DeleteRecordsRequest
from aiokafka.protocol.fetch import FetchRequest

from clusterinfo import wire
from clusterinfo.model import Record
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from tests.conftest import fresh_database
from tests.kafka.apache import ApacheKafka
from tests.security.acls import DOCUMENT, allow, documented
from tests.security.brokers import PASSWORD, TENANTS
from tests.support.forgeries import FORGED, run, stored
from tests.support.programs import QUIET, running
from tests.support.records import NOON, Listing

_TEXT = DOCUMENT.read_text(encoding="utf-8").split("<!-- trust -->")[1].split("<!-- /trust -->")[0]
_ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in _TEXT.splitlines() if line.startswith("| `")]
SAID = {row[0].strip("`"): tuple(row[1:]) for row in _ROWS if len(row) == 4}
ASKED = {row[0].strip("`"): tuple(row[1:]) for row in _ROWS if len(row) == 3}
OWN, BY_OWN_TOPIC, BY_OTHERS_TOPIC = range(3)
"""The columns of the first table."""

REFUSED = TopicAuthorizationFailedError, GroupAuthorizationFailedError
NORTH, SOUTH = "uid-of-north", "uid-of-south"


@dataclass(frozen=True, slots=True)
class World:
    """Two topics with a cluster each, their consumer, and all that is stored of the one whose collector is honest."""

    kafka: ApacheKafka
    connection: asyncpg.Connection
    prefix: str
    group: str
    truth: dict[str, list[str]]

    @property
    def north(self) -> str:
        return f"{self.prefix}north"

    @property
    def south(self) -> str:
        return f"{self.prefix}south"

    def login(self, principal: str) -> dict[str, Any]:
        """How a user reaches Kafka, as aiokafka takes it."""
        return {
            "bootstrap_servers": self.kafka.bootstrap_of("LOGIN"), "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN", "sasl_plain_username": principal, "sasl_plain_password": PASSWORD,
        }  # fmt: skip

    async def send(self, principal: str, topic: str, records: Sequence[Record]) -> int:
        """Send them as this user; returns the offset after them. Raises KafkaError if that is refused."""
        producer = AIOKafkaProducer(**self.login(principal))
        await producer.start()
        try:
            for record in records:
                key, value, headers = wire.encode(record)
                sent = await producer.send_and_wait(topic, value, key, partition=0, headers=headers)
        finally:
            await producer.stop()
        return int(sent.offset) + 1

    async def consumed(self, topic: str, offset: int) -> None:
        """Wait until the topic is stored up to there."""
        query = "select next_offset from kafka_offset where topic = $1"
        async with asyncio.timeout(60):
            while (await self.connection.fetchval(query, topic) or 0) < offset:
                await asyncio.sleep(0.05)

    async def reasons(self) -> list[str]:
        rows = await self.connection.fetch("select reason from dead_letter order by id")
        return [row["reason"] for row in rows]


@pytest.fixture(scope="module")
async def world(kafka: ApacheKafka, postgres: EmbeddedPostgres) -> AsyncIterator[World]:
    unique = uuid.uuid4().hex[:8]
    prefix, group = f"trust-{unique}.", f"group-{unique}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(f"{prefix}{name}", 1, 1) for name in TENANTS[:2]])
    await admin.close()
    for name in TENANTS[:2]:
        acls = [acl for acl in documented() if acl.role == "collect"]
        await allow(kafka.bootstrap, name, acls, {"KAFKA_TOPIC": f"{prefix}{name}"})
    names = {"KAFKA_TOPIC": f"{prefix}*", "KAFKA_GROUP_ID": group}
    reading = [acl for acl in documented() if acl.role == "consume" and acl.operation == "Read"]
    await allow(kafka.bootstrap, TENANTS[2], reading, names)
    reached = {
        "KAFKA_ENABLED": "true", "KAFKA_BROKERS": kafka.bootstrap_of("LOGIN"), "KAFKA_SASL_PASSWORD": PASSWORD,
        "KAFKA_SASL_USERNAME": TENANTS[2], "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SASL_MECHANISM": "PLAIN",
        "BATCH_WAIT": "20ms",
    }  # fmt: skip
    async with fresh_database(postgres) as database:
        connection = await database.connect()
        async with running("consume", "--no-migrate", env=database.env | names | reached | QUIET):
            empty = World(kafka, connection, prefix, group, {})
            for name, cluster in (("north", NORTH), ("south", SOUTH)):
                end = await empty.send(name, f"{prefix}{name}", _truth(name, cluster))
                await empty.consumed(f"{prefix}{name}", end)
            yield World(kafka, connection, prefix, group, await stored(connection, SOUTH))
        await connection.close()


def _truth(name: str, cluster: str) -> list[Record]:
    """Two runs of an honest collector, and a list that is under way."""
    records: list[Record] = []
    for number in range(2):
        listing = Listing(str(100 + number), NOON, cluster=cluster, cluster_name=name)
        items = [listing.item("a", str(number), number), listing.item("b", "1")]
        records += [listing.snapshot_started(), *items, listing.completed()]
    return [*records, Listing("300", NOON, cluster=cluster, cluster_name=name).item("a", "2", "new")]


def test_the_tables_are_whole() -> None:
    assert set(SAID) == set(FORGED)
    assert set(ASKED) == set(ASKS)


@pytest.mark.parametrize("what", SAID)
@pytest.mark.parametrize("how", [OWN, BY_OWN_TOPIC, BY_OTHERS_TOPIC], ids=["own", "by own topic", "by other's topic"])
async def test_what_is_said_of_a_cluster(world: World, what: str, how: int) -> None:
    expected, before = SAID[what][how], await world.reasons()
    forged = FORGED[what](run(cluster=NORTH if how == OWN else SOUTH, cluster_name="north"))
    if how == BY_OTHERS_TOPIC:
        assert expected == "refused"
        with pytest.raises(TopicAuthorizationFailedError):
            await world.send("north", world.south, forged)
    else:
        await world.consumed(world.north, await world.send("north", world.north, forged))
    letters = (await world.reasons())[len(before) :]
    aside = [reason for reason in letters if "belongs to topic" in reason]
    found = {
        "stored": not letters,
        "refused": not letters,
        "foreign": len(aside) == len(forged),
        "dead letter": bool(letters) and not aside,
    }
    assert found[expected], letters
    assert await stored(world.connection, SOUTH) == world.truth


# What is asked of Kafka itself, each with the topic that it is asked of.


@asynccontextmanager
async def _admin(world: World) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**world.login("north"))
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


@asynccontextmanager
async def _consumer(world: World, **arguments: Any) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(**world.login("north"), **arguments)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


def _check(code: int) -> None:
    if code:
        raise for_code(code)


async def _ask(world: World, request: Any) -> Any:
    """Ask without asking first who leads the partition, which nobody learns of another's topic."""
    (host, port), arguments = world.kafka.bootstrap_of("LOGIN").split(":"), world.login("north")
    del arguments["bootstrap_servers"]
    connection = await create_conn(host, int(port), client_id="north", **arguments)
    try:
        return await connection.send(request)
    finally:
        connection.close()


async def _read(world: World, topic: str) -> None:
    response = await _ask(world, FetchRequest(100, 1, 1 << 20, 0, [(topic, [(0, 0, 1 << 20)])]))
    ((_, ((_, code, *_),)),) = response.topics
    _check(code)


async def _end(world: World, topic: str) -> None:
    async with _admin(world) as admin:
        (described,) = await admin.describe_topics([topic])
        _check(described["error_code"])


async def _delete_messages(world: World, topic: str) -> None:
    response = await _ask(world, DeleteRecordsRequest([(topic, [(0, 1)])], 10_000))
    ((_, ((_, _, code, *_),), *_),) = response.topics
    _check(code)


async def _delete_topic(world: World, topic: str) -> None:
    async with _admin(world) as admin:
        _check((await admin.delete_topics([topic])).topic_error_codes[0][1])


async def _add_partitions(world: World, topic: str) -> None:
    async with _admin(world) as admin:
        _check((await admin.create_partitions({topic: NewPartitions(2)})).topic_errors[0][1])


async def _change(world: World, topic: str) -> None:
    async with _admin(world) as admin:
        wanted = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "1"})
        for response in await admin.alter_configs([wanted]):
            _check(response.resources[0][0])


async def _make(world: World, topic: str) -> None:
    async with _admin(world) as admin:
        _check((await admin.create_topics([NewTopic(f"{topic}-more", 1, 1)])).topic_errors[0][1])


async def _join(world: World, topic: str) -> None:
    async with _consumer(world, group_id=world.group) as consumer:
        consumer.subscribe([topic])
        await consumer.getone()


async def _offsets(world: World, topic: str) -> None:
    async with _admin(world) as admin:
        await admin.list_consumer_group_offsets(world.group, partitions=[TopicPartition(topic, 0)])


ASKS: dict[str, Callable[[World, str], Awaitable[None]]] = {
    "read messages": _read,
    "learn where the topic ends": _end,
    "delete messages": _delete_messages,
    "delete the topic": _delete_topic,
    "add partitions": _add_partitions,
    "change its settings": _change,
    "make a topic of the prefix": _make,
    "join the consumers' group": _join,
    "see the group's offsets": _offsets,
}


@pytest.mark.parametrize("what", ASKED)
@pytest.mark.parametrize("whose", ["own", "other's"])
async def test_what_is_asked_of_kafka(world: World, what: str, whose: str) -> None:
    expected = ASKED[what][whose != "own"]
    topic = world.north if whose == "own" else world.south
    async with asyncio.timeout(60):
        if expected == "allowed":
            await ASKS[what](world, topic)
        else:
            assert expected == "refused"
            with pytest.raises(REFUSED):
                await ASKS[what](world, topic)


def test_every_answer_is_one_that_a_test_asks_for() -> None:
    cells = {cell for row in (*SAID.values(), *ASKED.values()) for cell in row}
    assert cells == {"stored", "foreign", "refused", "dead letter", "allowed"}
    assert len(_ROWS) == len(SAID) + len(ASKED), "each row once"
