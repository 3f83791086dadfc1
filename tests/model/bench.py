"""What a history runs on: one PostgreSQL, two sinks, an onlooker; and what compares the stored with what must be.

Histories share the database: each has clusters and a topic of its own. Tables are emptied now and then.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import asyncpg
import orjson

from clusterinfo.postgres.pool import prepare_connection
from clusterinfo.settings import Settings
from tests.model.reference import NEVER, SNAPSHOTS, Reference, UnitId, UnitTruth
from tests.model.schedule import Actor
from tests.model.state import FIDELITIES, REFUSED, Cluster, Key, Object, Seen, World, began, body_of, stub_of

T = TypeVar("T")

EMPTY_EVERY = 60
"""Histories; emptying costs about as much as one."""

STORED = """
select c.uid as cluster, u.api_group, u.resource, u.state, u.state_at, u.api_version, u.by_clock,
    (select json_agg(json_build_array(namespace, name, uid, resource_version, epoch, live_at, deleted, normalization,
        fidelity, created, extract(epoch from valid_from)::text, extract(epoch from last_observed_at)::text,
        exists (select from resource s where (s.unit_id, s.namespace, s.name) = (r.unit_id, r.namespace, r.name)
            and s.deleted and s.body is not null))) from positioned() r where r.unit_id = u.id) as rows,
    (select json_agg(json_build_array(reach, epoch, live_at, state, extract(epoch from state_at)::text, last_error))
        from unit_floor f where f.unit_id = u.id) as floors,
    (select json_agg(json_build_array(list, count, digest::text, settled)) from list_progress p where p.unit_id = u.id)
        as progress,
    (select count(*) from resource_history h where h.unit_id = u.id) as past
from unit u join cluster c on c.id = u.cluster_id
where c.uid = any ($1::text[]) and ($2::text[] is null or u.api_group || '/' || u.resource = any ($2))
"""

CLUSTERS = """
select uid, name, first_seen, last_seen, epoch, nullif(discovered_before, '-infinity'), contested_at from cluster
where uid = any ($1::text[])
"""

SNAPSHOT_ROWS = """
select s.id, s.units_completed, s.units_failed, s.objects, s.discovery_complete, s.started_at, s.completed_at
from snapshot s join cluster c on c.id = s.cluster_id where c.uid = any ($1::text[])
"""

OFFSETS = "select partition, generation, next_offset from kafka_offset where topic = $1"

PAST = """
select u.api_group, u.resource, c.uid as cluster, h.* from (
    select unit_id, namespace, name, uid, resource_version, normalization, fidelity, content_hash, created, deleted,
        valid_from, valid_to, body, original, epoch, live_at from resource_history
    union all
    select unit_id, namespace, name, uid, resource_version, normalization, fidelity, content_hash, created, false,
        valid_from, null, body, original, epoch, live_at from resource where not deleted
) h join unit u on u.id = h.unit_id join cluster c on c.id = u.cluster_id
where c.uid = any ($1::text[])
order by u.id, h.namespace, h.name, h.valid_from, h.valid_to nulls last, h.epoch, h.live_at
"""

TABLES = (
    "cluster, unit, unit_floor, snapshot, resource, resource_history, kafka_offset, dead_letter, list_progress, "
    "list_seen"
)


SORTS = ("lost", "phantom", "wrong", "applied twice", "counts", "offsets", "floor", "history", "state", "stuck")
"""What can be wrong. counts, offsets: a list's or a partition's progress is not what was stored of it."""


class Violation(AssertionError):
    """The database is not what it must be. `sort`: see `SORTS`."""

    def __init__(self, sort: str, what: object) -> None:
        super().__init__(f"{sort}: {what}")
        self.sort = sort


def expect(holds: bool, sort: str, what: object) -> None:
    """Raise Violation unless `holds`."""
    if not holds:
        raise Violation(sort, what)


OWNED = """
create or replace function owned() returns trigger language plpgsql as $$
begin
    new.topic := 'topic-' || split_part(new.uid, '-', 1);
    return new;
