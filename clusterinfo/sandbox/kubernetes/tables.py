"""The objects of one kind, as they are now, as they were at any revision still kept, and as they change. No I/O.

What etcd is to the API server: a map ordered by key, a log of changes back to the last compaction, subscriptions.
"""

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

SNAPSHOTS = 4  # ordered states of the past kept ready a table: lists in progress at the same time
SUBSCRIPTION_LIMIT = 50_000  # changes; a slower watcher is cut off, as the real server does

EventType = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """One version of one object. `key` is `namespace/name`, or `name`; `pieces` as `Encoder.encode` gives them."""

    key: str
    namespace: str
    name: str
    uid: str
    revision: int
    pieces: tuple[bytes, ...]
    version_at: int

    def rest(self) -> bytes:
        return b"".join(self.pieces)

    def at(self, revision: int) -> "Stored":
        """The same body under another revision: what a DELETED event carries."""
        pieces = list(self.pieces)
        pieces[self.version_at] = str(revision).encode()
        return Stored(
            self.key, self.namespace, self.name, self.uid, revision, tuple(pieces), self.version_at
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """`after` is what an event shows: for DELETED the last body under the revision of the deletion."""

    revision: int
    type: EventType
    before: Stored | None
    after: Stored


class Subscription:
    """Changes of one table from now on. `closed` is set, and the queue filled no further, once it is over."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self.closed = False

    def put(self, change: Change) -> None:
        if self._queue.qsize() >= SUBSCRIPTION_LIMIT:
            self.close()
        elif not self.closed:
            self._queue.put_nowait(change)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._queue.put_nowait(None)

    @property
    def is_empty(self) -> bool:
        """True if no change waits."""
        return self._queue.empty()

    async def get(self) -> Change | None:
        """The next change, None at the end. Waits without a deadline: the caller sets one."""
        return await self._queue.get()


_key = attrgetter("key")
_revision = attrgetter("revision")


class Table:
    """All objects of one (group, resource)."""

    def __init__(self) -> None:
        self.live: dict[str, Stored] = {}
        self.subscriptions: set[Subscription] = set()
        self._keys: list[str] = []
        self._log: list[Change] = []
        self._ordered: list[Stored] | None = None
        self._past: OrderedDict[int, list[Stored]] = OrderedDict()

    def put(self, stored: Stored) -> None:
        """Create or replace."""
        before = self.live.get(stored.key)
        if before is None:
            insort(self._keys, stored.key)
        self.live[stored.key] = stored
        self._changed(Change(stored.revision, "MODIFIED" if before else "ADDED", before, stored))

    def remove(self, key: str, revision: int) -> None:
        """Delete. Raises KeyError if there is no such object."""
        before = self.live.pop(key)
        del self._keys[bisect_left(self._keys, key)]
        self._changed(Change(revision, "DELETED", before, before.at(revision)))

    def pick(self, position: float) -> Stored:
        """The object at `position`, 0 to 1, of the order. Raises IndexError if there is none."""
        return self.live[self._keys[int(position * len(self._keys))]]

    def ordered(self) -> Sequence[Stored]:
        """Everything there is now, by key."""
        if self._ordered is None:
            self._ordered = [self.live[key] for key in self._keys]
        return self._ordered

    def ordered_at(self, revision: int) -> Sequence[Stored]:
        """Everything there was at `revision`, by key; correct back to the last `trim`."""
        if not self._log or self._log[-1].revision <= revision:
            return self.ordered()
        if revision not in self._past:
            self._past[revision] = self._undo(revision)
            while len(self._past) > SNAPSHOTS:
                self._past.popitem(last=False)
        self._past.move_to_end(revision)
        return self._past[revision]

    def changes_after(self, revision: int) -> list[Change]:
        """What changed after `revision`, oldest first; complete back to the last `trim`."""
        return self._log[bisect_right(self._log, revision, key=_revision) :]

    def subscribe(self) -> Subscription:
        subscription = Subscription()
        self.subscriptions.add(subscription)
        return subscription

    def close_subscriptions(self) -> None:
        for subscription in list(self.subscriptions):
            subscription.close()

    def trim(self, revision: int) -> int:
        """Drop what is needed only for states before `revision`; how many changes that were."""
        count = bisect_right(self._log, revision, key=_revision)
        del self._log[:count]
        for past in [past for past in self._past if past < revision]:
            del self._past[past]
        return count

    def _changed(self, change: Change) -> None:
        self._ordered = None
        self._log.append(change)
        for subscription in self.subscriptions:
            subscription.put(change)

    def _undo(self, revision: int) -> list[Stored]:
        before = {change.after.key: change.before for change in reversed(self.changes_after(revision))}
        then = [stored for stored in self.ordered() if stored.key not in before]
        then += [stored for stored in before.values() if stored is not None]
        return sorted(then, key=_key)


def within(items: Sequence[Stored], prefix: str, start: str) -> tuple[int, int]:
    """The range of ordered `items` whose keys begin with `prefix` and are not before `prefix + start`."""
    low = bisect_left(items, prefix + start, key=_key)
    high = bisect_left(items, prefix[:-1] + chr(ord(prefix[-1]) + 1), key=_key) if prefix else len(items)
    return low, max(low, high)
