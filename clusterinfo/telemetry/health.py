"""Observation -> health: whether this process is ready for work, and whether it should be replaced by another."""

from __future__ import annotations

import time
from collections.abc import Callable

from clusterinfo import observations as seen
from clusterinfo.errors import without_userinfo
from clusterinfo.observations import Observation
from clusterinfo.settings import LIST_TIMEOUT_S
from clusterinfo.telemetry.probes import STEP

RUN = "run of lists"
BESIDE = frozenset({STEP, "renew"})
"""Steps that go on while a collector stands by: probes, and looking at the Lease."""
SILENT_S = 600.0
"""Twice the longest deadline of any step of a run (a page, a batch: 300 s each): by then one must have ended."""


def _is_of_a_probe(observation: Observation) -> bool:
    """True for what a probe observed beside the work: it tells nothing about the work's progress."""
    return isinstance(observation, seen.Retrying | seen.Recovered) and observation.step == STEP


class Health:
    """Ready once connected, while no step is failing; alive while the event loop answers, no lane is stuck, a run of
    lists moves, and no list brings pages although its time is up (they are no progress: a server may never end one).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.list_within_s = LIST_TIMEOUT_S
        """LIST_TIMEOUT."""
        self.is_connected = False
        self.failing: dict[tuple[str, str], str] = {}
        """(lane, step) -> why it failed last."""
        self.stuck: set[str] = set()
        """Lanes for which nothing but another process is left to try."""
        self._clock = clock
        self._runs: set[str] = set()
        """Clusters whose lists are under way."""
        self._moved_s = clock()
        self._lists: dict[tuple[str, str], float] = {}
        """(resource, reach) -> when the first page of a list came that has not ended."""
        self._endless: dict[tuple[str, str], float] = {}
        """The same of those that bring pages although they should have ended: after how many seconds."""

    @property
    def not_ready(self) -> list[str]:
        """Why this process does not do its work now; empty for one that is ready."""
        lines = [f"{lane}, {step}: {without_userinfo(error, '***@')}" for (lane, step), error in self.failing.items()]
        return lines if self.is_connected else ["not connected yet", *lines]

    @property
    def not_alive(self) -> list[str]:
        """Why this process should be replaced by another; empty for one that is alive."""
        lines = [f"{lane}: Kafka has more messages but none arrive" for lane in sorted(self.stuck)]
        silent_s = self._clock() - self._moved_s
        if self._runs and silent_s > SILENT_S:
            lines += [
                f"{cluster}: its run of lists has made no progress for {silent_s:.0f} s" for cluster in self._runs
            ]
        return lines + [
            f"{resource}{f' in {reach}' if reach else ''}: its list still brings pages after {age_s:.0f} s"
            for (resource, reach), age_s in self._endless.items()
        ]

    def observe(self, observation: Observation) -> None:
        """Learn from what was done, what failed, and what succeeded again."""
        if not _is_of_a_probe(observation):
            self._moved_s = self._clock()
        self._observe_steps(observation)
        self._observe_runs(observation)
        self._observe_lists(observation)

    def _observe_lists(self, observation: Observation) -> None:
        match observation:
            case seen.PageListed(resource=resource, reach=reach):
                name = resource, reach
                age_s = self._clock() - self._lists.setdefault(name, self._clock())
                if age_s > self.list_within_s + SILENT_S:  # a sink that is away holds up lists, but brings no pages
                    self._endless[name] = age_s
            case seen.ListEnded(resource=resource, reach=reach) | seen.ListAbandoned(resource=resource, reach=reach):
                self._lists.pop((resource, reach), None)
                self._endless.pop((resource, reach), None)
            case seen.SnapshotEnded() | seen.RunFailed() | seen.StandsBy():
                self._lists.clear()
                self._endless.clear()

    def _observe_steps(self, observation: Observation) -> None:
        match observation:
            case seen.Retrying(lane=lane, step=step, error=error):
                self.failing[lane, step] = error
            case seen.Recovered(lane=lane, step=step):
                self.failing.pop((lane, step), None)
            case seen.Stuck(lane=lane):
                self.stuck.add(lane)
            case seen.Freed(lane=lane):
                self.stuck.discard(lane)
            case seen.LaneEnded(lane=lane):
                self.failing = {key: error for key, error in self.failing.items() if key[0] != lane}

    def _observe_runs(self, observation: Observation) -> None:
        match observation:
            case seen.Connected():
                self.is_connected = True
            case seen.Discovered(cluster=cluster):
                self._runs.add(cluster)
            case seen.SnapshotEnded(cluster=cluster):
                self._runs.discard(cluster)
                self.failing.pop((cluster, RUN), None)
            case seen.RunFailed(cluster=cluster, error=error):
                self._runs.discard(cluster)
                self.failing[cluster, RUN] = error
            case seen.StandsBy():  # what was under way was abandoned
                self._runs.clear()
                self.failing = {key: error for key, error in self.failing.items() if key[1] in BESIDE}
