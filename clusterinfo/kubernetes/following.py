"""Followers: every kind of a cluster listed, proven and watched, each by a task of its own.

The shell around `live.py`: it turns what happens to lists and watches into the table's events, and does what the table
asks for. A run of the collector makes followers for what discovery names, has those that do not follow list again, and
tells those that are not named any more. What is said of all watches together, `watch.progress`, is said here too.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from clusterinfo.kubernetes.list_source import Alone, Beside, ListResult, ListSource, new_id
from clusterinfo.kubernetes.live import FOLLOWED, Action, Event, State, advance
from clusterinfo.kubernetes.unit_lister import UnitLister, UnitResult
from clusterinfo.kubernetes.watch import REOPEN_WITHIN_S, WatchContext, WatchSource
from clusterinfo.kubernetes.watch_health import WatchHealth
from clusterinfo.model import Batch, GroupVersionResource, ListLane, Outcome, WatchLane, version_number
from clusterinfo.observations import EventsRead, Observation, Observe, WatchesCounted
from clusterinfo.pump import Sink, pump
from clusterinfo.statements import ListCompleted, WatchProgress
from clusterinfo.waiting import Backoff

REACH_WITHIN_S = 120.0
"""How long a list beside a running watch waits for it to be confirmed up to the list's version; the continue tokens of
the list live five minutes."""
TRIED_WITHIN_S = 5.0
"""How long a list waits for the first answer to its watch."""
PROGRESS_S = 15.0
"""Between two `watch.progress`; a second for each partition, if those are more."""
STOP_WITHIN_S = 3.0
RETRY_RESYNC_S = 300.0
OVERDUE_AFTER_S = 2 * REOPEN_WITHIN_S
"""After an outage of the whole API a run may come first: each watch is tried again before its kind is listed."""
QUIET_S = 600.0
"""A watch that expires after it went well for so long is followed by a list at once."""
UNWATCHED: Final = frozenset({Event.REMOVED, Event.LIST_FORBIDDEN, Event.CLOCK})
"""What says that there is nothing to be watched for now: no watch that does not work is amiss then."""
TRIGGERS: Final = frozenset({"customresourcedefinitions.apiextensions.k8s.io", "apiservices.apiregistration.k8s.io"})
"""What says by its changes that other kinds may be served."""


class NumberingSink(Sink, Protocol):
    """A sink that numbers what is watched, in `write`, before it waits for anything."""

    def next_number(self, lane: WatchLane) -> int:
        """The number that the next record of this lane's session will get where this lane is numbered."""

    def progress_lane(self, lane: WatchLane) -> tuple[WatchLane, int]:
        """On which lane, and partition, it is said until when this lane was heard."""

    def numbers_with(self, lane: WatchLane, listed: ListLane) -> bool:
        """True if a list of this lane can name the session of that watch: both come to one place, in order."""

    async def renewed(self) -> bool:
        """True if what is watched is numbered elsewhere from now on, so that a session cannot go on."""


OpenList = Callable[[ListLane, GroupVersionResource, str, Beside, int], ListSource]
"""Makes the source of a list: the text is why there is nothing to list, the number the version it may not be below."""
EndList = Callable[[ListLane, ListResult], bool]
"""Takes note of how a list fared; True if its kind is ordered by the clock."""
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


@dataclass(slots=True, kw_only=True)
class Shared:
    """What all followers share. `resync_s`: RESYNC_INTERVAL; `interval_s`: COLLECT_INTERVAL."""

    session: str
    """The present one; a watch keeps the one that it was opened in."""
    sink: NumberingSink
    watches: WatchContext
    open_list: OpenList
    end_list: EndList
    observe: Observe
    spawn: Spawn
    discover: Callable[[], None]
    """Has discovery run soon."""
    resync_s: float
    interval_s: float
    list_within_s: float


