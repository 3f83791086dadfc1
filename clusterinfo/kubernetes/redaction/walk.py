"""One pass over an object's JSON, which changes nothing but what must go. Pure; builds no tree, recurses nowhere.

Time and memory are linear in the bytes, whatever the depth: what changes is noted as spans of the input, and written
once, at the end. A span within another one is forgotten: the outer one replaces it, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import msgspec

from clusterinfo.json_repair import MAX_DEPTH
from clusterinfo.kubernetes.pages import split_object
from clusterinfo.kubernetes.redaction import manifests, texts, values
from clusterinfo.kubernetes.redaction.names import NOTHING, Verdict, is_exempt, judge
from clusterinfo.kubernetes.redaction.paths import NONE, Wanted
from clusterinfo.kubernetes.redaction.places import (
    SECRET_MAPS,
    UNJUDGED_BELOW,
    VALUE_MEMBERS,
    is_copy,
    plain,
)
from clusterinfo.kubernetes.redaction.search import may_concern_text, may_concern_words
from clusterinfo.userinfo import JSON, may_hold_userinfo, replace_userinfo

Conceal = Callable[[bytes, str], str]
"""(a secret value, the field it stands in) -> what stands for it."""

_SHORT_BYTES = 100
"""Longer texts are not remembered."""
MAX_NESTED = 3
"""JSON within a string of JSON within a string: no deeper is looked into as JSON, but as text only."""

_TOKEN = re.compile(rb'("(?:[^"\\]++|\\.)*+")(\s*+:)?|[{}\[\]]', re.DOTALL)
"""Strings, names and brackets; numbers and literals are looked at where a name asks for it, and where a path counts."""
_ANY_TOKEN = re.compile(_TOKEN.pattern + rb'|[^\s{}\[\],:"]++', re.DOTALL)
_NUMBER_NEXT = re.compile(rb"\s*+(-?[0-9][0-9.eE+-]*+)")
_COMMA_NEXT = re.compile(rb"\s*+,")
_KIND = re.compile(rb'"Secret(?:List)?"')
_STRONG = Verdict(is_secret=True, is_strong=True)
_WHOLE = msgspec.json.Decoder(msgspec.Raw)


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """What applies to one member of an object: `judges`: names count; `reads`: texts do."""

    conceal: Conceal
    judges: bool = True
    reads: bool = True
    hides_request: bool = False
    wanted: Wanted = NONE
    depth: int = 0
    """Of JSON within strings."""


class _Frame:
    """An object or array that is open."""

    __slots__ = (
        "captured", "flag", "hides", "index", "is_object", "judges", "keeps", "key", "key_start", "kind", "label",
        "name", "named", "pending", "reads", "removes", "start", "verdict", "wanted", "was_cut",
    )  # fmt: skip

    def __init__(self, *, is_object: bool, name: str, rules: Rules) -> None:
        self.is_object = is_object
        self.name = name
        self.start = 0
        self.judges, self.reads, self.wanted = rules.judges, rules.reads, rules.wanted
        self.key, self.key_start = name, 0
        self.keeps = self.was_cut = False
        """Whether a member before this one stays; whether this one does not."""
        self.index = 0
        self.hides = self.captured = self.removes = False
        self.kind = self.flag = self.label = ""
        self.named, self.verdict = NOTHING, NOTHING
        self.pending: list[tuple[int, int]] | None = None
        """Values that came before any name."""


def walk(data: bytes, name: str, rules: Rules) -> bytes:
    """The JSON value `data` of the member `name` as the rules leave it; the same bytes if they change nothing.

    Raises RecursionError for what is nested more than MAX_DEPTH deep, ValueError for what is no JSON.
    """
    return _Walk(data, name, rules).result()


class _Output:
    """The input with edits made in it: those that nothing can take back any more are written at once.

    An edit is (start, end, what stands there instead); one within another is forgotten.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._written = BytesIO()  # whose value is handed over without another copy
        self._done = 0
        self._edits: list[tuple[int, int, bytes]] = []
        self._enough = _MANY

    def add(self, start: int, end: int, shown: bytes) -> bool:
        """True if it is time to settle."""
        self._edits.append((start, end, shown))
        return len(self._edits) >= self._enough

    def settle(self, limit: int) -> None:
        """Write all edits that end before `limit`, where the first edit may begin that is still to come."""
        self._edits.sort(key=lambda edit: (edit[0], -edit[1]))
        later = []
        for start, end, shown in self._edits:
            if end > limit:
                later.append((start, end, shown))
            elif start >= self._done:
                self._written.write(memoryview(self._data)[self._done : start])
                self._written.write(shown)
                self._done = end
        self._edits = later
        self._enough = max(_MANY, 2 * len(later))  # those that wait are sorted again once they are twice as many

    def whole(self) -> bytes:
        """The same bytes as came if there was no edit."""
        self.settle(len(self._data))
        if not self._done:
            return self._data
        self._written.write(memoryview(self._data)[self._done :])
        return self._written.getvalue()


