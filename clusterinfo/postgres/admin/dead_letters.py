"""Dead letters, for the person who lists, opens, replays or drops them. How they are kept: `merge/dead_letters.py`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from clusterinfo.errors import ConfigError, RecordError
from clusterinfo.postgres.connection import Connection, Row
from clusterinfo.postgres.merge.dead_letters import decode_headers
from clusterinfo.postgres.sql import statements


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as stored. `value` is None where only its size was asked for, and cut off at 1 MiB.

    `size_bytes`: of its value, and of what was left out of its key and headers; `is_cut_off`: not all of it is kept.
    """

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
        """Cluster, group, resource, namespace and name, if the key can be read."""
        try:
            return msgspec.json.decode(self.key or b"", type=tuple[str, str, str, str, str])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def check_whole(self) -> None:
        """Raise RecordError unless everything of the message is here."""
        if self.is_cut_off:
            raise RecordError(f"it was cut off: of its {self.size_bytes} bytes not all were kept")
        if not any(name.startswith("ce_") for name, _ in self.headers) and self.key is None:
            raise RecordError("nothing was kept that identifies it: no key and no CloudEvents headers")


async def find_letters(connection: Connection, *, reason: str | None, replayed: bool, limit: int) -> list[Letter]:
    """The newest letters, without values. `reason`: text their reason contains; `replayed`: those replayed too."""
    rows = await connection.fetch(statements()["list_letters"], reason, replayed, limit)
    return [_letter(row) for row in rows]


async def count_letters(connection: Connection, *, reason: str | None, replayed: bool) -> int:
    """How many there are that `find_letters` could find."""
    return int(await connection.fetchval(statements()["count_letters"], reason, replayed))


async def open_letter(connection: Connection, letter_id: int) -> Letter:
    """A letter with its value. Raises ConfigError if there is none."""
    row = await connection.fetchrow(statements()["open_letter"], letter_id)
    if row is None:
        raise ConfigError(f"there is no dead letter {letter_id}; see `clusterinfo dead-letters list --all`")
    return _letter(row)


async def check_letters(connection: Connection, ids: Sequence[int]) -> None:
    """Raise ConfigError unless there are letters of all these ids."""
    missing = await connection.fetch(statements()["find_missing_letters"], list(ids))
    if missing:
        numbers = ", ".join(str(row["id"]) for row in missing[:10])
        raise ConfigError(f"there is no dead letter {numbers}; see `clusterinfo dead-letters list --all`")


async def waiting_letters(connection: Connection) -> list[int]:
    """The ids of all letters that were not replayed yet, oldest first."""
    return [row["id"] for row in await connection.fetch(statements()["find_waiting_letters"])]


async def drop_letters(connection: Connection, ids: Sequence[int] | None, *, only_replayed: bool) -> list[int]:
    """Delete letters (`ids` None: all, or all that were replayed); return the ids of those that were there."""
    chosen = None if ids is None else list(ids)
    return sorted(row["id"] for row in await connection.fetch(statements()["drop_letters"], chosen, only_replayed))


def _letter(row: Row) -> Letter:
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
        decode_headers(row["headers"]),
        row["size_bytes"],
        row["is_cut_off"],
        row["value"],
    )
