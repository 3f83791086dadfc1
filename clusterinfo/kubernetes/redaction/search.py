"""The search that lets objects stay unparsed: what it passes over, no rule would change. Pure but for a cache.

It looks for hints: words one of which is in everything that a rule changes. What stands between two `{` around one is
looked at more closely, since a Pod's volumes have a `token` and a `key`; a piece in which it means nothing is
remembered, and most are in many objects. The search relies on what API servers do: names are written unescaped; other
escapes of letters count as hints.

It may say yes too often, which costs a pass of `walk.py`, and never no too often, which a property test watches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from clusterinfo.kubernetes.redaction import manifests, texts, values
from clusterinfo.kubernetes.redaction.names import Verdict, is_exempt, judge
from clusterinfo.kubernetes.redaction.needles import Needles
from clusterinfo.kubernetes.redaction.places import COPY_MARKS, VALUE_MEMBERS
from clusterinfo.userinfo import may_hold_userinfo

_SURE = Needles(
    (
        *(needle for shape in values.SHAPES for needle in shape.needles),
        *manifests.PACKED,
        *COPY_MARKS,
        "managedFields",
    )
)
"""In the letters in which they stand; `_HINT` in lower case."""
_HINTS = (
    *texts.NEEDLES,
    *("eyj", "akia", "asia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "glpat-", "xox", "k_live_", "private key"),
    *("slack.com", "office.com", "azure.com", "/api/webhooks", "telegram", "asic ", "earer "),
    *("ls0tls1crudjti", "u2vjcmv0", "nly3jld", "tzwnyzx", "h4si"),
    *("last-", "rio.cattle", "kapp.k14s", "conversion-data", "managedfields", "\\u00"),
)
_HINT = Needles(_HINTS)

LARGE_BYTES = 64 * 1024
"""A longer JSON is searched for hints alone: its pieces could be many, and small."""
_OVERLAP = 64
_MAX_KNOWN, _MAX_KNOWN_BYTES = 8_000, 1024
"""At most 8 MB, and 1 MB for the objects that hold it."""

_SHORT_BYTES = 200
"""Verdicts on longer texts are not remembered."""

_harmless: set[bytes] = set()
"""Pieces with a hint, as they are, that no rule would change."""


def may_concern_values(data: bytes) -> bool:
    """False if no rule changes anything in `data`, JSON in which neither names nor texts are judged."""
    if may_hold_userinfo(data):
        return True
    return any(_has_sure(data[start : start + LARGE_BYTES]) for start in range(0, len(data), LARGE_BYTES - _OVERLAP))


def _has_sure(data: bytes) -> bool:
    return _SURE.are_in(data) or bool(b"ecret" in data and _SECRET_KIND.search(data))


def may_concern(data: bytes) -> bool:
    """False if no rule changes anything in `data`, JSON of an object's members."""
    if may_hold_userinfo(data):
        return True
    if len(data) > LARGE_BYTES:
        return _hints_in_parts(data)
    return bool(concerned(data, with_hints(data)))


Span = tuple[int, int]
"""Where a piece begins and ends: behind a `{`, and before the next one."""


def with_hints(data: bytes) -> list[Span]:
    """The pieces between the `{` of an object's JSON that hold a hint, and are not known as harmless."""
    found: list[Span] = []
    end = 0
    for at in _HINT.ends(data.lower()):
        if at > end:  # in another piece than the last
            begin, end = data.rfind(b"{", end, at) + 1, data.find(b"{", at)  # as `span_around`, which takes as long
            end = end if end >= 0 else len(data)
            if data[begin:end] not in _harmless:
                found.append((begin, end))
    return found


def span_around(data: bytes, at: int, after: int = 0) -> Span:
    """The piece that `at` is in, which begins no earlier than `after`."""
    end = data.find(b"{", at)
    return data.rfind(b"{", after, at) + 1, end if end >= 0 else len(data)


def holds_hint(data: bytes) -> bool:
    """False if no rule can tell `data`, in lower case, from other texts."""
    return _HINT.are_in(data)


def may_concern_text(raw: bytes) -> bool:
    """False if no rule for texts changes the JSON string `raw`."""
    return _may_concern_short(raw) if len(raw) <= _SHORT_BYTES else _may_concern_text(raw)


@lru_cache(maxsize=4096)
def _may_concern_short(raw: bytes) -> bool:
    return _may_concern_text(raw)


def _may_concern_text(raw: bytes) -> bool:
    return may_hold_userinfo(raw) or may_concern_words(raw)


def may_concern_words(raw: bytes) -> bool:
    """False if no rule for texts changes the JSON string `raw`, but that for URLs."""
    return _hints_in_parts(raw) and not (_WORD.fullmatch(raw) and not _SURE.are_in(raw))


