"""Lanes: the partitions that a group member drives, each in a task of its own, one after another on each partition.

A partition's lane begins when the one before it, if it still writes, has ended. Nothing here calls Kafka.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from aiokafka import TopicPartition

from clusterinfo.errors import TransientError
from clusterinfo.kafka.consumer.source import PartitionSource
from clusterinfo.model import PartitionLane
from clusterinfo.waiting import sleep_unless, unless

FIRST_PAUSE_S, MOST_PAUSE_S = 1.0, 30.0

Drive = Callable[[PartitionLane, PartitionSource, asyncio.Event], Awaitable[None]]
"""Moves one lane until its source ends, and closes the source: the pump. Gets the lane, its source, and the event that
stops it; may be called again for the same source."""


@dataclass(slots=True)
class _Lane:
    source: PartitionSource
    stopping: asyncio.Event
    task: asyncio.Task[None] | None = None

    @property
    def is_alive(self) -> bool:
        return self.task is None or not self.task.done()


class Lanes:
    """The lanes of one session in the group. `new_source` makes the source of a partition; the event stops it."""

    def __init__(self, new_source: Callable[[TopicPartition, asyncio.Event], PartitionSource]) -> None:
        self._new_source = new_source
        self._lanes: dict[TopicPartition, list[_Lane]] = {}

    def start(self, tasks: asyncio.TaskGroup, drive: Drive, partitions: Iterable[TopicPartition]) -> None:
        """A fresh lane for every assigned partition: an assignment is a new one even if it gives what we had."""
        for partition in partitions:
            before = [lane for lane in self._lanes.get(partition, []) if lane.is_alive]
            stopping = asyncio.Event()
            lane = _Lane(self._new_source(partition, stopping), stopping)
            lane.task = tasks.create_task(
                _drive_after([old.task for old in before if old.task], drive, lane), name=f"lane {lane.source.lane}"
            )
            self._lanes[partition] = [*before, lane]

    def sources(self) -> dict[TopicPartition, PartitionSource]:
        """Partition -> source of its latest lane, whether it has ended or not."""
        return {partition: lanes[-1].source for partition, lanes in self._lanes.items()}

    def living_sources(self) -> dict[TopicPartition, PartitionSource]:
        """Partition -> source of its latest lane, unless it has ended."""
        return {partition: lanes[-1].source for partition, lanes in self._lanes.items() if lanes[-1].is_alive}

    async def wait_for_writes(self, timeout_s: float) -> None:
        """No new batch in any lane; wait for the writes in hand."""
        lanes = self._stop()
        if waits := [asyncio.ensure_future(lane.source.written.wait()) for lane in lanes]:
            await asyncio.wait(waits, timeout=timeout_s)
        for wait in waits:
            wait.cancel()

    async def drain(self, timeout_s: float) -> None:
        """Let every lane finish the batch in hand and end, within `timeout_s`; then cancel."""
        tasks = {lane.task for lane in self._stop() if lane.task is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        for task in tasks:
            task.cancel()

    def clear(self) -> None:
        """Forget them all; their tasks have ended."""
        self._lanes.clear()

    def _stop(self) -> list[_Lane]:
        """Stop every lane that has not ended."""
        living = [lane for lanes in self._lanes.values() for lane in lanes if lane.is_alive]
        for lane in living:
            lane.stopping.set()
        return living


async def _drive_after(before: list[asyncio.Task[None]], drive: Drive, lane: _Lane) -> None:
    """Drive a lane once the earlier lanes of its partition have ended; they may still be writing.

    A lane that is stopped while its step fails ends quietly with that TransientError: nothing is lost, whoever has the
    partition next reads the batch again.
    """
    try:
        if before:
            await unless(lane.stopping, asyncio.wait(before))
        await _drive_until_stopped(drive, lane)
    except TransientError:
        if not lane.stopping.is_set():
            raise


async def _drive_until_stopped(drive: Drive, lane: _Lane) -> None:
    """Drive a lane again where it ended although the partition is still ours.

    A former owner that was slow to learn of its end may have claimed the partition after us: the lane is then
    released, and without a new assignment nobody would ever resume it. The pause grows, so that two who both believe to
    own it do not keep taking it from each other.
    """
    pause_s = FIRST_PAUSE_S
    while not lane.stopping.is_set():
        await drive(lane.source.lane, lane.source, lane.stopping)
        if lane.stopping.is_set():
            return
        await sleep_unless(lane.stopping, pause_s)
        pause_s = min(MOST_PAUSE_S, pause_s * 2)