_MANY = 256


class _Walk:
    """The state of one pass."""

    def __init__(self, data: bytes, name: str, rules: Rules) -> None:
        self._data = data
        self._rules = rules
        self._kinds = _Kinds(data)
        self._stack = [_Frame(is_object=True, name=name, rules=rules)]
        self._output = _Output(data)
        self._gone = 0
        """How many of the open ones are replaced or removed as a whole."""

    def result(self) -> bytes:
        """See `walk`."""
        if self._rules.judges and judge(self._stack[0].key).takes_numbers and not self._rules.wanted.keeps:
            self._hide_number(0)
        tokens = _TOKEN if self._rules.wanted == NONE else _ANY_TOKEN
        for token in tokens.finditer(self._data):
            start, end = token.span()
            match self._data[start]:
                case 0x22 if token[2] is not None and self._stack[-1].is_object and len(self._stack) > 1:
                    self._member(token[1], start, end)
                case 0x22:
                    self._string(token[1], start, token.end(1))
                case 0x7B | 0x5B:  # { [
                    self._open(start)
                case 0x7D | 0x5D:  # } ]
                    self._close(end)
                case _:
                    self._literal(token[0], start, end)
        if len(self._stack) > 1:
            raise ValueError("the JSON ends in the middle of a value")
        return self._output.whole()

    # --- what is met -------------------------------------------------------------------------------------------------

    def _member(self, raw: bytes, start: int, end: int) -> None:
        frame = self._stack[-1]
        frame.keeps = frame.keeps or (frame.key_start > 0 and not frame.was_cut)
        frame.key, frame.key_start, frame.was_cut = _decode_key(raw), start, False
        if may_hold_userinfo(raw):
            self._replace(start, start + len(raw), _without_userinfo(raw, self._field(), self._rules))
        if frame.judges and self._takes_numbers(frame) and not self._wanted(frame).keeps:
            self._hide_number(end)
        elif frame.judges and frame.key in VALUE_MEMBERS and (number := _NUMBER_NEXT.match(self._data, end)):
            self._await_name(frame, *number.span(1))

    def _hide_number(self, start: int) -> None:
        if number := _NUMBER_NEXT.match(self._data, start):
            self._replace(*number.span(1), self._hidden(number[1]))

    def _await_name(self, frame: _Frame, start: int, end: int) -> None:
        if not self._wanted(frame).keeps:
            frame.pending = frame.pending or []
            frame.pending.append((start, end))

    def _string(self, raw: bytes, start: int, end: int) -> None:
        frame = self._stack[-1]
        if frame.is_object and len(self._stack) > 1 and is_copy(frame.key):
            self._cut(frame, end)
            return
        if (shown := self._shown(frame, raw)) is not None:
            self._replace(start, end, shown)
        elif frame.judges and frame.is_object:
            self._pair(frame, raw, start, end)
        frame.index += 1

    def _literal(self, raw: bytes, start: int, end: int) -> None:
        frame = self._stack[-1]
        wanted = self._wanted(frame)
        if wanted.redacts and not wanted.keeps and raw != b"null":
            self._replace(start, end, self._hidden(raw))
        frame.index += 1

    def _open(self, start: int) -> None:
        if len(self._stack) > MAX_DEPTH:
            raise RecursionError
        parent = self._stack[-1]
        frame = _Frame(is_object=self._data[start] == 0x7B, name=parent.key or parent.name, rules=self._rules)
        frame.start, frame.key = start, "" if frame.is_object else frame.name
        frame.wanted = self._wanted(parent)
        frame.judges = parent.judges and parent.key not in UNJUDGED_BELOW
        frame.reads = parent.reads and (frame.judges or not parent.judges)
        frame.kind = self._kinds.of(start)
        if parent.kind == "items" and frame.is_object:
            frame.kind = "Secret"
        elif parent.kind == "SecretList" and parent.key == "items":
            frame.kind = "items"
        frame.captured = not self._gone and parent.kind == "Secret" and parent.key in SECRET_MAPS
        frame.removes = (
            not frame.is_object and len(self._stack) > 1 and parent.is_object and parent.key == "managedFields"
        )
        if frame.judges:
            self._inherit(parent, frame)
        self._gone += frame.captured or frame.removes
        self._stack.append(frame)

    def _inherit(self, parent: _Frame, frame: _Frame) -> None:
        verdict = judge(parent.key) if parent.is_object else parent.verdict
        if parent.is_object and parent.key in VALUE_MEMBERS and parent.named.is_secret:
            verdict = parent.named
        frame.verdict = verdict
        frame.hides = verdict.is_strong or (parent.hides and not (parent.is_object and is_exempt(parent.key)))

    def _close(self, end: int) -> None:
        frame = self._stack.pop()
        if not self._stack:
            raise ValueError("a bracket closes what none opened")
        parent = self._stack[-1]
        self._gone -= frame.captured or frame.removes
        if frame.captured:
            shown = fingerprint_map(self._data[frame.start : end], parent.key, self._rules.conceal)
            self._replace(frame.start, end, shown)
        if frame.removes:
            self._cut(parent, end)
        else:
            parent.index += 1

    # --- what becomes of it ------------------------------------------------------------------------------------------

    def _cut(self, frame: _Frame, end: int) -> None:
        """Drop the member that ends here, with the comma before it if one stays before it, else with that behind it."""
        start = frame.key_start
        if frame.keeps:
            start = self._data.rindex(b",", 0, start)
        elif comma := _COMMA_NEXT.match(self._data, end):
            end = comma.end()
        frame.was_cut = True
        self._replace(start, end, b"")

    def _replace(self, start: int, end: int, shown: bytes) -> None:
        if not self._gone and self._output.add(start, end, shown):
            self._output.settle(min(self._first_open(frame) for frame in self._stack))

    def _first_open(self, frame: _Frame) -> int:
        """Where an edit may begin that is still to come, of what is open."""
        return frame.pending[0][0] if frame.pending else len(self._data)

    def _wanted(self, frame: _Frame) -> Wanted:
        """Of the value that comes next."""
        if frame.wanted == NONE or len(self._stack) == 1:
            return frame.wanted
        return frame.wanted.below(frame.key if frame.is_object else str(frame.index))

    def _field(self) -> str:
        """The name under which the value stands: of an element its array's, of a named value that name."""
        frame = self._stack[-1]
        if not frame.is_object:
            return frame.name
        return frame.label if frame.key in VALUE_MEMBERS and frame.label else frame.key

    def _hidden(self, raw: bytes, *, encoded: bool = False) -> bytes:
        return quote(self._rules.conceal(plain(raw, encoded=encoded), self._field()))

    def _shown(self, frame: _Frame, raw: bytes) -> bytes | None:
        """What stands for a string; None: itself."""
        if frame.kind == "Secret" and frame.key in SECRET_MAPS:
            return self._hidden(raw)
        wanted = self._wanted(frame)
        if wanted.keeps:
            return None
        if self._rules.hides_request and frame.key == "request":
            return self._hidden(raw, encoded=True)
        if wanted.redacts or (frame.judges and self._is_secret(frame, raw)):
            return self._hidden(raw)
        if not may_concern_text(raw):
            return None
        return rewrite_string(raw, self._field(), self._rules, reads=frame.reads)

    def _is_secret(self, frame: _Frame, raw: bytes) -> bool:
        if not frame.is_object:
            return self._is_secret_element(frame, raw)
        key, named = frame.key, frame.named
        verdict = judge(key)
        if verdict.is_secret:
            return not values.is_harmless(decode(raw), verdict, key)
        if key in VALUE_MEMBERS and named.is_secret:
            return not values.is_harmless(decode(raw), named)
        return frame.hides and not is_exempt(key) and not values.is_harmless(decode(raw), _STRONG)

    def _is_secret_element(self, frame: _Frame, raw: bytes) -> bool:
        text, flag = decode(raw), frame.flag
        frame.flag = texts.flag_of(text) if text[:1] == "-" else ""
        if flag and text[:1] != "-" and not values.is_harmless(text, judge(flag), flag):
            return True
        if frame.verdict.is_secret:
            return not values.is_harmless(text, frame.verdict, frame.name)
        return frame.hides and not values.is_harmless(text, _STRONG)

    def _takes_numbers(self, frame: _Frame) -> bool:
        return judge(frame.key).takes_numbers or (frame.key in VALUE_MEMBERS and frame.named.takes_numbers)

    def _pair(self, frame: _Frame, raw: bytes, start: int, end: int) -> None:
        """`{"name": "DB_PASSWORD", "value": ...}`, in whatever order."""
        if frame.key in ("name", "key"):
            label = decode(raw)
            verdict = judge(label)
            if verdict.is_secret:
                frame.named, frame.label = verdict, label
                for span in frame.pending or ():
                    self._hide_pending(frame, *span)
                frame.pending = None
        elif frame.key in VALUE_MEMBERS:
            self._await_name(frame, start, end)

    def _hide_pending(self, frame: _Frame, start: int, end: int) -> None:
        raw = self._data[start:end]
        if frame.named.takes_numbers if raw[:1] != b'"' else not values.is_harmless(decode(raw), frame.named):
            self._replace(start, end, self._hidden(raw))


