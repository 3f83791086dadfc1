"""`collect`, `legacy`, `consume`: the ends are opened and joined; only here Kubernetes, Kafka and PostgreSQL meet."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from clusterinfo.errors import ConfigError
from clusterinfo.exit_codes import EXIT_ATTENTION, EXIT_DONE, EXIT_STOPPED
from clusterinfo.kubernetes.collector import Collector
from clusterinfo.kubernetes.election import LeaseName
from clusterinfo.kubernetes.following import NumberingSink
from clusterinfo.kubernetes.leadership import Leadership, lease_name
from clusterinfo.kubernetes.live import Event
from clusterinfo.memory import ASYNCIO_TLS_BUFFER_BYTES, KAFKA_BATCH_BYTES, give_large_blocks_back
from clusterinfo.model import Outcome, Pace
from clusterinfo.numbering import NumberingLanes
from clusterinfo.observations import (
    AllStored,
    BatchStored,
    Connected,
    ListEnded,
    Observation,
    Observe,
    UnitFailed,
    UnitVerified,
    Warned,
)
from clusterinfo.pump import pump
from clusterinfo.settings import Settings
from clusterinfo.telemetry.probes import probed
from clusterinfo.telemetry.repeats import Repeats
from clusterinfo.waiting import unless

if TYPE_CHECKING:
    from clusterinfo.kubernetes.client import KubernetesClient

SUMMED = (
    "records", "rows_written", "rows_unchanged", "rows_ignored", "rows_deleted", "dead_letters", "size_bytes",
)  # fmt: skip
"""Of a batch's numbers, those that make sense as a sum."""
LEGACY_NOTICE = "storing directly in PostgreSQL is deprecated, for development only, and may be removed"
LEGACY_REMEDY = "set KAFKA_ENABLED=true and run `clusterinfo consume` beside `clusterinfo collect`"


# --- collect and legacy ----------------------------------------------------------------------------------------------


async def collect(settings: Settings, observe: Observe, stopping: asyncio.Event, *, how: Pace) -> int:
    """List or follow everything into Kafka; without KAFKA_ENABLED straight into the database."""
    if not settings.kafka_enabled:
        return await legacy(settings, observe, stopping, how=how, do_migrate=True)
    settings.sending_topic()  # a wrong one is refused before anything is connected to
    observe = _observed(observe, how)
    lease = _lease(settings, how)
    from clusterinfo.kafka.producer import KafkaSink
    from clusterinfo.kubernetes.client import KubernetesClient

    async with AsyncExitStack() as stack:
        ends = KubernetesClient.connect(settings), KafkaSink.connect(settings, observe)
        if (opened := await _open(stack, stopping, *ends)) is None:
            return _stopped(how)
        client, sink = opened
        observe(_connected(client))
        async with probed(observe, Kubernetes=client.ping, Kafka=sink.ping):
            return await _collect_into(sink, client, settings, observe, stopping, how=how, lease=lease)


async def legacy(settings: Settings, observe: Observe, stopping: asyncio.Event, *, how: Pace, do_migrate: bool) -> int:
    """List or follow everything straight into the database."""
    from clusterinfo.commands.database import open_sink
    from clusterinfo.kubernetes.client import KubernetesClient

    observe(Warned(message=LEGACY_NOTICE, remedy=LEGACY_REMEDY))
    observe = unverified = UnverifiedLists(_observed(observe, how))
    lease = _lease(settings, how)
    async with AsyncExitStack() as stack:
        ends = KubernetesClient.connect(settings), open_sink(settings, observe, do_migrate=do_migrate)
        if (opened := await _open(stack, stopping, *ends)) is None:
            return _stopped(how)
        client, sink = opened
        observe(_connected(client))
        async with probed(observe, Kubernetes=client.ping):
            numbering = NumberingLanes(sink, observe)
            code = await _collect_into(numbering, client, settings, observe, stopping, how=how, lease=lease)
    return EXIT_ATTENTION if how is Pace.ONCE and code == EXIT_DONE and unverified else code


def _observed(observe: Observe, how: Pace) -> Observe:
    return Repeats(observe) if how is Pace.FOLLOW else observe


def _stopped(how: Pace) -> int:
    """The exit code of who was stopped before the work was done, if it is ever done."""
    return EXIT_STOPPED if how is Pace.ONCE else EXIT_DONE


class UnverifiedLists:
    """An `Observe` that knows which lists were sent whole and are not verified.

    Such as one whose version went back. With Kafka in between nobody who lists learns that; here its kind has failed.
    """

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._unverified: set[tuple[str, str]] = set()
        """(resource, reach)"""

    def __call__(self, observation: Observation) -> None:
        match observation:
            case UnitFailed(resource=resource, reach=reach):
                self._unverified.add((resource, reach))
            case UnitVerified(resource=resource, reach=reach):
                self._unverified.discard((resource, reach))
            case ListEnded(resource=resource, reach=reach, outcome=outcome) if outcome != Outcome.COMPLETED:
                self._unverified.discard((resource, reach))  # the collector's result has it, with what follows from it
        self._observe(observation)

    def __bool__(self) -> bool:
        return bool(self._unverified)


