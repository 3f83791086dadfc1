"""What was there at any moment, by the messages of a topic alone: a replay that shares no code with the program.

Messages of a kind are taken in the order of its partition. What is newer by (list's) version takes the place of what is
older; a completed list ends what it does not name, as of when its first page had come (or it began). No version
begins before the one it follows.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from tests.faults.topic import COMPLETED, DELETED, OBSERVED, Message

Kind = tuple[str, str]
"""(API group, resource)."""
Name = tuple[str, str]
"""(namespace, name)."""
Object = tuple[str, str, str, str]
"""(namespace, name, uid, resourceVersion)."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object; `at`: the newest version as of which it was seen; `until`: None: it is there still."""

    shown: Object
    content: str
    at: int
    since: dt.datetime
    is_deleted: bool = False
    until: dt.datetime | None = None

    def was_there(self, moment: dt.datetime) -> bool:
        return not self.is_deleted and self.since <= moment and (self.until is None or moment < self.until)


@dataclass(slots=True)
class _Taken:
    """A kind: what is there now, what was, and as of which version lists have proven it."""

    present: dict[Name, Version] = field(default_factory=dict)
    past: list[Version] = field(default_factory=list)
    floor: int = -1

    def take(self, message: Message) -> None:
        headers, name = message.headers, message.key[3:]
        shown = (*name, headers["uid"], headers["resourceversion"])
        at, since = int(headers["listversion"]), moment_of(headers["time"])
        new = Version(shown, headers.get("contenthash", ""), at, since, message.type == DELETED)
        before = self.present.get(name)
        if before is None:
            if at > self.floor:
                self.present[name] = new
        elif at > before.at:
            self.present[name] = self._follow(before, new)

    def _follow(self, before: Version, new: Version) -> Version:
        if (before.shown[3], before.is_deleted) == (new.shown[3], new.is_deleted):
            return replace(before, at=new.at)
        since = max(before.since, new.since)
        if not before.is_deleted:
            if not new.is_deleted and (before.shown[2], before.content) == (new.shown[2], new.content):
                return replace(new, since=before.since)
            self.past.append(replace(before, until=since))
        return replace(new, since=since)

    def complete(self, version: int, seen: dt.datetime) -> None:
        if version <= self.floor:
            return
        self.floor = version
        for name, row in list(self.present.items()):
            if row.at < version or (row.is_deleted and row.at == version):
                del self.present[name]
                if not row.is_deleted:
                    self.past.append(replace(row, until=max(row.since, seen)))


class Replay:
    """All that a topic says."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self._kinds: dict[Kind, _Taken] = {}
        for message in messages:
            kind = self._kinds.setdefault((message.key[1], message.key[2]), _Taken())
            if message.type in (OBSERVED, DELETED):
                kind.take(message)
            elif message.type == COMPLETED:
                kind.complete(int(message.headers["listversion"]), seen(message))

    @property
    def kinds(self) -> list[Kind]:
        """Those that have objects, or had."""
        return sorted(kind for kind, taken in self._kinds.items() if taken.present or taken.past)

    def as_of(self, kind: Kind, moment: dt.datetime) -> Iterator[Object]:
        """The objects of a kind as they were known at a moment."""
        taken = self._kinds[kind]
        yield from (one.shown for one in (*taken.past, *taken.present.values()) if one.was_there(moment))


def seen(completed: Message) -> dt.datetime:
    """When a list's first page had come, if it says so, or when it began, by its UUIDv7, not after it was complete."""
    if said := json.loads(completed.value).get("seen"):
        return moment_of(said)
    milliseconds = uuid.UUID(completed.list).int >> 80
    return min(moment_of(completed.headers["time"]), dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC))


def moment_of(text: str) -> dt.datetime:
    """A time as CloudEvents have it."""
    return dt.datetime.fromisoformat(text)
