"""Kills at every failpoint, by the hundred: `python -m tests.faults.kills [--follow] [--hits 50] [--minutes M]`.

Apache Kafka, a topic of six partitions, three consumers with sessions of two seconds, a collector that never rests. A
round churns the cluster while programs are killed where they are armed, the least hit points first; consumers are also
stopped for longer than their session and continued; some kind cannot be listed. Then the faults and the churn end, and
once the database has converged it is judged: `Verdict`. What came of it is added to `kills.json`, round by round.

With `--follow` the collector follows the cluster, the points are those of following, and what is said to have been
followed is judged as well (`kills_following.json`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.faults import audit, topic
from tests.faults.failpoints import COLLECTOR, CONSUMER, FOLLOWER, Armed, Arsenal, Hit
from tests.faults.pipeline import World, pipeline
from tests.support import checker
from tests.support.forkserver import forking

COUNTS = Path(__file__).with_name("kills.json")
COUNTS_FOLLOWING = Path(__file__).with_name("kills_following.json")
LISTING = (*CONSUMER, *COLLECTOR)
FOLLOWING = (*FOLLOWER, "after_merge", "before_commit", "commit_sent_no_reply", "after_commit")
PROGRESS_S = 1.0
MOMENTS = 1000
"""At which the past is looked at, once a run."""
HITS = 50
MINUTES = 30.0
STOPS = 20

SESSION_TIMEOUT_S = 2.0
STOPPED_S = 2.5 * SESSION_TIMEOUT_S
"""Longer than the group keeps a silent member, and long enough for others to want its partitions."""
STOP_POINTS = (
    "after_fetch", "after_admit", "after_merge", "mid_copy", "before_commit", "commit_sent_no_reply", "mid_claim",
)  # fmt: skip
"""Where a consumer holds a batch or a transaction."""

QUIET_S = 3.0
IN_A_REBALANCE = ("mid_revoke", "mid_claim")
"""Passed in a rebalance only: while they are wanted and nothing is hit for so long, a consumer is killed anywhere."""
ROUND_S = 60.0
ROUND_HITS = 30
TICK_S = 0.25
ARMED_AT_ONCE = 5
CHANCE = 0.4
FAILING_KINDS = ("secrets", "services", "configmaps", "deployments.apps")
FAILING_MARGIN_S = 1.0
"""From a page's arrival to the statement that the list is complete."""
ODD_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Goal:
    """How many hits are wanted of each failpoint, and how many stops in all."""

    hits: int = HITS
    stops: int = STOPS


@dataclass(slots=True)
class Verdict:
    """What was found wrong, in numbers that should all be 0, and in words."""

    lost: int = 0
    """Objects that the API has and the database has not, or in another version."""
    phantom: int = 0
    """Objects that the database has and the API has not, or that it deleted although they are there."""
    wrong_bodies: int = 0
    duplicate_history: int = 0
    offsets: int = 0
    """Offsets stored not at all, twice, by somebody else than the owner; lists not counted exactly once."""
    versions_lost: int = 0
    """Contents that were sent and stand neither in the history nor in a live row."""
    coverage: int = 0
    """Versions made while their kind is said to have been followed, that are not stored."""
    moments: int = 0
    """Moments at which the past is not what was recorded by then, or `not_observed` not what no interval covers."""
    deleted_while_failing: int = 0
    canaries: int = 0
    ended_by_themselves: int = 0
    """Programs that nobody killed and that ended all the same."""
    words: list[str] = field(default_factory=list)

    def note(self, name: str, found: list[str]) -> None:
        """`found` is what is wrong in that respect."""
        setattr(self, name, getattr(self, name) + len(found))
        self.words += [f"{name}: {one}" for one in found]

    @property
    def numbers(self) -> dict[str, int]:
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "words"}


@dataclass(slots=True)
class Counts:
    """What all runs came to; `kills.json`."""

    hits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LISTING, 0))
    stops: int = 0
    rounds: int = 0
    minutes: float = 0.0
    settled_s: list[float] = field(default_factory=list)
    found: dict[str, int] = field(default_factory=lambda: Verdict().numbers)

    @classmethod
    def of(cls, points: Sequence[str]) -> Counts:
        return cls(hits=dict.fromkeys(points, 0))

    @classmethod
    def read(cls, path: Path, points: Sequence[str] = LISTING) -> Counts:
        return cls(**json.loads(path.read_text())) if path.exists() else cls.of(points)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    def add_hits(self, hits: list[Hit]) -> None:
        for hit in hits:
            if hit.action == "stop":
                self.stops += 1
            else:
                self.hits[hit.point] += 1

    def add_verdict(self, verdict: Verdict) -> None:
        for name, number in verdict.numbers.items():
            self.found[name] = self.found.get(name, 0) + number