async def _open(
    stack: AsyncExitStack, stopping: asyncio.Event, *ends: AbstractAsyncContextManager[Any]
) -> list[Any] | None:
    """Open the ends one after another; None if `stopping` is set first."""

    async def enter() -> list[Any]:
        return [await stack.enter_async_context(end) for end in ends]

    return await unless(stopping, enter())


def _connected(client: KubernetesClient) -> Connected:
    return Connected(cluster=client.cluster.name, cluster_id=client.cluster.id)


async def _collect_into(
    sink: NumberingSink,
    client: KubernetesClient,
    settings: Settings,
    observe: Observe,
    stopping: asyncio.Event,
    *,
    how: Pace,
    lease: LeaseName | None,
) -> int:
    collector = Collector(client, sink, settings, observe)
    if how is Pace.FOLLOW:
        give_large_blocks_back(ASYNCIO_TLS_BUFFER_BYTES)
    if lease is not None:
        await _lead(Leadership(client, lease, observe, cluster=client.cluster.name), collector, sink, stopping, how=how)
        return EXIT_DONE
    if how is Pace.FOLLOW:
        await collector.follow(stopping, sink)
        return EXIT_DONE
    result = await collector.run(stopping, once=how is Pace.ONCE)
    if result is None:
        return _stopped(how)
    return EXIT_DONE if result.is_whole else EXIT_ATTENTION


def _lease(settings: Settings, how: Pace) -> LeaseName | None:
    """Whose holder works; None where nobody is elected. What lists once is started so often as it is wanted."""
    return lease_name(settings) if settings.leader_election and how is not Pace.ONCE else None


async def _lead(
    leadership: Leadership, collector: Collector, sink: NumberingSink, stopping: asyncio.Event, *, how: Pace
) -> None:
    """List or follow whenever this one leads. A cluster that is followed is handed over with nobody looking away."""
    if how is Pace.FOLLOW:
        follow = partial(collector.follow, sink=sink, by=Event.STAND_DOWN)
        await leadership.run(follow, stopping, lambda: collector.has_run)
    else:
        await leadership.run(partial(collector.run, once=False), stopping)


# --- consume ---------------------------------------------------------------------------------------------------------


async def consume(
    settings: Settings,
    observe: Observe,
    stopping: asyncio.Event,
    *,
    until_idle_s: float | None,
    do_migrate: bool,
) -> int:
    """Store what Kafka holds, as one member of the consumer group, until asked to stop or (`until_idle_s`) idle."""
    if settings.was_set("kafka_enabled") and not settings.kafka_enabled:
        raise ConfigError(
            "KAFKA_ENABLED is false, but `clusterinfo consume` reads from Kafka: set it to true, or run "
            "`clusterinfo legacy` to store directly"
        )
    from clusterinfo.commands.database import open_sink
    from clusterinfo.kafka.consumer.group import ConsumerGroup

    give_large_blocks_back(KAFKA_BATCH_BYTES)
    observe = stored = Sum(observe)
    async with AsyncExitStack() as stack:
        ends = open_sink(settings, observe, do_migrate=do_migrate), ConsumerGroup.connect(settings, observe)
        if (opened := await _open(stack, stopping, *ends)) is None:
            return EXIT_DONE
        sink, group = opened
        observe(Connected())
        async with probed(observe, **{"consumer group": group.check_assigned}):
            await group.run(
                lambda lane, source, ending: pump(source, sink, lane, observe, ending),
                stopping,
                until_idle_s=until_idle_s,
            )
    if until_idle_s is not None and not stopping.is_set():
        observe(stored.all_stored())
    return EXIT_DONE


class Sum:
    """An `Observe` that adds up the batches that were stored."""

    def __init__(self, observe: Observe, clock: Callable[[], float] = time.monotonic) -> None:
        self._observe = observe
        self._clock = clock
        self._began_s = clock()
        self._of = Counter[str]()

    def __call__(self, observation: Observation) -> None:
        if isinstance(observation, BatchStored):
            self._of["batches"] += 1
            for name in SUMMED:
                self._of[name] += getattr(observation, name)
        self._observe(observation)

    def all_stored(self) -> AllStored:
        """All of it, and for how long that took."""
        sums = {name: self._of[name] for name in ("batches", *SUMMED)}
        return AllStored(seconds=self._clock() - self._began_s, **sums)
