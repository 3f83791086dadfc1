"""ConsumerGroup: a member of a consumer group, and one lane for each partition it is given.

The callbacks of a rebalance only raise flags, wait for writes in hand, and pause what was assigned; everything else
happens in `run`:

    assigned -> paused -> lane started -> (the pump:) claimed, sought, resumed, read ... -> revoked or stopped -> closed

While every lane waits for a database the keeper goes on polling, so that the membership lasts. A consumer that breaks
down is replaced by another.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError

from clusterinfo.budget import ByteBudget
from clusterinfo.errors import FatalError, first_of
from clusterinfo.kafka import client
from clusterinfo.kafka.aiokafka_patches.cluster_id import notice_other_cluster
from clusterinfo.kafka.aiokafka_patches.pacing import pace_empty_fetches
from clusterinfo.kafka.consumer.batching import Limits
from clusterinfo.kafka.consumer.committed import COMMIT_TIMEOUT_S, ShownOffsets
from clusterinfo.kafka.consumer.lanes import Drive, Lanes
from clusterinfo.kafka.consumer.membership import Broken, Listener, Membership, keep
from clusterinfo.kafka.consumer.source import PartitionSource
from clusterinfo.kafka.consumer.watchdog import Waiting, Watchdog
from clusterinfo.kafka.end_offsets import end_offsets
from clusterinfo.kafka.topics import Topic, ensure_topic
from clusterinfo.model import PartitionLane
from clusterinfo.observations import Lagging, Observe, PartitionsAssigned, Recovered, Retrying, Warned
from clusterinfo.settings import MIB, Settings
from clusterinfo.waiting import unless

REBALANCE_TIMEOUT_S = 45.0
REVOKE_TIMEOUT_S = 30.0  # within the rebalance timeout, or the group goes on without us
SESSION_TIMEOUT_S = 30.0  # how long a member that was killed keeps its partitions
COMMIT_INTERVAL_S = 1.0
LAG_INTERVAL_S = 5.0  # a third of the shortest interval Prometheus is usually told to scrape at
REQUEST_TIMEOUT_S = REBALANCE_TIMEOUT_S + 15  # a broker answers "join" only when all members have joined
RESTART_S = 1.0  # between tries to build the consumer anew
TICK_S = 0.1
POSITION_TIMEOUT_S = 1.0
FETCH_WAIT_S = 0.1
LEAVING_S = client.STOP_TIMEOUT_S + 2 * COMMIT_TIMEOUT_S  # of SHUTDOWN_GRACE_S, what a drain leaves over

CONSUMER: dict[str, Any] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",  # "none" races the assigned callback; every lane seeks explicitly anyway
    "partition_assignment_strategy": (RangePartitionAssignor,),  # exactly one: aiokafka #1168
    "rebalance_timeout_ms": int(REBALANCE_TIMEOUT_S * 1000),
    "request_timeout_ms": int(REQUEST_TIMEOUT_S * 1000),
    "max_poll_interval_ms": 5 * 60 * 1000,
    # partitions that are added are noticed so late, and what is sent to them waits; aiokafka's own 5 min are too long
    "metadata_max_age_ms": 30_000,
    # one fetch a broker is in flight: a quiet partition must not hold up the others
    "fetch_max_wait_ms": int(FETCH_WAIT_S * 1000),
    "fetch_max_bytes": 2 * MIB,  # compressed, of one response; a larger batch comes alone (KIP-74)
    "max_partition_fetch_bytes": 256 * 1024,  # compressed, kept for each partition until it is taken
    "check_crcs": True,
}


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
        self._membership = Membership()
        self._lanes = Lanes(self._new_source)
        self._shown = ShownOffsets(topic.name, observe)
        self._moved_at_s = 0.0
        self._watchdog = Watchdog(topic.name, lambda: end_offsets(settings), observe)
        self._other_cluster = ""

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
            async with client.first_time(settings):
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
        assigned = self._live.assignment()
        for partition, source in self._lanes.sources().items():
            if self._partition(partition) not in assigned:
                continue  # in the middle of a rebalance: the lane has yet to learn of it
            with contextlib.suppress(KafkaError):
                highwater = self._live.highwater(self._partition(partition))
                if highwater is not None and source.position >= 0:
                    lag[partition] = max(0, int(highwater) - source.position)
        return lag

    async def run(self, drive: Drive, *, until_idle_s: float | None = None) -> None:
        """Join the group and drive the lanes it gives us until `stop`, or until all is stored and quiet.

        `until_idle_s`: end once every assigned partition (none after a completed rebalance counts) is acked up to its
        end and nothing came for so many seconds. Raises what a drive raised: the other lanes are then cancelled.
        """
        while not self._stopping.is_set():
            try:
                return await self._session(drive, until_idle_s)
            except Broken as error:
                self._observe(Warned(message=f"the Kafka consumer broke down and is built anew: {error}"))
                await self._restart()
        return None

    async def _session(self, drive: Drive, until_idle_s: float | None) -> None:
        """One consumer's life in the group."""
        self._membership = membership = Membership()
        self._moved()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._live.subscribe([self.topic.name], listener=Listener(membership, self._revoked, self._assigned))
                keeping = keep(self._live, self.topic.name, self._settings.kafka_group_id, self._observe)
                keeper = tasks.create_task(keeping, name="keep membership")
                watchdog = tasks.create_task(self._watchdog.watch(self._waiting), name="watchdog")
                await self._supervise(membership, tasks, drive, until_idle_s)
                watchdog.cancel()
                await self._drain()
                keeper.cancel()
        except BaseExceptionGroup as errors:
            raise first_of(errors, passed_over=Broken) from None
        finally:
            self._lanes.clear()

    async def _supervise(
        self, membership: Membership, tasks: asyncio.TaskGroup, drive: Drive, until_idle_s: float | None
    ) -> None:
        """Start lanes as partitions are assigned; commit; return when told to stop, or when all is idle."""
        committed_at_s = lag_said_at_s = 0.0
        while not self._stopping.is_set():
            if membership.failure is not None:
                raise membership.failure
            self._check_cluster()
            if membership.is_new and membership.assigned is not None:
                membership.is_new = False
                self._lanes.start(tasks, drive, membership.assigned)
                self._moved()
            if _now() - committed_at_s >= COMMIT_INTERVAL_S:
                await self._commit()
                committed_at_s = _now()
            if _now() - lag_said_at_s >= LAG_INTERVAL_S:
                self._say_lag()
                lag_said_at_s = _now()
            if until_idle_s is not None and membership.assigned is not None and await self._is_idle(until_idle_s):
                return
            await asyncio.sleep(TICK_S)

    # --- what a rebalance brings -------------------------------------------------------------------------------

    async def _revoked(self) -> None:
        """Before a rebalance: no new batch; wait for the writes in hand."""
        await self._lanes.settle(REVOKE_TIMEOUT_S)

    def _assigned(self, partitions: frozenset[int]) -> None:
        """After a rebalance: pause, since a new assignment forgets pauses, until the lane has claimed and sought."""
        self._live.pause(*(self._partition(partition) for partition in partitions))
        self._observe(PartitionsAssigned(topic=self.topic.name, partitions=tuple(sorted(partitions))))

    def _new_source(self, partition: int, stopping: asyncio.Event) -> PartitionSource:
        return PartitionSource(
            self._live,
            PartitionLane(self.cluster_id, self.topic.name, partition, self._settings.kafka_group_id),
            limits=Limits.of(self._settings),
            budget=self._budget,
            observe=self._observe,
            stopping=stopping,
            on_progress=self._moved,
        )

    # --- progress ----------------------------------------------------------------------------------------------

    def _moved(self) -> None:
        self._moved_at_s = _now()

    def _say_lag(self) -> None:
        if self._membership.assigned is not None:
            for partition, records in self.lag().items():
                self._observe(Lagging(topic=self.topic.name, partition=partition, records=records))

    async def _drain(self) -> None:
        """Let every lane finish the batch in hand within the grace period, then cancel; commit what was acked."""
        await self._lanes.drain(max(1.0, self._settings.shutdown_grace_s - LEAVING_S))
        await self._commit()

    async def _is_idle(self, until_idle_s: float) -> bool:
        """Whether nothing came for the period, and every lane is acked up to the end of its partition."""
        if _now() - self._moved_at_s < until_idle_s:
            return False
        sources = {self._partition(number): source for number, source in self._lanes.living_sources().items()}
        if not all(source.is_settled for source in sources.values()):
            return False
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                ends = await self._live.end_offsets(list(sources)) if sources else {}
                return all([await self._live.position(partition) >= end for partition, end in ends.items()])
        except (KafkaError, TimeoutError):
            return False  # cannot tell: not idle

    async def _waiting(self) -> dict[int, Waiting] | None:
        """How the lanes wait for Kafka, for the watchdog; None while a rebalance goes on."""
        if self._membership.assigned is None:
            return None
        lanes = {}
        for number, source in self._lanes.living_sources().items():
            waits_s = 0.0 if source.waits_since_s is None else _now() - source.waits_since_s
            position = max(source.next_offset, await self._fetch_position(number)) if waits_s else source.next_offset
            lanes[number] = Waiting(position, waits_s)
        return lanes

    async def _fetch_position(self, number: int) -> int:
        """Where the consumer fetches next, past what it does not hand out (markers of transactions); -1: not known."""
        try:
            async with asyncio.timeout(POSITION_TIMEOUT_S):
                return int(await self._live.position(self._partition(number)))
        except (KafkaError, TimeoutError):
            return -1

    def _check_cluster(self) -> None:
        if self._other_cluster:
            raise FatalError(
                f"another Kafka cluster answers at {','.join(self._settings.kafka_brokers)}: its id is "
                f"{self._other_cluster}, what is stored is from {self.cluster_id}; check KAFKA_BROKERS, or start again "
                "to read the other one"
            )

    def _notice(self, cluster_id: str) -> None:
        self._other_cluster = cluster_id

    async def _commit(self) -> None:
        """Tell Kafka what is stored, except in a rebalance: the partitions are nobody's then."""
        if self._membership.assigned is not None:
            positions = {number: source.position for number, source in self._lanes.sources().items()}
            await self._shown.show(self._live, positions)

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
            **client.client_arguments(self._settings) | CONSUMER,
            group_id=self._settings.kafka_group_id,
            session_timeout_ms=int(self._session_timeout_s * 1000),
            heartbeat_interval_ms=int(min(3.0, self._session_timeout_s / 3) * 1000),
        )
        client.log_in_afresh(self._consumer._client, self._settings)
        notice_other_cluster(self._consumer, self.cluster_id, self._notice)
        await self._consumer.start()
        pace_empty_fetches(self._consumer, FETCH_WAIT_S)

    async def _restart(self) -> None:
        """Another consumer in place of a broken one; keeps trying, since Kafka may be away."""
        await self._close()
        tries = 0
        while not self._stopping.is_set():
            tries += 1
            try:
                await self._start_unless_stopped()
            except (KafkaError, OSError) as error:
                if client.is_final(error):
                    raise client.translate(error, "connecting to Kafka") from error
                await self._close()
                wait_s = RESTART_S * random.uniform(0.5, 1.5)  # noqa: S311 - jitter needs no secrecy
                self._say(Retrying, error=client.explain(error), wait_s=round(wait_s, 3))
                await asyncio.sleep(wait_s)
            else:
                if tries > 1:
                    self._say(Recovered, attempts=tries)
                return

    def _say(self, what: type[Retrying | Recovered], **details: Any) -> None:
        self._observe(what(lane=self.topic.name, step="connect to Kafka", **details))

    async def _start_unless_stopped(self) -> None:
        """Start a consumer within 20 s, or return at once when told to stop. Raises KafkaError, OSError."""
        starting = asyncio.ensure_future(self._start())
        try:
            async with asyncio.timeout(client.CONNECT_TIMEOUT_S):
                await unless(self._stopping, asyncio.shield(starting))
        finally:
            await client.end_tasks(starting)

    async def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await client.stop_consumer(consumer)


def _now() -> float:
    return asyncio.get_running_loop().time()
