"""Dead letters: how a message that was set aside is kept, so that it can be read by a person and rebuilt to the byte.

Headers are kept as JSON a person reads: name to text. What is no text is `{"base64": ...}`, what is there more than
once an array; so nothing about them is lost, and a message that was refused for its headers is refused for them again.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from clusterinfo.errors import ConfigError, RecordError
from clusterinfo.postgres.merge.jsonb_checks import sanitise
from clusterinfo.postgres.sql import statements

MAX_VALUE_BYTES = 1024 * 1024
"""What is kept of a value at most."""

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as stored. `value` is None where only its size was asked for, and cut off at 1 MiB."""

    id: int
    created_at: dt.datetime
    topic: str
    partition: int
    offset: int
    reason: str
    sqlstate: str | None
    replayed_at: dt.datetime | None
    key: bytes | None
    headers: list[tuple[str, bytes | None]]
    size_bytes: int
    is_cut_off: bool
    value: bytes | None = None

    @property
    def identity(self) -> tuple[str, str, str, str, str] | None:
        """Cluster, group, resource, namespace and name, if the key says them."""
        try:
            return msgspec.json.decode(self.key or b"", type=tuple[str, str, str, str, str])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def check_whole(self) -> None:
        """Raise RecordError unless everything of the message is here."""
        if self.is_cut_off:
            raise RecordError(
                f"its value of {self.size_bytes} bytes was cut off at {MAX_VALUE_BYTES}: too large to keep"
            )
        if not any(name.startswith("ce_") for name, _ in self.headers) and self.key is None:
            raise RecordError("nothing was kept that says what it is: no key and no CloudEvents headers")


def readable(headers: Headers) -> bytes:
    """Headers as the JSON that the column `headers` holds."""
    shown: dict[str, list[Any]] = {}
    for name, value in headers:
        shown.setdefault(name, []).append(_shown(value))
    flat = {name: values[0] if len(values) == 1 else values for name, values in shown.items()}
    return sanitise(orjson.dumps(flat))


def rebuilt(shown: bytes) -> list[tuple[str, bytes | None]]:
    """The headers that `readable` was given; those of one name stand together."""
    return [
        (name, _hidden(value))
        for name, values in orjson.loads(shown).items()
        for value in (values if isinstance(values, list) else [values])
    ]


def _shown(value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    return text if "\0" not in text else {"base64": base64.b64encode(value).decode()}


def _hidden(shown: Any) -> bytes | None:
    if shown is None:
        return None
    if isinstance(shown, dict) and isinstance(shown.get("base64"), str):
        return base64.b64decode(shown["base64"])
    return shown.encode() if isinstance(shown, str) else orjson.dumps(shown)


# --- what is stored --------------------------------------------------------------------------------------------------


async def find_letters(connection: Any, *, reason: str | None, replayed: bool, limit: int) -> list[Letter]:
    """The newest letters, without values. `reason`: text their reason contains; `replayed`: those replayed too."""
    rows = await connection.fetch(statements()["list_letters"], reason, replayed, limit)
    return [_letter(row) for row in rows]


async def count_letters(connection: Any, *, reason: str | None, replayed: bool) -> int:
    """How many there are that `find_letters` could find."""
    return int(await connection.fetchval(statements()["count_letters"], reason, replayed))


async def open_letter(connection: Any, letter_id: int) -> Letter:
    """A letter with its value. Raises ConfigError if there is none."""
    row = await connection.fetchrow(statements()["open_letter"], letter_id)
    if row is None:
        raise ConfigError(f"there is no dead letter {letter_id}; see `clusterinfo dead-letters list --all`")
    return _letter(row)


async def check_letters(connection: Any, ids: Sequence[int]) -> None:
    """Raise ConfigError unless there are letters of all these ids."""
    missing = await connection.fetch(statements()["find_missing_letters"], list(ids))
    if missing:
        numbers = ", ".join(str(row["id"]) for row in missing[:10])
        raise ConfigError(f"there is no dead letter {numbers}; see `clusterinfo dead-letters list --all`")


async def waiting_letters(connection: Any) -> list[int]:
    """The ids of all letters that were not replayed yet, oldest first."""
    return [row["id"] for row in await connection.fetch(statements()["find_waiting_letters"])]


async def drop_letters(connection: Any, ids: Sequence[int] | None, *, only_replayed: bool = False) -> int:
    """Delete letters (`ids` None: all, or all that were replayed); return how many."""
    chosen = None if ids is None else list(ids)
    return len(await connection.fetch(statements()["drop_letters"], chosen, only_replayed))


def _letter(row: Any) -> Letter:
    return Letter(
        row["id"],
        row["created_at"],
        row["topic"],
        row["partition"],
        row["record_offset"],
        row["reason"],
        row["sqlstate"],
        row["replayed_at"],
        row["key"],
        rebuilt(row["headers"]),
        row["size_bytes"],
        row["is_cut_off"],
        row["value"],
    )