end $$;
create or replace trigger owned before insert on cluster for each row execute function owned()
"""
"""A history's clusters belong to its topic whoever meets them first: what is written without Kafka would make them no
topic's, which is another test's (`integration/test_topic_owners.py`)."""


class Bench:
    """One server's database and the connections to it. Lives as long as a process' histories."""

    def __init__(self, dsn: str, settings: Settings) -> None:
        self.loop = asyncio.new_event_loop()
        self.counts: Counter[str] = Counter()
        self._dsn, self._settings = dsn, settings
        self.admin: Any = None
        self.actors: list[Actor] = []
        self.histories = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` on this bench's loop."""
        return self.loop.run_until_complete(work)

    async def connect(self) -> Any:
        """A connection as the sink's pool makes them."""
        connection = await asyncpg.connect(self._dsn, server_settings={"search_path": "clusterinfo"}, timeout=60)
        await prepare_connection(connection)
        return connection

    async def open(self) -> None:
        """Connect all."""
        self.admin = await self.connect()
        await self.admin.execute(OWNED)
        self.actors = [Actor(number, await self.connect(), self.connect, self._settings) for number in range(2)]
        for actor in self.actors:
            actor.counts = self.counts

    async def close(self) -> None:
        """Close all."""
        for connection in [self.admin, *(actor.raw for actor in self.actors)]:
            await connection.close()

    def shut(self) -> None:
        """Close all and the loop."""
        self.run(self.close())
        self.loop.close()

    async def begin(self) -> str:
        """Ready for another history; return what sets its names apart."""
        if self.histories % EMPTY_EVERY == 0:
            await self.admin.execute(f"truncate {TABLES} cascade")
        self.histories += 1
        for actor in self.actors:
            actor.new_sink()
        return f"h{self.histories}"

    def finish(self) -> None:
        """No transaction is left open by a history that failed."""
        for actor in self.actors:
            if not actor.raw.is_closed() and actor.raw.is_in_transaction():
                self.run(actor.raw.execute("rollback"))


def _loads(text: str | None) -> Any:
    return orjson.loads(text) if text else []


@dataclass(frozen=True)
class Alarm:
    """Whether a kind is failed for running backwards; its rows and how many are history."""

    alarmed: bool
    kept: tuple[list[Any], int]