def _hints_in_parts(data: bytes) -> bool:
    step = LARGE_BYTES - _OVERLAP
    return any(_HINT.are_in(data[start : start + LARGE_BYTES].lower()) for start in range(0, len(data), step))


def _remember(known: set[bytes], found: Iterable[bytes]) -> None:
    if len(known) > _MAX_KNOWN:
        known.clear()
    known.update([one for one in found if len(one) <= _MAX_KNOWN_BYTES])


# --- more closely ----------------------------------------------------------------------------------------------------

_STRING = rb'"((?:[^"\\]++|\\.)*+)"'
_MEMBER = re.compile(rb'"([^"\\]*+)"\s*+:\s*+(?:' + _STRING + rb'|([^\s,"\[\]}]++)|(\[)?)', re.DOTALL)
_NAMED = re.compile(rb'(?<![^\s,{])"(?:name|key)"\s*+:\s*+"([^"\\]++)"')
_VALUE = re.compile(rb'"(?:' + "|".join(VALUE_MEMBERS).encode() + rb')"\s*+:')
_MEMBERS_BEHIND = re.compile(rb"[}\]]\s*+(,[^{}]*+)")
_VALUE_NEXT = re.compile(rb",\s*+" + _VALUE.pattern)
_WORD = re.compile(rb'"[\w.]*+"')
"""A text without what stands between a name and its value: only a secret's shape can tell."""
_PLAIN_STRING = re.compile(rb'"[^"\\]*+"')
_RUN = re.compile(rb"[A-Za-z_][\w.\-]*+")
_ASSIGNS = re.compile(
    rb"[ ]?=|\\*+[\"']?\s*+\\*+n?\s*+:|[ \t]+\\*+[\"']|(?:,[ \t]*|[ \t]+)(?i:"
    + "|".join(VALUE_MEMBERS).encode()
    + rb")\b"
)
_NAMES = re.compile(rb"(?i:name|key)\\*[\"']?[ \t]*[:=][ \t]*\\*[\"']?\Z")
_NAMES_BYTES = 20
_BEFORE_NAMED = (b" ", b'"', b"'", b":", b"=")
_SQL = re.compile(rb"(?i:identified[ ]+by)")
_SECRET_KIND = re.compile(rb"kind\\*[\"']?\s*:\s*\\*[\"']?Secret(?:List)?\b")
_SIGNATURE = re.compile(rb"(?i:sig|signature)=")
_LETTER_ESCAPED = re.compile(rb"\\u00(?!3[cCeE]|26|0|1)")


def concerned(data: bytes, hinting: Iterable[Span]) -> list[Span]:
    """Which of the pieces that `with_hints` named a rule may change, apart from userinfo in URLs."""
    found = []
    harmless = set()
    for begin, end in hinting:
        piece = data[begin:end]
        if piece in harmless:
            continue
        is_concerned, is_always_harmless = _names_variable(piece), False
        if not is_concerned:
            is_concerned, is_always_harmless = _judge(piece, *_two_behind(data, end))
        if is_concerned:
            found.append((begin, end))
        elif is_always_harmless:
            harmless.add(piece)
    _remember(_harmless, harmless)
    return found


def _two_behind(data: bytes, end: int) -> Iterator[bytes]:
    """The two pieces behind the one that ends there, or as many as there are."""
    for _ in range(2):
        if end == len(data):
            return
        begin, end = span_around(data, end + 1, end)
        yield data[begin:end]


VARIABLE = re.compile(rb'"name":"([^"\\]++)","value":("(?:[^"\\]++|\\.)*+")\}', re.DOTALL)
"""An environment variable as API servers write it, behind its `{`."""


def _names_variable(piece: bytes) -> bool:
    """True for most that is secret in a Pod, at little cost."""
    variable = VARIABLE.match(piece)
    return variable is not None and judge(variable[1].decode("utf-8", "replace")).is_secret


def _judge(piece: bytes, *behind: bytes) -> tuple[bool, bool]:
    """Whether a rule may change the piece, given the two behind it; whether none ever does, whatever is behind it."""
    is_short = len(piece) + sum(map(len, behind)) <= 4 * _SHORT_BYTES
    return (_judge_short if is_short else _judge_any)(piece, *behind)


@lru_cache(maxsize=2048)
def _judge_short(piece: bytes, *behind: bytes) -> tuple[bool, bool]:
    return _judge_any(piece, *behind)