# --- within strings --------------------------------------------------------------------------------------------------


def rewrite_string(raw: bytes, field: str, rules: Rules, *, reads: bool) -> bytes | None:
    """What stands for a JSON string as the rules for texts leave it, in `field`; None: itself."""
    shown = _without_userinfo(raw, field, rules) if may_hold_userinfo(raw) else raw
    if may_concern_words(shown):
        text = decode(shown)
        rewritten = _rewritten(text, field, rules, reads=reads)
        if rewritten != text:
            return quote(rewritten)
    return shown if shown != raw else None


def _without_userinfo(raw: bytes, field: str, rules: Rules) -> bytes:
    def conceal(user: str | None, secret: str) -> str:
        quoted = f'"{secret}"'.encode("utf-8", "surrogatepass")
        hidden = rules.conceal(plain(quoted, encoded=False), field)
        return f"{hidden}@" if user is None else f"{user}:{hidden}@"

    return replace_userinfo(raw.decode(), JSON, conceal).encode()


def _rewritten(text: str, field: str, rules: Rules, *, reads: bool) -> str:
    def conceal(secret: str) -> str:
        return rules.conceal(secret.encode("utf-8", "surrogatepass"), field)

    replaced = manifests.replace_secrets(text, conceal)
    if replaced == text and reads and rules.depth < MAX_NESTED and _is_json(text):
        return _nested(text, field, rules)
    replaced = values.replace_shapes(replaced, conceal)
    return texts.rewrite(replaced, conceal) if reads else replaced


