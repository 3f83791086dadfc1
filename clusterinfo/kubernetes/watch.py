"""WatchSource: one kind's watch within one reach as a lane of batches, however often its connection is opened again.

Reading and sending are two things. `begin` opens the watch at a version and reads; what came waits in memory until a
pump fetches it, so that it can be read beside the list that it follows. A connection that ends is opened again where it
was read to: what was read stays until the sink has confirmed it. What the server says is `watch_events.py`'s concern,
what that means for the kind `live.py`'s: it is reported, and whoever follows the kind says whether to `reopen`.

A watch is heard from when its server says anything, or ends it in order, but not while more of that waits to be read:
after it was opened, or had to wait for room. That counts up to some seconds before, since what changed then may still
be on its way. A server that sends bookmarks is never silent for long; one that sends none is asked for short watches,
each end of which is a sign of life. That it answers 200 is none: what changed before comes after that.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from clusterinfo.budget import ByteBudget, Share
from clusterinfo.errors import FatalError, RecordError, TransientError, one_line
from clusterinfo.kubernetes.errors import ApiStatusError
from clusterinfo.kubernetes.list_source import LARGE_ITEM_BYTES, utc_now
from clusterinfo.kubernetes.list_state import too_long
from clusterinfo.kubernetes.live import Event
from clusterinfo.kubernetes.normalize import NormalizedObject, normalize
from clusterinfo.kubernetes.recording import Recorder
from clusterinfo.kubernetes.redaction.objects import Redaction
from clusterinfo.kubernetes.watch_events import (
    Change,
    Lines,
    WatchEvent,
    WatchOverError,
    bookmark_version,
    check_kind,
    parse_line,
    version_above,
)
from clusterinfo.kubernetes.watch_health import WatchHealth
from clusterinfo.model import Batch, GroupVersionResource, Lane, Position, Receipt, Record, WatchLane
from clusterinfo.observations import EventsRead, Observe, WatchOpened
from clusterinfo.statements import WatchedUnit, WatchEnded
from clusterinfo.waiting import MAX_WAIT_S, Backoff

SILENCE_S = 120.0
"""Servers send a bookmark a minute: one that has said nothing for two is not there (docs/DESIGN.md, section 4)."""
ON_ITS_WAY_S = 5.0
"""The longest that a change may take from its commit in etcd until it arrives here: ten times what load makes of it."""
DRAINED_S = 0.005
"""Whoever waits so long for more has read all that had come; just opened, so long as a change is on its way."""
WORDLESS_RENEWALS = 2
"""Watches in a row in which a server said nothing at all, after which it may have forgotten what it is asked for."""
LASTS_S, LASTS_SILENT_S = (300, 600), (60, 90)
"""Seconds that a watch is asked for, at random, as client-go does; of a server that sends no bookmarks."""
REOPEN_WITHIN_S = 10.0
"""The longest pause before a watch is opened again: what changes meanwhile is late by as much."""
SHORT_S = 1.0
"""A connection that ended sooner is opened again after a pause."""
BATCH_RECORDS, BATCH_BYTES = 1000, 512 * 1024
ALWAYS_BYTES, MOST_BYTES = 64 * 1024, 1024 * 1024
"""What a watch may always hold unsent, and at most: beyond, it reads no further. In between while all have room."""
ROOM_BYTES = 8 * 1024 * 1024
"""What all watches of a process may hold unsent together, beyond what each may always hold."""
LOOK_AGAIN_S = 0.25


class StreamOfLines(Protocol):
    """An open watch: see `client.OpenWatch`."""

    async def read(self, within_s: float) -> bytes:
        """What came next; b"" at its end."""


class WatchOpener(Protocol):
    """What a watch needs of `KubernetesClient`; see `KubernetesClient.watch` for its errors."""

    def watch(
        self, gvr: GroupVersionResource, *, namespace: str, version: int, timeout_s: int
    ) -> AbstractAsyncContextManager[StreamOfLines]:
        """A watch of what changes after `version`."""


Report = Callable[[Event], None]
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchContext:
    """What all watches of a session share."""

    opener: WatchOpener
    recorder: Recorder
    observe: Observe
    redaction: Callable[[], Redaction] = Redaction
    """As it is now: its key may be exchanged while watches run."""
    room: ByteBudget = field(default_factory=lambda: ByteBudget(ROOM_BYTES))
    max_line_bytes: int = 16 * 1024 * 1024
    silence_s: float = SILENCE_S
    on_its_way_s: float = ON_ITS_WAY_S
    now: Callable[[], dt.datetime] = utc_now


class _Pending(NamedTuple):
    """A record that was read, the version it brings the watch to, and until when the watch was heard before it."""

    record: Record
    version: int
    heard_before: dt.datetime


class _Over(NamedTuple):
    """How a connection ended."""

    event: Event
    reason: str
    wait_s: float = 0.0


class WatchSource:
    """The changes of one kind after `version`: a `pump.Source` for one `WatchLane`, made for one pump.

    `seen`: when the first page of the list it follows had come. `report` is told what happens, on the event loop;
    `health` is that of the watches before this one as well.
    """

    def __init__(
        self,
        lane: WatchLane,
        gvr: GroupVersionResource,
        context: WatchContext,
        *,
        version: int,
        seen: dt.datetime,
        report: Report,
        spawn: Spawn = asyncio.create_task,
        health: WatchHealth | None = None,
    ) -> None:
        self.lane = lane
        self.gvr = gvr
        self.health = health or WatchHealth(gvr.dotted, lane.reach, context.observe)
        self.seen = seen
        self.confirmed = version
        """All up to here is stored, or was of no interest."""
        self.reason = ""
        """Why it is over."""
        self.version = version
        """Up to where it was read, in all its life."""
        self.was_answered = False
        """True once its server has answered 200."""
        self._first = self._version = version
        self._context = context
        self._report = report
        self._spawn = spawn
        self._reader: asyncio.Task[None] | None = None
        self._reopen = asyncio.Event()
        self._news = asyncio.Event()
        self._drained = asyncio.Event()
        self._reached = asyncio.Event()
        self._tried = asyncio.Event()
        self._share = Share(context.room)
        self._pending: deque[_Pending] = deque()
        self._pending_bytes = 0
        self._batch: Batch | None = None
        self._batch_version = version
        self._batches = 0
        self._heard = seen
        self._is_drained = False
        self._drained_after_s = context.on_its_way_s
        self._has_ended = False
        self._has_bookmarks = True
        self._saw_bookmark = False
        self._wordless = 0
        self._backoff = Backoff(most_s=REOPEN_WITHIN_S)

    # --- how far it is -----------------------------------------------------------------------------------------------

    @property
    def heard(self) -> dt.datetime:
        """Up to when all that changed was read and handed over to be sent."""
        return self._handed_over - dt.timedelta(seconds=self._context.on_its_way_s)

    @property
    def _handed_over(self) -> dt.datetime:
        """When it was last heard from with all that was read by then handed over to be sent."""
        return self._pending[0].heard_before if self._pending else self._heard

    @property
    def has_ended(self) -> bool:
        """True once it was said that it ended."""
        return self._has_ended

    @property
    def is_over(self) -> bool:
        """True once it cannot be continued, or is not to be."""
        return self._has_ended or bool(self.reason) or (self._reader is not None and self._reader.done())

    def is_behind(self, now: dt.datetime) -> bool:
        """True if it was never answered, or not heard from for too long."""
        return not self.was_answered or (now - self._handed_over).total_seconds() > self._context.silence_s

    async def reaches(self, version: int, within_s: float) -> bool:
        """Wait until all up to `version` is confirmed; False if that takes longer than `within_s`."""
        try:
            async with asyncio.timeout(within_s):
                while self.confirmed < version:
                    self._reached.clear()
                    await self._reached.wait()
        except TimeoutError:
            return False
        return True

    async def tried(self, within_s: float) -> None:
        """Wait until its server has answered once, or could not be asked, for at most `within_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._tried.wait()

    # --- what is to be done with it ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Open the watch and read, if that is not done already."""
        if self._reader is None and not self._has_ended:
            self._reader = self._spawn(self._run())

    def reopen(self) -> None:
        """Go on after a connection that ended."""
        self._reopen.set()

    async def end(self, reason: str = "") -> None:
        """Read no further, and have `watch.ended` sent after what was read; the pump ends then."""
        await self._stop_reading()
        statement = WatchEnded([self.told(self.heard)], one_line(reason or self.reason or "unknown reason"))
        record = self._context.recorder.watches(statement, self.lane.session, 0, self._context.now())
        self._pending.append(_Pending(record, self._version, self._handed_over))
        self._has_ended = True
        self._news.set()

    def told(self, since: dt.datetime) -> WatchedUnit:
        """Its kind and reach, as statements name them."""
        return WatchedUnit(self.lane.unit.group, self.lane.unit.resource, since, self.lane.reach)

    # --- pump.Source -------------------------------------------------------------------------------------------------

    async def open(self, lane: Lane, position: Position) -> None:
        """Begin, unless it has begun. `position` is not used: a watch goes on where its source has come to."""
        del position
        if lane != self.lane:
            raise FatalError(f"the source of the {self.lane} was opened for the {lane}")
        self.begin()

    async def read(self) -> Batch | None:
        """What was read and not sent, as soon as there is anything; None once it has ended. Waits for as long as its
        server has nothing to say.
        """
        while self._batch is None:
            if self._pending:
                self._batch = self._take()
            elif self._has_ended:
                return None
            elif self._reader is not None and self._reader.done() and not self._reader.cancelled():
                if error := self._reader.exception():
                    raise error
                await self._wait_for_news()  # it is over, and whoever follows the kind says what becomes of it
            else:
                await self._wait_for_news()
        return self._batch

    async def ack(self, receipt: Receipt) -> None:
        """The batch is stored: all up to it is confirmed."""
        del receipt
        self._batch = None
        self._confirm(self._batch_version)
        self._resize()

    async def restart(self) -> None:
        """Forget what was read and not confirmed; `open` reads it again."""
        await self._stop_reading()
        self._reader = None
        self._forget()
        self._version = self.confirmed

    async def close(self) -> None:
        """Release everything: the connection, what was read. Safe to call twice; it may be opened again."""
        try:
            await self._stop_reading()
        finally:
            self._reader = None
            self._forget()
            self._version = self.confirmed = self._first

    def _forget(self) -> None:
        self._batch = None
        self._pending.clear()
        self._pending_bytes = 0
        self._share.resize(0)

    async def _wait_for_news(self) -> None:
        self._news.clear()
        await self._news.wait()

    def _take(self) -> Batch:
        """The next batch: all that is pending, within bounds."""
        records: list[Record] = []
        size_bytes = 0
        while self._pending and len(records) < BATCH_RECORDS and size_bytes < BATCH_BYTES:
            record, self._batch_version, _ = self._pending.popleft()
            records.append(record)
            size_bytes += len(record.body)
        self._pending_bytes -= size_bytes
        self._batches += 1
        return Batch(lane=self.lane, start=self._batches - 1, end=self._batches, records=records, size_bytes=size_bytes)

    def _confirm(self, version: int) -> None:
        self.confirmed = max(self.confirmed, version)
        self._reached.set()

    def _resize(self) -> None:
        """What it holds unsent, as the room of all watches knows it."""
        held = self._pending_bytes + (self._batch.size_bytes if self._batch else 0)
        self._share.resize(max(0, held - ALWAYS_BYTES))
        self._drained.set()

    # --- reading -----------------------------------------------------------------------------------------------------

    async def _stop_reading(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.cancel()
            await asyncio.wait([self._reader])

    async def _run(self) -> None:
        """One connection after another, until one says that it cannot be continued."""
        while True:
            over = await self._connection()
            if over.event not in (Event.CLOSED, Event.BROKEN):
                break
            self._tried.set()
            self._reopen.clear()
            if over.event is Event.BROKEN:
                self.health.interrupted(over.reason, over.wait_s)
            self._report(over.event)
            await self._reopen.wait()
            await asyncio.sleep(over.wait_s)
        self.reason = over.reason
        self._tried.set()
        self.health.lost(over.reason)
        self._report(over.event)

    async def _connection(self) -> _Over:
        """Read one connection to its end; how that was."""
        began_s, words = time.monotonic(), self._words
        try:
            await self._read_to_the_end()
            over = _Over(Event.CLOSED, "ended in order")
            is_short = time.monotonic() - began_s < SHORT_S
            over = over._replace(wait_s=self._backoff.next_s() if is_short else 0.0)
        except TimeoutError:
            self._has_bookmarks = self._saw_bookmark
            over = _Over(Event.BROKEN, f"silent for {self._context.silence_s:g} s")
        except TransientError as error:
            asked_s = error.retry_after_s
            wait_s = self._backoff.next_s() if asked_s is None else min(asked_s, MAX_WAIT_S)
            return _Over(_refused(error), str(error), wait_s)
        except ApiStatusError as error:
            return _Over(_STATUSES.get(error.status, Event.UNWATCHABLE), str(error))
        except WatchOverError as error:
            return _Over(error.event, str(error), self._backoff.next_s())
        return self._renewed(over, words)

    def _renewed(self, over: _Over, words: int) -> _Over:
        """A server that says nothing in watch after watch may stand before the version it is asked to go on from."""
        self._wordless = 0 if self._words > words else self._wordless + 1
        if self._wordless < WORDLESS_RENEWALS:
            return over
        self._wordless = 0
        return _Over(Event.EXPIRED, f"{WORDLESS_RENEWALS} watches in a row without a word")

    _words = 0
    """Events and bookmarks so far."""

    async def _read_to_the_end(self) -> None:
        context, lines = self._context, Lines(self._context.max_line_bytes)
        lasts = LASTS_S if self._has_bookmarks else LASTS_SILENT_S
        timeout_s = random.randint(*lasts)  # noqa: S311 - jitter needs no secrecy
        at = {"namespace": self.lane.reach, "version": self._version, "timeout_s": timeout_s}
        async with context.opener.watch(self.gvr, **at) as opened:  # type: ignore[arg-type]  # as named above
            self.was_answered = True
            self._tried.set()
            self.health.answered()
            self._is_drained, self._drained_after_s = False, context.on_its_way_s
            context.observe(WatchOpened(resource=self.gvr.dotted, reach=self.lane.reach, version=self._version))
            self._report(Event.OPENED)
            while chunk := await self._next_chunk(opened):
                came_at = context.now()
                await self._add_all(lines.feed(chunk))
                if self._is_drained:
                    self._heard = came_at
                await self._wait_for_room()
        if lines.is_within_a_line:
            raise TransientError("the watch broke off within a line")
        self._heard = context.now()
        self.health.heard()

    async def _next_chunk(self, opened: StreamOfLines) -> bytes:
        asked_s = time.monotonic()
        chunk = await opened.read(self._context.silence_s)
        self._is_drained = self._is_drained or time.monotonic() - asked_s > self._drained_after_s
        self._drained_after_s = min(DRAINED_S, self._context.on_its_way_s)
        return chunk

    async def _add_all(self, lines: list[bytes]) -> None:
        events = size_bytes = 0
        for line in lines:
            event = parse_line(line)
            if event.change is Change.BOOKMARK:
                self._add_bookmark(bookmark_version(event.raw, self.gvr, self._version))
            else:
                await self._add(event)
                events += 1
                size_bytes += len(line)
            self._words += 1
            self._backoff.reset()
            self.health.heard()
        if events:
            where = {"resource": self.gvr.dotted, "reach": self.lane.reach}
            self._context.observe(EventsRead(**where, events=events, size_bytes=size_bytes))
            await asyncio.sleep(0)

    def _add_bookmark(self, version: int) -> None:
        """It counts once all that was read before it is confirmed."""
        self._version = version
        self.version = max(self.version, version)
        self._saw_bookmark = self._has_bookmarks = True
        if self._pending:
            self._pending[-1] = self._pending[-1]._replace(version=version)
        elif self._batch is not None:
            self._batch_version = version
        else:
            self._confirm(version)

    async def _add(self, event: WatchEvent) -> None:
        item = await self._normalized(event)
        check_kind(item.kind, self.gvr)
        if why := too_long(item.namespace, item.name, item.uid, item.resource_version, item.api_version, item.kind):
            raise WatchOverError(Event.EXPIRED, why)
        version = version_above(item.resource_version, self._version, event.change)
        is_deleted = event.change is Change.DELETED
        at = self._context.now()
        record = self._context.recorder.watched(item, self.lane, self.gvr, deleted=is_deleted, at=at)
        self._pending.append(_Pending(record, version, self._heard))
        self._version = version
        self.version = max(self.version, version)
        self._pending_bytes += len(record.body)
        self._news.set()

    async def _normalized(self, event: WatchEvent) -> NormalizedObject:
        """Raises WatchOverError for what has no identity that can be read: nobody knows whose event was lost."""
        raw, redaction = event.raw, self._context.redaction()
        try:
            if memoryview(raw).nbytes > LARGE_ITEM_BYTES:
                return await asyncio.to_thread(normalize, raw, self.gvr, redaction)
            return normalize(raw, self.gvr, redaction)
        except RecordError as error:
            raise WatchOverError(Event.EXPIRED, str(error)) from error

    async def _wait_for_room(self) -> None:
        """Read no further while too much is held unsent; the server waits, or breaks off."""
        self._resize()
        room = self._context.room
        while self._pending_bytes > ALWAYS_BYTES and (
            self._pending_bytes > MOST_BYTES or room.held_bytes > room.limit_bytes
        ):
            self._drained.clear()
            self._is_drained = False
            with contextlib.suppress(TimeoutError):  # others may have made room
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._drained.wait()


_STATUSES: Final = {410: Event.EXPIRED, 403: Event.WATCH_FORBIDDEN}


def _refused(error: TransientError) -> Event:
    """What a refusal means that is worth another try, but for one: a version that the server has not come to."""
    return Event.EXPIRED if "too large resource version" in str(error).lower() else Event.BROKEN
