"""A log that the database itself keeps of what is done to it, and what must be true of that log.

Triggers write it in the very transactions they watch, so what was rolled back is not in it. It stands in a schema of
its own; the product knows nothing of it. The harness has connections signed `clusterinfo-<pid>`: it also says by whom.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from tests.faults.pipeline import GIZMOS, Made
from tests.faults.replay import Kind, Replay
from tests.faults.topic import OBSERVED, Message
from tests.support import checker

INSTALL = """
create schema audit;

create table audit.position (
    id bigint generated always as identity primary key, at timestamptz not null default clock_timestamp(),
    application text not null default current_setting('application_name'),
    topic text not null, partition integer not null,
    old_generation bigint, generation bigint not null, old_offset bigint, next_offset bigint
);
create function audit.note_position() returns trigger language plpgsql as $$ begin
    insert into audit.position (topic, partition, old_generation, generation, old_offset, next_offset)
    values (new.topic, new.partition, old.generation, new.generation, old.next_offset, new.next_offset);
    return null;
end $$;
create trigger audit after insert or update on clusterinfo.kafka_offset
    for each row execute function audit.note_position();

create table audit.settled (list uuid not null, count bigint not null);
create function audit.note_settled() returns trigger language plpgsql as $$ begin
    if tg_op = 'INSERT' or not old.settled then
        insert into audit.settled values (new.list, new.count);
    end if;
    return null;
end $$;
create trigger audit after insert or update on clusterinfo.list_progress
    for each row when (new.settled) execute function audit.note_settled();

-- Deferred to the end of the transaction, so that it sees the state and the floor that the deletion was done under, and
-- whether another version stands in the row's place.
create table audit.deletion (
    at timestamptz not null default clock_timestamp(), api_group text not null, resource text not null,
    namespace text not null, name text not null, uid text not null, is_covered boolean not null, proven_at timestamptz,
    state text not null
);
create function audit.note_deletion() returns trigger language plpgsql as $$ begin
    insert into audit.deletion (api_group, resource, namespace, name, uid, is_covered, proven_at, state)
    select u.api_group, u.resource, old.namespace, old.name, old.uid,
        coalesce((f.epoch, f.live_at) >= (old.epoch, old.live_at), false) or u.gone_before > old.last_observed_at,
        f.proven_at, coalesce(u.state, f.state, 'unverified')
    from clusterinfo.unit u left join clusterinfo.unit_floor f on f.unit_id = u.id and f.reach = ''
    where u.id = old.unit_id and not exists (
        select from clusterinfo.resource r
        where r.unit_id = old.unit_id and r.namespace = old.namespace and r.name = old.name);
    return null;
end $$;
create constraint trigger audit after delete on clusterinfo.resource deferrable initially deferred
    for each row when (not old.deleted) execute function audit.note_deletion();
"""

BROKEN_CHAIN = """
    with moved as (
        select *, lag(next_offset) over (partition by topic, partition order by id) as before
        from audit.position where next_offset is distinct from old_offset
    )
    select partition, before, old_offset, next_offset, application from moved
    where coalesce(old_offset, 0) <> coalesce(before, 0) or next_offset <= coalesce(old_offset, 0)
    order by id limit 5
"""

UNFENCED = """
    with claimed as (
        select *, max(id) filter (where generation is distinct from old_generation)
            over (partition by topic, partition order by id) as claim
        from audit.position
    )
    select m.partition, m.generation, m.old_offset, m.next_offset, m.application, c.application as owner
    from claimed m join audit.position c on c.id = m.claim
    where m.next_offset is distinct from m.old_offset and m.application <> c.application
    order by m.id limit 5
"""

DUPLICATES = """
    with version as (
        select unit_id, namespace, name, uid, resource_version, content_hash as hash, epoch, live_at, valid_from,
            false as is_live
        from resource_history
        union all
        select unit_id, namespace, name, uid, resource_version, content_hash, epoch, live_at, valid_from, true
        from resource where not deleted
    ), chain as (
        select *,
            count(*) over (partition by unit_id, namespace, name, uid, resource_version) as times,
            lag(hash) over key as hash_before, lag(uid) over key as uid_before, lag(valid_from) over key as from_before
        from version
        window key as (partition by unit_id, namespace, name order by epoch, live_at, is_live)
    )
    select namespace, name, uid, resource_version, times, hash_before = hash as is_same, valid_from < from_before
    from chain
    where times > 1 or hash = hash_before and uid = uid_before or valid_from < from_before
    limit 5
