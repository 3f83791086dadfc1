-- The merge: what one transaction does with one batch, statement by statement, in the order they run.
-- `-- name:` begins a statement; `statements.py` hands it to `sink.py` under that name. What the rules are and why they
-- make any order and any repetition of records converge stands in ARCHITECTURE.md, "What makes it right".
--
-- All statements run at READ COMMITTED, after the batch's offset row and its units were locked: nobody else changes the
-- rows of these units meanwhile.

-- name: begin
-- Settings for this transaction alone (so that a pooler in transaction mode may stand between), and its staging tables.
set local client_min_messages = warning;
create temp table if not exists staged_record (
    ord integer not null, unit_id bigint not null, namespace text not null, name text not null, uid text not null,
    resource_version text not null, epoch bigint not null, live_at bigint not null, deleted boolean not null,
    fidelity smallint not null, normalization smallint not null, content_hash bytea not null,
    observed_at timestamptz not null
) on commit delete rows;
create temp table if not exists staged_plan (
    body_ord integer not null, unit_id bigint not null, namespace text not null, name text not null, uid text not null,
    resource_version text not null, epoch bigint not null, live_at bigint not null, deleted boolean not null,
    fidelity smallint not null, normalization smallint not null, content_hash bytea not null,
    created boolean not null, ended_deleted boolean, valid_from timestamptz not null, valid_to timestamptz,
    first_observed_at timestamptz not null, last_observed_at timestamptz not null
) on commit delete rows;
create temp table if not exists staged_body (
    ord integer not null, body jsonb, original bytea
) on commit delete rows;
create temp table if not exists staged_list (
    list uuid not null, unit_id bigint not null, reach text not null, snapshot uuid, epoch bigint not null,
    live_at bigint not null, count bigint not null, digest numeric(39) not null, began_at timestamptz not null,
    completed_at timestamptz not null
) on commit delete rows;

-- name: lock_offset
-- The partition's offset row, locked until commit: whose it is and where it stands.
select generation, next_offset from kafka_offset
where kafka_cluster = $1 and topic = $2 and partition = $3
for update;

-- name: move_offset
update kafka_offset set next_offset = $4 where kafka_cluster = $1 and topic = $2 and partition = $3;

-- name: claim_partition
-- A new owner: one generation more than the last; the first is a time in microseconds, so that an owner from before the
-- offsets were reset never finds its own number again. No row: another consumer group has this database.
insert into kafka_offset as o (kafka_cluster, topic, partition, group_id, generation)
select $1, $2, $3, $4, (extract(epoch from clock_timestamp()) * 1000000)::bigint
where not exists (select from kafka_offset where group_id <> $4)
on conflict (kafka_cluster, topic, partition) do update set generation = o.generation + 1 where o.group_id = $4
returning generation, next_offset;

-- name: find_other_group
select group_id, topic from kafka_offset where group_id <> $1 order by topic limit 1;

-- name: stored_topics
select distinct topic from kafka_offset order by topic;

-- name: forget_offsets
-- An owner finds its claim lost, claims again, and begins at the beginning; the merge makes that harmless.
delete from kafka_offset where topic = $1 returning partition;

-- name: lock_pages
-- Of a list written page by page: how many pages are stored.
select pages from list_progress where list = $1 for update;

-- name: find_clusters
select id, uid, former_uid, first_seen, last_seen from cluster
where uid = any ($1::text[]) or former_uid = any ($1::text[]);

-- name: adopt_cluster
-- A cluster known by its name alone gains its uid and keeps its rows.
update cluster set uid = $1, former_uid = $2
where uid = $2 and name = $2 and not exists (select from cluster where uid = $1);

-- name: recall_cluster
-- A late record of the time before the uid was known: the cluster of that name, or the one that had it, if there is one
-- only and it was seen later only.
with named as (
    select id from cluster where name = $1 and uid <> $1
    union
    select cluster_id from cluster_name n join cluster c on c.id = n.cluster_id where n.name = $1 and c.uid <> $1
)
update cluster set former_uid = $1
where id = (select min(id) from named having count(*) = 1) and former_uid is null and first_seen > $2;

-- name: join_units
-- Kinds of cluster $2 that $1 lacks become its own.
update unit n set cluster_id = $1
where n.cluster_id = $2 and not exists (
    select from unit u where u.cluster_id = $1 and (u.api_group, u.resource) = (n.api_group, n.resource));

