"""Histories of clusters, collectors, a topic and two consumers: rules that somebody else draws (`hunting.py`).

Every rule that changes the world may end with a delivery: one or two sinks take batches from the topic, two of them
statement by statement in a drawn order, and may be cut off at any statement. After each commit what it touched is
compared with the reference, and at the end, when everything is delivered and every kind listed again, all of it
with the truth.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

from msgspec.structs import replace

from clusterinfo.errors import LostError, RestartError, TransientError
from clusterinfo.model import Batch, ListLane, PartitionLane, Record, Rejected, Unit
from clusterinfo.postgres.merge.offsets import forget_offsets
from tests.model.bench import Bench, Judge, Violation, expect
from tests.model.events import KINDS, MOST_PARTITIONS, Change, Job, Plan, Wish
from tests.model.reference import SNAPSHOTS, Reference, SaidSnapshot, UnitId
from tests.model.scenarios import LONG, SCENES
from tests.model.schedule import Actor, Crash, StuckError, Turns
from tests.model.state import Cluster, Kind, Seen, World

T = TypeVar("T")

GROUP_ID = "model"
MOST_ATTEMPTS = 12


def _merged(one: list[Any], other: list[Any], mixed: int) -> list[Any]:
    """Both, each in its order; the bits of `mixed` say whose turn it is."""
    merged: list[Any] = []
    one, other = list(one), list(other)
    while one and other:
        merged.append((one if mixed & 1 else other).pop(0))
        mixed >>= 1
    return merged + one + other


class History:
    """One history. The public methods that `RULES` names are what can happen in it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.counts = bench.counts
        self.tag = bench.run(bench.begin())
        self.topic = f"topic-{self.tag}"
        self.logs: list[list[Record | Rejected]] = [[] for _ in range(MOST_PARTITIONS)]
        self.held: list[Record] = []
        self.holds_back = False
        """Whatever is produced is held, to be delivered late."""
        self.partitions = 1
        self.scattered = 0
        self.places: dict[tuple[int, int], int] = {}
        self.pages: list[Seen] = []
        self._touched: set[UnitId] = set()

    def begin(
        self,
        clusters: int,
        one_name: bool,
        partitions: int,
        scattered: int,
        changes: tuple[Change, ...],
    ) -> None:
        """Clusters with a few objects and a topic."""
        made = [
            Cluster(n, f"{self.tag}-uid-{n}", f"{self.tag}-name-{0 if one_name else n}", KINDS) for n in range(clusters)
        ]
        if one_name and clusters > 1:
            self.counts["clusters of one name"] += 1
        self.world = World(self.tag, made)
        self.reference = Reference(self.world, self.counts)
        self.judge = Judge(self.bench, self.world, self.reference, self.topic)
        self.turns = Turns(self.bench.admin, self.counts, self._look)
        self.partitions, self.scattered = partitions, scattered
        self.counts["records spread over partitions"] += bool(scattered and partitions > 1)
        for actor in self.bench.actors:
            actor.on_commit, actor.after_commit = self._committed, self._look
            actor.crash = None
        for cluster in made:
            self._change(cluster, changes)
            self.world.back_up(cluster)

    # -- what happens in clusters

    def change(self, cluster: int, changes: tuple[Change, ...], plan: Plan | None) -> None:
        """Objects are created, changed, deleted, recreated; some of it is watched."""
        self._change(self._cluster(cluster), changes)
        self._deliver(plan)

    def _change(self, cluster: Cluster, changes: tuple[Change, ...]) -> None:
        for change in changes:
            kind, key = KINDS[change.kind], (change.namespace, change.name)
            if kind.id in cluster.gone:
                continue
            watched = change.watched and not kind.by_clock
            if change.what != "put" and (thing := self.world.delete(cluster, kind, key)):
                self.counts["objects deleted"] += 1
                if watched:
                    self._produce([self.world.watched_deletion(cluster, kind, key, thing)])
                    self.counts["watched deletions"] += 1
            if change.what == "delete":
                continue
            if change.what == "recreate":
                self.counts["objects recreated"] += 1
            thing = self.world.create_or_change(cluster, kind, key, change.content)
            if watched:
                self._produce([self.world.watched(cluster, kind, key, thing)])
                self.counts["watched objects"] += 1

    def _restore(self, cluster: int, *, backwards: bool, raised: bool) -> None:
        where = self._cluster(cluster)
        if not where.backups:
            self.world.back_up(where)
            return
        self.world.restore(where, forwards=not backwards, raised=raised and backwards)
        how = "forwards" if not backwards else "backwards, epoch raised" if raised else "backwards in silence"
        self.counts[f"restored {how}"] += 1

    # -- what collectors do

    def collect(self, wish: Wish, plan: Plan | None) -> None:
        """A collector lists one kind."""
        self._collect(wish)
        self._deliver(plan)

    def change_and_collect(self, changes: tuple[Change, ...], wish: Wish, plan: Plan) -> None:
        """Objects change, and a collector sees it."""
        self._change(self._cluster(wish.cluster), changes)
        self._collect(wish)
        self._deliver(plan)

    def collect_twice(self, first: Wish, changes: tuple[Change, ...], second: Wish, mixed: int, plan: Plan) -> None:
        """Two collectors list one cluster at the same time; what they send is mixed."""
        before = [len(log) for log in self.logs]
        second = dataclasses.replace(second, cluster=first.cluster, kind=first.kind)
        self._collect(first)
        self._change(self._cluster(first.cluster), changes)
        middle = [len(log) for log in self.logs]
        self._collect(second)
        for log, start, cut in zip(self.logs, before, middle, strict=True):
            log[start:] = _merged(log[start:cut], log[cut:], mixed)
        self.counts["two collectors at once"] += 1
        self._deliver(plan)

    def _collect(self, wish: Wish) -> None:
        source, kind = self._cluster(wish.cluster), KINDS[wish.kind]
        if kind.id in source.gone | source.excluded:
            return
        seen = self._list(source, kind, wish.reach, wish.rules, wish.stubs, wish.slow)
        self.counts[f"lists {wish.fate}"] += 1
        self.counts["lists of one namespace"] += bool(wish.reach)
        self.counts["lists with stubs"] += bool(wish.stubs)
        self.counts["slow lists"] += wish.slow
        self.counts["lists under newer rules"] += wish.rules > 1
        self.counts[f"lists whose versions are {kind.versions}"] += 1
        if wish.fate == "pages":
            self.pages.append(seen)
        elif wish.fate == "late":
            self.held += seen.records
        else:
            self._produce(self._befalls(seen, wish.fate, wish.where))

    def _befalls(self, seen: Seen, fate: str, where: int) -> list[Record]:
        records, items = seen.records, len(seen.records) - 1
        at = where % items if items else 0
        if fate == "cut":
            return records[:at]
        if fate == "lost" and items:
            return records[:at] + records[at + 1 :]
        if fate in ("failed", "forbidden", "expired"):
            code = {"failed": 500, "forbidden": 403, "expired": 410}[fate]
            return [*records[:at], replace(seen.listing.failed(code, fate), observed_at=seen.done_at)]
        if fate == "swapped" and items > 1:
            other = records[(at + 1) % items]
            return [*records[:at], other, *records[at + 1 :]]
        if fate == "overtaken":
            return [records[-1], *records[:-1]]
        if fate == "twice":
            return records + records[at:]
        return records

    def _list(
        self, cluster: Cluster, kind: Kind, reach: str = "", rules: int = 1, stubs: int = 0, slow: bool = False
    ) -> Seen:
        return self.world.look(cluster, kind, reach=reach, normalization=rules, stubs=stubs, slow=slow)

    def deliver_late(self, count: int, plan: Plan | None) -> None:
        """What a collector held back is sent."""
        released, self.held = self.held[:count], self.held[count:]
        self._produce(released)
        self._deliver(plan)

    def snapshot(
        self, cluster: int, renamed: bool, fates: tuple[str, ...], whole: bool, plan: Plan | None, late: bool = False
    ) -> None:
        """A run of lists begins and ends: discovery names the kinds, or no longer."""
        source = self._cluster(cluster)
        if renamed and len(self.world.clusters) == 1:
            source.name += "x"
            self.counts["clusters renamed"] += 1
        outcomes: dict[tuple[str, str], str] = {}
        for kind, fate in zip(KINDS, fates, strict=True):
            self._meets(source, kind, fate, outcomes)
        self.counts["snapshots" if whole else "snapshots of an incomplete discovery"] += 1
        self.counts["snapshots that come late"] += late
        said = self._say_snapshot(source, outcomes, whole=whole)
        if late:
            self.held += said
        else:
            self._produce(said)
        self._deliver(plan)

    def _say_snapshot(self, source: Cluster, outcomes: dict[tuple[str, str], str], *, whole: bool) -> list[Record]:
        listing = self.world.listing(source, KINDS[0])
        counts = {kind: len(source.objects[kind]) for kind in outcomes}
        SNAPSHOTS[listing.snapshot] = SaidSnapshot(outcomes, whole, counts)
        started = listing.snapshot_started()
        ended = listing.snapshot_completed(outcomes, discovery_complete=whole, counts=counts)
        return [started, replace(ended, observed_at=self.world.tick())]

    def _meets(self, source: Cluster, kind: Kind, fate: str, outcomes: dict[tuple[str, str], str]) -> None:
        was_gone = kind.id in source.gone
        source.gone.discard(kind.id)
        source.excluded.discard(kind.id)
        if fate == "gone":
            source.gone.add(kind.id)
            source.objects[kind.id] = {}
            source.revision += 1
            self.counts["kinds gone"] += not was_gone
            return
        outcomes[kind.id] = fate
        if fate == "excluded":
            source.excluded.add(kind.id)
            self.counts["kinds excluded"] += 1

    # -- what happens besides

    def upset(self, what: str, cluster: int, partition: int, number: int, plan: Plan | None) -> None:
        """What happens to a whole cluster, or to the topic."""
        if what.startswith("restore"):
            self._restore(cluster, backwards="forwards" not in what, raised="silence" not in what)
        elif what == "send again":
            again = self.logs[partition][-number:]
            self.logs[partition] += again
            self.counts["records sent again"] += len(again)
        elif what == "intrude":
            self.logs[partition].append(Rejected(offset=0, reason="no ce_type", headers=[], value=b"hello"))
            self.counts["strangers' messages"] += 1
        elif what == "reset":
            self._guarded(forget_offsets(self.bench.admin, "clusterinfo", self.topic))
            self.reference.forgotten()
            self.counts["offsets reset"] += 1
        elif what == "upgrade":
            kind = KINDS[number % len(KINDS)]
            where = self._cluster(cluster)
            where.api_versions[kind.id] = f"v{int(where.api_versions.get(kind.id, 'v1')[1:]) + 1}"
            self.counts["API versions changed"] += 1
        else:
            self.partitions, self.scattered = 1 + number % MOST_PARTITIONS, number % 3 if what == "scatter" else 0
            self.counts[f"topics made to {what}"] += 1
        self._deliver(plan)

    # -- what consumers do

    def consume(self, plan: Plan) -> None:
        """Two sinks take from the topic, at once."""
        self._deliver(plan)

    def write_page(self, both: bool, runs: tuple[int, ...], crash: Crash | None) -> None:
        """The next page of a list is written without Kafka; both: a second attempt is made while the first one runs."""
        seen = self.pages[0]
        batch = self._page(seen)
        self._run({actor: self._write_page(actor, batch) for actor in self.bench.actors[: 1 + both]}, runs, crash)
        seen.page += 1
        self.counts["pages"] += 1
        if seen.page * 2 >= len(seen.records):
            self.pages.pop(0)

    def _page(self, seen: Seen) -> Batch:
        unit = Unit(seen.listing.cluster, *seen.kind.id)
        records = seen.records[seen.page * 2 : seen.page * 2 + 2]
        return Batch(
            lane=ListLane(unit, seen.listing.reach), start=seen.page, end=seen.page + 1, records=records,
            list=seen.listing.id,
        )  # fmt: skip

    async def _write_page(self, actor: Actor, batch: Batch) -> None:
        for _ in range(MOST_ATTEMPTS):
            try:
                await actor.sink.write(batch)
                return
            except TransientError:
                self.counts["attempts after a transient error"] += 1
            except RestartError:
                self.counts["lists begun again"] += 1
                return
        raise Violation("stuck", batch.lane)

    def _deliver(self, plan: Plan | None) -> None:
        if plan is None:
            return
        jobs = {self.bench.actors[0]: self._work(self.bench.actors[0], plan.first)}
        if plan.second:
            if plan.second.partition == plan.first.partition:
                self.counts["one partition, two owners at once"] += 1
            jobs[self.bench.actors[1]] = self._work(self.bench.actors[1], plan.second)
            self.counts["deliveries side by side"] += 1
        self._run(jobs, plan.runs, plan.crash)

    def _run(self, jobs: dict[Actor, Coroutine[Any, Any, None]], runs: tuple[int, ...], crash: Crash | None) -> None:
        """One job goes straight through, two go statement by statement."""
        for actor in self.bench.actors:
            actor.steps = 0
            actor.crash = crash if crash and (crash.actor == actor.number or len(jobs) == 1) else None
            actor.takes_turns = len(jobs) > 1
        if len(jobs) == 1:
            self._guarded(*jobs.values())
        else:
            self._guarded(self.turns.run(jobs, runs))

    async def _work(self, actor: Actor, job: Job) -> None:
        """As the pump does it: claim, write; again after a lost connection; claim again, or release, when asked to."""
        lane = self._lane(job.partition)
        claims = job.claims or (actor.number, job.partition) not in self.places
        for _ in range(MOST_ATTEMPTS):
            try:
                if claims:
                    position = await actor.sink.open(lane)
                    self.places[actor.number, job.partition] = position or 0
                    claims = False
                start = self.places[actor.number, job.partition]
                batch = self._batch(lane, start, job.size)
                if batch is None:
                    return
                await actor.sink.write(batch)
                self.places[actor.number, job.partition] = batch.end
                return
            except TransientError:
                self.counts["attempts after a transient error"] += 1
            except RestartError:
                self.counts["lanes begun again"] += 1
                claims = True
            except LostError:
                self.counts["lanes lost to another owner"] += 1
                self.places.pop((actor.number, job.partition), None)
                return
        raise Violation("stuck", lane)

    def _lane(self, partition: int) -> PartitionLane:
        return PartitionLane("kafka", self.topic, partition, GROUP_ID)

    def _batch(self, lane: PartitionLane, start: int, size: int) -> Batch | None:
        messages = self.logs[lane.partition][start : start + size]
        if not messages:
            return None
        numbered = [replace(message, offset=start + n) for n, message in enumerate(messages)]
        return Batch(
            lane=lane, start=start, end=start + len(messages),
            records=[m for m in numbered if isinstance(m, Record)],
            rejected=[m for m in numbered if isinstance(m, Rejected)],
        )  # fmt: skip

    def _produce(self, records: list[Record]) -> None:
        if self.holds_back:
            self.held += records
            return
        for record in records:
            unit = next((n for n, kind in enumerate(KINDS) if kind.resource == record.resource), 0)
            if self.scattered:
                unit += sum(len(log) for log in self.logs) // self.scattered
            self.logs[unit % self.partitions].append(record)

    # -- what is compared

    def _committed(self, actor: Actor) -> None:
        if actor.sink.claimed:
            lane = actor.sink.claimed
            self.reference.claimed(lane.partition, actor.sink.claims.generation(lane))
            self.counts["claims"] += 1
        batch = actor.sink.batch
        if batch is None:
            return
        generation = actor.sink.claims.generation(batch.lane) if isinstance(batch.lane, PartitionLane) else 0
        if self.reference.takes(batch, generation):
            self._touched |= self.reference.committed(batch)
            self.counts["batches"] += 1

    async def _look(self) -> None:
        await self.judge.look(self._touched)
        self._touched.clear()

    def _guarded(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self.bench.run(work)
        except StuckError as error:
            raise Violation("stuck", error) from error

    def _cluster(self, number: int) -> Cluster:
        return self.world.clusters[number % len(self.world.clusters)]

    # -- the end

    def end(self) -> None:
        """Everything is delivered, every kind listed again; then the database is the truth."""
        self._produce(self.held)
        self.held = []
        self.scattered = 0
        while self.pages:
            self.write_page(False, (), None)
        self.drain()
        for cluster in self.world.clusters:
            self._list_all(cluster)
        self.drain()
        self._guarded(self.judge.end())
        self.counts["histories"] += 1
        self.counts["lists"] += len(self.world.lists)
        self.counts["lists unproven"] += len(self.world.lists.keys() - self.reference.proven)

    def _list_all(self, cluster: Cluster) -> None:
        if cluster.tainted:
            cluster.epoch += 1
            cluster.tainted = False
        self.world.tick(LONG)
        cluster.revision += 1
        for kind in KINDS:
            if kind.id not in cluster.gone | cluster.excluded:
                self._produce(self._list(cluster, kind).records)
        named = {
            k.id: "excluded" if k.id in cluster.excluded else "completed" for k in KINDS if k.id not in cluster.gone
        }
        self._produce(self._say_snapshot(cluster, named, whole=True))

    def drain(self, size: int = 100) -> None:
        """Everything that was sent is stored."""
        for partition, log in enumerate(self.logs):
            actor = self.bench.actors[partition % 2]
            while log and (self.places.get((actor.number, partition)) or 0) < len(log):
                self._run({actor: self._work(actor, Job(partition, size, False))}, (), None)

    def guarded_alarm(self, kind: int, restore: Callable[[], None], wish: Wish) -> None:
        """After `restore`, that list raises the alarm and deletes nothing."""
        unit = 0, *KINDS[kind].id
        before = self._guarded(self.judge.alarm(unit))
        restore()
        if not self.world.clusters[0].tainted:
            return
        self.collect(wish, None)
        self.drain()
        after = self._guarded(self.judge.alarm(unit))
        expect(after.alarmed and not before.alarmed, "state", (unit, "no alarm", after))
        expect(after.kept == before.kept, "lost", (unit, "deleted in spite of the alarm", before, after))
        self.counts["alarms raised over a silent restore"] += 1

    def scene(self, name: str, seed: int) -> None:
        """A short story that is known to be hard, with what it leaves open drawn from `seed`."""
        self.counts[f"scene: {name}"] += 1
        SCENES[name](self, Random(seed))