"""

VERSIONS = """
    select u.api_group, u.resource, v.resource_version
    from (select unit_id, resource_version from resource union select unit_id, resource_version from resource_history) v
    join unit u on u.id = v.unit_id
"""

AS_OF = """
    select namespace, name, uid, resource_version from resources_as_of($1) where api_group = $2 and resource = $3
"""

INTERVALS = """
    select u.api_group, u.resource, c.begins_at, coalesce(c.ends_at, f.heard) as ends_at
    from coverage c join unit u on u.id = c.unit_id left join followed() f on f.id = c.id
    where c.begins_at is not null and coalesce(c.ends_at, f.heard) is not null
"""

Interval = tuple[dt.datetime, dt.datetime]


@dataclass(frozen=True, slots=True)
class Failing:
    """A kind that could not be listed between two moments, seconds since 1970."""

    resource: str
    began_at: float
    ended_at: float


async def install(connection: asyncpg.Connection) -> None:
    """Begin the log. The schema must be migrated, and nothing stored yet."""
    await connection.execute(INSTALL)


async def wrong_offsets(connection: asyncpg.Connection, ends: Mapping[int, int]) -> list[str]:
    """Offsets stored not at all, twice or out of order, or by a process whose claim was not the newest."""
    broken = await connection.fetch(BROKEN_CHAIN)
    unfenced = await connection.fetch(UNFENCED)
    stored = dict(await connection.fetch("select partition, coalesce(next_offset, 0) from kafka_offset"))
    short = {number: (stored.get(number, 0), end) for number, end in ends.items() if stored.get(number, 0) != end}
    return [
        *(f"a gap or an overlap in what was stored: {dict(row)}" for row in broken),
        *(f"stored by somebody else than the owner: {dict(row)}" for row in unfenced),
        *(f"partition {number} is stored up to {at}, and ends at {end}" for number, (at, end) in short.items()),
    ]


async def miscounted_lists(connection: asyncpg.Connection, completed: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Completed lists (see `topic.completions`) of which not every record was counted exactly once.

    A list is settled, once, when its count and the sum of its digests are what was announced. One of a version that
    another list has proven already need not be: there is nothing left for it to prove.
    """
    rows = await connection.fetch("select list::text, count(*) from audit.settled group by list")
    settled = {row["list"] for row in rows}
    proven = {completed[one] for one in settled & completed.keys()}
    return [
        *(f"list {row['list']} was settled more than once" for row in rows if row["count"] > 1),
        *(
            f"list {one} of {of} never settled"
            for one, of in completed.items()
            if one not in settled and of not in proven
        ),
        *(f"list {one} was settled but never completed" for one in settled - completed.keys()),
    ][:5]


async def duplicate_history(connection: asyncpg.Connection) -> list[str]:
    """Versions that stand twice, follow one of the same content, or begin before the one they follow."""
    return [f"duplicate or out of order: {dict(row)}" for row in await connection.fetch(DUPLICATES)]


async def wrong_deletions(
    connection: asyncpg.Connection, alive: Iterable[checker.Identity], failing: Iterable[Failing], margin_s: float
) -> list[str]:
    """Rows deleted without proof, while their kind was failing, or although the object is `alive`.

    A list that was read just before its kind began to fail is proven a little later: `margin_s`.
    """
    rows = await connection.fetch(
        "select *, extract(epoch from proven_at)::float8 as proven_s, concat_ws('.', resource, nullif(api_group, '')) "
        "as kind from audit.deletion"
    )
    living, windows = {identity[1:6] for identity in alive}, list(failing)
    found = []
    for row in rows:
        if not row["is_covered"]:
            found.append(f"deleted without proof: {dict(row)}")
        if tuple(row[name] for name in ("api_group", "resource", "namespace", "name", "uid")) in living:
            found.append(f"deleted although it is there: {dict(row)}")
        if any(
            one.resource == row["kind"] and one.began_at + margin_s < (row["proven_s"] or 0) < one.ended_at
            for one in windows
        ):
            found.append(f"deleted while its kind was failing: {dict(row)}")
    return found[:5]