-- name: join_rows
-- Of the other kinds, objects that $1 knows nothing of and has not proven absent, with their history. Where $1 knows the
-- object, what is late is left out, as a late record is.
with late as (
    select r.unit_id as former_id, u.id as unit_id, r.namespace, r.name
    from unit n
    join unit u on u.cluster_id = $1 and (u.api_group, u.resource) = (n.api_group, n.resource)
        and u.live_at_source is not distinct from n.live_at_source
    join resource r on r.unit_id = n.id
    where n.cluster_id = $2 and r.last_observed_at >= u.gone_before
        and not exists (
            select from resource k where k.unit_id = u.id and (k.namespace, k.name) = (r.namespace, r.name))
        and not exists (
            select from resource_history k where k.unit_id = u.id and (k.namespace, k.name) = (r.namespace, r.name))
        and not exists (
            select from unit_floor f
            where f.unit_id = u.id and f.reach in ('', r.namespace) and (f.epoch, f.live_at) >= (r.epoch, r.live_at))
), past as (
    update resource_history h set unit_id = l.unit_id from late l
    where (h.unit_id, h.namespace, h.name) = (l.former_id, l.namespace, l.name)
)
update resource r set unit_id = l.unit_id from late l
where (r.unit_id, r.namespace, r.name) = (l.former_id, l.namespace, l.name);

-- name: drop_former_history
delete from resource_history where unit_id in (select id from unit where cluster_id = $1);

-- name: join_snapshots
update snapshot set cluster_id = $1 where cluster_id = $2;

-- name: join_cluster
-- What else is known of cluster $2 is known of $1; then $2 is no more.
with joined as (
    update cluster c set
        first_seen = least(c.first_seen, f.first_seen), epoch = greatest(c.epoch, f.epoch),
        discovered_before = greatest(c.discovered_before, f.discovered_before)
    from cluster f where c.id = $1 and f.id = $2
)
delete from cluster where id = $2;

-- name: become_former
update cluster set former_uid = $2, label = free_label(uid, name) where id = $1;

-- name: ensure_cluster
-- The cluster's row; a second cluster of one name is shown as <name>-<first 8 of uid>.
insert into cluster (uid, name, label, epoch, first_seen, last_seen)
values ($1, $2, free_label($1, $2), $3, $4, $4)
on conflict (uid) do nothing
returning label;

-- name: rename_cluster
-- The newest snapshot says how the cluster is called.
update cluster set name = $2, label = free_label(uid, $2) where id = $1 and name <> $2 and last_seen <= $3
returning label;

-- name: see_cluster
-- What a snapshot's start says of its cluster; an older snapshot changes nothing but first_seen.
update cluster set
    last_seen = greatest(last_seen, $2), first_seen = least(first_seen, $2), epoch = greatest(epoch, $3),
    server_version = case when $2 >= last_seen then coalesce($4, server_version) else server_version end
where id = $1;

-- name: find_clones
-- Of these clusters, those whose uid others have too.
select uid, clones from cluster where uid = any ($1::text[]) and clones <> '{}';

-- name: find_identities
-- Which rows these identities have, and who has the same, now that the units are locked.
select i.identity, c.id, case when c.uid = i.identity then c.clones else '{}' end as clones
from unnest($1::text[]) as i (identity)
join cluster c on c.uid = i.identity or c.former_uid = i.identity and not exists (
    select from cluster o where o.uid = i.identity);

-- name: say_name
insert into cluster_name as n (cluster_id, name, first_said, last_said) values ($1, $2, $3, $3)
on conflict (cluster_id, name) do update set
    first_said = least(n.first_said, excluded.first_said), last_said = greatest(n.last_said, excluded.last_said);

-- name: find_crossing_names
-- Names said in turns with one that was said first: whichever order the statements come in, the same names.
select array_agg(distinct later.name order by later.name)
from cluster_name earlier
join cluster_name later using (cluster_id)
where cluster_id = $1 and earlier.first_said < later.first_said
    and later.first_said < earlier.last_said and earlier.last_said < later.last_said;

-- name: say_identity
insert into cluster_identity as n (cluster_id, identity, first_said, last_said) values ($1, $2, $3, $3)
on conflict (cluster_id, identity) do update set
    first_said = least(n.first_said, excluded.first_said), last_said = greatest(n.last_said, excluded.last_said);

-- name: part_namesakes
-- A name and a uid that are said in turns are two clusters: the row stays with the uid.
update cluster set former_uid = null
where id = (
    select c.id
    from cluster c
    join cluster_identity f on f.cluster_id = c.id and f.identity = c.former_uid
    join cluster_identity u on u.cluster_id = c.id and u.identity = c.uid
    where c.id = $1 and (
        f.first_said < u.first_said and u.first_said < f.last_said and f.last_said < u.last_said
        or u.first_said < f.first_said and f.first_said < u.last_said and u.last_said < f.last_said)
    for update of c)
returning uid, label;

-- name: split_cluster
-- The clusters named $2 are others with the same uid, beside those that were told apart before: the row stays with the name
-- that was said last beside theirs. Locked for update: whoever makes a kind for it meanwhile waits, and then sees it.
update cluster c set clones = apart.names, name = n.name, label = free_label(c.uid, n.name)
from (
    select array(select unnest(clones) union select unnest($2::text[]) order by 1) as names
    from cluster where id = $1 and not clones @> $2::text[] for update
) apart
cross join lateral (
    select name from cluster_name where cluster_id = $1 and name <> all (apart.names) order by last_said desc limit 1
) n
where c.id = $1
returning c.label;

