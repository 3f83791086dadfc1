"""What polling makes of a consumer's errors: waited out, another consumer, or the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    ConsumerStoppedError,
    GroupAuthorizationFailedError,
    KafkaError,
    RebalanceInProgressError,
)
from aiokafka.structs import TopicPartition

from clusterinfo.errors import FatalError
from clusterinfo.kafka.consumer import membership as module
from clusterinfo.kafka.consumer.membership import Broken, Listener, LostCoordinator, Membership, poll
from clusterinfo.observations import Observation, Recovered, Retrying, unobserved


class FakeConsumer:
    """Its polls raise `answers`, one after another; None is a poll that finds nothing, as are all that follow."""

    def __init__(self, answers: Iterable[Exception | None]) -> None:
        self.polls = 0
        self._answers: Iterator[Exception | None] = iter(answers)
        self._fetcher: Any = SimpleNamespace(error_future=asyncio.get_running_loop().create_future())

    async def getmany(self, partition: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        assert (partition.partition, timeout_ms) == (module.NOBODY, 0)
        self.polls += 1
        await asyncio.sleep(0)
        if (answer := next(self._answers, None)) is not None:
            raise answer
        return {}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.0)


ERROR = RebalanceInProgressError("odd")


async def test_errors_that_end_are_waited_out() -> None:
    consumer = FakeConsumer([ERROR, ERROR, None, ERROR, ERROR, None, ERROR])
    polling = asyncio.create_task(poll(consumer, "topic", "group", unobserved))
    while consumer.polls <= 7:
        assert not polling.done()
        await asyncio.sleep(0)
    polling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await polling


async def test_three_errors_in_a_row_ask_for_another_consumer() -> None:
    consumer = FakeConsumer([None, ERROR, ERROR, KafkaError("no end of it")])
    with pytest.raises(Broken, match="no end of it"):
        await poll(consumer, "topic", "group", unobserved)
    assert consumer.polls == 4


async def test_so_does_a_consumer_that_was_stopped() -> None:
    with pytest.raises(Broken, match="stopped"):
        await poll(FakeConsumer([ConsumerStoppedError()]), "topic", "group", unobserved)


async def test_so_does_a_coordination_that_ended() -> None:
    consumer: Any = FakeConsumer([])
    task = asyncio.ensure_future(asyncio.sleep(0))
    consumer._coordinator = SimpleNamespace(_coordination_task=task, coordinator_id=1)
    with pytest.raises(Broken, match="coordination"):
        await poll(consumer, "topic", "group", unobserved)
    assert task.done()


async def test_so_does_a_fetcher_that_ended() -> None:
    consumer = FakeConsumer([])
    consumer._fetcher.error_future.cancel()
    with pytest.raises(Broken, match="fetcher"):
        await poll(consumer, "topic", "group", unobserved)


async def test_missing_rights_are_the_end_at_once() -> None:
    consumer = FakeConsumer([GroupAuthorizationFailedError("group")])
    with pytest.raises(FatalError, match=r"'group'.*KAFKA_GROUP_ID"):
        await poll(consumer, "topic", "group", unobserved)
    assert consumer.polls == 1


async def test_a_callback_notes_what_happens_and_never_raises() -> None:
    membership, calls = Membership(), list[object]()

    async def revoked(partitions: frozenset[TopicPartition]) -> None:
        calls.append(("revoked", partitions))

    listener = Listener(membership, revoked, calls.append)
    await listener.on_partitions_assigned({TopicPartition("topic", 1), TopicPartition("topic", 4)})
    both = frozenset({TopicPartition("topic", 1), TopicPartition("topic", 4)})
    assert (membership.assigned, membership.is_new) == (both, True)
    await listener.on_partitions_revoked(set(both))
    assert membership.assigned is None
    assert calls == [both, ("revoked", both)]
    assert membership.failure is None


async def test_a_callback_that_fails_is_noted_for_run() -> None:
    membership = Membership()

    async def fails(*_: object) -> None:
        raise ZeroDivisionError

    def fails_at_once(*_: object) -> None:
        raise KeyError

    listener = Listener(membership, fails, fails_at_once)
    await listener.on_partitions_revoked(set())
    assert isinstance(membership.failure, ZeroDivisionError)
    await listener.on_partitions_assigned(set())
    assert isinstance(membership.failure, KeyError)
    assert membership.assigned is None


def test_a_coordinator_that_is_not_found_is_reported_once_and_so_is_its_return() -> None:
    seen: list[Observation] = []
    lost, away, found = LostCoordinator("topic", seen.append), *(SimpleNamespace(coordinator_id=n) for n in (None, 1))
    for coordinator in [*[away] * (module.LOST_POLLS - 1), found, None]:
        lost.check(coordinator)
    assert seen == [], "for a moment it is lost in every rebalance"
    for coordinator in [*[away] * (module.LOST_POLLS + 3), found, found]:
        lost.check(coordinator)
    assert [(type(one), one.lane) for one in seen] == [(Retrying, "topic"), (Recovered, "topic")]  # type: ignore[attr-defined]
