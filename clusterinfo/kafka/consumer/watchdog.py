"""Watchdog: distinguishes a consumer that is stuck from one that has nothing to do.

aiokafka can get stuck with no public signal (#847, #1154), and never finds the brokers again once all that it knew are
gone (#456). So another client than the consumer's asks Kafka where the partitions end. A
lane that waits for messages while Kafka has them, and to which nothing comes for a minute, means another consumer. Two
of those in vain mean that this process cannot recover: liveness fails, until something comes after all.

While Kafka does not answer nobody is stuck: that is an outage, and the consumer's own to wait out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from aiokafka import TopicPartition

from clusterinfo.errors import ClusterinfoError
from clusterinfo.kafka.consumer.membership import Broken
from clusterinfo.model import partition_name
from clusterinfo.observations import Freed, Observe, Stuck

CHECK_S = 30.0
STALLED_S = 60.0  # a fetch takes 0.1 s, a failing one 20 s to time out; twice that and some more
UNASSIGNED_S = 180.0  # a rebalance takes 45 s at most, several in a row a little more
REBUILDS_TRIED = 2


class Waiting(NamedTuple):
    """How a partition's lane is: where it goes on, and for how many seconds nothing came to it that it waits for."""

    position: int
    waits_s: float


@dataclass(slots=True)
class _Stalled:
    """A lane waits at `position` although Kafka has more: first seen at `since_s`."""

    position: int
    since_s: float


EndOffsets = Callable[[], Awaitable[Mapping[TopicPartition, int]]]
"""Where the partitions end, by a client of its own. Raises ClusterinfoError if Kafka does not answer."""


class Watchdog:
    """Watches one member of a group, over all the consumers it has one after another."""

    def __init__(self, end_offsets: EndOffsets, observe: Observe) -> None:
        self._end_offsets = end_offsets
        self._observe = observe
        self._stalled: dict[TopicPartition, _Stalled] = {}
        self._unassigned_since_s: float | None = None
        self._in_vain: dict[TopicPartition, tuple[int, int]] = {}
        """Partition -> where it is stuck, and consumers that were given up for it."""

    async def watch(self, lanes: Callable[[], Awaitable[Mapping[TopicPartition, Waiting] | None]]) -> NoReturn:
        """Check every 30 s, for one consumer's life; `lanes`: by partition, None while there is no assignment.

        Raises Broken once the consumer is stuck.
        """
        self._forget()
        while True:
            await asyncio.sleep(CHECK_S)
            await self.check(await lanes(), asyncio.get_running_loop().time())

    async def check(self, lanes: Mapping[TopicPartition, Waiting] | None, now_s: float) -> None:
        """One check. Raises Broken if the consumer is stuck."""
        self._note_freed(lanes or {})
        if lanes is not None and not any(lane.waits_s >= CHECK_S for lane in lanes.values()):
            return self._forget()
        try:
            ends = await self._end_offsets()
        except ClusterinfoError:  # an outage
            return self._forget()
        if lanes is None:
            self._check_membership(now_s)
        else:
            self._check_lanes(lanes, ends, now_s)
        return None

    def _forget(self) -> None:
        """Nobody is stuck."""
        self._stalled.clear()
        self._unassigned_since_s = None

    def _check_membership(self, now_s: float) -> None:
        self._stalled.clear()
        if self._unassigned_since_s is None:
            self._unassigned_since_s = now_s
        if now_s - self._unassigned_since_s >= UNASSIGNED_S:
            raise Broken(f"Kafka answers, but for {UNASSIGNED_S:g} s the group has assigned nothing")

    def _check_lanes(
        self, lanes: Mapping[TopicPartition, Waiting], ends: Mapping[TopicPartition, int], now_s: float
    ) -> None:
        self._unassigned_since_s = None
        for partition, lane in lanes.items():
            if lane.waits_s < CHECK_S or ends.get(partition, 0) <= lane.position:
                self._stalled.pop(partition, None)
                continue
            stalled = self._stalled.get(partition)
            if stalled is None or stalled.position != lane.position:
                stalled = self._stalled[partition] = _Stalled(lane.position, now_s)
            if now_s - stalled.since_s >= STALLED_S:
                self._give_up(partition, lane.position, ends[partition])

    def _give_up(self, partition: TopicPartition, position: int, end: int) -> NoReturn:
        name, (_, before) = partition_name(*partition), self._in_vain.get(partition, (0, 0))
        self._in_vain[partition] = position, before + 1
        if before >= REBUILDS_TRIED:
            self._observe(Stuck(lane=name, offset=position, rebuilt=before))
        raise Broken(f"{name} ends at offset {end}, but after {position} nothing came for {STALLED_S:g} s")

    def _note_freed(self, lanes: Mapping[TopicPartition, Waiting]) -> None:
        """Forget where a lane was stuck once it has come past it."""
        for partition, (position, rebuilt) in list(self._in_vain.items()):
            if partition in lanes and lanes[partition].position > position:
                del self._in_vain[partition]
                if rebuilt > REBUILDS_TRIED:
                    self._observe(Freed(lane=partition_name(*partition)))
