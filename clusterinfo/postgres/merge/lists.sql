-- Lists: progress, proof, floors, deletion by absence, states.

-- name: add_progress
-- What this batch brought of each list, added to what was there. A list is settled, and proven, as soon as count and digest
-- agree with its completion; it does not matter which came last, the completion or an item. Returns the lists that were not
-- settled before. What bears the id of another kind's list is counted for neither.
insert into list_progress as p (
    list, unit_id, reach, epoch, live_at, count, digest, expected_count, expected_digest, completed_at, settled)
select list, unit_id, reach, epoch, live_at, count, digest::numeric, expected_count, expected_digest::numeric, completed_at,
    coalesce(expected_count = count and expected_digest::numeric = digest::numeric, false)
from unnest($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::bigint[],
    $9::text[], $10::timestamptz[])
    as t (list, unit_id, reach, epoch, live_at, count, digest, expected_count, expected_digest, completed_at)
on conflict (list) do update set
    count = p.count + excluded.count,
    digest = mod(p.digest + excluded.digest, 340282366920938463463374607431768211456),
    expected_count = coalesce(excluded.expected_count, p.expected_count),
    expected_digest = coalesce(excluded.expected_digest, p.expected_digest),
    completed_at = coalesce(excluded.completed_at, p.completed_at), updated_at = now(),
    settled = coalesce(coalesce(excluded.expected_count, p.expected_count) = p.count + excluded.count
        and coalesce(excluded.expected_digest, p.expected_digest)
            = mod(p.digest + excluded.digest, 340282366920938463463374607431768211456), false)
where not p.settled and p.unit_id = excluded.unit_id
returning list, settled, count, completed_at, session_id;

-- name: find_overtaken
-- Of these lists, those that have nothing more to prove: settled before, or older than what is proven by now.
select p.list from list_progress p
left join unit_floor f using (unit_id, reach)
where p.list = any ($1::uuid[]) and (p.settled or (p.epoch, p.live_at) <= (f.epoch, f.live_at));

-- name: find_stalled_versions
-- Kinds of which a list, or two of these, has the version of the proven list before it and another digest: the version stood
-- still while the objects changed, which orders nothing. Such a kind is ordered by the clock from now on.
with list as (
    select * from list_progress where list = any ($1::uuid[])
)
update unit u set by_clock = true
from list v
where u.id = v.unit_id and not u.by_clock and exists (
    select from unit_floor f
    where f.unit_id = v.unit_id and f.reach = v.reach and (f.epoch, f.live_at) = (v.epoch, v.live_at)
        and f.digest <> v.digest
    union all
    select from list o
    where o.unit_id = v.unit_id and o.reach = v.reach and (o.epoch, o.live_at) = (v.epoch, v.live_at)
        and o.digest <> v.digest)
returning u.id;

-- name: drop_unit_progress
-- Lists that are under way prove nothing of a kind that is ordered by the clock from now on.
delete from list_progress where unit_id = any ($1::bigint[]);

-- name: find_backwards
-- Lists that began after the one that set (or, in this batch, will set) the floor was complete, and yet are older: the
-- cluster was restored from a backup, or its epoch was lowered. Rows under a higher epoch show that too, proven or not; of a
-- cluster that is watched all rows do, whether or not they left an interval, if they were observed a minute before: not every
-- collector's clock is right to the second.
with list as (
    select *, list_began_at(list, completed_at) as began_at from list_progress where list = any ($1::uuid[])
)
select v.list, v.epoch, v.live_at, b.epoch as floor_epoch, b.live_at as floor
from list v
cross join lateral (
    select f.epoch, f.live_at from unit_floor f
    where f.unit_id = v.unit_id and f.reach in ('', v.reach) and f.proven_at < v.began_at
    union all
    select o.epoch, o.live_at from list o
    where o.unit_id = v.unit_id and o.reach in ('', v.reach) and o.completed_at < v.began_at
    union all
    select r.epoch, r.live_at from sighting() r
    where r.unit_id = v.unit_id and (v.reach = '' or r.namespace = v.reach)
        and r.epoch > v.epoch and r.last_observed_at < v.began_at
        and v.epoch < (select c.epoch from unit u join cluster c on c.id = u.cluster_id where u.id = v.unit_id)
    union all
    select r.epoch, r.live_at from sighting() r
    where r.unit_id = v.unit_id and (v.reach = '' or r.namespace = v.reach)
        and (r.epoch, r.live_at) > (v.epoch, v.live_at) and r.last_observed_at < v.began_at - interval '1 minute'
        and exists (
            select from watch_session s join cluster c on c.uid = s.cluster join unit u on u.cluster_id = c.id
            where u.id = v.unit_id)
    order by 1 desc, 2 desc limit 1
) b
where (v.epoch, v.live_at) < (b.epoch, b.live_at);

