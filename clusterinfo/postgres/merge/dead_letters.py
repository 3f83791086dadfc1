"""Dead letters: how a message that could not be stored is kept, so that a person can read it, and to the byte.

Headers are kept as JSON a person reads: name to text. What is no text is `{"base64": ...}`, what is there more than
once an array, and beside a name that is no text stand its bytes, `{"name": {"base64": ...}, "value": ...}`; so nothing
about them is lost, and a message that was refused for its headers is refused for them again.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import xxhash

from clusterinfo.model import Lane, PartitionLane, Record
from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.merge.bodies import plain, sanitise
from clusterinfo.postgres.merge.large import LARGE_BYTES, worked_out
from clusterinfo.postgres.sql import statements
from clusterinfo.wire import attributes_of, key_of

MAX_VALUE_BYTES = 1024 * 1024
"""What is kept of a value at most."""

LOCK_KEY = 0x6C657474  # "lett"
MAX_SENT, MAX_SENT_BYTES = 250, 512 * 1024
"""Dead letters sent at once, and what is kept of them, unless one alone has more: 4 ms."""
MAX_DROPPED = 10_000
"""Dead letters deleted by one statement, which must end in time; a batch adds half as many."""

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be stored, and why."""

    offset: int
    reason: str
    key: bytes | None
    headers: list[tuple[str, bytes | None]]
    value: bytes
    sqlstate: str | None = None
    omitted_bytes: int = 0
    kept_bytes: int = field(init=False)
    """Of its key, its headers and its value, as they are kept."""

    def __post_init__(self) -> None:
        headers = sum(len(name) + len(value or b"") for name, value in self.headers)
        kept_bytes = len(self.key or b"") + headers + min(len(self.value), MAX_VALUE_BYTES)
        object.__setattr__(self, "kept_bytes", kept_bytes)

    @property
    def size_bytes(self) -> int:
        """Of its value, and of what was left out of its key and headers: more than is kept unless it is whole."""
        return len(self.value) + self.omitted_bytes

    @property
    def message_hash(self) -> bytes:
        """What tells the message from another one at its place in Kafka, as of a topic that was recreated."""
        return xxhash.xxh3_128_digest((self.key or b"") + b"\0" + self.value)


def dead_letter(record: Record, reason: str, sqlstate: str | None = None) -> DeadLetter:
    """`record` as a dead letter, as the message it came as."""
    return DeadLetter(record.offset, plain(reason), key_of(record), [*attributes_of(record)], record.body, sqlstate)


async def add_dead_letters(connection: Connection, lane: Lane, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
    """Store the dead letters of a batch; return those that were not known before, nor dropped.

    Some at a time: to send all of them at once would take too long.
    """
    topic, partition = (lane.topic, lane.partition) if isinstance(lane, PartitionLane) else ("", -1)
    new = [offset for part in _parts(letters) for offset in await _add_part(connection, topic, partition, part)]
    offsets = frozenset(new)
    return [letter for letter in letters if letter.offset in offsets]


def _parts(letters: Sequence[DeadLetter]) -> Iterator[list[DeadLetter]]:
    part, size_bytes = list[DeadLetter](), 0
    for letter in letters:
        if part and (len(part) == MAX_SENT or size_bytes + letter.kept_bytes > MAX_SENT_BYTES):
            yield part
            part, size_bytes = [], 0
        part.append(letter)
        size_bytes += letter.kept_bytes
    if part:
        yield part


async def _add_part(connection: Connection, topic: str, partition: int, letters: Sequence[DeadLetter]) -> list[int]:
    """The offsets of those that are new."""
    large = sum(letter.kept_bytes for letter in letters) > LARGE_BYTES
    rows = await connection.fetch(
        statements()["add_dead_letters"],
        [topic] * len(letters),
        [partition] * len(letters),
        [letter.offset for letter in letters],
        [letter.reason for letter in letters],
        [letter.sqlstate for letter in letters],
        [letter.key for letter in letters],
        await worked_out(large, lambda: [encode_headers(letter.headers) for letter in letters]),
        [letter.value[:MAX_VALUE_BYTES] for letter in letters],
        [letter.size_bytes for letter in letters],
        await worked_out(large, lambda: [letter.message_hash for letter in letters]),
    )
    return [row["record_offset"] for row in rows]


class LetterBound:
    """Keeps the newest dead letters, within `rows` and `size_bytes`, so that no stranger fills the disk.

    What is there is counted at the first letter that this process stores, and then once it has stored a hundredth of a
    limit more; each process may be over it by that much, and by the letters of a batch.
    """

    def __init__(self, rows: int, size_bytes: int) -> None:
        self.is_due = False
        self._rows, self._size_bytes = rows, size_bytes
        self._added_rows, self._added_bytes = rows, 0

    def note(self, letters: Sequence[DeadLetter]) -> None:
        """These are stored."""
        if not letters:
            return
        self._added_rows += len(letters)
        self._added_bytes += sum(letter.kept_bytes for letter in letters)
        self.is_due |= self._added_rows * 100 >= self._rows or self._added_bytes * 100 >= self._size_bytes

    async def drop_oldest(self, connection: Connection) -> int:
        """Delete what is over, if no other process does so at the moment; return how many letters. At most 10,000."""
        dropped = 0
        if await connection.fetchval("select pg_try_advisory_xact_lock($1)", LOCK_KEY):
            statement = statements()["drop_oldest_letters"]
            dropped = len(await connection.fetch(statement, self._rows, self._size_bytes, MAX_DROPPED))
        self.is_due = dropped == MAX_DROPPED
        self._added_rows = self._added_bytes = 0
        return dropped


def encode_headers(headers: Headers) -> bytes:
    """Headers as the JSON that the column `headers` holds."""
    shown: dict[str, list[Any]] = {}
    for name, value in headers:
        raw = name.encode("utf-8", "surrogateescape")
        if _is_plain(raw):
            shown.setdefault(name, []).append(encoded(value))
        else:
            pair = {"name": _base64(raw), "value": encoded(value)}
            shown.setdefault(raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00"), []).append(pair)
    flat = {name: values[0] if len(values) == 1 else values for name, values in shown.items()}
    return sanitise(orjson.dumps(flat))


def decode_headers(stored: bytes) -> list[tuple[str, bytes | None]]:
    """The headers that `encode_headers` was given; those of one name stand together."""
    return [
        _header(name, value)
        for name, values in orjson.loads(stored).items()
        for value in (values if isinstance(values, list) else [values])
    ]


def _header(name: str, stored: Any) -> tuple[str, bytes | None]:
    if isinstance(stored, dict) and "name" in stored:
        raw = _decoded(stored["name"]) or b""
        return raw.decode("utf-8", "surrogateescape"), _decoded(stored.get("value"))
    return name, _decoded(stored)


def _is_plain(value: bytes) -> bool:
    """Whether it is text that PostgreSQL holds."""
    try:
        return "\0" not in value.decode()
    except UnicodeDecodeError:
        return False


def _base64(value: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode()}


def encoded(value: bytes | None) -> str | dict[str, str] | None:
    """As JSON: text, or `{"base64": ...}`."""
    return value if value is None else value.decode() if _is_plain(value) else _base64(value)


def _decoded(stored: Any) -> bytes | None:
    if stored is None:
        return None
    if isinstance(stored, dict) and isinstance(stored.get("base64"), str):
        return base64.b64decode(stored["base64"])
    return stored.encode() if isinstance(stored, str) else orjson.dumps(stored)