-- name: doubt_cluster_rows
-- Two clusters' rows are mixed: none is newer than what comes next.
update resource r set live_at = -1 from unit u where u.cluster_id = $1 and r.unit_id = u.id;

-- name: doubt_cluster_floors
update unit_floor f set
    live_at = -1, digest = null, state = case when f.state = 'verified' then 'unverified' else f.state end,
    state_at = greatest(f.state_at, $2), last_error = $3
from unit u where u.cluster_id = $1 and f.unit_id = u.id;

-- name: doubt_cluster_units
update unit set state = 'unverified', state_at = greatest(state_at, $2), last_error = $3
where cluster_id = $1 and state = 'verified';

-- name: ensure_units
-- Missing units, in natural order so that two batches never wait for each other.
-- A kind that the last complete discovery did not name was gone by then, until newer records say otherwise.
insert into unit (cluster_id, api_group, resource, kind, api_version, gone_before, state, state_at)
select u.*, c.discovered_before, case when c.discovered_before > '-infinity' then 'gone' else 'unverified' end,
    c.discovered_before
from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[])
    as u (cluster_id, api_group, resource, kind, api_version)
join cluster c on c.id = u.cluster_id
order by 1, 2, 3
on conflict (cluster_id, api_group, resource) do nothing;

-- name: lock_units
-- The batch's units, locked in id order until commit; none of them if some are missing.
with wanted as (
    select * from unnest($1::bigint[], $2::text[], $3::text[]) as t (cluster_id, api_group, resource)
)
select u.id, u.cluster_id, u.api_group, u.resource, u.kind, u.api_version, u.namespaced, u.live_at_source
from unit u
join wanted using (cluster_id, api_group, resource)
where cardinality($1) = (select count(*) from unit join wanted using (cluster_id, api_group, resource))
order by u.id for update of u;

-- name: lock_completed
-- The batch's units and all of the clusters whose completed snapshots speak of every one: at once, so that the order of ids
-- is kept over both.
select u.id from unit u
where u.cluster_id = any ($1::bigint[]) or exists (
    select from unnest($2::bigint[], $3::text[], $4::text[]) as wanted (cluster_id, api_group, resource)
    where (u.cluster_id, u.api_group, u.resource) = (wanted.cluster_id, wanted.api_group, wanted.resource))
order by u.id for update of u;

-- name: lock_cluster_units
-- Every unit of a cluster, to which two have written.
select id from unit where cluster_id = any ($1::bigint[]) order by id for update;

-- name: carry_units
-- Kinds whose records came by this partition.
insert into unit_partition (unit_id, kafka_cluster, topic, partition)
select unit_id, $2, $3, $4 from unnest($1::bigint[]) as t (unit_id) order by 1
on conflict do nothing;

-- name: lock_carried_units
select u.id from unit u
join unit_partition p on p.unit_id = u.id and p.kafka_cluster = $1 and p.topic = $2 and p.partition = $3
order by u.id for update of u;

-- name: doubt_carried_units
-- Messages of this partition are lost: what it carries is unverified from $4 on. Statements that are newer stand.
with carried as (
    select unit_id from unit_partition where kafka_cluster = $1 and topic = $2 and partition = $3
), floors as (
    update unit_floor f set state = 'unverified', state_at = $4, last_error = $5
    from carried c where f.unit_id = c.unit_id and f.state = 'verified' and f.state_at <= $4
)
update unit u set state = 'unverified', state_at = $4, last_error = $5
from carried c where u.id = c.unit_id and u.state = 'verified' and u.state_at <= $4;

-- name: describe_units
-- What the newest records say of their kinds.
update unit u set
    kind = coalesce(nullif(d.kind, ''), u.kind), api_version = coalesce(nullif(d.api_version, ''), u.api_version),
    namespaced = coalesce(d.namespaced, u.namespaced), live_at_source = coalesce(d.live_at_source, u.live_at_source)
from unnest($1::bigint[], $2::text[], $3::text[], $4::boolean[], $5::text[])
    as d (id, kind, api_version, namespaced, live_at_source)
where u.id = d.id;

