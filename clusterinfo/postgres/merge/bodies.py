"""What is stored of an object's body, and the less that is tried when PostgreSQL refuses it. Pure.

What jsonb and text cannot hold is found by cheap searches, which every body meets; no tree is made of a body. What they
do not find PostgreSQL refuses, or takes: for what it refuses see `json_repair.py`. Each record is tried as it came;
repaired, with the bytes as they came beside it; by its identity alone, and a dead letter has the body. What is refused
even so is a dead letter and no more.

Source: PostgreSQL manual, 8.14, "RFC 7159 permits JSON strings to contain Unicode escape sequences denoted by \\uXXXX.
[...] the jsonb input function is stricter: it disallows \\u0000 [...] and requires surrogate pairs to be correct".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from clusterinfo.json_repair import repair, repair_escapes
from clusterinfo.model import Record, RecordType

# NUL, and whatever begins a surrogate; one search for a prefix takes a third of what three of `in` take.
_REFUSED = re.compile(rb"\\u(?:0000|[dD])")
# Two patterns, each with a letter in front: together four times as fast as one with a choice of letters.
# At the end of a part they find what may be the beginning of one.
_WILD = re.compile(rb"e[+-]?[0-9]{4,}+\s*+(?:[,}\]]|\Z)"), re.compile(rb"E[+-]?[0-9]{4,}+\s*+(?:[,}\]]|\Z)")
# Whatever an exponent consists of as a zero, what ends a number as a comma, and white space as a blank: what is long is
# found in six tenths of the time of the searches below, and is there so rarely that those are hardly ever made.
_TO_ZEROS = bytes.maketrans(b"123456789+-E}] \t\r\n\v\f", b"00000000000e,,      ")
_LONG = re.compile(rb"e0000++ *+(?:,|\Z)")
# What is left of JSON without digits, signs and white space; whatever may stand before or behind a number is a comma.
# An exponent is an e between two of them, which one search finds in half the time that the patterns take for all.
_LEFT_OUT = b"0123456789+- \t\r\n"
_TO_COMMAS = bytes.maketrans(b":[]}.E", b",,,,,e")
_EXPONENT = b",e,"
_AT_ONCE = 64 * 1024  # bytes: searching more keeps other threads waiting for over 5 ms, whatever is there
_JSON = msgspec.json.Decoder(msgspec.Raw)
_OVERLAP = 6  # bytes that tell an escape, or that an exponent is long

IDENTITY_ONLY, STUB, SANITISED, WHOLE = range(4)
"""Fidelity: how much of an object is stored."""


MAX_REPAIRED_BYTES = 2 * 1024 * 1024
"""What is larger is not repaired, which takes up to six times as much: an object that etcd holds has 1.5 MiB."""


class Body(NamedTuple):
    """What is stored of an object: how much of it, as JSON, and the bytes as they came where the two differ."""

    fidelity: int
    body: bytes | None
    original: bytes | None


NOTHING = Body(IDENTITY_ONLY, None, None)


def fidelity_of(record: Record) -> int:
    """How much of it can be stored, as far as a cheap search shows; `body_of` may find less.

    Of what would have to be repaired and is too large for that, the identity.
    """
    body = record.body
    if len(body) > MAX_REPAIRED_BYTES and _is_beyond_repair(body):
        return IDENTITY_ONLY
    if record.state == "oversize":
        return STUB
    return SANITISED if is_suspect(body) and sanitise(body) != body else WHOLE


def _is_beyond_repair(body: bytes) -> bool:
    """Whether something so large holds what PostgreSQL refuses.

    It would say so by a copy of what it could not read, which asyncpg takes in piece by piece, each time all of it:
    100 ms for 8 MiB.
    """
    return is_suspect(body) or has_wild_number(body) or not _is_json(body)


def _is_json(body: bytes) -> bool:
    """Whether it is, or is too deep to tell; nothing is made of it."""
    try:
        _JSON.decode(body)
    except RecursionError:
        return True
    except msgspec.DecodeError:
        return False
    return True


def body_of(record: Record, fidelity: int) -> Body:
    """The body of a record of that fidelity (`fidelity_of`) as it is tried first. A deletion has none."""
    body = record.body
    if record.type is RecordType.DELETED or fidelity == IDENTITY_ONLY:
        return Body(fidelity, None, None)
    if has_wild_number(body) and (repaired := repair(body)) != body:
        return Body(min(fidelity, SANITISED), repaired, body)
    if fidelity == WHOLE or (repaired := sanitise(body)) == body:
        return Body(fidelity, body, None)
    return Body(fidelity, repaired, body)


def repaired_body_of(record: Record) -> Body:
    """The same once PostgreSQL refused it."""
    if len(record.body) > MAX_REPAIRED_BYTES:
        return NOTHING
    return Body(STUB if record.state == "oversize" else SANITISED, repair(record.body), record.body)


# --- what jsonb and text cannot hold ---------------------------------------------------------------------------------


def is_suspect(body: bytes) -> bool:
    """True if `body` may hold an escape jsonb refuses.

    A body without a backslash, as most are, costs one memchr: 0.1 µs for 6 kB; the search behind it 3 µs.
    """
    if b"\\" not in body:
        return False
    if len(body) <= _AT_ONCE:
        return _REFUSED.search(body) is not None
    return any(_REFUSED.search(body, start, end) for start, end in _parts(body))


def has_wild_number(body: bytes) -> bool:
    """True if `body` may hold a number that is short to write and long to read; 3 µs for 6 kB.

    PostgreSQL takes `1e131071` in 8 bytes and gives it back in 131,072. Of what is no JSON nothing is promised.
    """
    if len(body) <= _AT_ONCE:
        return _may_be_wild(body) and _has_exponent(body) and any(pattern.search(body) for pattern in _WILD)
    return any(
        pattern.match(body, found.start())
        for start, end in _parts(body)
        for pattern in _WILD
        for found in pattern.finditer(body, start, end)
    )


def _may_be_wild(body: bytes) -> bool:
    """False if no pattern of `_WILD` matches."""
    return _LONG.search(body.translate(_TO_ZEROS)) is not None


def _has_exponent(body: bytes) -> bool:
    """True if a number of it has an exponent, and perhaps if a text seems to have one."""
    left = body.translate(_TO_COMMAS, _LEFT_OUT)
    return _EXPONENT in left or not left.endswith(b",")  # a number alone, which is no object, ends where its body does


def _parts(body: bytes) -> Iterator[tuple[int, int]]:
    """Where parts of it begin and end that are searched one by one."""
    return ((start, start + _AT_ONCE + _OVERLAP) for start in range(0, len(body), _AT_ONCE))


def sanitise(body: bytes) -> bytes:
    """`body` with every escape jsonb refuses replaced by U+FFFD; the same bytes if there is none."""
    return repair_escapes(body)


def plain(text: str) -> str:
    """`text` as PostgreSQL's type text can hold it."""
    return text.replace("\0", "\ufffd")
