"""The watchdog: who is stuck, who only waits, and what no outage may be taken for."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from aiokafka import TopicPartition

from clusterinfo.errors import FatalError
from clusterinfo.kafka.consumer.membership import Broken
from clusterinfo.kafka.consumer.watchdog import CHECK_S, REBUILDS_TRIED, STALLED_S, UNASSIGNED_S, Waiting, Watchdog
from clusterinfo.observations import Freed, Observation, Stuck

ZERO = TopicPartition("topic", 0)


class Watched:
    """A watchdog whose checks are 30 s apart, and a Kafka that ends where it is set to."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self.ends: dict[TopicPartition, int] | None = {ZERO: 100}
        self.asked = 0
        self.now_s = 0.0
        self.dog = Watchdog(self._ask, self.seen.append)

    async def _ask(self) -> Mapping[TopicPartition, int]:
        self.asked += 1
        if self.ends is None:
            raise FatalError("cannot reach Kafka")
        return self.ends

    async def check(self, position: int, waits_s: float = CHECK_S) -> None:
        await self.dog.check({ZERO: Waiting(position, waits_s)}, self.now_s)
        self.now_s += CHECK_S

    async def is_given_up(self, position: int) -> bool:
        """After as many checks as it takes to give a consumer up."""
        try:
            for _ in range(int(STALLED_S / CHECK_S) + 1):
                await self.check(position)
        except Broken:
            return True
        return False


async def test_who_waits_while_kafka_has_more_is_given_up_after_a_minute() -> None:
    watched = Watched()
    await watched.check(50)
    await watched.check(50)
    with pytest.raises(Broken, match="topic-0 ends at offset 100, but after 50 nothing came for 60 s"):
        await watched.check(50)
    assert watched.seen == []


async def test_who_moves_is_not_stuck() -> None:
    watched = Watched()
    for position in range(50, 60):
        await watched.check(position)


async def test_who_has_everything_is_not_stuck() -> None:
    watched = Watched()
    assert not await watched.is_given_up(100)
    watched.ends = {}  # the topic is not there (yet)
    assert not await watched.is_given_up(100)


async def test_who_waits_for_the_database_is_not_stuck_and_nobody_is_asked() -> None:
    watched = Watched()
    for _ in range(10):
        await watched.check(50, waits_s=0.0)
    assert watched.asked == 0


async def test_an_outage_is_not_the_consumers_fault_and_gives_it_its_minute_afterwards() -> None:
    watched = Watched()
    await watched.check(50)
    await watched.check(50)
    watched.ends = None
    for _ in range(10):
        await watched.check(50)
    watched.ends = {ZERO: 100}
    await watched.check(50)
    await watched.check(50)
    with pytest.raises(Broken):
        await watched.check(50)


async def test_two_consumers_in_vain_fail_liveness_until_something_comes() -> None:
    watched = Watched()
    for _ in range(REBUILDS_TRIED):
        assert await watched.is_given_up(50)
    assert watched.seen == []
    assert await watched.is_given_up(50)
    assert watched.seen == [Stuck(lane="topic-0", offset=50, rebuilt=2)]
    await watched.check(20)  # another consumer, which begins where the database stands
    await watched.check(50)
    assert len(watched.seen) == 1
    await watched.check(51)
    assert watched.seen[1:] == [Freed(lane="topic-0")]
    assert await watched.is_given_up(51)
    assert len(watched.seen) == 2, "the count begins again"


async def test_a_consumer_that_helped_is_nothing_to_remember() -> None:
    watched = Watched()
    for position in (50, 60, 70, 80):
        assert await watched.is_given_up(position)
    assert watched.seen == []


async def test_a_group_that_assigns_nothing_while_kafka_answers_is_stuck_too() -> None:
    watched = Watched()
    await watched.dog.check(None, 0.0)
    await watched.dog.check(None, UNASSIGNED_S - 1)
    with pytest.raises(Broken, match="assigned nothing"):
        await watched.dog.check(None, UNASSIGNED_S)


async def test_a_group_that_assigns_now_and_then_or_that_nobody_keeps_is_not() -> None:
    watched = Watched()
    await watched.dog.check(None, 0.0)
    await watched.dog.check({}, 100.0)
    await watched.dog.check(None, UNASSIGNED_S)
    watched.ends = None
    await watched.dog.check(None, UNASSIGNED_S + 100)
    watched.ends = {}
    await watched.dog.check(None, 2 * UNASSIGNED_S + 50)
