"""One walk through the JSON of a value, which drops or replaces members as a rule says. Pure: no I/O, no clock.

What a rule is about is marked by bytes (`password`, `managedFields`): only containers that hold a mark are entered, all
else is copied as it is. Time is linear in the size of the value, whatever its depth and width: it is read once to find
the containers with marks, and each of those once more. Memory is the value's size for the search in lower case, once
more for what is changed, and 8 bytes for each container that holds a mark.
"""

from __future__ import annotations

import heapq
import io
import json
import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import lru_cache

from clusterinfo.errors import RecordError
from clusterinfo.json_repair import MAX_DEPTH

DEEPEST = MAX_DEPTH + 1
"""Containers within each other that are walked through."""
Value = bytes | memoryview
"""JSON of one value: of a scalar bytes, of a container (not copied) a memoryview."""

_OBJECT, _ARRAY = b"{["
_SPACE = rb"[ \t\r\n]*"
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_SCALAR = _STRING + rb'|[^ \t\r\n{}\[\],:"]+'
_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|' + _STRING + rb"){0,500}+[{}\[\]]?+", re.DOTALL)
"""Up to the next bracket, or 500 strings: in between other threads may have their turn."""
_ELEMENT = re.compile(_SPACE + rb"(?:(" + _SCALAR + rb")" + _SPACE + rb",?+|(?=[{}\[\]]))", re.DOTALL)
_MEMBER = re.compile(
    _SPACE + rb"(?:(" + _STRING + rb")" + _SPACE + b":" + _ELEMENT.pattern + rb"|(?=[}\]]))", re.DOTALL
)
_COMMA = re.compile(_SPACE + rb",?+")
# All of these are matched where they have to stand, never searched: a search that fails reads everything again.


class Leaves:
    """As a rule's answer: every string and number of the value, also in arrays, becomes what `replace` makes of it.

    Objects in it stay, and are walked through: the names of their own members judge.
    """

    def __init__(self, replace: Callable[[bytes], bytes]) -> None:
        self.replace = replace


class Siblings:
    """The members of the object that a member belongs to, read when asked for; of a name given twice the last."""

    def __init__(self, walk: _Walk | None = None, start: int = 0) -> None:
        self._walk = walk
        self._start = start
        self._found: dict[str, bytes] = {}

    def get(self, name: str) -> bytes:
        """The JSON of the scalar that the member is; empty if there is no such member, or it is a container."""
        if self._walk is not None and name not in self._found:
            self._found[name] = self._walk.scalar_member(self._start, name)
        return self._found.get(name, b"")


Rule = Callable[[Siblings, str, Value], Value | Leaves | None]
"""(siblings, a member's name, its value) -> the value itself: it stays, and is walked through; other bytes: these stand
there instead; `Leaves`; None: the member is dropped."""


def rewrite(value: bytes, marks: tuple[bytes, ...], rule: Rule, name: str = "", *, any_case: bool = False) -> bytes:
    """Apply `rule` to `value`, a member called `name`, and to every member within it of an object that holds a mark.

    `any_case`: marks are in lower case and mean any case. The same bytes if nothing changes. Raises RecordError for
    what is no JSON, ValueError for a name that is no Unicode text, RecursionError for marks more than 200 levels deep.
    A value that the rule drops becomes `null`.
    """
    found = rule(Siblings(), name, value) if name else value
    leaf = found.replace if isinstance(found, Leaves) else None
    if found is not value and leaf is None:
        return bytes(found) if isinstance(found, bytes | memoryview) else b"null"
    if value[:1] not in (b"{", b"["):
        return leaf(value) if leaf and _is_leaf(value) else value
    searched = value.lower() if any_case else value
    present = tuple(mark for mark in marks if mark in searched)
    if not present and not (leaf and value[:1] == b"["):
        return value
    telling = _Telling(value, _positions(searched, present))
    del searched
    return _Walk(value, telling, rule).run(leaf)


