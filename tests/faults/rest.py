"""A cluster in which nothing changes: `python -m tests.faults.rest [--seconds 3600] [--kinds 150]`.

Two pipelines side by side, each with servers of its own: one follows its cluster, the other lists it every five
minutes. What either costs is read from /proc and from the topic: processor time as a part of one core, the slope of the
resident memory, lists, messages and bytes through Kafka, all over the time after the first lists.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression

from tests.faults import topic
from tests.faults.pipeline import World, pipeline, servers
from tests.faults.supervised import Kept
from tests.support.forkserver import forking

OBJECTS, INTERVAL = 5000, "5m"
WARM_UP_S = 120.0
LOOK_S = 10.0
HOUR_S = 3600.0
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def resident_bytes(pid: int) -> int:
    """What a process holds in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


@dataclass(slots=True)
class Cost:
    """What one program used: samples of (seconds, resident bytes), and processor time at the first and the last one."""

    program: Kept
    samples: list[tuple[float, int]] = field(default_factory=list)
    first_s: float = 0.0
    last_s: float = 0.0

    def look(self) -> None:
        """Raises AssertionError if the program ended meanwhile."""
        pid = self.program.pid
        assert pid is not None, f"{self.program.name} does not run"
        assert not self.program.endings, f"{self.program.name} ended"
        self.last_s = processor_s(pid)
        self.first_s = self.first_s if self.samples else self.last_s
        self.samples.append((time.monotonic(), resident_bytes(pid)))

    def figures(self) -> dict[str, float]:
        """Percent of a core, MiB, MiB an hour over all samples and over the second half of them."""
        times, sizes = zip(*self.samples, strict=True)
        half = len(times) // 2
        hour_mib = HOUR_S / (1 << 20)
        return {
            "core_percent": round(100 * (self.last_s - self.first_s) / (times[-1] - times[0]), 2),
            "resident_mib": round(sizes[-1] / (1 << 20), 1),
            "slope_mib_an_hour": round(linear_regression(times, sizes).slope * hour_mib, 2),
            "slope_second_half": round(linear_regression(times[half:], sizes[half:]).slope * hour_mib, 2),
        }


@dataclass(slots=True)
class Watched:
    """One of the two pipelines, and what was seen of it."""

    world: World
    costs: list[Cost]
    lists: int = 0
    requests: int = 0

    def look(self) -> None:
        for cost in self.costs:
            cost.look()
        self.requests += len(self.world.api.requests)
        self.lists += sum("limit" in request.query for request in self.world.api.requests)
        self.world.api.requests.clear()


async def _through_kafka(world: World) -> tuple[int, int]:
    """(messages, bytes) that are in the topic."""
    found = await topic.messages(world.broker.bootstrap, world.topic, world.partitions)
    return len(found), sum(len(message.raw) for message in found)


async def measured(world: World, seconds: float) -> dict[str, object]:
    """Figures of one pipeline that has nothing to do."""
    await world.converged()
    await asyncio.sleep(WARM_UP_S)
    world.api.requests.clear()
    watched = Watched(world, [Cost(kept) for kept in world.programs])
    before = await _through_kafka(world)
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        watched.look()
        await asyncio.sleep(LOOK_S)
    watched.look()
    after = await _through_kafka(world)
    return {
        "lists": watched.lists,
        "requests": watched.requests,
        "messages_an_hour": round((after[0] - before[0]) * HOUR_S / seconds),
        "bytes_an_hour": round((after[1] - before[1]) * HOUR_S / seconds),
    } | {cost.program.name: cost.figures() for cost in watched.costs}


async def rest(seconds: float, kinds: int) -> dict[str, object]:
    """Run both; their figures."""
    async with contextlib.AsyncExitStack() as stack:
        worlds = {}
        for name, follow in (("followed", True), ("listed", False)):
            ends = await stack.enter_async_context(servers(objects=OBJECTS, kinds=kinds))
            worlds[name] = await stack.enter_async_context(
                pipeline(ends, consumers=1, interval=INTERVAL, follow=follow, session_timeout_s=30)
            )
        found = await asyncio.gather(*(measured(world, seconds) for world in worlds.values()))
    return {"seconds": seconds, "kinds": kinds, **dict(zip(worlds, found, strict=True))}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.rest", description=__doc__)
    parser.add_argument("--seconds", type=float, default=HOUR_S)
    parser.add_argument("--kinds", type=int, default=150)
    parser.add_argument("--report", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    with forking():
        figures = asyncio.run(rest(given.seconds, given.kinds))
    text = json.dumps(figures, indent=2)
    print(text)
    if given.report:
        given.report.write_text(text + "\n")


if __name__ == "__main__":
    main()
