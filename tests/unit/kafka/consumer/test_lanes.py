"""Lanes in a task group, with sources that do nothing: which begin when, and how they end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from clusterinfo.errors import TransientError
from clusterinfo.kafka.consumer.lanes import Lanes
from clusterinfo.model import PartitionLane


class FakeSource:
    def __init__(self, partition: int, stopping: asyncio.Event) -> None:
        self.lane = PartitionLane("kafka", "topic", partition, "group")
        self.stopping = stopping
        self.written = asyncio.Event()


def make_lanes() -> tuple[Lanes, list[Any]]:
    made: list[Any] = []

    def new_source(partition: int, stopping: asyncio.Event) -> Any:
        made.append(FakeSource(partition, stopping))
        return made[-1]

    return Lanes(new_source), made


async def settled() -> None:
    """Let everybody go on until they wait, however busy the machine is."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_the_next_lane_of_a_partition_waits_for_the_one_before_and_others_do_not() -> None:
    lanes, made = make_lanes()
    begun: list[Any] = []
    may_end = asyncio.Event()

    async def drive(_: PartitionLane, source: Any, stopping: asyncio.Event) -> None:
        begun.append(source)
        await may_end.wait()
        stopping.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        lanes.start(tasks, drive, [0])
        await settled()
        lanes.start(tasks, drive, [0, 1])
        await settled()
        assert begun == [made[0], made[2]]
        assert lanes.sources() == {0: made[1], 1: made[2]}
        may_end.set()
    assert begun == [made[0], made[2], made[1]]
    assert lanes.living_sources() == {}


async def test_waiting_waits_for_writes_in_hand_and_no_longer_than_it_may() -> None:
    lanes, made = make_lanes()

    async def drive(_: PartitionLane, __: Any, stopping: asyncio.Event) -> None:
        await stopping.wait()
        await may_end.wait()

    may_end = asyncio.Event()
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        lanes.start(tasks, drive, [0])
        await settled()
        await lanes.wait_for_writes(0.01)
        assert made[0].stopping.is_set()
        waiting = asyncio.create_task(lanes.wait_for_writes(5))
        await settled()
        assert not waiting.done()
        made[0].written.set()
        await waiting
        may_end.set()


async def test_a_drain_cancels_what_does_not_end() -> None:
    lanes, _ = make_lanes()
    cancelled: list[int] = []

    async def drive(lane: PartitionLane, _: Any, stopping: asyncio.Event) -> None:
        try:
            await (stopping.wait() if lane.partition else asyncio.sleep(3600))
        except asyncio.CancelledError:
            cancelled.append(lane.partition)
            raise

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        lanes.start(tasks, drive, [0, 1])
        await settled()
        await lanes.drain(1)
    assert cancelled == [0]
    assert lanes.living_sources() == {}


@pytest.mark.parametrize("stops", [True, False], ids=["asked to stop", "in the middle"])
async def test_a_step_that_fails_ends_a_lane_quietly_only_if_it_was_asked_to_stop(stops: bool) -> None:
    lanes, _ = make_lanes()

    async def drive(_: PartitionLane, __: Any, stopping: asyncio.Event) -> None:
        if stops:
            await stopping.wait()
        raise TransientError("the database is away")

    async def all_of_it() -> None:
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            lanes.start(tasks, drive, [0])
            await settled()
            await lanes.drain(1)

    if stops:
        await all_of_it()
    else:
        with pytest.raises(ExceptionGroup) as failure:
            await all_of_it()
        assert failure.group_contains(TransientError, match="away")
    assert lanes.living_sources() == {}


async def test_a_lane_that_ends_while_the_partition_is_ours_is_taken_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clusterinfo.kafka.consumer.lanes.FIRST_PAUSE_S", 0.5)
    lanes, made = make_lanes()
    driven = 0

    async def drive(_: PartitionLane, __: Any, stopping: asyncio.Event) -> None:
        nonlocal driven
        driven += 1
        if driven == 3:
            stopping.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        lanes.start(tasks, drive, [0])
        await settled()
        assert lanes.living_sources() == {0: made[0]}, "a lane at rest is not an idle one"
    assert driven == 3