def _is_leaf(value: bytes) -> bool:
    """True for a string and a number."""
    return value[:1] not in (b"t", b"f", b"n")


def _positions(searched: bytes, marks: tuple[bytes, ...]) -> Iterator[int]:
    """Where the marks stand, in order."""

    def of(mark: bytes) -> Iterator[int]:
        at = searched.find(mark)
        while at >= 0:
            yield at
            at = searched.find(mark, at + 1)

    return heapq.merge(*map(of, marks)) if len(marks) > 1 else of(marks[0]) if marks else iter(())


class _Telling:
    """The containers of a value that hold a mark: where they begin, in order, and where they end."""

    def __init__(self, value: bytes, marks: Iterator[int]) -> None:
        if len(value) >= 1 << 32:
            raise RecordError("it is longer than 4 GiB")
        self._starts, self._ends = array("I"), array("I")
        self._fill(value, marks)

    def end(self, start: int) -> int:
        """Behind the container that begins at `start`; 0 if it holds no mark."""
        at = bisect_left(self._starts, start)
        return self._ends[at] if at < len(self._starts) and self._starts[at] == start else 0

    def _fill(self, value: bytes, marks: Iterator[int]) -> None:
        starts, ends, match = self._starts, self._ends, _BRACKET.match
        above: list[int] = []
        """Of each container that is open, its number."""
        mark, last_mark, depth, at = next(marks, len(value)), -1, 0, 0
        while (found := match(value, at)) and found.end() > at:
            at = found.end()
            if (byte := value[at - 1]) in b"{[":
                depth += 1
                if depth <= DEEPEST + 1:  # one more, which nobody may enter
                    above.append(len(starts))
                    starts.append(at - 1)
                    ends.append(0)
            if byte not in b"}]":
                continue
            while mark < at:
                mark, last_mark = next(marks, len(value)), mark
            if depth <= DEEPEST + 1:
                number = above.pop()
                if last_mark >= starts[number]:
                    ends[number] = at
                else:  # those behind it have been taken away: it is the last
                    del starts[number], ends[number]
            depth -= 1
            if not depth:
                return
        raise RecordError("the JSON ends in the middle of a value")


@lru_cache(maxsize=4096)
def _text(name: bytes) -> str:
    return str(json.loads(name)) if b"\\" in name else name[1:-1].decode()


class _Frame:
    """A container that is being walked through."""

    __slots__ = ("cut_from", "has_kept", "leaf", "siblings")

    def __init__(self, siblings: Siblings | None, start: int, leaf: Callable[[bytes], bytes] | None) -> None:
        self.siblings = siblings
        """None of an array."""
        self.leaf = leaf
        self.cut_from = start + 1
        """Where the last member ended."""
        self.has_kept = False