class Follower:
    """One kind within one reach; `run` is its task. It does nothing before its first `tick`."""

    def __init__(self, lane: ListLane, gvr: GroupVersionResource, shared: Shared) -> None:
        self.lane = lane
        self.gvr = gvr
        self.state = State.GONE
        self.watch: WatchSource | None = None
        self.health = WatchHealth(gvr.dotted, lane.reach, shared.observe)
        """Of its watches, one after another."""
        self.is_said = False
        """True once a list said, or was about to say, that the watch follows it."""
        self._watch_lane = WatchLane(lane.unit, lane.reach, shared.session)
        self._shared = shared
        self._events: asyncio.Queue[tuple[object | None, Event]] = asyncio.Queue()
        self._settled = asyncio.Event()
        self._result: UnitResult | None = None
        self._is_fresh = False
        self._is_wanted = False
        """True if the next run is to list it, whether that is due or comes in between."""
        self._list: asyncio.Task[None] | None = None
        self._list_from = 1
        self._newest = 0
        """The version that the last watch had come to: what is older was never there, or is restored from a backup."""
        self._sending: asyncio.Task[None] | None = None
        self._timers: dict[Event, asyncio.TimerHandle] = {}
        self._pause = Backoff(1.0, shared.interval_s)
        self._expired_s = float("-inf")

    # --- for who makes it --------------------------------------------------------------------------------------------

    def tick(self, gvr: GroupVersionResource, *, is_due: bool = True) -> None:
        """A run of lists begins, and discovery names the kind so; COLLECT_INTERVAL is over if it `is_due`."""
        if is_other := (gvr.version, gvr.kind) != (self.gvr.version, self.gvr.kind):
            self.post(Event.EXPIRED)  # as of a custom resource that is served in another version from now on
        self.gvr = gvr
        if not (is_due or is_other or self._is_wanted or self.state is State.GONE):
            return
        if self.state in FOLLOWED and self.is_overdue:
            self._post_later(OVERDUE_AFTER_S, Event.OVERDUE)
        if advance(self.state, Event.TICK).state is State.LISTING:
            self._settled.clear()
        self.post(Event.TICK)

    def post(self, event: Event, source: object | None = None) -> None:
        """Have `event` happen; one of a list or watch (`source`) that was given up by then does not."""
        self._events.put_nowait((source, event))

    async def result(self) -> UnitResult:
        """How it fared, as soon as no list is under way that others wait for; what it sent since it was last asked."""
        await self._settled.wait()
        assert self._result is not None
        fresh, self._is_fresh = self._is_fresh, False
        if fresh:
            return self._result
        last = self._result
        return UnitResult(outcome=last.outcome, objects=0, count=last.count, size_bytes=0, error=last.error)

    async def run(self) -> None:
        """Follow until the program stops. Raises what lists, watches and the sink raise that nobody can help."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                while self.state is not State.DRAINED:
                    source, event = await self._events.get()
                    if source is None or source in (self.watch, self._list):
                        await self._handle(event)
        finally:
            for timer in self._timers.values():
                timer.cancel()

    async def _handle(self, event: Event) -> None:
        if event is Event.OVERDUE and not self.is_overdue:
            return
        if event is Event.LISTED and self.watch is None:
            event = Event.LISTED_ALONE
        self.state, actions = advance(self.state, event)
        for action in actions:
            await self._actions[action](self, event)
        if event in UNWATCHED:
            self.health.forget()
        if self.state is not State.LISTING and self._result is not None:
            self._settled.set()

    # --- lists -------------------------------------------------------------------------------------------------------

    async def _begin_list(self, event: Event) -> None:
        del event
        self._is_wanted = False
        if self.watch is None:
            self._watch_lane = WatchLane(self.lane.unit, self.lane.reach, self._shared.session)
        self._list_from = self._shared.sink.next_number(self._watch_lane)
        self._list = self._tasks.create_task(self._run_list(), name=f"list {self.lane}")

    async def _run_list(self) -> None:
        """List the kind, and tell what came of it."""
        me, shared = asyncio.current_task(), self._shared
        self._beside = _BesideList(self)
        lister = UnitLister(
            self.lane,
            self.gvr,
            shared.sink,
            open_list=self._open_list,
            end_list=self._end_list,
            observe=shared.observe,
            within_s=shared.list_within_s,
        )
        self._result = await lister.run()
        self._is_fresh = True
        completed = Event.LISTED if self._beside.is_named else Event.LISTED_ALONE
        outcomes = {Outcome.COMPLETED: completed, Outcome.FORBIDDEN: Event.LIST_FORBIDDEN}
        self.post(outcomes.get(self._result.outcome, Event.LIST_FAILED), me)

    def _open_list(self, lane: ListLane, gvr: GroupVersionResource, failure: str) -> ListSource:
        """The watch is opened beside the list of all that it shows, and stays beside those of single namespaces that
        take its place.
        """
        if failure or lane.unit != self.lane.unit or not self._shared.sink.numbers_with(self._watch_lane, lane):
            return self._shared.open_list(lane, gvr, failure, Alone(), 0)
        is_part = lane != self.lane
        if is_part:
            self._beside = _BesideList(self, is_part=True)
        newest = 0 if is_part else max(self._newest, self.watch.version if self.watch else 0)
        return self._shared.open_list(lane, gvr, failure, self._beside, newest)

    def _end_list(self, lane: ListLane, result: ListResult) -> None:
        if self._shared.end_list(lane, result):
            self.post(Event.CLOCK)

    async def _cancel_list(self, event: Event) -> None:
        del event
        if self._list is not None and not self._list.done():
            self._list.cancel()
            await asyncio.wait([self._list])
        self._list = None

    # --- the watch ---------------------------------------------------------------------------------------------------

    def open_watch(self, version: int, seen: dt.datetime) -> WatchSource:
        """Watch what changes after `version`."""
        watch = WatchSource(
            self._watch_lane,
            self.gvr,
            self._shared.watches,
            version=version,
            seen=seen,
            report=lambda event: self.post(event, watch),
            spawn=self._tasks.create_task,
            health=self.health,
        )
        self.watch = watch
        watch.begin()
        return watch

    async def _start(self, event: Event) -> None:
        """Send what is watched; its list is sent whole."""
        del event
        assert self.watch is not None
        self._sending = self._tasks.create_task(self._send(self.watch), name=str(self._watch_lane))

    async def _send(self, watch: WatchSource) -> None:
        await pump(watch, self._shared.sink, watch.lane, self._shared.observe)
        if not watch.has_ended:
            self.post(Event.SESSION_LOST, watch)

    async def _reopen(self, event: Event) -> None:
        del event
        if self.watch is not None:
            self.watch.reopen()

    async def end_watch(self, event: Event | None = None) -> None:
        """Say that the kind is not followed any more, after all that was read; waits until the sink has it."""
        if (watch := self.watch) is None:
            return
        await watch.end(watch.reason or (event.value if event else "its list began again"))
        if self._sending is None:
            await self._start(Event.STOP)
        if sending := self._sending:
            await asyncio.wait([sending])
        if self.watch is watch:
            self._drop(watch)

    def _drop(self, watch: WatchSource) -> None:
        self._newest = max(self._newest, watch.version)
        self._sending = self.watch = None
        self.is_said = False

    async def _close_watch(self, event: Event) -> None:
        """What was said of it is taken back, unless that is void."""
        if self.is_said and event not in (Event.STOP, Event.SESSION_LOST):
            await self.end_watch(event)
            return
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])
        if self.watch is not None:
            await self.watch.close()
            self._drop(self.watch)

    # --- later -------------------------------------------------------------------------------------------------------

    async def _pause_before_list(self, event: Event) -> None:
        """At once, with some jitter, unless it went wrong not long ago."""
        del event
        now_s = time.monotonic()
        if now_s - self._expired_s > QUIET_S:
            self._pause.reset()
        self._expired_s = now_s
        self._post_later(self._pause.next_s(), Event.PAUSE_OVER)

    async def _schedule_resync(self, event: Event) -> None:
        del event
        self._post_later(self._shared.resync_s * random.uniform(0.5, 1.0), Event.RESYNC_DUE)  # noqa: S311

    async def _retry_resync(self, event: Event) -> None:
        del event
        wait_s = min(RETRY_RESYNC_S, self._shared.resync_s) * random.uniform(0.5, 1.0)  # noqa: S311
        self._post_later(wait_s, Event.RESYNC_DUE)

    async def _discover(self, event: Event) -> None:
        del event
        self._is_wanted = True
        self._shared.discover()

    def _post_later(self, wait_s: float, event: Event) -> None:
        if timer := self._timers.pop(event, None):
            timer.cancel()
        self._timers[event] = asyncio.get_running_loop().call_later(wait_s, self.post, event)

    @property
    def is_overdue(self) -> bool:
        """True if its watches have not worked for so long that it is listed meanwhile."""
        return self.health.failing_s > self._shared.watches.silence_s

    @property
    def may_be_watched(self) -> bool:
        """Whether the server says so; of some that say nothing it is tried."""
        return "watch" in self.gvr.verbs or not self.gvr.verbs

    def next_number(self) -> int:
        """What the next record that this kind's watch sends will have at least."""
        return self._shared.sink.next_number(self._watch_lane)

    @property
    def list_from(self) -> int:
        """`next_number` as it was when the list under way was begun."""
        return self._list_from

    @property
    def session(self) -> str:
        return self._watch_lane.session

    _actions: Final[dict[Action, Callable[[Follower, Event], Awaitable[None]]]] = {
        Action.LIST: _begin_list,
        Action.CANCEL_LIST: _cancel_list,
        Action.START: _start,
        Action.REOPEN: _reopen,
        Action.END: end_watch,
        Action.CLOSE: _close_watch,
        Action.PAUSE: _pause_before_list,
        Action.SCHEDULE_RESYNC: _schedule_resync,
        Action.RETRY_RESYNC: _retry_resync,
        Action.DISCOVER: _discover,
    }


