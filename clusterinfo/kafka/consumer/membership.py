"""Membership of a consumer group: what aiokafka reports of it, and how it lasts while nobody reads.

aiokafka joins and leaves in tasks of its own, and calls back before a rebalance (revoked) and after it (assigned). What
it reports is noted here for `ConsumerGroup.run`, which checks it; the lanes are not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from clusterinfo.errors import one_line
from clusterinfo.kafka.errors import is_final, translate
from clusterinfo.observations import Observe, Recovered, Retrying

POLL_S = 1.0
BREAKS_ALLOWED = 3  # errors of the coordination in a row before the consumer is replaced
LOST_POLLS = 5  # finding it takes a fraction of a second, a leader that moves a few
COORDINATOR = "find the group's coordinator"
NOBODY = 2**31 - 1  # a partition that does not exist: polling it takes nothing from anyone


class Broken(Exception):  # noqa: N818 - not an error for anyone but `ConsumerGroup.run`
    """The consumer cannot go on, another one can."""


@dataclass(slots=True)
class Membership:
    """What the callbacks noted. `assigned` is None until a rebalance has ended, and again while one goes on."""

    assigned: frozenset[TopicPartition] | None = None
    is_new: bool = False
    failure: BaseException | None = None


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """Notes every rebalance in `membership`, `revoked` awaited before one and `assigned` called after it.

    aiokafka calls this in a task of its own and only logs what it raises, so failures are noted too.
    """

    def __init__(
        self,
        membership: Membership,
        revoked: Callable[[frozenset[TopicPartition]], Awaitable[None]],
        assigned: Callable[[frozenset[TopicPartition]], None],
    ) -> None:
        self._membership = membership
        self._revoked = revoked
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self._membership.assigned = None
        try:
            await self._revoked(frozenset(revoked))
        except Exception as error:  # noqa: BLE001 - raised again by run
            self._membership.failure = error

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        try:
            partitions = frozenset(assigned)
            self._assigned(partitions)
            self._membership.assigned = partitions
            self._membership.is_new = True
        except Exception as error:  # noqa: BLE001 - raised again by run
            self._membership.failure = error


async def poll(consumer: AIOKafkaConsumer, topics: str, group_id: str, observe: Observe) -> NoReturn:
    """Poll nothing, every second: aiokafka leaves a group whose member has not polled for five minutes.

    Here errors of the coordination come to light, and whether the group's coordinator is known at all. Raises
    FatalError for those that waiting cannot help, Broken if they do not end or if aiokafka's own tasks died.
    """
    failures, lost = 0, LostCoordinator(topics, observe)
    while True:
        try:
            await consumer.getmany(TopicPartition(topics, NOBODY), timeout_ms=0)
            failures = 0
        except ConsumerStoppedError as error:
            raise Broken("it was stopped") from error
        except KafkaError as error:
            failures += 1
            _raise_if_broken(error, failures, group_id)
        if (fetcher := consumer._fetcher) is not None and fetcher.error_future.done():
            raise Broken("its fetcher ended")
        if _coordination_ended(consumer):
            raise Broken("its coordination ended")
        lost.check(getattr(consumer, "_coordinator", None))
        await asyncio.sleep(POLL_S)


class LostCoordinator:
    """Reports, for readiness, that the broker which coordinates the group is not found, and that it is found again."""

    def __init__(self, topics: str, observe: Observe) -> None:
        self._topics = topics
        self._observe = observe
        self._polls = 0

    def check(self, coordinator: Any) -> None:
        """Check aiokafka's coordinator; called every second."""
        if coordinator is None or coordinator.coordinator_id is not None:
            if self._polls >= LOST_POLLS:
                self._observe(Recovered(lane=self._topics, step=COORDINATOR, attempts=self._polls))
            self._polls = 0
            return
        self._polls += 1
        if self._polls == LOST_POLLS:
            error = f"the broker that coordinates the group has not been found for {LOST_POLLS * POLL_S:g} s"
            self._observe(Retrying(lane=self._topics, step=COORDINATOR, error=error, wait_s=POLL_S))


def _coordination_ended(consumer: AIOKafkaConsumer) -> bool:
    """True if aiokafka's coordination died, as of an assignment it cannot read: it only logs that and never rejoins."""
    task = getattr(getattr(consumer, "_coordinator", None), "_coordination_task", None)
    return task is not None and bool(task.done())


def _raise_if_broken(error: KafkaError, failures: int, group_id: str) -> None:
    if is_final(error):
        raise translate(error, f"consumer group {group_id!r}") from error
    if failures >= BREAKS_ALLOWED:
        raise Broken(one_line(error)) from error
