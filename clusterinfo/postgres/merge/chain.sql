-- Objects that a batch shows more than once, or of which several versions meet in one row. Per key, the stored row and the
-- records that count are put in order of (epoch, live_at) and read as a chain: *versions* (same epoch and
-- resourceVersion), *runs* of versions with the same content, and *lives* (same uid). The last element becomes the row,
-- every earlier run a row of history.

-- name: begin_chain
-- The staging tables of this transaction, which are empty again at its end (a pooler in transaction mode may stand between).
set local client_min_messages = warning;
create temp table if not exists staged_record (
    ord integer not null, unit_id bigint not null, namespace text not null, name text not null, uid text not null,
    resource_version text not null, epoch bigint not null, live_at bigint not null, deleted boolean not null,
    fidelity smallint not null, normalization smallint not null, content_hash bytea not null,
    observed_at timestamptz not null, seen_at timestamptz not null
) on commit delete rows;
create temp table if not exists staged_element (
    like staged_record, created boolean not null, valid_from timestamptz not null, first_observed_at timestamptz not null
) on commit delete rows;
create temp table if not exists staged_link (
    like staged_element, same_life boolean not null, version_no bigint not null, run_no bigint not null,
    life_no bigint not null, body_no bigint not null
) on commit delete rows;
create temp table if not exists staged_run (
    body_ord integer not null, like staged_element, last_observed_at timestamptz not null, run_no bigint not null,
    life_no bigint not null, first_epoch bigint not null, first_live_at bigint not null
) on commit delete rows;
create temp table if not exists staged_plan (
    body_ord integer not null, unit_id bigint not null, namespace text not null, name text not null, uid text not null,
    resource_version text not null, epoch bigint not null, live_at bigint not null, deleted boolean not null,
    fidelity smallint not null, normalization smallint not null, content_hash bytea not null,
    created boolean not null, ended_deleted boolean, valid_from timestamptz not null, valid_to timestamptz,
    first_observed_at timestamptz not null, last_observed_at timestamptz not null
) on commit delete rows;
create temp table if not exists staged_body (
    ord integer not null, fidelity smallint not null, manager text, operation text, subresource text,
    managed_at timestamptz, body jsonb, original bytea
) on commit delete rows;

-- name: stage_elements
-- The records that count, by the decision table above `merge_rows` in rows.sql, and the rows that they meet (ord -1).
with candidate as (
    select r.*
    from staged_record r
    join unit u on u.id = r.unit_id
    left join lateral (  -- one by one: no planner knows that staged rows are few; `offset 0` keeps it from joining at once
        select w.* from positioned() w
        where w.unit_id = r.unit_id and w.namespace = r.namespace and w.name = r.name offset 0) s on true
    where case
        when s.unit_id is null then r.seen_at >= u.gone_before and not exists (  -- (4)
            select from unit_floor f
            where f.unit_id = r.unit_id and f.reach in ('', r.namespace)
                and (f.epoch, f.live_at) >= (r.epoch, r.live_at))
        when (r.epoch, r.live_at) > (s.epoch, s.live_at) then true  -- (1)
        when (r.epoch, r.live_at) = (s.epoch, s.live_at) and r.resource_version = s.resource_version
            and r.deleted = s.deleted then true
        else r.epoch = s.epoch and r.resource_version = s.resource_version and not r.deleted and not s.deleted  -- (2), (3)
            and (r.normalization, r.fidelity) > (s.normalization, s.fidelity)
            and not (s.fidelity in (0, 2) and r.normalization = s.normalization and r.content_hash = s.content_hash)
    end
)
insert into staged_element
select c.*, false, observed_at, observed_at from candidate c
union all
select -1, s.unit_id, s.namespace, s.name, s.uid, s.resource_version, s.epoch, s.live_at, s.deleted, s.fidelity,
    s.normalization, s.content_hash, s.last_observed_at, s.last_observed_at, s.created, s.valid_from, s.first_observed_at
from (select distinct unit_id, namespace, name from candidate) c
cross join lateral (
    select w.* from positioned() w
    where w.unit_id = c.unit_id and w.namespace = c.namespace and w.name = c.name offset 0) s;

-- name: find_ignored
-- The records that do not count: they are older than what they meet.
select r.ord from staged_record r where not exists (select from staged_element e where e.ord = r.ord);

