"""Collector: one cluster into a sink, run after run, every unit as a task.

It has what outlives a run: the byte budget, the permits to list, and what is remembered of each list. A run discovers,
states that it began, lists every unit, and states how each fared; of a cluster that is followed it lists what is not
followed. Where the records go is the sink's concern, of which nothing is known here but the protocol; what a unit sends
is `unit_lister.py`'s, how it is followed `following.py`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from clusterinfo.budget import ByteBudget
from clusterinfo.errors import ClusterinfoError, FatalError, TransientError, first_of, one_line
from clusterinfo.kubernetes.client import KubernetesClient
from clusterinfo.kubernetes.discovery import Discovery, Unmatched
from clusterinfo.kubernetes.errors import ApiStatusError, PageTooLargeError
from clusterinfo.kubernetes.following import Followers, NumberingSink, Shared, triggering
from clusterinfo.kubernetes.list_source import Alone, Beside, ListContext, ListResult, ListSource, new_id
from clusterinfo.kubernetes.live import Event
from clusterinfo.kubernetes.ordering import ListMemory
from clusterinfo.kubernetes.recording import Recorder, batch_of
from clusterinfo.kubernetes.redaction.objects import Redaction
from clusterinfo.kubernetes.redaction.paths import parse_path
from clusterinfo.kubernetes.unit_lister import UnitLister, UnitResult, worst
from clusterinfo.kubernetes.watch import WatchContext
from clusterinfo.model import CLOCK, GroupVersionResource, ListLane, Outcome, Unit
from clusterinfo.observations import Discovered, Noted, Observe, RunFailed, RunScheduled, SnapshotEnded, Warned
from clusterinfo.pump import Sink, deliver
from clusterinfo.settings import Settings
from clusterinfo.statements import WHOLE_GROUP, SnapshotCompleted, SnapshotStarted, UnitOutcome
from clusterinfo.waiting import Backoff, sleep_unless, unless

AGGREGATED_WITHIN_S = 10.0
"""For which APIs are aggregated: an answer of a few kB, without which a run goes on."""

DISCOVER_AFTER_S = 2.0
"""From the first sign that other kinds are served to the run that looks: such signs come by the dozen."""
DISCOVER_EVERY_S = 600.0
"""Of a cluster that is followed, where COLLECT_INTERVAL is longer: what tells of other kinds need not be among them."""
EARLY_S = 0.1
"""A pause may be as much shorter than asked for."""
NOTHING_LEFT = "nothing is left to list: INCLUDE names no kind that this cluster serves"

RUN_ERRORS = TransientError, ApiStatusError, PageTooLargeError
"""What keeps a run from being done at all, and not the next one."""

Plan = list[tuple[ListLane, GroupVersionResource]]
"""The lists of a run: a unit within a reach, and what to list."""
Outcomes = dict[tuple[str, str], Outcome]
"""(group, resource) -> how that unit fared, the worst of its reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run of lists fared."""

    outcomes: Outcomes
    objects: int
    """Sent."""
    size_bytes: int
    """Downloaded."""
    is_whole: bool
    """True if discovery knew every group, no unit failed, none that INCLUDE names is forbidden, and NAMESPACES, if set,
    names one that there is."""

    def count(self, outcome: Outcome) -> int:
        """Units that fared so."""
        return sum(one is outcome for one in self.outcomes.values())


class Collector:
    """Lists one cluster into `sink`; one object for the life of the process."""

    def __init__(
        self,
        client: KubernetesClient,
        sink: Sink,
        settings: Settings,
        observe: Observe,
        *,
        budget: ByteBudget | None = None,
    ) -> None:
        self._client = client
        self._sink = sink
        self._settings = settings
        self._observe = observe
        self._budget = budget or ByteBudget()
        self._permits = asyncio.Semaphore(settings.collect_concurrency)
        self._memory = ListMemory()
        self._unasked = ""
        """Why it was last unknown which APIs are aggregated; "" if it was known."""
        self._followers: Followers | None = None
        self._context: ListContext | None = None
        """What the lists of the present run share."""
        self._unmatched: tuple[Unmatched, ...] = ()
        """Those of the run before, which are not warned of again."""
        self._discovery_wanted = asyncio.Event()
        self._due_s = 0.0
        """When all is to be listed next that is not followed, on the clock of `time.monotonic`."""
        self.has_run = False
        """True once, of a cluster that is followed, all was listed: what can be followed is."""

    async def run(self, stopping: asyncio.Event, *, once: bool) -> RunResult | None:
        """List everything, once or every COLLECT_INTERVAL, until `stopping` is set; then open lists are abandoned.

        Returns how the one run fared, None if it was stopped. A run that cannot be done at all is begun again after a
        pause; with `once` it raises FatalError.
        """
        if once:
            try:
                return await unless(stopping, self._run(_interval_if_set(self._settings)))
            except RUN_ERRORS as error:
                raise FatalError(f"the run of lists could not be done: {error}") from error
        await self._run_on(stopping)
        return None

    async def follow(self, stopping: asyncio.Event, sink: NumberingSink, *, by: Event = Event.STOP) -> None:
        """Follow everything until `stopping` is set: list, then watch; a run every COLLECT_INTERVAL for the rest.

        Another run comes as soon as the cluster seems to serve other kinds. `by` STAND_DOWN it is said at the end that
        nothing is followed any more. May be called again after that, which begins a session of its own.
        """
        self.has_run, self._due_s = False, 0.0
        try:
            async with asyncio.TaskGroup() as tasks:
                self._followers = Followers(self._shared(sink, tasks), tasks.create_task)
                reporting = tasks.create_task(self._followers.report(), name="watch.progress")
                await self._run_on(stopping)
                reporting.cancel()
                await self._followers.stop(by)
        except BaseExceptionGroup as group:
            raise first_of(group) from group

    def _shared(self, sink: NumberingSink, tasks: asyncio.TaskGroup) -> Shared:
        settings, context = self._settings, self._new_context()
        observe = triggering(self._observe, self._discovery_wanted.set)
        return Shared(
            session=new_id(),
            sink=sink,
            watches=WatchContext(
                opener=self._client,
                recorder=context.recorder,
                observe=observe,
                redaction=lambda: (self._context or context).redaction,
                max_line_bytes=settings.page_bytes,
            ),
            open_list=self._open_list,
            end_list=self._remember,
            observe=observe,
            spawn=tasks.create_task,
            discover=self._discovery_wanted.set,
            resync_s=settings.resync_interval,
            interval_s=settings.collect_interval,
            list_within_s=settings.list_timeout,
        )

    async def _pause(self, stopping: asyncio.Event, seconds: float) -> bool:
        """Wait for the next run; True if there is to be none."""
        until_s = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await unless(stopping, self._discovery_wanted.wait())
        if not stopping.is_set() and self._discovery_wanted.is_set():
            await sleep_unless(stopping, max(0.0, min(DISCOVER_AFTER_S, until_s - time.monotonic())))
        return stopping.is_set()

    async def _run_on(self, stopping: asyncio.Event) -> None:
        """One run after another, until `stopping` is set."""
        backoff = Backoff()
        while True:
            began_s = time.monotonic()
            is_due = began_s > self._due_s - EARLY_S
            try:
                ended = await unless(stopping, self._run(self._settings.collect_interval, is_due=is_due))
                if is_due:
                    self._due_s = began_s + self._settings.collect_interval
                pause_s = max(0.0, self._due_s - time.monotonic())
                if self._followers is not None:
                    pause_s = min(pause_s, DISCOVER_EVERY_S)
                backoff.reset()
                if ended is not None:
                    self._observe(RunScheduled(cluster=self._client.cluster.name, wait_s=round(pause_s, 3)))
            except RUN_ERRORS as error:
                pause_s = backoff.next_s(error if isinstance(error, TransientError) else None)
                self._observe(RunFailed(cluster=self._client.cluster.name, error=str(error), wait_s=round(pause_s, 3)))
            if await self._pause(stopping, pause_s):
                return

    # --- one run -----------------------------------------------------------------------------------------------------

    async def _run(self, interval_s: float | None, *, is_due: bool = True) -> RunResult:
        """One run of lists. Cancelled, it abandons its open lists: what was not completed proves nothing.

        `interval_s`: from its beginning to that of the next, None if nobody knows: what is older than some of them is
        stale, whoever looks. Unless it `is_due`, it comes in between: only to see what is served now.
        """
        began_s = time.monotonic()
        self._discovery_wanted.clear()
        discovery = await self._discover()
        if discovery.is_misspelt:
            return RunResult(outcomes={}, objects=0, size_bytes=0, is_whole=False)
        context = self._context = self._new_context()
        cluster = self._client.cluster
        await self._state(context, SnapshotStarted(cluster.server_version, cluster.name))
        plan = planned(cluster.id, discovery, self._settings.namespaces)
        await self._ask_for_aggregated(plan)
        if self._followers is None:
            units = await self._list_all(plan, context)
        else:
            await self._followers.renew_session()
            units = await self._followers.prove(plan, is_complete=discovery.complete, is_due=is_due)
            self._followers.say_progress()  # so that what is followed from now on is seen to be, and not 15 s later
            self._followers.count()
        outcomes = outcomes_of(plan, units)
        misses_all = await self._misses_all_namespaces(plan, units)
        await self._state(context, completed(discovery, outcomes, counts_of(plan, units), interval_s))
        result = RunResult(
            outcomes=outcomes,
            objects=sum(unit.objects for unit in units),
            size_bytes=sum(unit.size_bytes for unit in units),
            is_whole=self._is_whole(discovery, outcomes) and not misses_all,
        )
        self._observe_end(result, time.monotonic() - began_s, interval_s)
        self.has_run = True
        return result

    async def _discover(self) -> Discovery:
        """What there is to list. Raises TransientError, ApiStatusError and FatalError."""
        discovery = await self._client.discover()
        for unmatched in discovery.unmatched:
            if unmatched not in self._unmatched:
                self._observe(Warned(message=unmatched.message("kind this cluster serves"), remedy=unmatched.question))
        self._unmatched = discovery.unmatched
        for group in discovery.failing:
            message = f"kinds of the group {group or 'core'} may be missing: {discovery.reasons[group]}"
            self._observe(Warned(message=message, remedy=_how_to_leave_out(group)))
        if discovery.is_misspelt:
            self._observe(Warned(message=NOTHING_LEFT, remedy="correct INCLUDE: until then nothing is sent"))
            return discovery
        self._observe(
            Discovered(
                cluster=self._client.cluster.name,
                units=len(discovery.resources),
                excluded=len(discovery.excluded),
                failing=discovery.failing,
            )
        )
        return discovery

    async def _misses_all_namespaces(self, plan: Plan, units: list[UnitResult]) -> bool:
        """True if NAMESPACES names none that there is. Asked for are those in which nothing was found, and no others.

        What was found of them, nothing, is stored all the same: of one that was deleted nothing is left.
        """
        empty = empty_namespaces(plan, units)
        missing = await self._client.missing_namespaces(empty)
        for name, question in missing.items():
            self._observe(Warned(message=f"NAMESPACES names {name!r}, and there is no such namespace", remedy=question))
        return bool(missing) and len(missing) == len(set(self._settings.namespaces))

    async def _ask_for_aggregated(self, plan: Plan) -> None:
        """Have the kinds that other servers than kube-apiserver serve ordered by the clock, as far as that is told.

        Whatever goes wrong here ends no run: what such a server's versions are worth shows in its lists as well.
        """
        try:
            async with asyncio.timeout(AGGREGATED_WITHIN_S):
                aggregated = await self._client.aggregated_apis()
        except (ClusterinfoError, TimeoutError) as error:
            self._note_unasked(one_line(error))
            return
        self._unasked = ""
        self._memory.order_by_clock(lane.unit for lane, gvr in plan if (gvr.group, gvr.version) in aggregated)

    def _note_unasked(self, error: str) -> None:
        """Once, and again when it is for another reason: a right that is missing is missing in every run."""
        if error != self._unasked:
            message = f"which APIs are aggregated is not known ({error}): kinds are judged by their lists alone"
            self._observe(Noted(message=message))
        self._unasked = error

    async def _list_all(self, plan: Plan, context: ListContext) -> list[UnitResult]:
        """Every unit of the plan, side by side; as many list at once as there are permits."""

        def open_list(lane: ListLane, gvr: GroupVersionResource, failure: str) -> ListSource:
            return self._open_list(lane, gvr, failure, Alone(), 0)

        listers = [
            UnitLister(
                lane,
                gvr,
                self._sink,
                open_list=open_list,
                end_list=self._remember,
                observe=self._observe,
                within_s=context.within_s,
            )
            for lane, gvr in plan
        ]
        try:
            async with asyncio.TaskGroup() as units:
                tasks = [units.create_task(lister.run(), name=f"list {lister.lane}") for lister in listers]
        except BaseExceptionGroup as group:
            raise first_of(group) from group
        return [task.result() for task in tasks]

    def _open_list(
        self, lane: ListLane, gvr: GroupVersionResource, failure: str, beside: Beside, newest: int
    ) -> ListSource:
        """The source of a list in the present run, which may not be older than `newest` either."""
        assert self._context is not None
        ordering = self._memory.ordering(lane.unit)
        if ordering == CLOCK:
            beside, newest = Alone(), 0
        newest = max(newest, self._memory.newest(lane))
        return ListSource(lane, gvr, self._context, newest=newest, ordering=ordering, failure=failure, beside=beside)

    async def _state(self, context: ListContext, statement: SnapshotStarted | SnapshotCompleted) -> None:
        """Store a statement of the run, in a lane of its own."""
        record = context.recorder.run(statement, context.now())
        await deliver(self._sink, batch_of(record, ListLane(record.unit)), self._observe)

    def _new_context(self) -> ListContext:
        """What the lists of one run share."""
        settings, cluster = self._settings, self._client.cluster
        key = settings.secret("redaction_key")
        return ListContext(
            pages=self._client,
            recorder=Recorder(
                cluster=cluster.id, cluster_name=cluster.name, snapshot=new_id(), epoch=settings.cluster_epoch
            ),
            redaction=Redaction(
                key.encode() if key else None,
                cluster=cluster.id,
                configmap_values=settings.redact_configmaps,
                redact=map(parse_path, settings.redact),
                keep=map(parse_path, settings.redact_not),
            ),
            budget=self._budget,
            permits=self._permits,
            observe=self._observe,
            page_size=settings.page_size,
            page_bytes=settings.page_bytes,
            within_s=settings.list_timeout,
        )

    # --- how it fared ------------------------------------------------------------------------------------------------

    def _remember(self, lane: ListLane, result: ListResult) -> bool:
        """Take note of how a list fared; True if its kind is ordered by the clock from now on."""
        if why := self._memory.remember(lane, result.version, result.ordering, result.completed):
            self._observe(Warned(message=f"{lane}: {why}: ordered by the time of its lists from the next one on"))
        return self._memory.ordering(lane.unit) == CLOCK

    def _is_whole(self, discovery: Discovery, outcomes: Outcomes) -> bool:
        fared = set(outcomes.values())
        misses_wanted = bool(self._settings.include) and Outcome.FORBIDDEN in fared
        return discovery.complete and Outcome.FAILED not in fared and not misses_wanted

    def _observe_end(self, result: RunResult, seconds: float, interval_s: float | None) -> None:
        self._observe(
            SnapshotEnded(
                cluster=self._client.cluster.name,
                kinds=len(result.outcomes),
                failed=result.count(Outcome.FAILED),
                forbidden=result.count(Outcome.FORBIDDEN),
                objects=result.objects,
                size_bytes=result.size_bytes,
                seconds=round(seconds, 3),
                interval_s=interval_s,
            )
        )


# --- pure: what a run lists, and its statements ----------------------------------------------------------------------


def planned(cluster: str, discovery: Discovery, namespaces: list[str]) -> Plan:
    """The lists of a run, in the order of discovery.

    Kinds of a namespace are listed once for each of `namespaces` (none: whole), kinds of the cluster always whole.
    """
    reaches = list(dict.fromkeys(namespaces)) or [""]
    return [
        (ListLane(Unit(cluster, gvr.group, gvr.resource), reach), gvr)
        for gvr in discovery.resources
        for reach in (reaches if gvr.namespaced else [""])
    ]


def empty_namespaces(plan: Plan, results: list[UnitResult]) -> list[str]:
    """Namespaces that were listed by themselves, to the end, and of which no list brought an object."""
    brought: dict[str, int] = {}
    for (lane, _), result in zip(plan, results, strict=True):
        if lane.reach:
            found = result.objects if result.outcome is Outcome.COMPLETED else 1
            brought[lane.reach] = brought.get(lane.reach, 0) + found
    return [name for name, objects in brought.items() if not objects]


def _interval_if_set(settings: Settings) -> float | None:
    """Of a run that is the only one of its process: whoever starts it again and again may say how often."""
    return settings.collect_interval if settings.was_set("collect_interval") else None


def _how_to_leave_out(group: str) -> str:
    """What is to be done about a group that is not wanted: its kinds are shown as excluded, and none is deleted."""
    return f"if they are not wanted, add *.{group} to EXCLUDE" if group else ""


def outcomes_of(plan: Plan, results: list[UnitResult]) -> Outcomes:
    """A unit that is listed in several reaches fared as the worst of them."""
    found: dict[tuple[str, str], list[Outcome]] = {}
    for (_, gvr), result in zip(plan, results, strict=True):
        found.setdefault((gvr.group, gvr.resource), []).append(result.outcome)
    return {unit: worst(outcomes) for unit, outcomes in found.items()}


def counts_of(plan: Plan, results: list[UnitResult]) -> Counter[tuple[str, str]]:
    """(group, resource) -> the objects that the unit's completed lists sent, over all its reaches."""
    counts = Counter[tuple[str, str]]()
    for (_, gvr), result in zip(plan, results, strict=True):
        counts[gvr.group, gvr.resource] += result.count
    return counts


def completed(
    discovery: Discovery, outcomes: Outcomes, counts: Mapping[tuple[str, str], int], interval_s: float | None
) -> SnapshotCompleted:
    """The statement that closes a run; of a group whose kinds are not known the resource is `*`: it failed, or was left
    out.
    """
    units = [UnitOutcome(*unit, outcome, counts[unit]) for unit, outcome in outcomes.items()]
    units += [UnitOutcome(gvr.group, gvr.resource, Outcome.EXCLUDED) for gvr in discovery.excluded]
    units += [UnitOutcome(group, WHOLE_GROUP, Outcome.EXCLUDED) for group in discovery.unseen]
    units += [
        UnitOutcome(group, WHOLE_GROUP, Outcome.FAILED, reason=one_line(f"discovery: {discovery.reasons[group]}"))
        for group in discovery.failing
    ]
    return SnapshotCompleted(discovery.complete, units, interval_s)