class _BesideList:
    """The watch beside one list of a follower: a `Beside`.

    `is_part`: of a single namespace, since the list of all takes too long; its watch is the one that was opened beside
    that list.
    """

    def __init__(self, follower: Follower, *, is_part: bool = False) -> None:
        self._follower = follower
        self._is_part = is_part
        self._is_resync = follower.state is State.RESYNCING
        self._watch: WatchSource | None = follower.watch if self._is_resync or is_part else None
        self._seen = dt.datetime.min.replace(tzinfo=dt.UTC)
        self.is_named = False
        """True if the list said who follows it."""

    @property
    def is_running(self) -> bool:
        return self._is_resync

    async def began(self, version: str, seen: dt.datetime) -> None:
        """Open the watch at the list's version; a watch that runs already has to be confirmed up to there first."""
        self._seen, self.is_named = seen, False
        number = version_number(version)
        if self._is_resync:
            if self._watch is None or number is None or not await self._watch.reaches(number, REACH_WITHIN_S):
                self._watch = None  # what the list shows first is no change that the watch missed
            return
        if self._is_part:
            return
        follower = self._follower
        if follower.is_said:  # an attempt before this one may have been stored whole
            await follower.end_watch()
        elif follower.watch is not None:
            await follower.watch.close()
            follower.watch = None
        if number is not None and follower.may_be_watched:
            self._watch = follower.open_watch(number, seen)
            await self._watch.tried(TRIED_WITHIN_S)  # or one that is refused would be said to follow, and then not to

    def complete(self, statement: ListCompleted) -> ListCompleted:
        """Say who follows, if the watch that was beside the list from its beginning is still there."""
        follower, watch = self._follower, self._watch
        is_vain = follower.is_overdue and (watch is None or not watch.was_answered)  # another attempt to watch it
        if watch is None or watch is not follower.watch or watch.is_over or is_vain:
            return msgspec.structs.replace(statement, unfollowed=follower.health.error)
        self.is_named = follower.is_said = True
        number = follower.list_from if self._is_resync else follower.next_number()
        return ListCompleted(statement.count, statement.digest, follower.session, number, self._seen)


