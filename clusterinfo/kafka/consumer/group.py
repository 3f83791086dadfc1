"""ConsumerGroup: a member of a consumer group, and one lane for each partition it is given.

The callbacks of a rebalance only raise flags, wait for writes in hand, and pause what was assigned; everything else
happens in `run`:

    assigned -> paused -> lane started -> (the pump:) claimed, sought, resumed, read ... -> revoked or stopped -> closed

While every lane waits for a database the poller goes on polling, so that the membership lasts. A consumer that breaks
down is replaced by another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Self

from aiokafka import TopicPartition

from clusterinfo.budget import ByteBudget
from clusterinfo.errors import TransientError, first_of
from clusterinfo.kafka.aiokafka_patches.stopping import STOP_TIMEOUT_S
from clusterinfo.kafka.consumer.batching import Limits
from clusterinfo.kafka.consumer.committed import COMMIT_TIMEOUT_S, CommittedOffsets
from clusterinfo.kafka.consumer.connection import SESSION_TIMEOUT_S, Connection
from clusterinfo.kafka.consumer.lanes import Drive, Lanes
from clusterinfo.kafka.consumer.membership import Broken, Listener, Membership, poll
from clusterinfo.kafka.consumer.source import PartitionSource
from clusterinfo.kafka.consumer.watchdog import Waiting, Watchdog
from clusterinfo.kafka.end_offsets import end_offsets
from clusterinfo.kafka.group_members import unowned
from clusterinfo.kafka.probe import first_connection
from clusterinfo.kafka.topics import Topics, ensure_topics
from clusterinfo.model import PartitionLane, partition_name
from clusterinfo.observations import (
    AssignmentAwaited,
    Holding,
    Lagging,
    Observe,
    PartitionsAssigned,
    PartitionsRevoked,
    Warned,
)
from clusterinfo.settings import Settings

REVOKE_TIMEOUT_S = 30.0  # within the rebalance timeout, or the group goes on without us
COMMIT_INTERVAL_S = 1.0
LAG_INTERVAL_S = 5.0  # a third of the shortest interval Prometheus usually scrapes at
TICK_S = 0.1
MOST_NAMED = 3
UNASSIGNED_S = 60.0  # a rebalance takes 45 s at most
LEAVING_S = STOP_TIMEOUT_S + 2 * COMMIT_TIMEOUT_S  # of SHUTDOWN_GRACE_S, what a drain leaves over


class ConsumerGroup:
    """A member of the group: `async with ConsumerGroup.connect(settings, observe) as group: await group.run(...)`.

    Attributes: `topics`; `cluster_id` of Kafka, the key of stored offsets.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Topics,
        observe: Observe,
        *,
        budget: ByteBudget | None = None,
        session_timeout_s: float = SESSION_TIMEOUT_S,
    ) -> None:
        self.topics = topics
        self._settings = settings
        self._observe = observe
        self._budget = budget or ByteBudget()
        self._connection = Connection(settings, topics, observe, session_timeout_s)
        self._membership = Membership()
        self._lanes = Lanes(self._new_source)
        self._committed = CommittedOffsets(observe)
        self._moved_at_s = 0.0
        self._held_at_s = 0.0
        self._reported = frozenset[TopicPartition]()
        """Whose lag was told."""
        self._watchdog = Watchdog(lambda: end_offsets(settings), observe)

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
        """A connected consumer that has not joined yet; named topics that are missing are created. Leaving takes 12 s.

        Raises FatalError in one line if Kafka is not reached within 20 s or refuses us, ConfigError for wrong settings.
        """
        topics = await ensure_topics(settings, observe)
        group = cls(settings, topics, observe, budget=budget, session_timeout_s=session_timeout_s)
        try:
            async with first_connection(settings):
                await group._connection.start()
            group._held_at_s = _now()
            yield group
        finally:
            await group._connection.close()

    @property
    def cluster_id(self) -> str:
        """Id of the Kafka cluster."""
        return self.topics.cluster_id

    def lag(self) -> dict[TopicPartition, int]:
        """Partition -> messages that are in Kafka and not stored, as of the last fetch; without those never fetched."""
        ends = self._connection.ends_fetched()
        return {
            partition: max(0, ends[partition] - source.position)
            for partition, source in self._lanes.sources().items()
            if partition in ends and source.position >= 0
        }

    async def check_assigned(self) -> None:
        """Return if this member holds partitions, or others hold all there are; also if that cannot be found out.

        Asks Kafka only if it has held none for a minute. Raises TransientError if there are some that nobody holds, and
        the group gives us none; FatalError if Kafka is away.
        """
        if self._membership.assigned:
            self._held_at_s = _now()
        if _now() - self._held_at_s < UNASSIGNED_S:
            return
        if left := await unowned(self._settings):
            names = ", ".join(partition_name(*at) for at in left[:MOST_NAMED])
            more = f" and {len(left) - MOST_NAMED} more" if len(left) > MOST_NAMED else ""
            raise TransientError(f"this consumer has been assigned no partition, and nobody holds {names}{more}")

    # --- the member's life ----------------------------------------------------------------------------------------

    async def run(self, drive: Drive, stopping: asyncio.Event, *, until_idle_s: float | None = None) -> None:
        """Join the group and drive the lanes it gives us until `stopping` is set, or until all is stored and quiet.

        Once it is set the batches in hand are finished. `until_idle_s`: end once every assigned partition (none after a
        completed rebalance counts) is acked up to its end and nothing came for so many seconds. Raises what a drive
        raised: the other lanes are then cancelled.
        """
        while not stopping.is_set():
            try:
                return await self._session(drive, stopping, until_idle_s)
            except Broken as error:
                self._observe(Warned(message=f"the Kafka consumer broke down and is replaced: {error}"))
                await self._connection.replace(stopping)
        return None

    async def _session(self, drive: Drive, stopping: asyncio.Event, until_idle_s: float | None) -> None:
        """One consumer's life in the group."""
        consumer, names = self._connection.live, self.topics.names.given
        self._membership = Membership()
        self._observe(AssignmentAwaited(group=self._settings.kafka_group_id, topics=names))
        self._note_progress()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._connection.subscribe(Listener(self._membership, self._revoked, self._assigned))
                polling = poll(consumer, names, self._settings.kafka_group_id, self._observe)
                poller = tasks.create_task(polling, name="poll")
                watchdog = tasks.create_task(self._watchdog.watch(self._waiting), name="watchdog")
                await self._supervise(tasks, drive, stopping, until_idle_s)
                watchdog.cancel()
                await self._drain()
                poller.cancel()
        except BaseExceptionGroup as errors:
            raise first_of(errors, passed_over=Broken) from None
        finally:
            self._lanes.clear()

    async def _supervise(
        self, tasks: asyncio.TaskGroup, drive: Drive, stopping: asyncio.Event, until_idle_s: float | None
    ) -> None:
        """Start lanes as partitions are assigned; commit; return once `stopping` is set, or all is idle."""
        membership, committed_at_s, lag_reported_at_s = self._membership, 0.0, 0.0
        while not stopping.is_set():
            if membership.failure is not None:
                raise membership.failure
            self._connection.check_cluster()
            if membership.is_new and membership.assigned is not None:
                membership.is_new = False
                self._lanes.start(tasks, drive, membership.assigned)
                self._note_progress()
            if _now() - committed_at_s >= COMMIT_INTERVAL_S:
                await self._commit()
                committed_at_s = _now()
            if _now() - lag_reported_at_s >= LAG_INTERVAL_S or self._knows_more_lag():
                self._report_lag()
                lag_reported_at_s = _now()
            if until_idle_s is not None and membership.assigned is not None and await self._is_idle(until_idle_s):
                return
            await asyncio.sleep(TICK_S)

    async def _drain(self) -> None:
        """Let every lane finish the batch in hand within the grace period, then cancel; commit what was acked."""
        await self._lanes.drain(max(1.0, self._settings.shutdown_grace_s - LEAVING_S))
        await self._commit()

    # --- what a rebalance brings -------------------------------------------------------------------------------

    async def _revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Before a rebalance: no new batch; wait for the writes in hand."""
        if partitions:  # none before the first
            self._observe(PartitionsRevoked(partitions=_names(partitions)))
        await self._lanes.wait_for_writes(REVOKE_TIMEOUT_S)

    def _assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """After a rebalance: pause, since a new assignment forgets pauses, until the lane has claimed and sought."""
        self._connection.pause(partitions)
        self._observe(PartitionsAssigned(partitions=_names(partitions)))

    def _new_source(self, partition: TopicPartition, stopping: asyncio.Event) -> PartitionSource:
        return PartitionSource(
            self._connection.live,
            PartitionLane(self.cluster_id, partition.topic, partition.partition, self._settings.kafka_group_id),
            limits=Limits.of(self._settings),
            budget=self._budget,
            observe=self._observe,
            stopping=stopping,
            on_progress=self._note_progress,
        )

    # --- progress ----------------------------------------------------------------------------------------------

    def _note_progress(self) -> None:
        self._moved_at_s = _now()

    def _knows_more_lag(self) -> bool:
        assigned = self._membership.assigned or frozenset()
        return not assigned <= self._reported and not self._reported.issuperset(self.lag())

    def _report_lag(self) -> None:
        """From time to time, and as soon as that of another partition is known."""
        self._observe(Holding(partitions=len(self._membership.assigned or ())))
        if self._membership.assigned is not None:
            lag = self.lag()
            self._reported = frozenset(lag)
            for partition, records in lag.items():
                self._observe(Lagging(topic=partition.topic, partition=partition.partition, records=records))

    async def _commit(self) -> None:
        """Commit to Kafka what is stored, except in a rebalance: the partitions are nobody's then."""
        if self._membership.assigned is not None:
            positions = {partition: source.position for partition, source in self._lanes.sources().items()}
            await self._committed.commit(self._connection.live, positions)

    async def _is_idle(self, until_idle_s: float) -> bool:
        """Whether nothing came for the period, and every lane is acked up to the end of its partition."""
        if _now() - self._moved_at_s < until_idle_s:
            return False
        sources = self._lanes.living_sources()
        return all(source.is_idle for source in sources.values()) and await self._connection.is_at_end(sources)

    async def _waiting(self) -> dict[TopicPartition, Waiting] | None:
        """How the lanes wait for Kafka, for the watchdog; None while a rebalance goes on."""
        if self._membership.assigned is None:
            return None
        lanes = {}
        for partition, source in self._lanes.living_sources().items():
            waits_s = 0.0 if source.waits_since_s is None else _now() - source.waits_since_s
            fetched = await self._connection.position(partition) if waits_s else -1
            lanes[partition] = Waiting(max(source.next_offset, fetched), waits_s)
        return lanes


def _names(partitions: frozenset[TopicPartition]) -> tuple[str, ...]:
    return tuple(partition_name(*at) for at in sorted(partitions))


def _now() -> float:
    return asyncio.get_running_loop().time()