-- name: set_states
-- The state of each unit and reach, from the newest statement about it; an older one is ignored. What a kind was before,
-- gone or excluded, it is no longer. Makes the floors that are missing.
with stated as (
    select distinct on (unit_id, reach) *
    from unnest($1::bigint[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::bigint[])
        as t (unit_id, reach, state, state_at, last_error, objects)
    order by unit_id, reach, state_at desc, state desc
), present as (
    update unit u set state = null
    from stated s where u.id = s.unit_id and u.state is not null and u.state_at <= s.state_at
)
insert into unit_floor as f (unit_id, reach, state, state_at, last_error, objects, verified_at)
select unit_id, reach, state, state_at, last_error, objects, case when state = 'verified' then state_at end
from stated order by unit_id, reach
on conflict (unit_id, reach) do update set
    state = excluded.state, state_at = excluded.state_at, last_error = excluded.last_error,
    objects = coalesce(excluded.objects, f.objects), verified_at = coalesce(excluded.verified_at, f.verified_at)
where f.state_at <= excluded.state_at;

-- name: raise_floors
-- Of the lists ($1) that a batch proves the newest of each unit and reach raises the floor there, if it is above it; those are
-- returned.
update unit_floor f set epoch = v.epoch, live_at = v.live_at, digest = v.digest, proven_at = v.completed_at
from (
    select distinct on (unit_id, reach) * from list_progress where list = any ($1::uuid[])
    order by unit_id, reach, epoch desc, live_at desc, completed_at desc
) v
where f.unit_id = v.unit_id and f.reach = v.reach and (v.epoch, v.live_at) > (f.epoch, f.live_at)
returning v.list, f.unit_id, f.reach, f.epoch, f.live_at;

-- name: drop_covered
-- Lists that a proven one ($1) has overtaken need no bookkeeping any more. What is proven everywhere ($2: lists that raised
-- their floors) needs no floors of single namespaces: one that is no longer listed alone would age forever. What it named is
-- divided again in the order of ids: pages are in that of names, so that an id would lie within the bounds of an entry of each page.
with overtaken as (
    delete from list_progress p using list_progress v
    where v.list = any ($1::uuid[]) and p.unit_id = v.unit_id and p.reach = v.reach and p.list <> v.list
        and (p.epoch, p.live_at) <= (v.epoch, v.live_at)
), seen as (
    delete from list_seen s using list_progress v
    where v.list = any ($2) and s.unit_id = v.unit_id and v.reach in ('', s.reach)
        and (s.epoch, s.live_at) < (v.epoch, v.live_at) and s.seen_at <= list_began_at(v.list, v.completed_at)
    returning s.ctid as at
), loose as (
    delete from list_seen s using list_progress v
    where v.list = any ($2) and s.unit_id = v.unit_id and s.reach = v.reach
        and (s.epoch, s.live_at) = (v.epoch, v.live_at) and s.ctid <> all (array(select at from seen))
    returning s.*
), packed as (
    insert into list_seen (unit_id, reach, epoch, live_at, seen_at, ids)
    select unit_id, reach, epoch, live_at, seen_at, range_agg(ids)
    from (
        select l.unit_id, l.reach, l.epoch, l.live_at, l.seen_at, r.ids,
            row_number() over (partition by l.unit_id, l.reach, l.epoch, l.live_at, l.seen_at order by r.ids) / 64 as part
        from loose l cross join unnest(l.ids) as r (ids)
    ) as part
    group by unit_id, reach, epoch, live_at, seen_at, part
)
delete from unit_floor f using list_progress v, unit_floor w
where v.list = any ($2::uuid[]) and v.reach = '' and w.unit_id = v.unit_id and w.reach = ''
    and f.unit_id = v.unit_id and f.reach <> '' and (f.epoch, f.live_at) <= (w.epoch, w.live_at) and f.state_at <= w.proven_at;

-- name: drop_progress
-- Lists that failed prove nothing any more; none of a kind that is not the batch's ($2).
delete from list_progress where list = any ($1::uuid[]) and unit_id = any ($2::bigint[]);

-- name: trim_seen
-- Of lists of these kinds ($1) what a later list has named since, which says all that they said of it: a kind that is never
-- proven keeps no more entries than it has rows.
update list_seen o set ids = o.ids - n.ids
from (
    select e.ctid as at, range_agg(named.ids) as ids
    from list_seen e
    join list_seen l on l.unit_id = e.unit_id and (l.epoch, l.live_at) > (e.epoch, e.live_at) and l.seen_at >= e.seen_at
        and l.ids && e.ids
    cross join unnest(l.ids) as named (ids)
    where e.unit_id = any ($1::bigint[]) group by e.ctid
) n
where o.ctid = n.at;

-- name: drop_trimmed
delete from list_seen where unit_id = any ($1::bigint[]) and isempty(ids);
