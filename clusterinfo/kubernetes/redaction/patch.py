"""The same as `walk.py`, at less cost where what changes lies within small objects, as environment variables do.

The search names the pieces between `{` that matter. One that is a whole object without others in it can be walked by
itself: what its ancestors say of it they say in pieces that matter, too, and those are no such objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from clusterinfo.kubernetes.redaction import values
from clusterinfo.kubernetes.redaction.names import judge
from clusterinfo.kubernetes.redaction.paths import NONE
from clusterinfo.kubernetes.redaction.places import UNJUDGED_BELOW, plain
from clusterinfo.kubernetes.redaction.search import (
    LARGE_BYTES,
    VARIABLE,
    Span,
    concerned,
    is_harmless,
    may_concern,
    may_concern_text,
    may_concern_values,
    span_around,
    with_hints,
)
from clusterinfo.kubernetes.redaction.walk import Rules, decode, quote, rewrite_string, walk
from clusterinfo.userinfo import ats, may_hold_userinfo

_FLAT = re.compile(rb'(?>(?:[^"{}\[\]\\]++|"(?:[^"\\]++|\\.)*+"|\[[^"{}\[\]]*+\]){0,1000})\}', re.DOTALL)
_ENDS = b",]} "
_MANY = 50
"""More pieces than that are walked together."""
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
RewritePiece = Callable[[bytes, Rules], tuple[int, bytes] | None]
"""How many bytes of a piece, from its beginning, are replaced, and by what."""
_UNJUDGED = tuple(f'"{name}"'.encode() for name in UNJUDGED_BELOW)


def rewrite(data: bytes, name: str, rules: Rules, rewrite_piece: RewritePiece) -> bytes:
    """What `walk` returns for the member `name` of an object. `rewrite_piece`: `rewritten`, with a memory."""
    if rules.hides_request or rules.wanted != NONE or name in UNJUDGED_BELOW or judge(name).is_secret:
        return walk(data, name, rules)
    if not rules.judges:
        return walk(data, name, rules) if may_concern_values(data) else data
    if len(data) > LARGE_BYTES:
        return walk(data, name, rules) if may_concern(data) else data
    spans = find(data)
    if not spans:
        return data
    edits = _edits_of(data, spans, rules, rewrite_piece)
    return walk(data, name, rules) if edits is None else _edited(data, edits)


def find(data: bytes) -> list[Span]:
    """The pieces between the `{` of an object's JSON that a rule may change.

    The names in it are judged, and no path counts.
    """
    spans = concerned(data, with_hints(data))
    if may_hold_userinfo(data):
        spans = sorted({*spans, *_around(data, ats(data))})
    return spans


def _around(data: bytes, places: Iterable[int]) -> Iterator[Span]:
    """The pieces in which `places`, in order, are."""
    end = 0
    for at in places:
        if at >= end:
            begin, end = span_around(data, at, end)
            yield begin, end


_Edit = tuple[int, int, bytes]
"""From where to where, and what stands there instead."""


def _edits_of(data: bytes, spans: Sequence[Span], rules: Rules, rewrite_piece: RewritePiece) -> list[_Edit] | None:
    """What is replaced in the pieces at `spans`, in order; None if one of them is no object by itself."""
    if not spans[0][0] or len(spans) > _MANY:
        return None
    quotes = done = 0
    edits = []
    for begin, end in spans:
        before = data[done:begin]
        if any(name in before for name in _UNJUDGED):
            return None
        quotes += _quotes(before)
        done = begin
        replaced = None if quotes % 2 else rewrite_piece(data[begin:end], rules)
        if replaced is None:
            return None
        edits.append((begin, begin + replaced[0], replaced[1]))
    return edits


def _edited(data: bytes, edits: Iterable[_Edit]) -> bytes:
    """`data` after `edits`."""
    parts: list[bytes] = []
    done = 0
    for begin, end, shown in edits:
        parts += data[done:begin], shown
        done = end
    return b"".join((*parts, data[done:]))


def _quotes(text: bytes) -> int:
    """Those that begin or end a string: an even number before a `{` that stands in none."""
    return (_ESCAPE.sub(b"", text) if b"\\" in text else text).count(b'"')


def rewritten(piece: bytes, rules: Rules) -> tuple[int, bytes] | None:
    """What the rules make of a piece that is a whole object, and what stands behind it; None if it is none."""
    whole = VARIABLE.match(piece)
    shown = None if whole is None else _variable(whole, rules)
    if shown is None and (whole := _FLAT.match(piece)):
        shown = walk(b"{" + whole[0], "", rules)[1:]
    if whole is None or shown is None:
        return None
    rest = piece[whole.end() :]
    is_sure = not rest.strip(_ENDS) or (not may_hold_userinfo(rest) and is_harmless(b"}" + rest, b""))
    return (whole.end(), shown) if is_sure else None


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
