"""Target `messages`: real messages, and what the decoder makes of them once they are garbled.

It raises RecordError with one short line, or gives a record that says what the message says: it encodes to a message
that decodes to it again, its identity is the key's, and PostgreSQL gives back whatever of it goes to a column.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import uuid
from functools import cache
from random import Random
from typing import Any

import asyncpg
import msgspec

from clusterinfo import wire
from clusterinfo.errors import RecordError
from clusterinfo.model import CLOCK, INT64_MAX, Batch, Record, RecordType
from clusterinfo.postgres.merge.admission import Admission
from clusterinfo.postgres.merge.census import Census
from clusterinfo.postgres.merge.staging import stage
from clusterinfo.postgres.merge.units import UnitRow
from clusterinfo.statements import ListCompleted, WatchedUnit, WatchEnded, WatchProgress, encode
from tests.fuzz.making import mutated
from tests.fuzz.outcome import Failure, Judged, Outcome, expect
from tests.support.records import LANE, NOON, SESSION, Listing, watched

Headers = list[tuple[str, bytes | None]]
Message = tuple[bytes | None, bytes | None, Headers]

TEXTS = (
    b"", b"0", b"1", b"-1", b"4294967296", "٣".encode(), b"\0", b"a\0b", b"\xff", b"\xed\xa0\x80", b"x" * 600, b"null",
    b"default", b"clock", "ä😀".encode(), b"5180eaa4-7a47-4e30-81ab-2135c8f2a0e5", b"2026-11-22T12:00:00Z", b"oversize",
    b"2026-11-22T12:00:00.5+14:00", b"0001-01-01T00:00:00+10:00", b"9999-12-31T23:59:59.999999Z",
    b"9223372036854775807", b"32767", b"32768",
    b"9223372036854775808", b"018f2f6c-7a47-7e30-81ab-2135c8f2a0e5", b"e677d21f-dbff-7e30-81ab-2135c8f2a0e5",
    b"ffffffff-ffff-7fff-bfff-ffffffffffff", b"0123456789abcdef0123456789abcdef", b"io.clusterinfo.resource.deleted.v1",
    b"io.clusterinfo.list.completed.v1", b"2147483647", b"\n", b" 1", b"1_0", b"+1",
)  # fmt: skip
VALUES = (
    b"{}", b"[]", b"null", b"not json", b'{"count":1,"digest":"0"}', b'{"count":-1,"digest":"z"}', b"\xff", b"\0",
    b'{"http_status":"x"}', b'{"units":[{"group":"","resource":"pods","outcome":"gone"}]}',
    b'{"count":1e99,"digest":""}', b'{"heard":"0001-01-01T00:00:00+10:00"}', b'{"heard":5,"behind":[{}]}',
    b'{"units":[{"group":"a\\u0000","resource":"p","since":"9999-12-31T23:59:59.999999Z"}]}',
    b'{"count":1,"digest":"0","session":"ffffffff-ffff-7fff-bfff-ffffffffffff","from":4611686018427387904,'
    b'"seen":"2026-11-22T12:00:00+14:00"}',
)  # fmt: skip


@cache
def corpus() -> list[Message]:
    """One message of every sort, as the collector sends it."""
    pods = Listing("48987", resource="pods", kind="Pod")
    deployments = Listing("abc", resource="deployments", group="apps", kind="Deployment", reach="shop", epoch=3)
    behind = [WatchedUnit("", "pods", NOON), WatchedUnit("apps", "deployments", NOON, "shop")]
    records = [
        pods.item("app-0", "17", {"k": "v"}), pods.item("ä😀", "18", namespace=""), pods.deleted("app-1", "19"),
        pods.item("big", "20", body=b'{"size_bytes":9000000,"sha256":"00"}', state="oversize"), pods.completed(),
        pods.failed(403, "Forbidden"), pods.snapshot_started(), deployments.item("web", "x-1"), deployments.completed(),
        pods.snapshot_completed({("", "pods"): "completed", ("apps", "*"): "excluded"}),
        msgspec.structs.replace(pods.item("late", "21"), observed_at=NOON.replace(microsecond=5), list=""),
        deployments.item("api", "x-2", ordering=CLOCK), watched(pods.item("seen", "22"), 1),
        watched(pods.deleted("seen", "23"), 2), pods.watch(RecordType.WATCH_PROGRESS, 3, WatchProgress(NOON, behind)),
        pods.watch(RecordType.WATCH_ENDED, 4, WatchEnded(behind, "410 Gone")),
        pods.record(RecordType.LIST_COMPLETED, encode(ListCompleted(1, "0f", SESSION, 3, NOON))),
    ]  # fmt: skip
    encoded = [wire.encode(record) for record in records]
    return [(one.key, one.value, [*one.headers]) for one in encoded]


def garbled(random: Random) -> Message:
    """A real message, changed in up to three places, or nowhere."""
    key, value, headers = random.choice(corpus())
    headers = list(headers)
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        place = random.random()
        if place < 0.15:
            key = _garbled_key(random, key)
        elif place < 0.25:
            value = random.choice((None, b"", *VALUES, mutated(random, value or b"{}")))
        else:
            _garble_headers(random, headers)
    return key, value, headers


def _garbled_key(random: Random, key: bytes | None) -> bytes | None:
    chance = random.random()
    if key is None or chance < 0.1:
        return None
    if chance < 0.5:
        return mutated(random, key)
    try:
        parts: list[Any] = json.loads(key)
    except ValueError:
        return key
    parts = parts if isinstance(parts, list) else [parts]
    parts[random.randrange(len(parts)) :][:1] = []
    parts.insert(random.randrange(len(parts) + 1), random.choice(("", "ns", "a\0b", "\ud800", 5, None, [], "ä" * 300)))
    return json.dumps(parts, ensure_ascii=random.random() < 0.5).encode("utf-8", "replace")


def _garble_headers(random: Random, headers: Headers) -> None:
    at = random.randrange(len(headers)) if headers else 0
    match random.randrange(10) if headers else 5:
        case 0:
            del headers[at]
        case 1:
            headers.insert(random.randrange(len(headers) + 1), headers[at])
        case 2:
            headers[at] = headers[at][0], mutated(random, headers[at][1] or b"x")
        case 3:
            headers[at] = headers[at][0], random.choice((None, *TEXTS))
        case 4:
            other = random.randrange(len(headers))
            (one, first), (two, second) = headers[at], headers[other]
            headers[at], headers[other] = (one, second), (two, first)
        case 5:
            headers.append((random.choice(("trace", "ce_reach", "ce_other", "ce_uid", "")), random.choice(TEXTS)))
        case 6:
            random.shuffle(headers)
        case 7:
            headers[at] = headers[at][0].upper() if random.random() < 0.3 else f"x{headers[at][0]}", headers[at][1]
        case _:
            _add_too_much(random, headers, at)


def _add_too_much(random: Random, headers: Headers, at: int) -> None:
    """A header many times over, or one whose name is no text, that may be large."""
    if random.random() < 0.5:
        headers += [headers[at]] * random.choice((1, 40, 47, 48, 2000))
    else:
        name, size_bytes = random.choice(("a\udcff", "\0", "ä😀", "ce_uid")), random.choice((0, 600, 65_000, 70_000))
        headers.insert(at, (name, b"9" * size_bytes))


def _size_bytes(headers: wire.Headers) -> int:
    return sum(len(name.encode()) + len(value or b"") for name, value in headers)


def judge(message: Message) -> Record | None:
    """The record that is accepted; None: refused. Raises Judged for what is neither."""
    key, value, headers = message
    try:
        record = wire.decode(key, value, headers, 7)
    except RecordError as error:
        reason = str(error)
        expect(reason and "\n" not in reason and len(reason) < 400, f"a reason that is no short line: {reason[:500]!r}")
        return None
    expect(record.body == value and record.offset == 7, "the body or the offset is not the message's")
    expect(
        json.loads(key or b"") == [record.cluster, record.group, record.resource, record.namespace, record.name],
        "the identity is not the key's",
    )
    again = wire.encode(record)
    if _size_bytes(again.headers) <= wire.MAX_HEADERS_BYTES:  # what is encoded in full may be longer than it came
        expect(wire.decode(again.key, again.value, again.headers, 7) == record, "it does not come back as it went")
    _expect_it_fits(record)
    return record


def _expect_it_fits(record: Record) -> None:
    """Nothing that a column of the database could not hold."""
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, str):
            expect("\0" not in value, f"{name} is no text of a database")
        if isinstance(value, int):
            expect(-1 <= value <= INT64_MAX, f"{name} is no bigint")
    expect(record.observed_at.utcoffset() == dt.timedelta(0), "observed_at is not UTC")
    census, admission = Census.of([record]), Admission(NOON, {}, {})
    expect(admission.admits(record), "it was forgotten before it was said")
    for by_clock in (False, True):
        units = {unit: UnitRow(1, "", "", namespaced=None, by_clock=by_clock) for unit in census.named_units()}
        staged = stage(Batch(lane=LANE, start=7, end=8, records=[record]), units, admission)
        for row in staged.rows:
            expect(0 <= row.live_at <= INT64_MAX, "live_at is no bigint")
            expect(len(row.content_hash) == 16 or record.type is RecordType.DELETED, "no hash")
            expect(row.observed_at <= admission.latest, "it is from the future")
        sayings = (
            len(staged.rows) + len(staged.tallies) + len(staged.failures) + len(census.snapshots) + len(census.said)
        )
        expect(sayings or staged.dead_letters or census.dead_letters, "it says nothing")


async def run(random: Random, size: int, chunk: int, connection: asyncpg.Connection) -> Outcome:
    """`size` messages; what is accepted of them goes through PostgreSQL in one round trip."""
    outcome = Outcome()
    accepted: list[tuple[Message, Record]] = []
    for _ in range(size):
        message = garbled(random)
        try:
            record = judge(message)
        except Exception as error:  # noqa: BLE001 - whatever escapes is what is looked for
            reason = str(error) if isinstance(error, Judged) else f"{type(error).__name__}: {error}"
            outcome.failures.append(Failure("messages", chunk, reason, as_bytes(message)))
            continue
        outcome.counts["messages refused" if record is None else "messages accepted"] += 1
        if record is not None:
            accepted.append((message, record))
    outcome.counts["PostgreSQL round trips"] += 1
    await _go_back_and_forth(connection, accepted, chunk, outcome)
    return outcome


async def _go_back_and_forth(
    connection: asyncpg.Connection, accepted: list[tuple[Message, Record]], chunk: int, outcome: Outcome
) -> None:
    """All at once; what is refused is looked for one by one."""
    columns = [list(column) for column in zip(*[_columns(record) for _, record in accepted], strict=True)]
    try:
        rows = await connection.fetch(BACK, *columns) if accepted else []
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, OverflowError) as error:
        if len(accepted) > 1:
            for one in accepted:
                await _go_back_and_forth(connection, [one], chunk, outcome)
        else:
            outcome.failures.append(
                Failure("messages", chunk, f"no column holds it: {error}", as_bytes(accepted[0][0]))
            )
        return
    for (message, record), row in zip(accepted, rows, strict=True):
        if tuple(row)[:-1] != _columns(record):
            reason = f"PostgreSQL gave back {tuple(row)!r}"
            outcome.failures.append(Failure("messages", chunk, reason, as_bytes(message)))


BACK = """
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::uuid[], $8::uuid[],
    $9::uuid[], $10::timestamptz[], $11::timestamptz[], $12::bigint[], $13::bigint[], $14::smallint[], $15::bytea[])
    with ordinality
"""


def _columns(record: Record) -> tuple[object, ...]:
    """What of a record goes to the database, typed as its columns are."""
    texts = record.cluster, record.cluster_name, record.namespace, record.name, record.uid, record.resource_version
    ids = [uuid.UUID(text) if text else None for text in (record.list, record.snapshot, record.session)]
    times, hashed = (record.observed_at, record.managed_at), bytes.fromhex(record.content_hash)
    return *texts, *ids, *times, record.epoch, record.number, record.normalization, hashed


def as_bytes(message: Message) -> bytes:
    """A message as it is saved."""

    def shown(value: bytes | None) -> str | None:
        return None if value is None else base64.b64encode(value).decode()

    key, value, headers = message
    return json.dumps(
        {"key": shown(key), "value": shown(value), "headers": [[n, shown(v)] for n, v in headers]}
    ).encode()