-- name: plan
-- What becomes of each staged record. Per key, the stored row and the records that count are put in order of
-- (epoch, live_at) and read as a chain: *versions* (same epoch and resourceVersion), *runs* of versions with the same
-- content, and *lives* (same uid). The last element becomes the row, every earlier run a row of history. body_ord says
-- where the body comes from: a staged record's, -1 the stored row's, -2 none (a deletion).
with candidate as (
    select r.*
    from staged_record r
    join unit u on u.id = r.unit_id
    left join resource s on s.unit_id = r.unit_id and s.namespace = r.namespace and s.name = r.name
    where case
        when s.unit_id is null then r.observed_at >= u.gone_before and not exists (
            select from unit_floor f
            where f.unit_id = r.unit_id and f.reach in ('', r.namespace)
                and (f.epoch, f.live_at) >= (r.epoch, r.live_at))
        when (r.epoch, r.live_at) > (s.epoch, s.live_at) then true
        when (r.epoch, r.live_at) = (s.epoch, s.live_at) and r.resource_version = s.resource_version
            and r.deleted = s.deleted then true
        else r.epoch = s.epoch and r.resource_version = s.resource_version and not r.deleted and not s.deleted
            and (r.normalization, r.fidelity) > (s.normalization, s.fidelity)
            and not (s.fidelity in (0, 2) and r.normalization = s.normalization and r.content_hash = s.content_hash)
    end
), element as (
    select ord, unit_id, namespace, name, uid, resource_version, epoch, live_at, deleted, fidelity, normalization,
        content_hash, false as created, observed_at as valid_from, observed_at as first_observed_at, observed_at
    from candidate
    union all
    select -1, s.unit_id, s.namespace, s.name, s.uid, s.resource_version, s.epoch, s.live_at, s.deleted, s.fidelity,
        s.normalization, s.content_hash, s.created, s.valid_from, s.first_observed_at, s.last_observed_at
    from (select distinct unit_id, namespace, name from candidate) c
    join resource s on s.unit_id = c.unit_id and s.namespace = c.namespace and s.name = c.name
), compared as (
    select e.*,
        coalesce(epoch = lag(epoch) over chain and resource_version = lag(resource_version) over chain
            and deleted = lag(deleted) over chain, false) as same_version,
        coalesce(uid = lag(uid) over chain and not deleted and not lag(deleted) over chain, false) as same_life,
        coalesce(content_hash = lag(content_hash) over chain and deleted = lag(deleted) over chain
            and (deleted or uid = lag(uid) over chain), false) as same_content,
        coalesce(content_hash = lag(content_hash) over chain and normalization = lag(normalization) over chain
            and (fidelity <= lag(fidelity) over chain or lag(fidelity) over chain in (0, 2)), false) as same_body
    from element e
    window chain as (partition by unit_id, namespace, name order by epoch, live_at, ord)
), numbered as (
    select c.*,
        count(*) filter (where not same_version) over chain as version_no,
        count(*) filter (where not (same_version or same_content)) over chain as run_no,
        count(*) filter (where not (same_life or deleted and same_version)) over chain as life_no,
        count(*) filter (where not (same_version and same_body)) over chain as body_no
    from compared c
    window chain as (partition by unit_id, namespace, name order by epoch, live_at, ord)
), originated as (
    select n.*,
        first_value(ord) over body as origin_ord,
        first_value(fidelity) over body as origin_fidelity,
        first_value(normalization) over body as origin_normalization,
        first_value(content_hash) over body as origin_hash
    from numbered n
    window body as (partition by unit_id, namespace, name, body_no order by epoch, live_at, ord)
), described as (
    select o.*,
        first_value(case when deleted then -2 else origin_ord end) over best as body_ord,
        first_value(origin_fidelity) over best as body_fidelity,
        first_value(origin_normalization) over best as body_normalization,
        first_value(origin_hash) over best as body_hash,
        first_value(case when ord = -1 then created else not same_life end) over run as run_created,
        first_value(valid_from) over run as run_from,
        first_value(epoch) over sighting as run_epoch,
        first_value(live_at) over sighting as run_live_at,
        min(first_observed_at) over life as life_from,
        max(observed_at) over (partition by unit_id, namespace, name) as last_observed_at,
        lead(run_no) over chain as next_run_no
    from originated o
    window chain as (partition by unit_id, namespace, name order by epoch, live_at, ord),
        best as (partition by unit_id, namespace, name, version_no
            order by origin_normalization desc, origin_fidelity desc, epoch desc, live_at desc, origin_hash, ord desc),
        run as (partition by unit_id, namespace, name, run_no order by (ord <> -1), epoch, live_at, ord),
        sighting as (partition by unit_id, namespace, name, run_no order by epoch, live_at, ord),
        life as (partition by unit_id, namespace, name, life_no)
), bounded as (
    select d.*, max(run_from) over chain as starts_at
    from described d
    where next_run_no is distinct from run_no
    window chain as (partition by unit_id, namespace, name order by run_no)
), followed as (
    select b.*,
        lead(deleted) over chain as next_deleted,
        lead(life_no) over chain <> life_no as next_is_another_life,
        lead(run_epoch) over chain as next_epoch,
        lead(run_live_at) over chain as next_live_at,
        lead(starts_at) over chain as next_starts_at
    from bounded b
    window chain as (partition by unit_id, namespace, name order by run_no)
)
insert into staged_plan
select
    case when body_ord = -1 and deleted then -2 else body_ord end,
    unit_id, namespace, name, uid, resource_version, epoch, live_at, deleted,
    body_fidelity, body_normalization, body_hash, run_created,
    next_deleted or next_is_another_life, starts_at,
    -- An object that came back under its name was gone when a proven list between the two did not name it.
    case when next_is_another_life and not next_deleted then greatest(starts_at, coalesce((
        select min(v.began_at) from staged_list v
        where v.unit_id = f.unit_id and v.reach in ('', f.namespace)
            and (v.epoch, v.live_at) > (f.epoch, f.live_at) and (v.epoch, v.live_at) < (f.next_epoch, f.next_live_at)
    ), next_starts_at)) else next_starts_at end,
    life_from, last_observed_at
