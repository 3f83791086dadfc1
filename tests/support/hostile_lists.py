"""`python -m tests.support.hostile_lists KUBECONFIG`: one run of lists as of `collect`, into a sink that keeps nothing.

Prints as JSON: of each kind its outcome and error, the process's peak memory, and the longest time for which the event
loop did not turn: by the clock, and how much of it its thread worked (what it did not, others on this machine did). A
process of its own: what is measured is a collector and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from clusterinfo.kubernetes.client import KubernetesClient
from clusterinfo.kubernetes.collector import Collector
from clusterinfo.model import Batch, Lane, Position, Receipt
from clusterinfo.observations import ListEnded, Observation
from clusterinfo.settings import Settings


class Nowhere:
    """A sink that keeps nothing."""

    async def open(self, lane: Lane) -> Position:
        """From the beginning."""
        del lane
        return None

    async def write(self, batch: Batch) -> Receipt:
        """It is stored."""
        return Receipt(lane=batch.lane, position=batch.end)


class Turns:
    """How long the event loop took for its longest turn."""

    def __init__(self) -> None:
        self.longest_s = self.worked_s = 0.0

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            began, worked = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0)
            self.longest_s = max(self.longest_s, time.perf_counter() - began)
            self.worked_s = max(self.worked_s, time.thread_time() - worked)


async def main(kubeconfig: Path) -> None:
    """List everything once."""
    settings, turns, ended = Settings(kubeconfig=kubeconfig, cluster_id="c", exclude=[]), Turns(), list[ListEnded]()

    def observe(observation: Observation) -> None:
        if isinstance(observation, ListEnded):
            ended.append(observation)

    async with KubernetesClient.connect(settings) as client:
        before_mib = peak_mib()
        watching = asyncio.create_task(turns.watch())
        await Collector(client, Nowhere(), settings, observe).run(asyncio.Event(), once=True)
        watching.cancel()
    lists = {one.resource.partition(".")[0]: [one.outcome, one.error, round(one.seconds, 1)] for one in ended}
    figures = {
        "longest_s": turns.longest_s,
        "worked_s": turns.worked_s,
        "before_mib": before_mib,
        "peak_mib": peak_mib(),
        "lists": lists,
    }
    print(json.dumps(figures))


def peak_mib() -> float:
    """Of this process so far; `getrusage` would count what it was forked from."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
