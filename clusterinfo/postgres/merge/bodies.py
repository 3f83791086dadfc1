"""What is stored of an object's body, and the less that is tried when PostgreSQL refuses it. Pure.

Each record is tried as it came; repaired, with the bytes as they came beside it; by its identity alone, and a dead
letter has the body. What is refused even so is a dead letter and no more.
"""

from __future__ import annotations

from typing import NamedTuple

from clusterinfo.json_repair import repair
from clusterinfo.model import Record, RecordType
from clusterinfo.postgres.merge.jsonb_checks import has_wild_number, is_suspect, sanitise

IDENTITY_ONLY, STUB, SANITISED, WHOLE = range(4)
"""Fidelity: how much of an object is stored."""


class Body(NamedTuple):
    """What is stored of an object: how much of it, as JSON, and the bytes as they came where the two differ."""

    fidelity: int
    body: bytes | None
    original: bytes | None


NOTHING = Body(IDENTITY_ONLY, None, None)


def fidelity_of(record: Record) -> int:
    """How much of it can be stored, as far as a cheap search shows; `body_of` may find less."""
    if record.state == "oversize":
        return STUB
    return SANITISED if is_suspect(record.body) and sanitise(record.body) != record.body else WHOLE


def body_of(record: Record, fidelity: int) -> Body:
    """The body of a record of that fidelity (`fidelity_of`) as it is tried first. A deletion has none."""
    body = record.body
    if record.type is RecordType.DELETED:
        return Body(fidelity, None, None)
    if has_wild_number(body) and (repaired := repair(body)) != body:
        return Body(min(fidelity, SANITISED), repaired, body)
    if fidelity == WHOLE or (repaired := sanitise(body)) == body:
        return Body(fidelity, body, None)
    return Body(fidelity, repaired, body)


def repaired_body_of(record: Record) -> Body:
    """The same once PostgreSQL refused it."""
    return Body(STUB if record.state == "oversize" else SANITISED, repair(record.body), record.body)