class _Walk:
    """One walk; it goes through the containers in the order in which they stand there, without recursion.

    No position needs a check against the end: `_Telling` has found every bracket to be closed.
    """

    def __init__(self, value: bytes, telling: _Telling, rule: Rule) -> None:
        self._value = value
        self._view = memoryview(value)
        self._telling = telling
        self._rule = rule
        self._stack: list[_Frame] = []
        self._written = io.BytesIO()  # hands out its bytes without a copy
        self._done = 0
        """Up to where the value has been taken or replaced."""

    def run(self, leaf: Callable[[bytes], bytes] | None) -> bytes:
        """The value as it becomes."""
        at = self._enter(0, leaf)
        while self._stack:
            frame = self._stack[-1]
            found = _read(_ELEMENT if frame.siblings is None else _MEMBER, self._value, at)
            at = found.end()
            if found[1] is None and self._value[at] in b"}]":
                at = self._leave(at + 1)
            elif frame.siblings is None:
                at = self._element(frame, found)
            else:
                at = self._member(frame, frame.siblings, found)
        if self._value[at:].strip():
            raise RecordError("something follows the end of the JSON")
        if not self._done:
            return self._value
        self._cut(len(self._value), len(self._value))
        return self._written.getvalue()

    def scalar_member(self, start: int, name: str) -> bytes:
        """What `Siblings.get` says of the object that begins at `start`."""
        at, result = start + 1, b""
        while (found := _read(_MEMBER, self._value, at))[1] is not None:
            at = found.end()
            if found[2] is None:
                at = self._behind_comma(self._end_of_container(at))
            if _text(found[1]) == name:
                result = found[2] or b""
        return result

    # --- one step ----------------------------------------------------------------------------------------------------

    def _enter(self, at: int, leaf: Callable[[bytes], bytes] | None) -> int:
        if len(self._stack) >= DEEPEST:
            raise RecursionError
        siblings = Siblings(self, at) if self._value[at] == _OBJECT else None
        self._stack.append(_Frame(siblings, at, leaf))
        return at + 1

    def _leave(self, stop: int) -> int:
        self._stack.pop()
        return self._kept(self._stack[-1], stop) if self._stack else stop

    def _kept(self, frame: _Frame, stop: int) -> int:
        """A container that stays has ended: where the next member begins."""
        frame.has_kept, frame.cut_from = True, stop
        return self._behind_comma(stop)

    def _element(self, frame: _Frame, found: re.Match[bytes]) -> int:
        at = found.end()
        if found[1] is None:
            if self._telling.end(at) or (frame.leaf and self._value[at] == _ARRAY):
                return self._enter(at, frame.leaf)
            return self._kept(frame, self._end_of_container(at))
        if frame.leaf and _is_leaf(found[1]):
            self._cut(*found.span(1), frame.leaf(found[1]))
        return at

    def _member(self, frame: _Frame, siblings: Siblings, member: re.Match[bytes]) -> int:
        at = member.end()
        stop, behind = (member.end(2), at) if member[2] is not None else self._span_of_container(at)
        value: Value = self._view[at:stop] if member[2] is None else member[2]
        found = self._rule(siblings, _text(member[1]), value)
        if found is None:
            self._drop(frame, stop, behind)
            return behind
        leaf = found.replace if isinstance(found, Leaves) else None
        if member[2] is None and (found is value or leaf):
            is_entered = self._telling.end(at) or (leaf and self._value[at] == _ARRAY)
            return self._enter(at, leaf) if is_entered else self._kept(frame, stop)
        frame.has_kept, frame.cut_from = True, stop
        if leaf:
            found = leaf(member[2]) if _is_leaf(member[2]) else value
        if found is not value:
            self._cut(stop - len(value), stop, found)  # type: ignore[arg-type]  # no Leaves any more
        return behind

    def _drop(self, frame: _Frame, stop: int, behind: int) -> None:
        """With the comma before it, or the one behind it if nothing is left before it."""
        end = stop if frame.has_kept else behind
        self._cut(frame.cut_from, end)
        frame.cut_from = end

    def _cut(self, start: int, stop: int, instead: Value = b"") -> None:
        self._written.write(self._view[self._done : start])
        self._written.write(instead)
        self._done = stop

    # --- where things end --------------------------------------------------------------------------------------------

    def _span_of_container(self, at: int) -> tuple[int, int]:
        """Where it ends, and what follows its comma."""
        stop = self._end_of_container(at)
        return stop, self._behind_comma(stop)

    def _end_of_container(self, start: int) -> int:
        if end := self._telling.end(start):
            return end
        depth, at, match = 0, start, _BRACKET.match
        while found := match(self._value, at):
            at = found.end()
            if (byte := self._value[at - 1]) in b"{[":
                depth += 1
            elif byte in b"}]" and (depth := depth - 1) == 0:
                break
        return at

    def _behind_comma(self, at: int) -> int:
        found = _COMMA.match(self._value, at)
        return found.end() if found else at


def _read(pattern: re.Pattern[bytes], value: bytes, at: int) -> re.Match[bytes]:
    found = pattern.match(value, at)
    if found is None:
        raise RecordError("a member has no name or no value")
    return found