async def lost_versions(connection: asyncpg.Connection, sent: Iterable[Message]) -> list[str]:
    """Contents that were sent and are stored nowhere.

    Left out are custom kinds that come and go: what one says before the list of kinds that lacks it, but arrives after
    it (it travels by another partition), was gone by then.
    """
    rows = await connection.fetch(
        "select c.uid as cluster, u.api_group, u.resource, v.namespace, v.name, v.uid, encode(v.content_hash, 'hex') "
        "from (select unit_id, namespace, name, uid, content_hash from resource union all "
        "select unit_id, namespace, name, uid, content_hash from resource_history) v "
        "join unit u on u.id = v.unit_id join cluster c on c.id = u.cluster_id"
    )
    stored = {tuple(row) for row in rows}
    announced = {
        (*message.key, message.headers["uid"], message.headers["contenthash"])
        for message in sent
        if message.type == OBSERVED and (message.key[2], message.key[1]) != GIZMOS
    }
    return [f"sent and not stored: {one}" for one in sorted(announced - stored)[:5]]


async def unkept(connection: asyncpg.Connection, made: Sequence[Made]) -> list[str]:
    """Versions that were made while their kind was followed, as is claimed, and that are stored nowhere."""
    if not made:
        return []
    began, ended = min(one.after for one in made), max(one.before for one in made)
    gaps = await _not_observed(connection, moment(began), moment(ended))
    stored = {
        ((row["api_group"], row["resource"]), row["resource_version"]) for row in await connection.fetch(VERSIONS)
    }
    return [
        f"made while it was followed, and not stored: {one}"
        for one in made
        if (one.kind, str(one.version)) not in stored
        and one.kind in gaps
        and not any(begins <= moment(one.before) and moment(one.after) <= ends for begins, ends in gaps[one.kind])
    ][:5]


async def wrong_moments(
    connection: asyncpg.Connection, sent: Iterable[Message], rng: random.Random, count: int
) -> list[str]:
    """At random moments, each of a random kind: what `resources_as_of` shows and was not recorded by then, or does not
    show; and whether `not_observed` names what no interval covers, and nothing else.
    """
    replay = Replay(sent)
    kinds = [kind for kind in replay.kinds if kind != (GIZMOS[1], GIZMOS[0])]
    row = await connection.fetchrow("select min(started_at) as began, now() as ended from snapshot")
    covered, gaps = await _intervals(connection), await _not_observed(connection, row["began"], row["ended"])
    found: list[str] = []
    for _ in range(count):
        kind, at = rng.choice(kinds), row["began"] + rng.random() * (row["ended"] - row["began"])
        stored = {tuple(one) for one in await connection.fetch(AS_OF, at, *kind)}
        if differing := stored ^ set(replay.as_of(kind, at)):
            found.append(f"{kind} as of {at}: {sorted(differing)[:3]} are on one side only")
        is_covered = any(begins <= at < ends for begins, ends in covered.get(kind, ()))
        if is_covered == any(begins <= at < ends for begins, ends in gaps.get(kind, ())):
            found.append(f"{kind} was {'' if is_covered else 'not '}observed at {at}, and not_observed says otherwise")
    return found


async def _intervals(connection: asyncpg.Connection) -> dict[Kind, list[Interval]]:
    found: dict[Kind, list[Interval]] = {}
    for row in await connection.fetch(INTERVALS):
        found.setdefault((row["api_group"], row["resource"]), []).append((row["begins_at"], row["ends_at"]))
    return found


async def _not_observed(
    connection: asyncpg.Connection, begins: dt.datetime, ends: dt.datetime
) -> dict[Kind, list[Interval]]:
    """Of every kind that is known."""
    units = await connection.fetch("select api_group, resource from unit")
    found: dict[Kind, list[Interval]] = {(unit["api_group"], unit["resource"]): [] for unit in units}
    for row in await connection.fetch("select * from not_observed($1, $2)", begins, ends):
        found[row["api_group"], row["resource"]].append((row["begins_at"], row["ends_at"]))
    return found


def moment(seconds: float) -> dt.datetime:
    """Seconds since 1970."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