class Followers:
    """All followers of a process."""

    def __init__(self, shared: Shared, spawn: Spawn) -> None:
        self._shared = shared
        self._spawn = spawn
        self._all: dict[ListLane, Follower] = {}
        self._running: list[asyncio.Task[None]] = []
        self._saying: dict[tuple[WatchLane, int], asyncio.Task[None]] = {}

    async def prove(
        self, plan: list[tuple[ListLane, GroupVersionResource]], *, is_complete: bool, is_due: bool = True
    ) -> list[UnitResult]:
        """Have each lane of `plan` followed, or else listed if that `is_due`; how each fared, or did last.

        `is_complete`: nothing else is served.
        """
        for lane, gvr in plan:
            if lane not in self._all:
                follower = self._all[lane] = Follower(lane, gvr, self._shared)
                self._running.append(self._spawn(follower.run()))
            self._all[lane].tick(gvr, is_due=is_due)
        if is_complete:
            named = {lane for lane, _ in plan}
            for lane, follower in self._all.items():
                if lane not in named:
                    follower.post(Event.REMOVED)
        return [await self._all[lane].result() for lane, _ in plan]

    async def renew_session(self) -> None:
        """Begin a new session, in which everything is listed again, if the one there is cannot go on."""
        if await self._shared.sink.renewed():
            self._shared.session = new_id()
            for follower in self._all.values():
                follower.post(Event.SESSION_LOST)

    async def stop(self, event: Event) -> None:
        """Have all of them end by STOP or STAND_DOWN; those that wait for a sink that is away are cancelled."""
        for follower in self._all.values():
            follower.post(event)
        running = {*self._running, *self._saying.values()}
        if running:
            _, left = await asyncio.wait(running, timeout=STOP_WITHIN_S)
            for task in left:
                task.cancel()

    # --- watch.progress ----------------------------------------------------------------------------------------------

    async def report(self) -> None:
        """Say from time to time until when the watches were heard."""
        while True:
            await asyncio.sleep(_progress_s(self._followed()))
            self.say_progress()
            self.count()

    def count(self) -> None:
        """Tell how many are followed, and how many of the watches do not work."""
        followed = sum(one.state in FOLLOWED for one in self._all.values())
        failing = sum(one.health.is_failing for one in self._all.values())
        self._shared.observe(WatchesCounted(followed=followed, failing=failing))

    def say_progress(self) -> None:
        """Say it now, of each partition whose last progress is stored."""
        followed = self._followed()
        for lane, partition in followed:
            if (said := self._saying.get((lane, partition))) is None or said.done():
                self._saying[lane, partition] = self._spawn(self._say(lane, partition, _progress_s(followed)))

    def _followed(self) -> dict[tuple[WatchLane, int], list[WatchSource]]:
        """The watches that lists said follow them, by where their progress is said."""
        found: dict[tuple[WatchLane, int], list[WatchSource]] = {}
        for follower in self._all.values():
            if follower.is_said and follower.watch is not None:
                found.setdefault(self._shared.sink.progress_lane(follower.watch.lane), []).append(follower.watch)
        return found

    async def _say(self, lane: WatchLane, partition: int, interval_s: float) -> None:
        """What is said is made and numbered in one step: what is read after that is numbered after it."""
        context = self._shared.watches
        if not (watches := self._followed().get((lane, partition))):
            return
        now = context.now()
        statement = progress_of(watches, now, interval_s)
        record = context.recorder.watches(statement, lane.session, partition, now)
        batch = Batch(lane=lane, start=0, end=1, records=[record], size_bytes=len(record.body))
        await self._shared.sink.write(batch)


def _progress_s(followed: Collection[object]) -> float:
    """From one progress to the next, where it is said in as many places as are `followed`."""
    return max(PROGRESS_S, float(len(followed)))


def progress_of(watches: list[WatchSource], now: dt.datetime, interval_s: float) -> WatchProgress:
    """Until when all of `watches` that are not behind were heard; there is at least one."""
    behind = [watch.told(watch.heard) for watch in watches if watch.is_behind(now)]
    heard = [watch.heard for watch in watches if not watch.is_behind(now)]
    return WatchProgress(min(heard or [one.since for one in behind]), behind, interval_s)


def triggering(observe: Observe, discover: Callable[[], None]) -> Observe:
    """An `Observe` that has discovery run when what is served may have changed."""

    def note(observation: Observation) -> None:
        if isinstance(observation, EventsRead) and observation.resource in TRIGGERS:
            discover()
        observe(observation)

    return note
