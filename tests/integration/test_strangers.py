"""Messages that are none of ours, from a broker into the dead letters: each as it came, and none in the others' way."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
from collections.abc import Iterator

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from msgspec.structs import replace

from clusterinfo import wire
from clusterinfo.commands.pipelines import consume
from clusterinfo.exit_codes import EXIT_DONE
from clusterinfo.model import Record, RecordType
from clusterinfo.observations import DeadLettered, Observation
from clusterinfo.postgres import sink
from clusterinfo.settings import Settings, load
from tests.conftest import Database
from tests.integration.brokers import Broker
from tests.support.records import Listing

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

Headers = list[tuple[str, bytes | None]]
Stranger = tuple[bytes | None, bytes | None, Headers]
"""key, value, headers"""

LISTING = Listing("100")
OURS = LISTING.item("stranger", "7")
FOREIGN_EVENT: Headers = [
    ("ce_specversion", b"1.0"), ("ce_type", b"com.example.order.created"), ("ce_source", b"/orders"), ("ce_id", b"1"),
    ("ce_time", b"2026-11-22T12:00:00Z"), ("content-type", b"application/json"),
]  # fmt: skip
REQUIRED = ("ce_specversion", "ce_type", "ce_source", "ce_id", "ce_time", "ce_subject", "ce_apiversion", "ce_kind",
            "ce_contenthash")  # fmt: skip


def _message(record: Record) -> Stranger:
    key, value, headers = wire.encode(record)
    return key, value, [*headers]


def _without(name: str) -> Stranger:
    key, value, headers = wire.encode(OURS)
    return key, value, [header for header in headers if header[0] != name]


def _instead(name: str, value: bytes | None) -> Stranger:
    key, body, headers = _without(name)
    return key, body, [*headers, (name, value)]


def strangers() -> Iterator[tuple[str, Stranger, str]]:
    """Name, message, and what the reason must contain."""
    key, value, headers = wire.encode(OURS)
    yield "somebody's JSON", (None, b'{"order":17}', []), "CloudEvent"
    yield "somebody's bytes", (b"\xff\x00", b"\x00\x01\xff", [("trace", b"\xfe")]), "CloudEvent"
    yield "another CloudEvent", (b"order-17", b'{"order":17}', FOREIGN_EVENT), "com.example.order.created"
    structured = json.dumps({"specversion": "1.0", "type": "io.clusterinfo.resource.observed.v1", "id": "1"}).encode()
    yield (
        "a CloudEvent in structured mode",
        (key, structured, [("content-type", b"application/cloudevents+json")]),
        "specversion",
    )
    yield "a type of a later version", _instead("ce_type", b"io.clusterinfo.resource.observed.v2"), "ce_type"
    yield "no value", (key, None, [*headers]), "null or empty"
    yield "an empty value", (key, b"", [*headers]), "null or empty"
    yield "no key", (None, value, [*headers]), "key"
    yield "a key of another shape", (b'{"cluster":"c"}', value, [*headers]), "key"
    yield "another cluster", _instead("ce_source", b"/clusters/other"), "another cluster"
    yield "another object", _instead("ce_subject", b"core/pods/ns/other"), "ce_subject"
    yield "a header without value", _instead("ce_id", None), "ce_id"
    yield "a header that is no text", _instead("ce_uid", b"\xff\xfe"), "UTF-8"
    yield "a header with NUL", _instead("ce_uid", b"a\0b"), "NUL"
    yield "a header twice", (key, value, [*headers, ("ce_uid", b"u-2")]), "more than once"
    for name in REQUIRED:
        yield f"no {name}", _without(name), ""
    empty = _message(LISTING.record(RecordType.LIST_COMPLETED, b'{"count":-1}'))
    yield "a completion that says nothing", empty, "list.completed"


STRANGERS = list(strangers())


async def _send(settings: Settings, *messages: Stranger) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_brokers) as producer:
        for key, value, headers in messages:
            await producer.send_and_wait(settings.kafka_topic, value, key, partition=0, headers=headers)


async def _consume(settings: Settings) -> list[Observation]:
    seen: list[Observation] = []
    async with asyncio.timeout(60):
        assert await consume(settings, seen.append, asyncio.Event(), until_idle_s=0.5, do_migrate=False) == EXIT_DONE
    return seen


def _shown(headers: Headers) -> dict[str, object]:
    """Headers as the table shows them."""
    shown: dict[str, object] = {}
    for name, value in headers:
        text = _text(value)
        shown[name] = [shown[name], text] if name in shown else text
    return shown


def _text(value: bytes | None) -> object:
    try:
        text = value.decode() if value is not None else None
    except UnicodeDecodeError:
        text = "\0"
    return {"base64": base64.b64encode(value or b"").decode()} if text and "\0" in text else text


async def test_each_is_set_aside_as_it_came_and_the_list_between_them_is_proven(
    broker: Broker,
    kafka_env: dict[str, str],
    database: Database,
    connection: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sink, "MAX_REPORTED", 1000)
    settings = load(kafka_env | database.env, kafka_partition="0")
    good = Listing("200", LISTING.at + dt.timedelta(minutes=1))
    records = [good.item(f"a{number}", str(number)) for number in range(len(STRANGERS))]
    messages: list[Stranger] = []
    for record, (_, stranger, _) in zip(records, STRANGERS, strict=True):
        messages += [_message(record), stranger]
    await _send(settings, *messages, _message(good.completed()))

    seen = await _consume(settings)

    letters = await connection.fetch("select * from dead_letter order by record_offset")
    assert len(letters) == len(STRANGERS)
    for offset, letter, (name, (key, value, headers), reason) in zip(
        range(1, 2 * len(STRANGERS), 2), letters, STRANGERS, strict=True
    ):
        assert (letter["topic"], letter["partition"], letter["record_offset"]) == (settings.kafka_topic, 0, offset), (
            name
        )
        assert (letter["key"], letter["value"]) == (key, value or b""), name
        assert json.loads(letter["headers"]) == _shown(headers), name
        assert reason in letter["reason"], name
        assert letter["reason"], name
    assert [one.offset for one in seen if isinstance(one, DeadLettered)] == [row["record_offset"] for row in letters]
    live = await connection.fetch("select name from resource where not deleted")
    assert {row["name"] for row in live} == {record.name for record in records}
    assert await connection.fetchval("select state from freshness where resource = 'configmaps'") == "verified"
    assert await connection.fetchval("select next_offset from kafka_offset") == 2 * len(STRANGERS) + 1


async def test_what_can_be_read_of_a_bad_body_is_its_identity(
    broker: Broker, kafka_env: dict[str, str], database: Database, connection: asyncpg.Connection
) -> None:
    settings = load(kafka_env | database.env, kafka_partition="0")
    good = Listing("200")
    sent = [good.item("a", "1"), good.item("bad", "2", body=b'{"n":hunter2}'), good.completed()]
    gone = replace(good.deleted("old", "300"), body=b"\xff")
    await _send(settings, *[_message(record) for record in (*sent, gone)])

    await _consume(settings)

    rows = await connection.fetch("select name, fidelity, deleted from resource order by name")
    assert [tuple(row) for row in rows] == [("a", 3, False), ("bad", 0, False), ("old", 3, True)]
    assert await connection.fetchval("select state from freshness") == "verified"
    letters = await connection.fetch("select record_offset, sqlstate, value from dead_letter")
    assert [tuple(row) for row in letters] == [(1, "22P02", b'{"n":hunter2}')]