from followed f;

-- name: read_plan
-- Which bodies are wanted, and what the plan will do, in rows.
select
    coalesce(array_agg(distinct body_ord) filter (where body_ord >= 0), '{}') as bodies,
    count(*) filter (where valid_to is null and body_ord <> -1) as written,
    count(*) filter (where valid_to is null and body_ord = -1) as unchanged,
    count(*) filter (where valid_to is not null and not deleted) as history
from staged_plan;

-- name: plan_anew
-- What COPY found out about bodies, that they had to be mended or cannot be stored at all, is their records' fidelity from
-- now on. Less of an object may lose against what is stored: `plan` runs once more.
with learnt as (
    update staged_record r set fidelity = l.fidelity
    from unnest($1::integer[], $2::smallint[]) as l (ord, fidelity) where r.ord = l.ord
)
delete from staged_plan;

-- name: apply_plan
-- History first, while the stored bodies are still there; then the rows.
insert into resource_history (
    unit_id, namespace, name, uid, resource_version, epoch, live_at, fidelity, normalization, content_hash,
    created, deleted, valid_from, valid_to, first_observed_at, body, original)
select p.unit_id, p.namespace, p.name, p.uid, p.resource_version, p.epoch, p.live_at, p.fidelity, p.normalization,
    p.content_hash, p.created, p.ended_deleted, p.valid_from, p.valid_to, p.first_observed_at,
    case when p.body_ord = -1 then s.body else b.body end,
    case when p.body_ord = -1 then s.original else b.original end
from staged_plan p
left join staged_body b on b.ord = p.body_ord
left join resource s
    on p.body_ord = -1 and s.unit_id = p.unit_id and s.namespace = p.namespace and s.name = p.name
where p.valid_to is not null and not p.deleted;

update resource s set
    live_at = p.live_at, epoch = p.epoch, last_observed_at = p.last_observed_at
from staged_plan p
where p.valid_to is null and p.body_ord = -1
    and s.unit_id = p.unit_id and s.namespace = p.namespace and s.name = p.name;

insert into resource (
    unit_id, namespace, name, uid, resource_version, epoch, live_at, deleted, fidelity, normalization, content_hash,
    created, valid_from, first_observed_at, last_observed_at, body, original)
select p.unit_id, p.namespace, p.name, p.uid, p.resource_version, p.epoch, p.live_at, p.deleted, p.fidelity,
    p.normalization, p.content_hash, p.created, p.valid_from, p.first_observed_at, p.last_observed_at, b.body, b.original
from staged_plan p
left join staged_body b on b.ord = p.body_ord
where p.valid_to is null and p.body_ord <> -1
on conflict (unit_id, namespace, name) do update set
    uid = excluded.uid, resource_version = excluded.resource_version, epoch = excluded.epoch, live_at = excluded.live_at,
    deleted = excluded.deleted, fidelity = excluded.fidelity, normalization = excluded.normalization,
    content_hash = excluded.content_hash, created = excluded.created, valid_from = excluded.valid_from,
    first_observed_at = excluded.first_observed_at, last_observed_at = excluded.last_observed_at,
    body = excluded.body, original = excluded.original;

-- name: add_dead_letters
insert into dead_letter (topic, partition, record_offset, reason, sqlstate, key, headers, value, size_bytes)
select * from unnest($1::text[], $2::integer[], $3::bigint[], $4::text[], $5::text[], $6::bytea[], $7::jsonb[],
    $8::bytea[], $9::bigint[]);

-- name: add_progress
-- What this batch brought of each list, added to what was there.
insert into list_progress as p (
    list, unit_id, reach, snapshot, epoch, live_at, pages, count, digest, expected_count, expected_digest, completed_at)
select list, unit_id, reach, snapshot, epoch, live_at, pages, count, digest::numeric, expected_count,
    expected_digest::numeric, completed_at
from unnest($1::uuid[], $2::bigint[], $3::text[], $4::uuid[], $5::bigint[], $6::bigint[], $7::integer[], $8::bigint[],
    $9::text[], $10::bigint[], $11::text[], $12::timestamptz[])
    as t (list, unit_id, reach, snapshot, epoch, live_at, pages, count, digest, expected_count, expected_digest, completed_at)