def _nested(text: str, field: str, rules: Rules) -> str:
    """JSON in a string: the rules for objects are those for what is in it."""
    return walk(text.encode(), field, Rules(rules.conceal, depth=rules.depth + 1)).decode()


def fingerprint_map(value: bytes, name: str, conceal: Conceal, *, encoded: bool | None = None) -> bytes:
    """A Secret's `data` or `stringData`: keys stay, values become fingerprints; no object: one fingerprint."""
    if value == b"null":
        return value
    if value[:1] != b"{":
        return quote(conceal(value, name))
    encoded = SECRET_MAPS.get(name, False) if encoded is None else encoded
    shown = [
        label(key) + quote(conceal(plain(bytes(one), encoded=encoded), key)) for key, one in split_object(value).items()
    ]
    return b"{" + b",".join(shown) + b"}"


class _Kinds:
    """Which objects say that they are a Secret or a SecretList: `kind` comes behind `data` as a rule.

    A bit for each byte at which an object may begin: an object of many Secrets costs no more than one of none.
    """

    def __init__(self, data: bytes) -> None:
        self._bits: dict[str, bytearray] = {}
        if _KIND.search(data):
            self._bits = {kind: bytearray(len(data) // 8 + 1) for kind in ("Secret", "SecretList")}
            self._find(data)

    def of(self, start: int) -> str:
        """Of the object that begins there."""
        for kind, bits in self._bits.items():
            if bits[start >> 3] >> (start & 7) & 1:
                return kind
        return ""

    def _find(self, data: bytes) -> None:
        starts: list[int] = []
        key = b""
        for token in _TOKEN.finditer(data):
            match data[token.start()]:
                case 0x22 if token[2] is not None:
                    key = token[1]
                case 0x22:
                    if key == b'"kind"' and starts and _KIND.fullmatch(token[1]):
                        self._bits[token[1].decode().strip('"')][starts[-1] >> 3] |= 1 << (starts[-1] & 7)
                    key = b""
                case 0x7B | 0x5B:
                    starts.append(token.start())
                    key = b""
                case _ if starts:
                    starts.pop()


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        _WHOLE.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return True


def _decode_key(raw: bytes) -> str:
    return _decoded(raw) if len(raw) <= _SHORT_BYTES else decode(raw)


@lru_cache(maxsize=2048)
def _decoded(raw: bytes) -> str:
    return decode(raw)


def decode(raw: bytes) -> str:
    """The text of a JSON string."""
    return str(json.loads(raw)) if b"\\" in raw else raw[1:-1].decode()


def quote(text: str) -> bytes:
    """A text as a JSON string; a lone surrogate, valid in JSON as an escape only, becomes one."""
    try:
        return msgspec.json.encode(text)
    except UnicodeEncodeError:
        return json.dumps(text).encode()


@lru_cache(maxsize=4096)
def label(name: str) -> bytes:
    """A member's name as JSON, with the colon."""
    return quote(name) + b":"