-- name: link_elements
-- Each element compared with the one before it in its chain; what goes together has one number.
-- The first of a chain has none before it: it is no version seen again, so that nobody asks for its same_body.
with compared as (
    select e.*,
        coalesce(epoch = lag(epoch) over chain and resource_version = lag(resource_version) over chain
            and deleted = lag(deleted) over chain, false) as same_version,
        coalesce(uid = lag(uid) over chain and not deleted and not lag(deleted) over chain, false) as same_life,
        coalesce(content_hash = lag(content_hash) over chain and deleted = lag(deleted) over chain
            and (deleted or uid = lag(uid) over chain), false) as same_content,
        content_hash = lag(content_hash) over chain and normalization = lag(normalization) over chain
            and (fidelity <= lag(fidelity) over chain or lag(fidelity) over chain in (0, 2)) as same_body
    from staged_element e
    window chain as (partition by unit_id, namespace, name order by epoch, live_at, ord)
)
insert into staged_link
select ord, unit_id, namespace, name, uid, resource_version, epoch, live_at, deleted, fidelity, normalization, content_hash,
    observed_at, seen_at, created, valid_from, first_observed_at, same_life,
    count(*) filter (where not same_version) over chain,
    count(*) filter (where not (same_version or same_content)) over chain,
    count(*) filter (where not (same_life or deleted and same_version)) over chain,
    count(*) filter (where not (same_version and same_body)) over chain
from compared
window chain as (partition by unit_id, namespace, name order by epoch, live_at, ord);

-- name: describe_runs
-- The last element of each run, with the best body of its version and the first dates of its run and life. body_ord is
-- where the body comes from: a staged record's, -1 the stored row's, -2 none (a deletion).
with originated as (
    select l.*,
        first_value(ord) over body as origin_ord,
        first_value(fidelity) over body as origin_fidelity,
        first_value(normalization) over body as origin_normalization,
        first_value(content_hash) over body as origin_hash,
        lead(run_no) over (partition by unit_id, namespace, name order by epoch, live_at, ord) as next_run_no
    from staged_link l
    window body as (partition by unit_id, namespace, name, body_no order by epoch, live_at, ord)
), described as (
    select o.*,
        first_value(case when deleted then -2 else origin_ord end) over best as body_ord,
        first_value(origin_fidelity) over best as body_fidelity,
        first_value(origin_normalization) over best as body_normalization,
        first_value(origin_hash) over best as body_hash,
        first_value(case when ord = -1 then created else not same_life end) over run as run_created,
        first_value(valid_from) over run as run_from,
        first_value(epoch) over sighting as first_epoch,
        first_value(live_at) over sighting as first_live_at,
        min(first_observed_at) over (partition by unit_id, namespace, name, life_no) as life_from,
        max(seen_at) over (partition by unit_id, namespace, name) as last_observed_at
    from originated o
    window best as (partition by unit_id, namespace, name, version_no
            order by origin_normalization desc, origin_fidelity desc, epoch desc, live_at desc, origin_hash, ord desc),
        run as (partition by unit_id, namespace, name, run_no order by (ord <> -1), epoch, live_at, ord),
        sighting as (partition by unit_id, namespace, name, run_no order by epoch, live_at, ord)
)
insert into staged_run
select body_ord, ord, unit_id, namespace, name, uid, resource_version, epoch, live_at, deleted, body_fidelity,
    body_normalization, body_hash, observed_at, seen_at, run_created, run_from, life_from, last_observed_at, run_no, life_no,
    first_epoch, first_live_at
from described where next_run_no is distinct from run_no;

-- name: plan_rows
-- What becomes of each run: the last one of a chain is the row (valid_to null), the others are history. $1: the lists that are
-- proven with this batch. An object that came back under its name was gone when one of them between the two did not name it.
with bounded as (
    select r.*, max(valid_from) over (partition by unit_id, namespace, name order by run_no) as starts_at
    from staged_run r
), followed as (
    select b.*,
        lead(deleted) over chain as next_deleted,
        lead(life_no) over chain <> life_no as next_is_another_life,
        lead(first_epoch) over chain as next_epoch,
        lead(first_live_at) over chain as next_live_at,
        lead(starts_at) over chain as next_starts_at
    from bounded b
    window chain as (partition by unit_id, namespace, name order by run_no)
)
insert into staged_plan
select
    body_ord, unit_id, namespace, name, uid, resource_version, epoch, live_at, deleted, fidelity, normalization, content_hash,
    created, next_is_another_life, starts_at,
    case when next_is_another_life and not next_deleted then greatest(starts_at, coalesce((
        select min(coalesce(p.seen_at, list_began_at(p.list, p.completed_at))) from list_progress p
        where p.list = any ($1::uuid[]) and p.unit_id = f.unit_id and p.reach in ('', f.namespace)
            and (p.epoch, p.live_at) > (f.epoch, f.live_at) and (p.epoch, p.live_at) < (f.next_epoch, f.next_live_at)
    ), next_starts_at)) else next_starts_at end,
    first_observed_at, last_observed_at