on conflict (list) do update set
    pages = p.pages + excluded.pages, count = p.count + excluded.count,
    digest = mod(p.digest + excluded.digest, 340282366920938463463374607431768211456),
    expected_count = coalesce(excluded.expected_count, p.expected_count),
    expected_digest = coalesce(excluded.expected_digest, p.expected_digest),
    completed_at = coalesce(excluded.completed_at, p.completed_at), updated_at = now()
where not p.settled;

-- name: settle_lists
-- Of the lists touched, those that are complete and proven: count and digest agree with what the completion says. It
-- does not matter which came last, the completion or an item.
-- When a list began, its id says (UUIDv7); it shows what existed then, however long it took.
with settled as (
    update list_progress set settled = true
    where list = any ($1::uuid[]) and not settled and expected_count = count and expected_digest = digest
    returning *
)
insert into staged_list
select list, unit_id, reach, snapshot, epoch, live_at, count, digest,
    least(completed_at, to_timestamp(('x' || left(replace(list::text, '-', ''), 12))::bit(48)::bigint / 1000.0)),
    completed_at
from settled
returning list, unit_id, reach, count, completed_at;

-- name: find_overtaken
-- Of these lists, those that have nothing more to prove: settled before, or older than what is proven by now.
select p.list from list_progress p
join unit_floor f using (unit_id, reach)
where p.list = any ($1::uuid[]) and (p.settled or (p.epoch, p.live_at) <= (f.epoch, f.live_at));

-- name: ensure_floors
insert into unit_floor (unit_id, reach)
select distinct * from unnest($1::bigint[], $2::text[]) order by 1, 2
on conflict (unit_id, reach) do nothing;

-- name: find_contradictions
-- Kinds of which one version of a list says two things: two versions of an object, or an object where a proven list of that
-- version had none (and neither a newer one nor the end of the kind took it away). Such versions order nothing, so time has
-- to from now on.
with counted as (
    select r.* from staged_record r join unit u on u.id = r.unit_id
    where u.live_at_source = 'version' and r.observed_at >= u.gone_before
), contradicted as (
    select r.unit_id from counted r
    join resource s on s.unit_id = r.unit_id and s.namespace = r.namespace and s.name = r.name
    where (s.epoch, s.live_at) = (r.epoch, r.live_at) and s.resource_version <> r.resource_version
    union
    select r.unit_id from counted r
    join unit_floor f on f.unit_id = r.unit_id and f.reach in ('', r.namespace)
        and (f.epoch, f.live_at) = (r.epoch, r.live_at) and f.digest is not null
    left join resource s on s.unit_id = r.unit_id and s.namespace = r.namespace and s.name = r.name
    where not r.deleted and s.unit_id is null and not exists (
        select from unit_floor n
        where n.unit_id = r.unit_id and n.reach in ('', r.namespace) and (n.epoch, n.live_at) > (r.epoch, r.live_at))
    union
    select r.unit_id from counted r
    group by r.unit_id, r.namespace, r.name, r.epoch, r.live_at
    having min(r.resource_version) <> max(r.resource_version)
)
update unit u set live_at_source = 'clock' from contradicted c where u.id = c.unit_id returning u.id;

-- name: find_standing
-- Kinds of which a list proves less than is known as of its version: the list before it that said so, in the same reach or
-- another, has another digest, or rows of exactly that moment are more than it counts.
update unit u set live_at_source = 'clock'
from staged_list v
where u.id = v.unit_id and u.live_at_source = 'version' and (
    exists (
        select from unit_floor f
        where f.unit_id = v.unit_id and f.reach = v.reach and (f.epoch, f.live_at) = (v.epoch, v.live_at)
            and f.digest <> v.digest)
    or exists (
        select from staged_list o
        where o.unit_id = v.unit_id and o.reach = v.reach and (o.epoch, o.live_at) = (v.epoch, v.live_at)
            and o.digest <> v.digest)
    or (
        exists (
            select from list_progress p
            where p.unit_id = v.unit_id and p.list <> v.list and (p.epoch, p.live_at) = (v.epoch, v.live_at)
            union all
            select from unit_floor f
            where f.unit_id = v.unit_id and f.reach <> v.reach and (f.epoch, f.live_at) = (v.epoch, v.live_at))
        and v.count < (
            select count(*) from resource r
            where r.unit_id = v.unit_id and (v.reach = '' or r.namespace = v.reach) and not r.deleted
                and (r.epoch, r.live_at) = (v.epoch, v.live_at))))
returning u.id;

-- name: drop_unit_progress
-- Lists that are under way prove nothing of a kind that is ordered by time from now on, nor where they began under one
-- cluster's identity and end under another.
delete from list_progress where unit_id = any ($1::bigint[]);

