"""Connection: the aiokafka consumer of a group's member, built as the group needs it, and replaced when it breaks down.

What is asked of the consumer beside reading: where its partitions end, how far it fetched, which cluster answers it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError

from clusterinfo.errors import FatalError, TransientError, one_line
from clusterinfo.kafka.aiokafka_patches.cluster_id import notice_other_cluster
from clusterinfo.kafka.aiokafka_patches.pacing import pace_empty_fetches
from clusterinfo.kafka.aiokafka_patches.stopping import end_tasks, stop_consumer
from clusterinfo.kafka.client import client_arguments, refresh_credentials
from clusterinfo.kafka.errors import is_final, translate
from clusterinfo.kafka.probe import CONNECT_TIMEOUT_S
from clusterinfo.kafka.topics import Topics
from clusterinfo.observations import Observe
from clusterinfo.settings import MIB, Settings
from clusterinfo.waiting import Backoff, retried, unless

REBALANCE_TIMEOUT_S = 45.0
SESSION_TIMEOUT_S = 30.0  # how long a member that was killed keeps its partitions
REQUEST_TIMEOUT_S = REBALANCE_TIMEOUT_S + 15  # a broker answers "join" only when all members have joined
RECONNECT_S = 1.5  # between tries to build another consumer, less jitter
POSITION_TIMEOUT_S = 1.0
ENDS_TIMEOUT_S = 3.0
FETCH_WAIT_S = 0.1

CONSUMER: dict[str, Any] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",  # "none" races the assigned callback; every lane seeks explicitly anyway
    "partition_assignment_strategy": (RangePartitionAssignor,),  # exactly one: aiokafka #1168
    "rebalance_timeout_ms": int(REBALANCE_TIMEOUT_S * 1000),
    "request_timeout_ms": int(REQUEST_TIMEOUT_S * 1000),
    "max_poll_interval_ms": 5 * 60 * 1000,
    # partitions and topics that are added are noticed so late, and what is sent to them waits; aiokafka has 5 min
    "metadata_max_age_ms": 30_000,
    # one fetch a broker is in flight: a quiet partition must not hold up the others
    "fetch_max_wait_ms": int(FETCH_WAIT_S * 1000),
    "fetch_max_bytes": 2 * MIB,  # compressed, of one response; a larger batch comes alone (KIP-74)
    "max_partition_fetch_bytes": 256 * 1024,  # compressed, kept for each partition until it is taken
    "check_crcs": True,
}


class Connection:
    """The consumer of the moment. Attributes: `consumer`, None while there is none."""

    def __init__(self, settings: Settings, topics: Topics, observe: Observe, session_timeout_s: float) -> None:
        self.consumer: AIOKafkaConsumer | None = None
        self._settings = settings
        self._topics = topics
        self._observe = observe
        self._session_timeout_s = session_timeout_s
        self._other_cluster = ""

    @property
    def live(self) -> AIOKafkaConsumer:
        """The consumer. Raises FatalError if there is none."""
        if self.consumer is None:
            raise FatalError("the consumer group is not connected: use `async with ConsumerGroup.connect(...)`")
        return self.consumer

    # --- its life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect a new consumer, which has joined nothing yet. Raises KafkaError, OSError, ConfigError."""
        self.consumer = AIOKafkaConsumer(
            **client_arguments(self._settings) | CONSUMER,
            group_id=self._settings.kafka_group_id,
            session_timeout_ms=int(self._session_timeout_s * 1000),
            heartbeat_interval_ms=int(min(3.0, self._session_timeout_s / 3) * 1000),
        )
        refresh_credentials(self.consumer._client, self._settings)
        notice_other_cluster(self.consumer, self._topics.cluster_id, self._note_cluster)
        await self.consumer.start()
        pace_empty_fetches(self.consumer, FETCH_WAIT_S)

    async def replace(self, stopping: asyncio.Event) -> None:
        """Another consumer in place of a broken one, or none once `stopping` is set: Kafka may be away for hours.

        Raises FatalError if Kafka refuses us.
        """
        await self.close()

        async def connect() -> None:
            try:
                await self._start_unless(stopping)
            except (KafkaError, OSError) as error:
                if is_final(error):
                    raise translate(error, "connecting to Kafka") from error
                await self.close()
                raise TransientError(one_line(error)) from error

        try:
            await retried(
                connect,
                lane=self._topics.names.given,
                name="connect to Kafka",
                observe=self._observe,
                stopping=stopping,
                backoff=Backoff(RECONNECT_S, RECONNECT_S),
            )
        except TransientError:
            if not stopping.is_set():
                raise

    async def _start_unless(self, stopping: asyncio.Event) -> None:
        """Start a consumer within 20 s, or return as soon as `stopping` is set. Raises KafkaError, OSError."""
        starting = asyncio.ensure_future(self.start())
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await unless(stopping, asyncio.shield(starting))
        finally:
            await end_tasks(starting)

    async def close(self) -> None:
        """Leave the group and close; takes 10 s at most."""
        consumer, self.consumer = self.consumer, None
        if consumer is not None:
            await stop_consumer(consumer)

    # --- what it knows -----------------------------------------------------------------------------------------

    def subscribe(self, listener: ConsumerRebalanceListener) -> None:
        """Join the group for the topics; where a name ends in `*`, aiokafka looks every 30 s for new ones."""
        names = self._topics.names
        if names.prefixes:
            self.live.subscribe(pattern=names.pattern(), listener=listener)
        else:
            self.live.subscribe(list(names.names), listener=listener)

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Fetch nothing from these partitions until they are resumed."""
        self.live.pause(*partitions)

    def ends_fetched(self) -> dict[TopicPartition, int]:
        """Partition -> its end as of the last fetch; without those never fetched, or taken away a moment ago."""
        ends = {}
        for partition in self.live.assignment():
            with contextlib.suppress(KafkaError):
                if (end := self.live.highwater(partition)) is not None:
                    ends[partition] = int(end)
        return ends

    async def position(self, partition: TopicPartition) -> int:
        """Where it fetches next, past what it does not hand out (markers of transactions); -1: not known within 1 s."""
        try:
            async with asyncio.timeout(POSITION_TIMEOUT_S):
                return int(await self.live.position(partition))
        except (KafkaError, TimeoutError):
            return -1

    async def is_at_end(self, partitions: Collection[TopicPartition]) -> bool:
        """Whether it fetched these partitions up to where they end now; False if that is not known within 3 s."""
        if not partitions:
            return True
        try:
            async with asyncio.timeout(ENDS_TIMEOUT_S):
                ends = await self.live.end_offsets(list(partitions))
                return all([await self.live.position(partition) >= end for partition, end in ends.items()])
        except (KafkaError, TimeoutError):
            return False

    def check_cluster(self) -> None:
        """Raises FatalError once another Kafka cluster has answered."""
        if self._other_cluster:
            raise FatalError(
                f"another Kafka cluster answers at {','.join(self._settings.kafka_brokers)}: its id is "
                f"{self._other_cluster}, what is stored is from {self._topics.cluster_id}; check KAFKA_BROKERS, or "
                "start again to read the other one"
            )

    def _note_cluster(self, cluster_id: str) -> None:
        self._other_cluster = cluster_id