from followed f;

-- name: read_plan
-- Which bodies are wanted, and what the plan will do, in rows.
select
    coalesce(array_agg(distinct body_ord) filter (where body_ord >= 0), '{}') as bodies,
    count(*) filter (where valid_to is null and body_ord <> -1) as written,
    count(*) filter (where valid_to is null and body_ord = -1) as unchanged,
    count(*) filter (where valid_to is not null and not deleted) as history
from staged_plan;

-- name: replan
-- What COPY found out about bodies, that they had to be repaired or cannot be stored at all, is their records' fidelity from
-- now on. Less of an object may lose against what is stored: everything from `stage_elements` on runs again.
with elements as (delete from staged_element), links as (delete from staged_link), runs as (delete from staged_run),
plan as (delete from staged_plan)
update staged_record r set fidelity = l.fidelity
from unnest($1::integer[], $2::smallint[]) as l (ord, fidelity) where r.ord = l.ord;

-- name: apply_plan
-- The history, whose stored bodies are those from before this statement; and the rows, each of which is moved or written.
with superseded as (
    insert into resource_history (
        unit_id, namespace, name, uid, resource_version, epoch, live_at, fidelity, normalization, content_hash,
        created, deleted, valid_from, valid_to, first_observed_at, body, original, manager, operation, subresource, managed_at)
    select p.unit_id, p.namespace, p.name, p.uid, p.resource_version, p.epoch, p.live_at, p.fidelity, p.normalization,
        p.content_hash, p.created, p.ended_deleted, p.valid_from, p.valid_to, p.first_observed_at,
        case when p.body_ord = -1 then s.body else b.body end,
        case when p.body_ord = -1 then s.original else b.original end,
        case when p.body_ord = -1 then s.manager else b.manager end,
        case when p.body_ord = -1 then s.operation else b.operation end,
        case when p.body_ord = -1 then s.subresource else b.subresource end,
        case when p.body_ord = -1 then s.managed_at else b.managed_at end
    from staged_plan p
    left join staged_body b on b.ord = p.body_ord
    left join resource s
        on p.body_ord = -1 and s.unit_id = p.unit_id and s.namespace = p.namespace and s.name = p.name
    where p.valid_to is not null and not p.deleted
), moved as (
    update resource s set
        live_at = p.live_at, epoch = p.epoch, last_observed_at = p.last_observed_at
    from staged_plan p
    where p.valid_to is null and p.body_ord = -1
        and s.unit_id = p.unit_id and s.namespace = p.namespace and s.name = p.name
)
insert into resource (
    unit_id, namespace, name, uid, resource_version, epoch, live_at, deleted, fidelity, normalization, content_hash,
    created, valid_from, first_observed_at, last_observed_at, manager, operation, subresource, managed_at, body, original)
select p.unit_id, p.namespace, p.name, p.uid, p.resource_version, p.epoch, p.live_at, p.deleted, p.fidelity,
    p.normalization, p.content_hash, p.created, p.valid_from, p.first_observed_at, p.last_observed_at, b.manager,
    b.operation, b.subresource, b.managed_at, b.body, b.original
from staged_plan p
left join staged_body b on b.ord = p.body_ord
where p.valid_to is null and p.body_ord <> -1
on conflict (unit_id, namespace, name) do update set
    uid = excluded.uid, resource_version = excluded.resource_version, epoch = excluded.epoch, live_at = excluded.live_at,
    deleted = excluded.deleted, fidelity = excluded.fidelity, normalization = excluded.normalization,
    content_hash = excluded.content_hash, created = excluded.created, valid_from = excluded.valid_from,
    first_observed_at = excluded.first_observed_at, last_observed_at = excluded.last_observed_at,
    manager = excluded.manager, operation = excluded.operation, subresource = excluded.subresource,
    managed_at = excluded.managed_at,
    body = excluded.body, original = excluded.original;
