"""What jsonb and text cannot hold, found by cheap searches. Pure; a body is never parsed here.

Every body meets these. What they do not find PostgreSQL refuses, or takes: for what it refuses see `json_repair.py`.

Source: PostgreSQL manual, 8.14, "RFC 7159 permits JSON strings to contain Unicode escape sequences denoted by \\uXXXX.
[...] the jsonb input function is stricter: it disallows \\u0000 [...] and requires surrogate pairs to be correct".
"""

from __future__ import annotations

import re

from clusterinfo.json_repair import repair_escapes

# NUL, and whatever begins a surrogate; one search for a prefix takes a third of what three of `in` take.
_REFUSED = re.compile(rb"\\u(?:0000|[dD])")
# Two patterns, each with a letter in front: together four times as fast as one with a choice of letters.
_WILD = re.compile(rb"e[+-]?[0-9]{4,}\s*[,}\]]"), re.compile(rb"E[+-]?[0-9]{4,}\s*[,}\]]")


def is_suspect(body: bytes) -> bool:
    """True if `body` may hold an escape jsonb refuses.

    A body without a backslash, as most are, costs one memchr: 0.1 µs for 6 kB; the search behind it 3 µs.
    """
    return b"\\" in body and _REFUSED.search(body) is not None


def has_wild_number(body: bytes) -> bool:
    """True if `body` may hold a number that is short to write and long to read; 10 µs for 6 kB.

    PostgreSQL takes `1e131071` in 8 bytes and gives it back in 131,072.
    """
    return any(pattern.search(body) for pattern in _WILD)


def sanitise(body: bytes) -> bytes:
    """`body` with every escape jsonb refuses replaced by U+FFFD; the same bytes if there is none."""
    return repair_escapes(body)


def plain(text: str) -> str:
    """`text` as PostgreSQL's type text can hold it."""
    return text.replace("\0", "\ufffd")
