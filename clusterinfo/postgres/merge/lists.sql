-- Lists: progress, proof, floors, deletion by absence, states.

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

-- name: mark_proven
-- Of the lists touched, those that are complete and proven: count and digest agree with the completion. It
-- does not matter which came last, the completion or an item.
-- When a list began is in its id (UUIDv7); it shows what existed then, however long it took.
with closed as (
    update list_progress set settled = true
    where list = any ($1::uuid[]) and not settled and expected_count = count and expected_digest = digest
    returning *
)
insert into staged_list
select list, unit_id, reach, snapshot, epoch, live_at, count, digest,
    least(completed_at, to_timestamp(('x' || left(replace(list::text, '-', ''), 12))::bit(48)::bigint / 1000.0)),
    completed_at
from closed
returning list, unit_id, reach, count, completed_at;

-- name: find_overtaken
-- Of these lists, those that have nothing more to prove: closed before, or older than what is proven by now.
select p.list from list_progress p
join unit_floor f using (unit_id, reach)
where p.list = any ($1::uuid[]) and (p.settled or (p.epoch, p.live_at) <= (f.epoch, f.live_at));

-- name: ensure_floors
insert into unit_floor (unit_id, reach)
select distinct * from unnest($1::bigint[], $2::text[]) order by 1, 2
on conflict (unit_id, reach) do nothing;

-- name: find_contradictions
-- Kinds of which one version of a list shows two states: two versions of an object, or an object where a proven list of that
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

-- name: find_stalled
-- Kinds of which a list proves less than is known as of its version: the list before it of that version, in the same reach
-- or another, has another digest, or rows of exactly that moment are more than it counts.
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
-- A row that several lists take away counts for one of them.
with proven as (
    select distinct on (v.unit_id, v.reach) v.*
    from staged_list v
    join unit_floor f on f.unit_id = v.unit_id and f.reach = v.reach and (v.epoch, v.live_at) > (f.epoch, f.live_at)
    order by v.unit_id, v.reach, v.epoch desc, v.live_at desc, v.completed_at desc
), doomed as (
    delete from resource r using proven p
    where r.unit_id = p.unit_id and (p.reach = '' or r.namespace = p.reach)
        and ((r.epoch, r.live_at) < (p.epoch, p.live_at) or r.deleted and (r.epoch, r.live_at) = (p.epoch, p.live_at))
    returning r.*, p.list, (
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
), raised as (
    update unit_floor f set epoch = p.epoch, live_at = p.live_at, digest = p.digest, proven_at = p.completed_at
    from proven p where f.unit_id = p.unit_id and f.reach = p.reach
)
select p.list, (select count(*) from doomed d where d.list = p.list and not d.deleted) as deleted from proven p;

-- name: drop_covered_floors
-- What is proven everywhere needs no floors of single namespaces: one that is no longer listed alone would age forever.
delete from unit_floor f using staged_list v, unit_floor w
where v.reach = '' and w.unit_id = v.unit_id and w.reach = '' and w.proven_at = v.completed_at
    and f.unit_id = v.unit_id and f.reach <> '' and (f.epoch, f.live_at) <= (w.epoch, w.live_at) and f.state_at <= w.proven_at;

-- name: drop_overtaken_lists
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

-- name: drop_failed_lists
-- One of a unit and reach is enough.
delete from list_progress where unit_id = $2 and reach = $3 and list <> $1 and settled and completed_at is null;

-- name: set_states
-- The state of each unit and reach, from the newest statement about it; an older one is ignored.
with stated as (
    select distinct on (unit_id, reach) *
    from unnest($1::bigint[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::bigint[])
        as t (unit_id, reach, state, state_at, last_error, objects)
    order by unit_id, reach, state_at desc, state desc
), floors as (
    update unit_floor f set
        state = s.state, state_at = s.state_at, last_error = s.last_error, objects = coalesce(s.objects, f.objects),
        verified_at = case when s.state = 'verified' then s.state_at else f.verified_at end
    from stated s where f.unit_id = s.unit_id and f.reach = s.reach and f.state_at <= s.state_at
), newest as (
    select distinct on (unit_id) * from stated order by unit_id, state_at desc, reach
)
update unit u set
    state = n.state, state_at = n.state_at, last_error = n.last_error, objects = coalesce(n.objects, u.objects),
    last_verified = case when n.state = 'verified' then n.state_at else u.last_verified end
from newest n where u.id = n.unit_id and u.state_at <= n.state_at;
