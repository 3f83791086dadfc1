"""Dead letters: how a message that could not be stored is kept, so that a person can read it, and to the byte.

Headers are kept as JSON a person reads: name to text. What is no text is `{"base64": ...}`, what is there more than
once an array; so nothing about them is lost, and a message that was refused for its headers is refused for them again.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from clusterinfo.model import Lane, PartitionLane, Record
from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.merge.jsonb_checks import plain, sanitise
from clusterinfo.postgres.sql import statements
from clusterinfo.wire import attributes_of, key_of

MAX_VALUE_BYTES = 1024 * 1024
"""What is kept of a value at most."""

Headers = Sequence[tuple[str, bytes | None]]
Shown = str | dict[str, str] | None
"""A header's value as a person reads it."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be stored, and why."""

    offset: int
    reason: str
    key: bytes | None
    headers: list[tuple[str, bytes | None]]
    value: bytes
    sqlstate: str | None = None


def dead_letter(record: Record, reason: str, sqlstate: str | None = None) -> DeadLetter:
    """`record` as a dead letter, as the message it came as."""
    return DeadLetter(record.offset, plain(reason), key_of(record), [*attributes_of(record)], record.body, sqlstate)


async def add_dead_letters(connection: Connection, lane: Lane, letters: Sequence[DeadLetter]) -> None:
    """Store the dead letters of a batch."""
    if not letters:
        return
    topic, partition = (lane.topic, lane.partition) if isinstance(lane, PartitionLane) else ("", -1)
    await connection.execute(
        statements()["add_dead_letters"],
        [topic] * len(letters),
        [partition] * len(letters),
        [letter.offset for letter in letters],
        [letter.reason for letter in letters],
        [letter.sqlstate for letter in letters],
        [letter.key for letter in letters],
        [encode_headers(letter.headers) for letter in letters],
        [letter.value[:MAX_VALUE_BYTES] for letter in letters],
        [len(letter.value) for letter in letters],
    )


def encode_headers(headers: Headers) -> bytes:
    """Headers as the JSON that the column `headers` holds."""
    shown: dict[str, list[Shown]] = {}
    for name, value in headers:
        shown.setdefault(name, []).append(_shown(value))
    flat = {name: values[0] if len(values) == 1 else values for name, values in shown.items()}
    return sanitise(orjson.dumps(flat))


def decode_headers(stored: bytes) -> list[tuple[str, bytes | None]]:
    """The headers that `encode_headers` was given; those of one name stand together."""
    return [
        (name, _value(shown))
        for name, values in orjson.loads(stored).items()
        for shown in (values if isinstance(values, list) else [values])
    ]


def _shown(value: bytes | None) -> Shown:
    if value is None:
        return None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    return text if "\0" not in text else {"base64": base64.b64encode(value).decode()}


def _value(shown: object) -> bytes | None:
    if shown is None:
        return None
    if isinstance(shown, dict) and isinstance(shown.get("base64"), str):
        return base64.b64decode(shown["base64"])
    return shown.encode() if isinstance(shown, str) else orjson.dumps(shown)