-- name: find_backwards
-- Lists that began after the one that set (or, in this batch, will set) the floor was complete, and yet are older: the
-- cluster was restored from a backup, or its epoch was lowered. Rows under a higher epoch show that too, proven or not.
select v.list, v.unit_id, v.reach, v.epoch, v.live_at, b.epoch as floor_epoch, b.live_at as floor
from staged_list v
cross join lateral (
    select f.epoch, f.live_at from unit_floor f
    where f.unit_id = v.unit_id and f.reach in ('', v.reach) and f.proven_at < v.began_at
    union all
    select o.epoch, o.live_at from staged_list o
    where o.unit_id = v.unit_id and o.reach in ('', v.reach) and o.completed_at < v.began_at
    union all
    select r.epoch, r.live_at from resource r
    where r.unit_id = v.unit_id and (v.reach = '' or r.namespace = v.reach)
        and r.epoch > v.epoch and r.last_observed_at < v.began_at
        and v.epoch < (select c.epoch from unit u join cluster c on c.id = u.cluster_id where u.id = v.unit_id)
    order by 1 desc, 2 desc limit 1
) b
where (v.epoch, v.live_at) < (b.epoch, b.live_at);

-- name: delete_absent
-- Rows that a proven list does not name, within its reach: into history, and away. Tombstones the floor now covers go too.
with proven as (
    select distinct on (v.unit_id, v.reach) v.*
    from staged_list v
    join unit_floor f on f.unit_id = v.unit_id and f.reach = v.reach and (v.epoch, v.live_at) > (f.epoch, f.live_at)
    order by v.unit_id, v.reach, v.epoch desc, v.live_at desc, v.completed_at desc
), doomed as (
    delete from resource r using proven p
    where r.unit_id = p.unit_id and (p.reach = '' or r.namespace = p.reach)
        and ((r.epoch, r.live_at) < (p.epoch, p.live_at) or r.deleted and (r.epoch, r.live_at) = (p.epoch, p.live_at))
    returning r.*, (
        select min(v.began_at) from staged_list v
        where v.unit_id = r.unit_id and v.reach in ('', r.namespace)
            and (v.epoch, v.live_at) > (r.epoch, r.live_at)) as absent_at
), remembered as (
    insert into resource_history (
        unit_id, namespace, name, uid, resource_version, epoch, live_at, fidelity, normalization, content_hash,
        created, deleted, valid_from, valid_to, first_observed_at, body, original)
    select unit_id, namespace, name, uid, resource_version, epoch, live_at, fidelity, normalization, content_hash,
        created, true, valid_from, greatest(valid_from, absent_at), first_observed_at, body, original
    from doomed where not deleted
    returning unit_id
), raised as (
    update unit_floor f set epoch = p.epoch, live_at = p.live_at, digest = p.digest, proven_at = p.completed_at
    from proven p where f.unit_id = p.unit_id and f.reach = p.reach
)
select p.list, p.unit_id, p.reach, p.count, (select count(*) from remembered m where m.unit_id = p.unit_id) as deleted
from proven p;

-- name: forget_covered
-- What is proven everywhere needs no word on single namespaces: one that is no longer listed alone would age for ever.
delete from unit_floor f using staged_list v, unit_floor w
where v.reach = '' and w.unit_id = v.unit_id and w.reach = '' and w.proven_at = v.completed_at
    and f.unit_id = v.unit_id and f.reach <> '' and (f.epoch, f.live_at) <= (w.epoch, w.live_at) and f.state_at <= w.proven_at;

-- name: forget_lists
-- Bookkeeping of lists that a proven one has overtaken.
delete from list_progress p using staged_list v
where p.unit_id = v.unit_id and p.reach = v.reach and p.list <> v.list and (p.epoch, p.live_at) <= (v.epoch, v.live_at);