class Kills:
    """Rounds on one world. `counts` is what the choice of points goes by, and is added to, until `goal` is reached."""

    def __init__(self, world: World, arsenal: Arsenal, counts: Counts, goal: Goal, seed: int) -> None:
        self.world = world
        self.counts = counts
        self.failing: list[audit.Failing] = []
        self._arsenal = arsenal
        self._goal = goal
        self._random = random.Random(seed)
        self._waking: set[asyncio.Task[None]] = set()
        self._ended = 0

    @property
    def is_done(self) -> bool:
        """Whether the goal is reached."""
        return min(self.counts.hits.values()) >= self._goal.hits and self.counts.stops >= self._goal.stops

    async def round(self, seconds: float = ROUND_S, hits: int = ROUND_HITS) -> float:
        """Churn and kill, until the goal is reached at the latest, then wait until it converges; the seconds that took.

        Raises AssertionError if it does not converge.
        """
        self.world.churn.odd = ODD_AT_ONCE
        self.world.churn.start()
        async with self._failing_kind():
            await self._kill(seconds, hits)
        self._arsenal.disarm()
        await asyncio.sleep(TICK_S)
        self._take()
        while self._waking:
            await asyncio.wait(self._waking)
        settled_s = await self.world.converged()
        self.counts.rounds += 1
        self.counts.settled_s.append(round(settled_s, 1))
        return settled_s

    async def judge(self, *, thoroughly: bool) -> Verdict:
        """Judge a world that has converged; `thoroughly` also reads all of the topic."""
        verdict = Verdict()
        async with self.world.collector.paused(), self.world.database() as connection:
            await self.world.caught_up()
            await self._judge_objects(connection, verdict)
            verdict.note("duplicate_history", await audit.duplicate_history(connection))
            verdict.note("duplicate_history", await checker.wrong_history(connection))
            world = self.world
            ends = await topic.ends(world.broker.bootstrap, world.topic, world.partitions)
            verdict.note("offsets", await audit.wrong_offsets(connection, ends))
            verdict.note("canaries", await world.leaks())
            verdict.note("coverage", await audit.unkept(connection, list(world.churn.made())))
            if thoroughly:
                await self._judge_topic(connection, verdict)
        endings = list(self.world.endings())
        verdict.note("ended_by_themselves", endings[self._ended :])
        self._ended = len(endings)
        return verdict

    async def _judge_objects(self, connection: Any, verdict: Verdict) -> None:
        truth = await checker.truth(self.world.api.base_url, self.world.api.token)
        difference = checker.compare(truth, await checker.live(connection))
        verdict.note("lost", [str(one) for one in (*difference.missing, *difference.differing)])
        verdict.note("phantom", [str(one) for one in difference.extra])
        wrong = await audit.wrong_deletions(connection, truth, self.failing, FAILING_MARGIN_S)
        verdict.note("deleted_while_failing", wrong)
        verdict.note("wrong_bodies", await self.world.problems())

    async def _judge_topic(self, connection: Any, verdict: Verdict) -> None:
        world = self.world
        sent = await topic.messages(world.broker.bootstrap, world.topic, world.partitions)
        verdict.note("offsets", await audit.miscounted_lists(connection, topic.completions(sent)))
        verdict.note("versions_lost", await audit.lost_versions(connection, sent))
        verdict.note("moments", await audit.wrong_moments(connection, sent, self._random, MOMENTS))
        planted = await checker.secrets(world.api.base_url, world.api.token, world.api.cluster.canaries())
        secrets = checker.Secrets(planted)
        verdict.note("canaries", [secret for message in sent for secret in secrets.within(message.raw)])

    async def _kill(self, seconds: float, wanted: int) -> None:
        hits, until, was_done, quiet_s = 0, time.monotonic() + seconds, self.is_done, 0.0
        while time.monotonic() < until and hits < wanted and (was_done or not self.is_done):
            armed = self._choose()
            self._arsenal.arm(armed)
            await asyncio.sleep(TICK_S)
            new = self._take()
            hits += new
            quiet_s = 0.0 if new else quiet_s + TICK_S
            if quiet_s >= QUIET_S and not armed.keys().isdisjoint(IN_A_REBALANCE):
                quiet_s = 0.0
                self._random.choice(self.world.consumers).signal(signal.SIGKILL)

    def _take(self) -> int:
        """Count the new hits and see to those who were stopped; how many they are."""
        new = self._arsenal.look()
        self.counts.add_hits(new)
        for hit in new:
            if hit.action == "stop":
                self._wake_later(hit.pid)
        return len(new)

    def _choose(self) -> dict[str, Armed]:
        """The points hit least of those that lack hits (once none does: of all); a stop as long as one is wanted."""
        hits = self.counts.hits
        lacking = [point for point in hits if hits[point] < self._goal.hits] or list(hits)
        least = sorted(lacking, key=lambda point: (hits[point], self._random.random()))[:ARMED_AT_ONCE]
        armed = {point: Armed(CHANCE, "kill") for point in least}
        if self.counts.stops < self._goal.stops and not self._waking:
            armed[self._random.choice(STOP_POINTS)] = Armed(CHANCE, "stop")
        return armed

    def _wake_later(self, pid: int) -> None:
        async def wake() -> None:
            await asyncio.sleep(STOPPED_S)
            for kept in self.world.consumers:
                if kept.pid == pid:
                    kept.signal(signal.SIGCONT)

        task = asyncio.create_task(wake())
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    @contextlib.asynccontextmanager
    async def _failing_kind(self) -> AsyncIterator[None]:
        """Some kind answers 500 in the block."""
        resource = self._random.choice(FAILING_KINDS)
        began = time.time()
        self.world.api.faults.fail(resource, 500)
        try:
            yield
        finally:
            self.failing.append(audit.Failing(resource, began, time.time()))
            self.world.api.faults.clear(resource)


