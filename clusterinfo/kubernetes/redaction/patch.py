"""The same as `walk.py`, at less cost where what changes lies within small objects, as environment variables do.

The search names the pieces between `{` that matter. One that is a whole object without others in it can be walked by
itself: what its ancestors say of it they say in pieces that matter, too, and those are no such objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from clusterinfo.kubernetes.redaction import values
from clusterinfo.kubernetes.redaction.names import judge
from clusterinfo.kubernetes.redaction.paths import NONE
from clusterinfo.kubernetes.redaction.places import UNJUDGED_BELOW, plain
from clusterinfo.kubernetes.redaction.search import (
    LARGE_BYTES,
    VARIABLE,
    concerned,
    is_harmless,
    may_concern,
    may_concern_text,
    may_concern_values,
    with_hints,
)
from clusterinfo.kubernetes.redaction.walk import Rules, decode, quote, rewrite_string, walk
from clusterinfo.userinfo import ats, may_hold_userinfo

_FLAT = re.compile(rb'(?:[^"{}\[\]\\]++|"(?:[^"\\]++|\\.)*+"|\[[^"{}\[\]]*+\])*+\}', re.DOTALL)
_MANY = 50
"""More pieces than that are walked together."""
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_UNJUDGED = tuple(f'"{name}"'.encode() for name in UNJUDGED_BELOW)


def rewrite(data: bytes, name: str, rules: Rules) -> bytes:
    """What `walk` returns for the member `name` of an object."""
    if rules.hides_request or rules.wanted != NONE or name in UNJUDGED_BELOW or judge(name).is_secret:
        return walk(data, name, rules)
    if not rules.judges:
        return walk(data, name, rules) if may_concern_values(data) else data
    if len(data) > LARGE_BYTES:
        return walk(data, name, rules) if may_concern(data) else data
    pieces, numbers = find(data)
    if not numbers:
        return data
    patched = patch(pieces, numbers, partial(rewritten, rules=rules))
    return walk(data, name, rules) if patched is None else patched


def find(data: bytes) -> tuple[list[bytes], list[int]]:
    """The pieces between the `{` of an object's JSON, and the numbers of those that a rule may change.

    The names in it are judged, and no path counts.
    """
    hinting, holds_userinfo = with_hints(data), may_hold_userinfo(data)
    if not (hinting or holds_userinfo):
        return [], []
    pieces = data.split(b"{")
    numbers = concerned(pieces, hinting)
    if holds_userinfo:
        numbers = sorted({*numbers, *_numbers(data, ats(data))})
    return pieces, numbers


def _numbers(data: bytes, places: Iterable[int]) -> Iterator[int]:
    """The numbers of the pieces in which `places`, in order, are."""
    number = done = 0
    for at in places:
        number += data.count(b"{", done, at)
        done = at
        yield number


Rewritten = Callable[[bytes], bytes | None]


def patch(pieces: list[bytes], numbers: list[int], rewrite_piece: Rewritten) -> bytes | None:
    """The pieces joined again, those of the given numbers rewritten; None if one of them is no object by itself."""
    if numbers[0] < 1 or len(numbers) > _MANY:
        return None
    quotes = done = 0
    shown = pieces.copy()
    for number in numbers:
        before = b"".join(pieces[done:number])
        if any(name in before for name in _UNJUDGED):
            return None
        quotes += _quotes(before)
        done = number
        piece = None if quotes % 2 else rewrite_piece(pieces[number])
        if piece is None:
            return None
        shown[number] = piece
    return b"{".join(shown)


def _quotes(text: bytes) -> int:
    """Those that begin or end a string: an even number before a `{` that stands in none."""
    return (_ESCAPE.sub(b"", text) if b"\\" in text else text).count(b'"')


def rewritten(piece: bytes, rules: Rules) -> bytes | None:
    """A piece that is a whole object, and what stands behind it, after the rules; None if it is none."""
    whole = VARIABLE.match(piece)
    shown = None if whole is None else _variable(whole, rules)
    if shown is None and (whole := _FLAT.match(piece)):
        shown = walk(b"{" + whole[0], "", rules)[1:]
    if whole is None or shown is None:
        return None
    rest = piece[whole.end() :]
    return shown + rest if not may_hold_userinfo(rest) and is_harmless(b"}" + rest, b"") else None


def _variable(whole: re.Match[bytes], rules: Rules) -> bytes | None:
    """What `walk` makes of an environment variable; None if its name may change, too."""
    name, raw = whole[1].decode(), whole[2]
    if may_concern_text(b'"%b"' % whole[1]):
        return None
    verdict = judge(name)
    shown: bytes | None = raw
    if verdict.is_secret and not values.is_harmless(decode(raw), verdict):
        shown = quote(rules.conceal(plain(raw, encoded=False), name))
    elif may_concern_text(raw):
        shown = rewrite_string(raw, name if verdict.is_secret else "value", rules, reads=rules.reads)
    return whole[0] if shown is None else whole[0].removesuffix(raw + b"}") + shown + b"}"