-- name: find_fresh_lists
-- Of these lists, which ended, those that were not counted for their snapshots yet; each is remembered as counted. The
-- newest 16 of a unit and reach are remembered (a list's id begins with its time): what is older was counted, and so was
-- what ended before everything was proven by a list of all namespaces.
with ended as (
    select distinct on (list) * from unnest($1::bigint[], $2::text[], $3::uuid[], $4::timestamptz[])
        as t (unit_id, reach, list, ended_at)
), fresh as (
    select e.unit_id, e.reach, e.list
    from ended e
    join unit_floor f using (unit_id, reach)
    where e.list <> all (f.counted) and (cardinality(f.counted) < 16 or e.list > f.counted[16])
        and not exists (
            select from unit_floor w
            where w.unit_id = e.unit_id and w.reach = '' and e.reach <> '' and w.proven_at >= e.ended_at)
), remembered as (
    update unit_floor f set counted = array(
        select list from unnest(f.counted) as c (list)
        union
        select n.list from fresh n where n.unit_id = f.unit_id and n.reach = f.reach
        order by list desc limit 16)
    from (select distinct unit_id, reach from fresh) as touched
    where f.unit_id = touched.unit_id and f.reach = touched.reach
)
select list from fresh;

-- name: drop_progress
-- A list that failed proves nothing any more.
delete from list_progress where list = $1;

-- name: fail_list
-- The same of a list that is written page by page: how many pages are stored stays known, so that its last one, should
-- it be written twice, is recognised.
insert into list_progress as p (list, unit_id, reach, epoch, live_at, pages, settled) values ($1, $2, $3, $4, -1, $5, true)
on conflict (list) do update set live_at = -1, pages = excluded.pages, settled = true;

-- name: forget_failed_lists
-- One of a unit and reach is enough.
delete from list_progress where unit_id = $2 and reach = $3 and list <> $1 and settled and completed_at is null;

-- name: drop_stale_progress
-- Lists of which nothing came for a day: their collector is gone.
delete from list_progress where updated_at < now() - interval '1 day' and not settled;

-- name: set_states
-- The state of each unit and reach, from the newest statement about it; an older one is ignored.
with said as (
    select distinct on (unit_id, reach) *
    from unnest($1::bigint[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::bigint[])
        as t (unit_id, reach, state, state_at, last_error, objects)
    order by unit_id, reach, state_at desc, state desc
), floors as (
    update unit_floor f set
        state = s.state, state_at = s.state_at, last_error = s.last_error, objects = coalesce(s.objects, f.objects),
        verified_at = case when s.state = 'verified' then s.state_at else f.verified_at end
    from said s where f.unit_id = s.unit_id and f.reach = s.reach and f.state_at <= s.state_at
), newest as (
    select distinct on (unit_id) * from said order by unit_id, state_at desc, reach
)
update unit u set
    state = n.state, state_at = n.state_at, last_error = n.last_error, objects = coalesce(n.objects, u.objects),
    last_verified = case when n.state = 'verified' then n.state_at else u.last_verified end
from newest n where u.id = n.unit_id and u.state_at <= n.state_at;

-- name: count_snapshot
-- What the lists of a snapshot came to, so far.
insert into snapshot as s (id, cluster_id, started_at, units_verified, units_failed, objects)
values ($1, $2, least($3, now()), $4, $5, $6)
on conflict (id) do update set
    units_verified = s.units_verified + excluded.units_verified, units_failed = s.units_failed + excluded.units_failed,
    objects = s.objects + excluded.objects;

-- name: complete_snapshot
update snapshot set completed_at = $2, discovery_complete = $3 where id = $1;

-- name: remember_discovery
-- Kinds that turn up later with records from before this snapshot were gone when it began.
update cluster set discovered_before = greatest(discovered_before, $2) where id = $1;

-- name: exclude_units
-- Kinds left out on purpose.
update unit u set state = 'excluded', state_at = $4, last_error = null
from unnest($2::text[], $3::text[]) as x (api_group, resource)
where u.cluster_id = $1 and u.api_group = x.api_group and u.resource = x.resource and u.state_at <= $4;

-- name: delete_gone
-- Kinds that a complete discovery no longer names: what was last observed before that snapshot began is deleted, and does
-- not come back late, even where another collector's list says something newer of the kind. A resource `*` names all of a
-- group: one that was left out on purpose and did not answer.
with gone as (
    update unit u set state = 'gone', state_at = $4, last_error = null, objects = 0, gone_before = $5
    where u.cluster_id = $1 and u.state_at < $5 and u.gone_before < $5
        and not exists (
            select from unnest($2::text[], $3::text[]) as x (api_group, resource)
            where u.api_group = x.api_group and x.resource in (u.resource, '*'))
    returning u.id, u.api_group, u.resource
), outlived as (
    update unit u set gone_before = $5
    where u.cluster_id = $1 and u.state_at >= $5 and u.gone_before < $5
        and not exists (
            select from unnest($2::text[], $3::text[]) as x (api_group, resource)
            where u.api_group = x.api_group and x.resource in (u.resource, '*'))
), doomed as (
    delete from resource r using unit u
    where u.cluster_id = $1 and r.unit_id = u.id and r.last_observed_at < $5
        and not exists (
            select from unnest($2::text[], $3::text[]) as x (api_group, resource)
            where u.api_group = x.api_group and x.resource in (u.resource, '*'))
    returning r.*
), remembered as (
    insert into resource_history (
        unit_id, namespace, name, uid, resource_version, epoch, live_at, fidelity, normalization, content_hash,
        created, deleted, valid_from, valid_to, first_observed_at, body, original)
    select unit_id, namespace, name, uid, resource_version, epoch, live_at, fidelity, normalization, content_hash,
        created, true, valid_from, greatest(valid_from, $5), first_observed_at, body, original
    from doomed where not deleted
    returning unit_id
), emptied as (
    update unit_floor f set digest = null  -- what it says of the stored rows is true no more
    from (select distinct unit_id from doomed) d where f.unit_id = d.unit_id
)
select g.api_group, g.resource, (select count(*) from remembered m where m.unit_id = g.id) as deleted from gone g;
