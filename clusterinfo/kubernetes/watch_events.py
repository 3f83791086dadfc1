"""The stream of a watch: bytes -> lines -> events. Pure: no I/O, no clock, no environment.

"The server streams a series of JSON documents, each with a type and an object" (Kubernetes API concepts, "Efficient
detection of changes"), one a line. What no server in order would say ends the watch: a line that is no event or is too
long, an object of another kind, a version that is not above the one the watch stands at. A bookmark may repeat that
version, since nothing need have changed; below it, the server has gone back in time.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec

from clusterinfo.errors import RecordError, one_line
from clusterinfo.kubernetes.live import Event
from clusterinfo.kubernetes.pages import Slice, parse_status, split_object
from clusterinfo.model import GroupVersionResource, version_number


class Change(StrEnum):
    """`type` of an event."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    ERROR = "ERROR"


class WatchOverError(Exception):
    """The watch is over: `event` is what that means for its kind, the text is why."""

    def __init__(self, event: Event, reason: str) -> None:
        super().__init__(reason)
        self.event = event


class WatchEvent(NamedTuple):
    """One line of the stream."""

    change: Change
    raw: Slice
    """The object as JSON: the changed one, or for a bookmark one that has a version only."""


class Lines:
    """Puts the lines of a stream together."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest: list[bytes] = []
        self._rest_bytes = 0

    @property
    def is_within_a_line(self) -> bool:
        """True if what came last was no whole line."""
        return self._rest_bytes > 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that are whole now. Raises WatchOverError for one that is longer than allowed."""
        *whole, rest = _split_at_ends(chunk)
        if whole:
            whole[0] = b"".join([*self._rest, whole[0]])
            self._rest, self._rest_bytes = [], 0
        if rest:
            self._rest.append(rest)
            self._rest_bytes += len(rest)
        if self._rest_bytes > self._max_bytes or any(len(line) > self._max_bytes for line in whole):
            raise WatchOverError(Event.EXPIRED, f"an event is longer than {self._max_bytes} bytes (PAGE_BYTES)")
        return [line for line in whole if line.strip()]


def _split_at_ends(chunk: bytes) -> list[bytes]:
    """`chunk.split(b"\\n")`, which looks at each byte by itself: 6 µs for 10 kB, and this 1."""
    parts, begin = list[bytes](), 0
    while (end := chunk.find(b"\n", begin)) >= 0:
        parts.append(chunk[begin:end])
        begin = end + 1
    return [*parts, chunk[begin:]]


class _Line(msgspec.Struct, gc=False):
    type: str
    object: msgspec.Raw


class _Meta(msgspec.Struct, frozen=True, gc=False):
    resource_version: str = msgspec.field(name="resourceVersion", default="")


class _Head(msgspec.Struct, gc=False):
    kind: str = ""
    metadata: _Meta = _Meta()


_LINE = msgspec.json.Decoder(_Line)
_HEAD = msgspec.json.Decoder(_Head)


def parse_line(line: bytes) -> WatchEvent:
    """A line as an event. Raises WatchOverError if it is none, or says that the watch is over."""
    try:
        event = _split(line)
    except (ValueError, RecordError) as error:
        raise WatchOverError(Event.EXPIRED, f"a line that is no event: {one_line(error)}") from error
    if event.change is Change.ERROR:
        raise _over(bytes(event.raw))
    return event


_HEADS = [(b'{"type":"%s","object":{' % change.encode(), change) for change in (Change.MODIFIED, Change.ADDED)]
"""How API servers begin a line; the object is all that follows."""


def _split(line: bytes) -> WatchEvent:
    for head, change in _HEADS:
        if line.startswith(head) and line.endswith(b"}}"):
            return WatchEvent(change, line[len(head) - 1 : -1])  # whose JSON is read once, when it is normalised
    try:
        found = _LINE.decode(line)
        return WatchEvent(Change(found.type), found.object)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # such as an object nested 1,000 deep
        members = split_object(line)
        if not {"type", "object"} <= members.keys():
            raise ValueError("it has no type or no object") from None
        return WatchEvent(Change(msgspec.json.decode(members["type"], type=str)), members["object"])


def _over(status: bytes) -> WatchOverError:
    """What an ERROR event means. 504 and its words are those of a version that is not there yet."""
    found = parse_status(status)
    reason = one_line(f"{found.code} {found.reason}: {found.message}")
    is_lost = found.code == 410 or "too large resource version" in found.message.lower()
    if is_lost or not found.code:
        return WatchOverError(Event.EXPIRED, reason)
    return WatchOverError(Event.WATCH_FORBIDDEN if found.code == 403 else Event.BROKEN, reason)


def bookmark_version(raw: Slice, gvr: GroupVersionResource, position: int) -> int:
    """The version that a bookmark stands for. Raises WatchOverError if it is of another kind, or before `position`."""
    try:
        head = _HEAD.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WatchOverError(Event.EXPIRED, f"a bookmark that cannot be read: {one_line(error)}") from error
    check_kind(head.kind, gvr)
    number = version_number(head.metadata.resource_version)
    if number is None or number < position:
        raise _not_above(f"a bookmark of version {head.metadata.resource_version[:40]!r}", position)
    return number


def check_kind(kind: str, gvr: GroupVersionResource) -> None:
    """Raises WatchOverError for an object of another kind than the one that is watched."""
    if gvr.kind and kind != gvr.kind:
        raise WatchOverError(Event.EXPIRED, f"an object of kind {kind[:100]!r} instead of {gvr.kind}")


def version_above(version: str, position: int, change: Change) -> int:
    """The version of a changed object, or of its deletion. Raises WatchOverError unless it is above `position`."""
    number = version_number(version)
    if number is None or number <= position:
        raise _not_above(f"{change} with version {version[:40]!r}", position)
    return number


def _not_above(what: str, position: int) -> WatchOverError:
    return WatchOverError(Event.EXPIRED, f"{what}, where the watch stands at {position}")