class Judge:
    """Compares what is stored of one history with what must be."""

    def __init__(self, bench: Bench, world: World, reference: Reference, topic: str) -> None:
        self.bench, self.world, self.reference, self.topic = bench, world, reference, topic

    @property
    def uids(self) -> list[str]:
        return [cluster.uid for cluster in self.world.clusters]

    def unit_id(self, row: Any) -> UnitId:
        """Which unit a stored row is of."""
        for cluster in self.world.clusters:
            if row["cluster"] == cluster.uid:
                return cluster.number, row["api_group"], row["resource"]
        raise Violation("phantom", f"a cluster {row['cluster']}")

    async def look(self, touched: set[UnitId] | None = None) -> None:
        """After a commit: rows, floors, states, counts and offsets of what it touched (None: of everything)."""
        named = None if touched is None else sorted({f"{group}/{resource}" for _, group, resource in touched})
        if named != []:
            rows = await self.bench.admin.fetch(STORED, self.uids, named)
            stored = {self.unit_id(row): row for row in rows}
            for unit_id, truth in self.reference.units.items():
                if (touched is None or unit_id in touched) and not self.reference.guesses(unit_id):
                    expect(unit_id in stored, "lost", unit_id)
                    self._compare(unit_id, truth, stored[unit_id])
            for unit_id, row in stored.items():
                self._compare_alarms(unit_id, row)
        await self._compare_offsets()
        await self._compare_snapshots()
        await self._compare_clusters()

    def _compare_alarms(self, unit_id: UnitId, row: Any) -> None:
        """Who was never restored backwards in silence is never reported so, however slow its collectors are."""
        stored = " ".join(str(r[5]) for r in _loads(row["floors"]))
        if "restored from a backup" in stored:
            expect(self.world.clusters[unit_id[0]].was_tainted, "state", (unit_id, "a false alarm", stored))

    def _compare(self, unit_id: UnitId, truth: UnitTruth, row: Any) -> None:
        rows = {(r[0], r[1]): r[2:] for r in _loads(row["rows"])}
        for key in truth.rows.keys() - rows.keys():
            expect(False, "lost", (unit_id, key, truth.rows[key]))
        for key in rows.keys() - truth.rows.keys():
            expect(False, "phantom", (unit_id, key, rows[key]))
        for key, must in truth.rows.items():
            uid, version, epoch, live_at, deleted, normalization, fidelity, created, *dates, has_body = rows[key]
            shape = must.shape if must.deleted else (normalization, fidelity)
            since, seen = (dt.datetime.fromtimestamp(float(at), dt.UTC) for at in dates)
            is_ = (uid, version, (epoch, live_at), deleted, shape, created, since, seen, has_body)
            must_be = (
                must.uid, must.version, must.moment, must.deleted, must.shape, must.created, must.since, must.seen,
                False,
            )  # fmt: skip
            expect(is_ == must_be, "wrong", (unit_id, key, "is", is_, "must be", must_be))
        counts = {r[0]: (r[1], int(r[2]), r[3]) for r in _loads(row["progress"])}
        held = {list_id: (c.count, c.digest, c.settled) for list_id, c in truth.counts.items()}
        expect(counts == held, "counts", (unit_id, counts, "must be", held))
        expect(row["past"] == len(truth.past), "history", (unit_id, row["past"], "must be", truth.past, truth.rows))
        floors = {r[0]: (r[1], r[2]) for r in _loads(row["floors"]) if r[2] >= 0}
        expect(floors == truth.floors, "floor", (unit_id, floors, "must be", truth.floors))
        self._compare_reaches(unit_id, truth, row)

    def _compare_reaches(self, unit_id: UnitId, truth: UnitTruth, row: Any) -> None:
        is_ = (row["state"], row["state_at"]) if row["state"] else None
        expect(is_ == truth.state, "state", (unit_id, is_, "must be", truth.state))
        stored = {r[0]: (r[3], round(float(r[4]) * 1000)) for r in _loads(row["floors"]) if r[4] != "-Infinity"}
        must = {
            reach: (state, round(at.timestamp() * 1000))
            for reach, (state, at) in truth.reach_states.items()
            if at != NEVER
        }
        expect(stored == must, "state", (unit_id, "reaches", stored, "must be", must))
        expect(row["by_clock"] == truth.by_clock, "state", (unit_id, "by clock", row["by_clock"], truth.by_clock))
        expect(row["api_version"] == truth.api_version, "wrong", (unit_id, row["api_version"], truth.api_version))

    async def _compare_offsets(self) -> None:
        rows = await self.bench.admin.fetch(OFFSETS, self.topic)
        stored = {row["partition"]: (row["generation"], row["next_offset"]) for row in rows}
        held = {p: (g, self.reference.offsets.get(p)) for p, g in self.reference.generations.items()}
        expect(stored == held, "offsets", (stored, "must be", held))

    async def _compare_snapshots(self) -> None:
        """Once the completion of a snapshot is stored its row has the figures that it says, whatever comes again."""
        rows = await self.bench.admin.fetch(SNAPSHOT_ROWS, self.uids)
        stored = {str(row["id"]): tuple(row.values())[1:] for row in rows if row["completed_at"]}
        held = {
            snapshot: (*SNAPSHOTS[snapshot].figures, SNAPSHOTS[snapshot].whole, began(snapshot), ended)
            for snapshot, ended in self.reference.snapshots.items()
        }
        expect(stored == held, "counts", ("snapshots", stored, "must be", held))

    async def end(self) -> None:
        """After the last list: the rows are the truth, history is in order, nothing was dead-lettered twice."""
        await self.look()
        rows = await self.bench.admin.fetch(PAST, self.uids)
        chains: dict[tuple[UnitId, Key], list[Any]] = {}
        for row in rows:
            chains.setdefault((self.unit_id(row), (row["namespace"], row["name"])), []).append(row)
        self._compare_with_truth(chains)
        for (unit_id, key), chain in chains.items():
            self._compare_history(unit_id, key, chain)
        await self._compare_letters()
        await self._compare_states()
        await self._compare_moments()

    async def _compare_clusters(self) -> None:
        """Each bears the name that it was given last; names that were given one after the other raise no alarm."""
        rows = await self.bench.admin.fetch(CLUSTERS, self.uids)
        stored = {row["uid"]: tuple(row.values())[1:] for row in rows}
        must = {
            self.world.clusters[number].uid: (
                truth.name, truth.first_seen, truth.last_seen, truth.epoch, self.reference.discovered.get(number), None,
            )
            for number, truth in self.reference.clusters.items()
        }  # fmt: skip
        expect(stored == must, "wrong", ("clusters", stored, "must be", must))

    def _compare_with_truth(self, chains: dict[tuple[UnitId, Key], list[Any]]) -> None:
        live = {which: row for which, chain in chains.items() for row in chain if row["valid_to"] is None}
        truth: dict[tuple[UnitId, Key], tuple[Cluster, Object]] = {}
        for cluster in self.world.clusters:
            for kind_id, objects in cluster.objects.items():
                if kind_id not in cluster.excluded:
                    truth |= {((cluster.number, *kind_id), key): (cluster, thing) for key, thing in objects.items()}
        for which in truth.keys() - live.keys():
            expect(False, "lost", (which, truth[which]))
        for which in live.keys() - truth.keys():
            cluster = self.world.clusters[which[0][0]]
            expect(which[0][1:] in cluster.excluded, "phantom", (which, dict(live[which])))
        for which, (cluster, thing) in truth.items():
            row = live[which]
            is_ = row["uid"], row["resource_version"], row["epoch"]
            expect(is_ == (thing.uid, thing.version, cluster.epoch), "wrong", (which, is_, thing, cluster.epoch))
            self._check_body(which[1], thing, row)

    def _check_body(self, key: Key, thing: Object, row: Any) -> None:
        body, fidelity = row["body"], row["fidelity"]
        if thing.content == REFUSED:
            expect((body, fidelity) == (None, 0), "wrong", (key, thing, body, fidelity))
        elif thing.content in FIDELITIES:
            original = body_of(key, thing, row["normalization"])
            expect((row["original"], fidelity) == (original, 2), "wrong", (key, thing, row["original"], fidelity))
        else:
            whole = stub_of(key, thing) if fidelity == 1 else body_of(key, thing, row["normalization"])
            expect(orjson.loads(body) == orjson.loads(whole), "wrong", (key, thing, body, whole))

    def _compare_history(self, unit_id: UnitId, key: Key, chain: list[Any]) -> None:
        older_rules = self.reference.units[unit_id].seen_by_older_rules
        for row in chain:
            ends = row["valid_to"] or row["valid_from"]
            expect(row["valid_from"] <= ends, "history", (unit_id, key, "ends before it begins", dict(row)))
        # What a slow list showed when it was gone already was there for no time at all, whatever followed it when.
        lasting = [row for row in chain if row["valid_from"] != row["valid_to"]]
        momentary = {row["valid_from"] for row in chain if row["valid_from"] == row["valid_to"]}
        for row, next_row in pairwise(lasting):
            until, since = row["valid_to"], next_row["valid_from"]
            expect(until is not None, "history", (unit_id, key, "two rows at once"))
            expect(until <= since, "history", (unit_id, key, "overlap", dict(row), dict(next_row)))
            alike = (row["uid"], row["content_hash"]) == (next_row["uid"], next_row["content_hash"])
            alike = alike and not {(key, one["resource_version"]) for one in (row, next_row)} & older_rules
            is_between = any(until <= moment <= since for moment in momentary)
            ended = row["deleted"] or is_between
            expect(ended or not alike, "history", (unit_id, key, "no change", dict(row), dict(next_row)))
            expect(ended or not next_row["created"], "history", (unit_id, key, "created while it lived"))
        if self.reference.guesses(unit_id):
            return
        truth = self.reference.units[unit_id]
        past = [past for past in truth.past if past.key == key]
        must = sorted((p.since, p.until, p.uid, p.version, p.created, p.deleted) for p in past)
        is_ = sorted(
            (row["valid_from"], row["valid_to"], row["uid"], row["resource_version"], row["created"], row["deleted"])
            for row in chain
            if row["valid_to"]
        )
        expect(is_ == must, "history", (unit_id, key, "is", is_, "must be", must))
        contents = {(p.uid, p.version): p.content for p in past}
        for row in chain:
            if row["valid_to"]:
                thing = Object(row["uid"], row["resource_version"], contents[row["uid"], row["resource_version"]] or 0)
                self._check_body(key, thing, row)

    async def _compare_letters(self) -> None:
        rows = await self.bench.admin.fetch(
            "select partition, record_offset, count(*) from dead_letter where topic = $1 group by 1, 2", self.topic
        )
        stored = {(row["partition"], row["record_offset"]): row["count"] for row in rows}
        for where, count in self.reference.letters.items():
            expect(stored.get(where) == count, "lost", ("dead letter", where, stored.get(where), count))
        for where, count in stored.items():
            expect(count <= 1 + self.reference.replays, "applied twice", ("dead letter", where, count))
        self.bench.counts["dead letters"] += sum(stored.values())

    async def _compare_states(self) -> None:
        stored = {self.unit_id(row): row for row in await self.bench.admin.fetch(STORED, self.uids, None)}
        for cluster in self.world.clusters:
            for kind_id in cluster.objects:
                row = stored.get((cluster.number, *kind_id))
                must = "gone" if kind_id in cluster.gone else "excluded" if kind_id in cluster.excluded else "verified"
                if row is None:
                    expect(must != "verified", "lost", (cluster.number, kind_id))
                else:
                    floors = _loads(row["floors"])
                    is_ = {row["state"]} if row["state"] else {floor[3] for floor in floors}
                    expect(is_ == {must}, "state", (cluster.number, kind_id, is_, floors, must))

    async def _compare_moments(self) -> None:
        """`resources_as_of` at moments when something changed says what the chains say."""
        moments = sorted({past.until for unit in self.reference.units.values() for past in unit.past})[::3][:2]
        labels = await self.bench.admin.fetch("select uid, label from cluster where uid = any ($1)", self.uids)
        by_label = {row["label"]: row["uid"] for row in labels}
        expect(len(by_label) == len(labels), "wrong", ("labels", labels))
        for moment in moments:
            rows = await self.bench.admin.fetch(
                "select * from resources_as_of($1) where cluster = any ($2)", moment, list(by_label)
            )
            known: Counter[tuple[UnitId, Key, str, str]] = Counter()
            for row in rows:
                unit_id = self.unit_id({**row, "cluster": by_label[row["cluster"]]})
                if self.reference.guesses(unit_id):
                    continue
                known[unit_id, (row["namespace"], row["name"]), row["uid"], row["resource_version"]] += 1
            must = Counter(self._known_at(moment))
            expect(known == must, "history", ("as of", moment, known - must, must - known))

    def _known_at(self, moment: dt.datetime) -> list[tuple[UnitId, Key, str, str]]:
        known = []
        for unit_id, unit in self.reference.units.items():
            if self.reference.guesses(unit_id):
                continue
            known += [(unit_id, p.key, p.uid, p.version) for p in unit.past if p.since <= moment < p.until]
            known += [
                (unit_id, key, row.uid, row.version)
                for key, row in unit.rows.items()
                if row.since <= moment and not row.deleted
            ]
        return known

    async def alarm(self, unit_id: UnitId) -> Alarm:
        """Whether that kind is reported to run backwards, and what is stored of it."""
        rows = await self.bench.admin.fetch(STORED, self.uids, [f"{unit_id[1]}/{unit_id[2]}"])
        row = next(row for row in rows if self.unit_id(row) == unit_id)
        alarmed = any(r[3] == "failed" and "restored from a backup" in (r[5] or "") for r in _loads(row["floors"]))
        return Alarm(alarmed and row["state"] is None, (sorted(r[:4] for r in _loads(row["rows"])), row["past"]))


__all__ = ["Bench", "Judge", "Seen", "Violation", "expect"]
