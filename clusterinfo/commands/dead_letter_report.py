"""Dead letters as people and scripts read them. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from clusterinfo.commands.output import Column, Line, Result, Table, ago
from clusterinfo.model import ListLane, Unit
from clusterinfo.postgres.admin.dead_letters import Letter
from clusterinfo.postgres.merge.dead_letters import encode_headers, encoded


def object_of(letter: Letter) -> str:
    """The object it is about, as kubectl would name it, else the CloudEvents subject, else nothing."""
    if letter.identity is None:
        subject = dict(letter.headers).get("ce_subject")
        return (subject or b"").decode(errors="backslashreplace")
    cluster, group, resource, namespace, name = letter.identity
    kind = str(ListLane(Unit(cluster, group, resource)))
    return " ".join(part for part in (kind, f"{namespace}/{name}" if namespace else name) if part)


def listed(letters: Sequence[Letter], now: dt.datetime) -> Result:
    """One line a letter."""
    table = Table(_columns(now), letters, "no dead letters")
    return Result.listed(table, _attributes, lambda letter: str(letter.id))


def shown(letter: Letter) -> Result:
    """All that is known of one; for scripts key, headers and value as text, or `{"base64": ...}` what is none."""
    attributes = _attributes(letter)
    message = {
        "key": encoded(letter.key),
        "headers": orjson.loads(encode_headers(letter.headers)),
        "value": encoded(letter.value),
    }
    return Result(_page(letter), attributes | message, [attributes], [str(letter.id)])


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of the replay of a letter: stored, unchanged or refused, and why."""

    id: int
    result: str
    reason: str


UNCHANGED = "unchanged", "known already, or older"
REPLAYED = (
    Column[Replayed]("ID", lambda one: one.id),
    Column[Replayed]("RESULT", lambda one: one.result),
    Column[Replayed]("REASON", lambda one: one.reason, nothing=""),
)


def replayed(outcomes: Sequence[Replayed]) -> Result:
    """One line a letter."""
    return Result.listed(Table(REPLAYED, outcomes, "no dead letters"), dataclasses.asdict, lambda one: str(one.id))


def _columns(now: dt.datetime) -> Sequence[Column[Letter]]:
    return (
        Column("ID", lambda letter: letter.id),
        Column("AGE", lambda letter: ago(letter.created_at, now)),
        Column("RECORD", _place, is_wide=True),
        Column("OBJECT", object_of),
        Column("SIZE", lambda letter: letter.size_bytes, is_wide=True),
        Column("SQLSTATE", lambda letter: letter.sqlstate, is_wide=True),
        Column("REPLAYED", lambda letter: ago(letter.replayed_at, now), is_wide=True),
        Column("REASON", lambda letter: letter.reason),
    )


def _place(letter: Letter) -> str:
    return f"{letter.topic}/{letter.partition}/{letter.offset}" if letter.topic else ""


def _attributes(letter: Letter) -> dict[str, Any]:
    """All but key, headers and value."""
    return {
        "id": letter.id,
        "created_at": letter.created_at,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "cluster": letter.identity[0] if letter.identity else None,
        "object": object_of(letter),
        "reason": letter.reason,
        "sqlstate": letter.sqlstate,
        "size_bytes": letter.size_bytes,
        "cut_off": letter.is_cut_off,
        "replayed_at": letter.replayed_at,
    }


def _page(letter: Letter) -> list[Line]:
    """Attributes, key, headers, an empty line, the value. Undecodable bytes as escapes."""
    attributes = {
        "id": letter.id,
        "created": letter.created_at.isoformat(),
        "replayed": letter.replayed_at.isoformat() if letter.replayed_at else "no",
        "topic": f"{letter.topic}, partition {letter.partition}, offset {letter.offset}" if letter.topic else "none",
        "reason": letter.reason,
        "sqlstate": letter.sqlstate or "none",
        "size": f"{letter.size_bytes} bytes" + (", of which not all were kept" if letter.is_cut_off else ""),
        "key": "none" if letter.key is None else letter.key.decode(errors="backslashreplace"),
    }
    lines = [f"{name}: {value}" for name, value in attributes.items()]
    lines += [f"header {name}: {_text(value)}" for name, value in letter.headers]
    return [Line(text, is_prose=False) for text in (*lines, "", *_text(letter.value or b"").split("\n"))]


def _text(value: bytes | None) -> str:
    return "null" if value is None else value.decode(errors="backslashreplace")