@contextlib.asynccontextmanager
async def kills(counts: Counts, seed: int, goal: Goal, *, follow: bool = False) -> AsyncIterator[Kills]:
    """A world to kill in, with its audit."""
    with tempfile.TemporaryDirectory(prefix="clusterinfo-kills-") as directory:
        arsenal = Arsenal(Path(directory))
        ways: dict[str, Any] = {"consumers": 3}
        if follow:
            ways |= {"partitions": 3, "follow": True, "collector_env": {"PROGRESS_S": str(PROGRESS_S)}}
        async with pipeline(
            session_timeout_s=SESSION_TIMEOUT_S, seed=seed, env=arsenal.env, prepare=audit.install, **ways
        ) as world:
            await world.converged()
            yield Kills(world, arsenal, counts, goal, seed)


async def run(goal: Goal, minutes: float, seed: int, path: Path, console: Console, *, follow: bool) -> bool:
    """Rounds, one at least, until the goal is reached or the time is up; True if nothing was found wrong."""
    counts = Counts.read(path, FOLLOWING if follow else LISTING)
    began = last = time.monotonic()
    is_right = True
    async with kills(counts, seed, goal, follow=follow) as killing:
        is_over = False
        while not is_over:
            before = sum(counts.hits.values())
            settled_s = await killing.round()
            is_over = killing.is_done or time.monotonic() - began > minutes * 60
            verdict = await killing.judge(thoroughly=is_over)
            now = time.monotonic()
            counts.minutes, last = round(counts.minutes + (now - last) / 60, 2), now
            counts.add_verdict(verdict)
            counts.write(path)
            is_right = is_right and not verdict.words
            console.print(
                f"round {counts.rounds}: {sum(counts.hits.values()) - before} kills, {counts.stops} stops so far, "
                f"converged in {settled_s:.1f} s, {sum(verdict.numbers.values())} wrong"
            )
            for words in verdict.words:
                console.print(f"  {words}", markup=False)
    console.print(table(counts))
    return is_right


def table(counts: Counts) -> Table:
    """Hits per failpoint, and the verdict."""
    shown = Table(title=f"{counts.rounds} rounds, {counts.minutes:.0f} minutes")
    shown.add_column("failpoint")
    shown.add_column("hits", justify="right")
    for point, number in counts.hits.items():
        shown.add_row(point, str(number))
    shown.add_row("(SIGKILL in all)", str(sum(counts.hits.values())))
    shown.add_row("(SIGSTOP beyond the session)", str(counts.stops), end_section=True)
    for name, number in counts.found.items():
        shown.add_row(name.replace("_", " "), str(number))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--hits", type=int, default=HITS, help=f"wanted at each failpoint ({HITS})")
    parser.add_argument("--stops", type=int, default=STOPS, help=f"wanted in all ({STOPS})")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"at most ({MINUTES:g})")
    parser.add_argument("--seed", type=int, default=0, help="of the cluster and of what is done to it")
    parser.add_argument("--follow", action="store_true", help="while the cluster is followed")
    parser.add_argument("--counts", type=Path, help="file that the counts are added to")
    given = parser.parse_args()
    path = given.counts or (COUNTS_FOLLOWING if given.follow else COUNTS)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # a collector that was killed hangs up on the API
    goal, console = Goal(given.hits, given.stops), Console(soft_wrap=True)
    with forking():
        is_right = asyncio.run(run(goal, given.minutes, given.seed, path, console, follow=given.follow))
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