def _judge_any(piece: bytes, *behind: bytes) -> tuple[bool, bool]:
    names_on = _names_on(piece)
    if not is_harmless(piece, behind[0] if behind else b"") or (names_on and _value_follows(*behind)):
        return True, False
    return False, not names_on and not _holds_member(piece, b"")


def _value_follows(*behind: bytes) -> bool:
    """True unless it is sure that the object that goes on behind the next one has no value there."""
    depth = 0
    for piece in behind:
        bare = _PLAIN_STRING.sub(b"", piece)
        if b'"' in bare or b"\\" in bare:
            return True
        depth += 1 - bare.count(b"}")
        if depth <= 0:
            return any(_VALUE_NEXT.search(members[1]) for members in _MEMBERS_BEHIND.finditer(piece))
    return True


def is_harmless(piece: bytes, following: bytes) -> bool:
    """True if nothing in `piece` concerns a rule, given what stands in the object that opens behind it."""
    if not _HINT.are_in(piece.lower()):
        return True
    if _SURE.are_in(piece) or _LETTER_ESCAPED.search(piece) or _SIGNATURE.search(piece) or _SQL.search(piece):
        return False
    return not (_SECRET_KIND.search(piece) or _names_value(piece) or _holds_member(piece, following) or _assigns(piece))


def _names_on(piece: bytes) -> bool:
    """True for `"name":"DB_PASSWORD","valueFrom":`, behind whose inner object a value might come."""
    if not piece.rstrip().endswith(b":"):
        return False
    return any(judge(name.decode("utf-8", "replace")).is_secret for name in _NAMED.findall(piece))


def _names_value(piece: bytes) -> bool:
    """True for `"name":"DB_PASSWORD","value":"x"`."""
    named = [*_NAMED.finditer(piece)]
    may_follow = bool(named) and (bool(_VALUE.search(piece)) or piece.rstrip().endswith(b"["))
    quotes = done = 0
    for found in named:
        before = piece[done : found.start()]  # from the last one on: none is read for each that is behind it
        done, quotes = found.start(), quotes + before.count(b'"')
        may_follow = may_follow or quotes % 2 == 1 or _goes_on(before)
        if may_follow and judge(found[1].decode("utf-8", "replace")).is_secret:
            return True
    return False


def _goes_on(before: bytes) -> bool:
    """True if the object may have begun in a piece before: behind another object, or a brace within its value."""
    return b"}" in before or b"]" in before or b"\\" in before


def _holds_member(piece: bytes, following: bytes) -> bool:
    for found in _MEMBER.finditer(piece):
        name = found[1].decode("utf-8", "replace")
        verdict = judge(name)
        if verdict.is_secret and not _is_value_harmless(found, name, verdict, piece, following):
            return True
    return False


def _is_value_harmless(found: re.Match[bytes], name: str, verdict: Verdict, piece: bytes, following: bytes) -> bool:
    if (text := found[2]) is not None:
        return b"\\" not in text and values.is_harmless(text.decode("utf-8", "replace"), verdict, name)
    if found[3] is not None:
        return not verdict.takes_numbers
    if piece[found.end() :].strip():
        return False  # elements of an array, or a text that is parted by a brace
    if not verdict.is_strong and not found[4]:
        return True
    return _is_reference(following, in_array=bool(found[4]))


def _is_reference(following: bytes, *, in_array: bool) -> bool:
    """True for `"secretName":"x","optional":true}`: an object without any other in it that says where a secret is."""
    end = following.find(b"}")
    inside = following[:end]
    if end < 0 or b"[" in inside or b"\\" in inside or inside.count(b'"') % 2:
        return False
    if in_array and following[end + 1 :].lstrip()[:1] != b"]":
        return False
    return all(is_exempt(found[1].decode("utf-8", "replace")) for found in _MEMBER.finditer(inside))


def _assigns(piece: bytes) -> bool:
    """True if a text in `piece` may give a value to a name that looks secret."""
    for found in _RUN.finditer(piece):
        start, end = found.span()
        before, behind = piece[start - 1 : start], piece[end : end + 1]
        if before == b'"' and behind == b'"' and piece[start - 2 : start - 1] != b"\\":
            continue
        assigns = before == b"-" or behind == b"\\" or _ASSIGNS.match(piece, end)
        is_named = before in _BEFORE_NAMED and _NAMES.search(piece[max(0, start - _NAMES_BYTES) : start])
        if (assigns or is_named) and _looks_secret(found[0], before):
            return True
    return False


def _looks_secret(run: bytes, before: bytes) -> bool:
    if before == b"\\" and len(run) > 1 and judge(run[5 if run[:1] == b"u" else 1 :].decode()).is_secret:
        return True  # `\\npassword`, `\\u0026password`
    return judge(run.decode()).is_secret
