"""ConsumerGroup: membership of a consumer group, and one lane for each partition it is given.

aiokafka joins and leaves in tasks of its own, and calls back before a rebalance (revoked) and after it (assigned). The
callbacks only raise flags, wait for writes in hand, and pause what was assigned; everything else happens in `run`:

    assigned -> paused -> lane started -> (the pump:) claimed, sought, resumed, read ... -> revoked or stopped -> closed

A lane of a partition begins when the one before it, if it still writes, has ended. While every lane waits for a
database the keeper goes on polling, so that the membership lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import ConsumerStoppedError, KafkaError

from clusterinfo.budget import ByteBudget
from clusterinfo.errors import ClusterinfoError, FatalError, TransientError
from clusterinfo.kafka import connection
from clusterinfo.kafka.collecting import Limits
from clusterinfo.kafka.offsets import commit
from clusterinfo.kafka.pacing import pace_empty_fetches
from clusterinfo.kafka.source import PartitionSource
from clusterinfo.kafka.topics import Topic, ensure_topic
from clusterinfo.model import PartitionLane
from clusterinfo.observations import Observe, PartitionsAssigned, Warned
from clusterinfo.settings import MIB, Settings

Drive = Callable[[PartitionLane, PartitionSource, asyncio.Event], Awaitable[None]]
"""Moves one lane until its source ends: the pump. Gets the lane, its source, and the event that tells it to stop."""

REBALANCE_TIMEOUT_S = 45.0
REVOKE_TIMEOUT_S = 30.0  # within the rebalance timeout, or the group goes on without us
SESSION_TIMEOUT_S = 30.0  # how long a member that was killed keeps its partitions
COMMIT_INTERVAL_S = 1.0
COMMIT_TIMEOUT_S = 3.0
COMMIT_FAILURES_TOLD = 10  # in a row; a few belong to every rebalance
REQUEST_TIMEOUT_S = REBALANCE_TIMEOUT_S + 15  # a broker answers "join" only when all members have joined
KEEP_S = 1.0
TICK_S = 0.1
FETCH_WAIT_S = 0.1
LEAVING_S = connection.STOP_TIMEOUT_S + 2 * COMMIT_TIMEOUT_S  # of SHUTDOWN_GRACE_S, what a drain leaves over
BREAKS_ALLOWED = 3  # errors of the coordination in a row before the consumer is built anew
NOBODY = 2**31 - 1  # a partition that does not exist: polling it takes nothing from anyone

CONSUMER: dict[str, Any] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",  # "none" races the assigned callback; every lane seeks explicitly anyway
    "partition_assignment_strategy": (RangePartitionAssignor,),  # exactly one: aiokafka #1168
    "rebalance_timeout_ms": int(REBALANCE_TIMEOUT_S * 1000),
    "request_timeout_ms": int(REQUEST_TIMEOUT_S * 1000),
    "max_poll_interval_ms": 5 * 60 * 1000,
    "fetch_max_wait_ms": int(
        FETCH_WAIT_S * 1000
    ),  # one fetch a broker is in flight: a quiet partition must not hold up the others
    "fetch_max_bytes": 4 * MIB,  # compressed, of one response; a larger batch comes alone (KIP-74)
    "max_partition_fetch_bytes": 512 * 1024,  # compressed, kept for each partition until it is taken
    "check_crcs": True,
}


@dataclass(slots=True)
class _Lane:
    source: PartitionSource
    stopping: asyncio.Event
    task: asyncio.Task[None] | None = None

    @property
    def is_alive(self) -> bool:
        return self.task is None or not self.task.done()


@dataclass(slots=True)
class _Membership:
    """What the callbacks tell `run`. `assigned` is None until a rebalance has ended, and again while one goes on."""

    assigned: frozenset[int] | None = None
    is_new: bool = False
    failure: BaseException | None = None


class _Broken(Exception):  # noqa: N818 - not an error for anyone but `run`
    """The consumer cannot go on, another one can."""


class ConsumerGroup:
    """A member of the group: `async with ConsumerGroup.connect(settings, observe) as group: await group.run(drive)`.

    Attributes: `topic`; `cluster_id` of Kafka, the key of stored offsets.
    """

    def __init__(
        self,
        settings: Settings,
        topic: Topic,
        observe: Observe,
        *,
        budget: ByteBudget | None = None,
        session_timeout_s: float = SESSION_TIMEOUT_S,
    ) -> None:
        self.topic = topic
        self._settings = settings
        self._observe = observe
        self._budget = budget or ByteBudget()
        self._session_timeout_s = session_timeout_s
        self._consumer: AIOKafkaConsumer | None = None
        self._stopping = asyncio.Event()
        self._membership = _Membership()
        self._lanes: dict[int, list[_Lane]] = {}
        self._committed: dict[int, int] = {}
        self._commit_failures = 0
        self._moved_at_s = 0.0

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls,
        settings: Settings,
        observe: Observe,
        *,
        budget: ByteBudget | None = None,
        session_timeout_s: float = SESSION_TIMEOUT_S,
    ) -> AsyncIterator[Self]:
        """A connected consumer that has not joined yet; creates the topic if it is missing. Leaving takes 12 s at most.

        Raises FatalError in one line if Kafka is not reached within 20 s or refuses us, ConfigError for wrong settings.
        """
        topic = await ensure_topic(settings, observe)
        group = cls(settings, topic, observe, budget=budget, session_timeout_s=session_timeout_s)
        try:
            async with connection.first_time(settings):
                await group._start()
            yield group
        finally:
            await group._close()

    @property
    def cluster_id(self) -> str:
        """Id of the Kafka cluster."""
        return self.topic.cluster_id

    def stop(self) -> None:
        """Ask `run` to finish the batches in hand and return; at once, from anywhere in the loop."""
        self._stopping.set()

    def lag(self) -> dict[int, int]:
        """Partition -> messages that are in Kafka and not stored, as of the last fetch; without those never fetched."""
        lag = {}
        for partition, lane in self._current_lanes().items():
            with contextlib.suppress(KafkaError):
                highwater = self._live.highwater(self._partition(partition))
                if highwater is not None and lane.source.position >= 0:
                    lag[partition] = max(0, int(highwater) - lane.source.position)
        return lag

    async def run(self, drive: Drive, *, until_idle_s: float | None = None) -> None:
        """Join the group and drive the lanes it gives us until `stop`, or until all is stored and quiet.

        `until_idle_s`: end once every assigned partition (none after a completed rebalance counts) is acked up to its
        end and nothing came for so many seconds. Raises what a drive raised: the other lanes are then cancelled.
        """
        while not self._stopping.is_set():
            try:
                return await self._session(drive, until_idle_s)
            except _Broken as error:
                self._observe(Warned(message=f"the Kafka consumer broke down and is built anew: {error}"))
                await self._restart()
        return None

    async def _session(self, drive: Drive, until_idle_s: float | None) -> None:
        """One consumer's life in the group."""
        self._membership = membership = _Membership()
        self._moved()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._live.subscribe([self.topic.name], listener=_Listener(self, membership))
                keeper = tasks.create_task(self._keep(), name="keep membership")
                start = functools.partial(self._start_lanes, tasks, drive)
                await self._supervise(membership, start, until_idle_s)
                await self._drain()
                keeper.cancel()
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        finally:
            self._lanes.clear()

    async def _supervise(
        self, membership: _Membership, start: Callable[[frozenset[int]], None], until_idle_s: float | None
    ) -> None:
        """Start lanes as partitions are assigned; commit; return when told to stop, or when all is idle."""
        committed_at_s = 0.0
        while not self._stopping.is_set():
            if membership.failure is not None:
                raise membership.failure
            if membership.is_new and membership.assigned is not None:
                membership.is_new = False
                start(membership.assigned)
            if _now() - committed_at_s >= COMMIT_INTERVAL_S:
                await self._commit()
                committed_at_s = _now()
            if until_idle_s is not None and membership.assigned is not None and await self._is_idle(until_idle_s):
                return
            await asyncio.sleep(TICK_S)

    # --- lanes -------------------------------------------------------------------------------------------------

    def _start_lanes(self, tasks: asyncio.TaskGroup, drive: Drive, partitions: frozenset[int]) -> None:
        """A fresh lane for every assigned partition: an assignment is a new one even if it gives what we had."""
        for partition in partitions:
            before = [lane for lane in self._lanes.get(partition, []) if lane.is_alive]
            lane = self._new_lane(partition)
            lane.task = tasks.create_task(
                _drive_after([old.task for old in before if old.task], drive, lane), name=f"lane {lane.source.lane}"
            )
            self._lanes[partition] = [*before, lane]
        self._moved()

    def _new_lane(self, partition: int) -> _Lane:
        stopping = asyncio.Event()
        source = PartitionSource(
            self._live,
            PartitionLane(self.cluster_id, self.topic.name, partition, self._settings.kafka_group_id),
            limits=Limits.of(self._settings),
            budget=self._budget,
            observe=self._observe,
            stopping=stopping,
            on_progress=self._moved,
        )
        return _Lane(source, stopping)

    def _current_lanes(self) -> dict[int, _Lane]:
        return {partition: lanes[-1] for partition, lanes in self._lanes.items() if lanes}

    def _living(self) -> list[_Lane]:
        return [lane for lanes in self._lanes.values() for lane in lanes if lane.is_alive]

    async def _drain(self) -> None:
        """Let every lane finish the batch in hand within the grace period, then cancel; commit what was acked."""
        lanes = self._living()
        for lane in lanes:
            lane.stopping.set()
        tasks = {lane.task for lane in lanes if lane.task is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=max(1.0, self._settings.shutdown_grace_s - LEAVING_S))
        for task in tasks:
            task.cancel()
        await self._commit()

    async def _revoked(self) -> None:
        """Before a rebalance: no new batch; wait for the writes in hand."""
        lanes = self._living()
        for lane in lanes:
            lane.stopping.set()
        if waits := [asyncio.ensure_future(lane.source.settled.wait()) for lane in lanes]:
            await asyncio.wait(waits, timeout=REVOKE_TIMEOUT_S)
        for wait in waits:
            wait.cancel()

    def _assigned(self, partitions: frozenset[int]) -> None:
        """After a rebalance: pause, since a new assignment forgets pauses, until the lane has claimed and sought."""
        self._live.pause(*(self._partition(partition) for partition in partitions))
        self._observe(PartitionsAssigned(topic=self.topic.name, partitions=tuple(sorted(partitions))))

    # --- membership, idleness, offsets -------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Poll nothing, every second: aiokafka leaves a group whose member has not polled for five minutes.

        Here errors of the coordination come to light. Raises FatalError for those that waiting cannot help, _Broken if
        they do not end or if aiokafka's own tasks died.
        """
        failures = 0
        while True:
            try:
                await self._live.getmany(self._partition(NOBODY), timeout_ms=0)
                failures = 0
            except ConsumerStoppedError as error:
                raise _Broken("it was stopped") from error
            except KafkaError as error:
                failures += 1
                self._consider(error, failures)
            if (fetcher := self._live._fetcher) is not None and fetcher.error_future.done():
                raise _Broken("its fetcher ended")
            await asyncio.sleep(KEEP_S)

    def _consider(self, error: KafkaError, failures: int) -> None:
        if connection.is_final(error):
            raise connection.translate(error, f"consumer group {self._settings.kafka_group_id!r}") from error
        if failures >= BREAKS_ALLOWED:
            raise _Broken(connection.explain(error)) from error

    async def _is_idle(self, until_idle_s: float) -> bool:
        """Whether nothing came for the period, and every lane is acked up to the end of its partition."""
        if _now() - self._moved_at_s < until_idle_s:
            return False
        lanes = {self._partition(number): lane for number, lane in self._current_lanes().items() if lane.is_alive}
        if not all(lane.source.is_settled for lane in lanes.values()):
            return False
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                ends = await self._live.end_offsets(list(lanes)) if lanes else {}
                return all([await self._live.position(partition) >= end for partition, end in ends.items()])
        except (KafkaError, TimeoutError):
            return False  # cannot tell: not idle

    async def _commit(self) -> None:
        """Tell Kafka what is stored, for those who look at the lag. Best effort: our offsets are in the database."""
        if self._membership.assigned is None:
            return  # in a rebalance the partitions are nobody's
        current = {number: lane.source.position for number, lane in self._current_lanes().items()}
        offsets = {n: at for n, at in current.items() if at >= 0 and self._committed.get(n) != at}
        if not offsets:
            return
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                await commit(self._live, self.topic.name, offsets)
        except (KafkaError, TimeoutError) as error:
            self._commit_failures += 1
            if self._commit_failures == COMMIT_FAILURES_TOLD:
                self._observe(Warned(message=f"offsets are not shown in Kafka for now: {connection.explain(error)}"))
        else:
            self._commit_failures = 0
            self._committed.update(offsets)

    def _moved(self) -> None:
        self._moved_at_s = _now()

    # --- the consumer ------------------------------------------------------------------------------------------

    @property
    def _live(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise FatalError("the consumer group is not connected: use `async with ConsumerGroup.connect(...)`")
        return self._consumer

    def _partition(self, number: int) -> TopicPartition:
        return TopicPartition(self.topic.name, number)

    async def _start(self) -> None:
        self._consumer = AIOKafkaConsumer(
            **connection.client_arguments(self._settings) | CONSUMER,
            group_id=self._settings.kafka_group_id,
            session_timeout_ms=int(self._session_timeout_s * 1000),
            heartbeat_interval_ms=int(min(3.0, self._session_timeout_s / 3) * 1000),
        )
        await self._consumer.start()
        pace_empty_fetches(self._consumer, FETCH_WAIT_S)

    async def _restart(self) -> None:
        """Another consumer in place of a broken one; keeps trying, since Kafka may be away."""
        await self._close()
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(connection.CONNECT_TIMEOUT_S):
                    return await self._start()
            except (KafkaError, TimeoutError) as error:
                if connection.is_final(error):
                    raise connection.translate(error, "connecting to Kafka") from error
                await self._close()
                await asyncio.sleep(KEEP_S)
        return None

    async def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await connection.stop_consumer(consumer)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """aiokafka calls this in a task of its own and only logs what it raises, so failures are handed to `run`."""

    def __init__(self, group: ConsumerGroup, membership: _Membership) -> None:
        self._group = group
        self._membership = membership

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self._membership.assigned = None
        try:
            await self._group._revoked()
        except Exception as error:  # noqa: BLE001 - raised again by run
            self._fail(error)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        try:
            partitions = frozenset(partition.partition for partition in assigned)
            self._group._assigned(partitions)
            self._membership.assigned = partitions
            self._membership.is_new = True
        except Exception as error:  # noqa: BLE001 - raised again by run
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._membership.failure = error


async def _drive_after(before: list[asyncio.Task[None]], drive: Drive, lane: _Lane) -> None:
    """Drive a lane once the earlier lanes of its partition have ended; they may still be writing.

    A lane that is told to stop while its step fails ends with that TransientError: nothing is lost, whoever has the
    partition next reads the batch again.
    """
    try:
        stop = asyncio.ensure_future(lane.stopping.wait())
        try:
            while (left := [task for task in before if not task.done()]) and not stop.done():
                await asyncio.wait([*left, stop], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
        if not lane.stopping.is_set():
            await drive(lane.source.lane, lane.source, lane.stopping)
    except TransientError:
        if not lane.stopping.is_set():
            raise
    finally:
        await lane.source.close()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """What to raise for all that went wrong at once: an error of ours before a bug, a bug before a breakdown."""
    leaves = list(_leaves(errors))
    for kind in (ClusterinfoError, Exception):
        for error in leaves:
            if isinstance(error, kind) and not isinstance(error, _Broken):
                return error
    return leaves[0]


def _leaves(errors: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in errors.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _now() -> float:
    return asyncio.get_running_loop().time()
