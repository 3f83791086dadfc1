-- Coverage: what is followed by which session, since when, and until when it was. coverage.py decides; what is open, and up to
-- when it was heard in order, the function `followed` says.

-- name: name_sessions
-- Lists ($1, of the kinds $2) from which on a session follows their kind.
update list_progress p set session_id = t.session_id, from_number = t.from_number, place = t.place, seen_at = t.seen_at
from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::timestamptz[])
    as t (list, unit_id, session_id, from_number, place, seen_at)
where (p.list, p.unit_id) = (t.list, t.unit_id);

-- name: find_openings
-- What these lists would have followed, and what speaks for it.
select p.list::text, p.unit_id, p.reach, p.session_id, p.epoch, p.from_number, p.seen_at,
    is_whole(s.missing, p.from_number, p.place) as is_proven,
    is_whole(s.missing, p.from_number, s.next_number) as is_whole,
    s.cut_number >= p.from_number as is_cut,
    ended_number(s, u.api_group, u.resource, p.reach) >= p.from_number as is_over,
    p.corrected, is_followed_by(p.session_id, p.unit_id, p.reach) as was_followed,
    (select f.proven_at from unit_floor f where (f.unit_id, f.reach) = (p.unit_id, p.reach)) as last_proven_at,
    u.by_clock or list_began_at(p.list, p.completed_at) <= u.unverified_at as is_unverified
from list_progress p join watch_session s on s.id = p.session_id join unit u on u.id = p.unit_id
where p.list = any ($1::uuid[]);

-- name: note_corrections
-- How many objects of these lists ($1) had rows that were not right.
update list_progress p set corrected = p.corrected + t.corrected
from unnest($1::uuid[], $2::bigint[]) as t (list, corrected) where p.list = t.list;

-- name: take_back_coverage
-- What a session ($1) claims of a kind ($2) within a reach ($3) since $4 is not so.
with dropped as (
    delete from coverage where (session_id, unit_id, reach) = ($1, $2, $3) and (begins_at >= $4) is not false
)
update coverage set is_open = false, ends_at = $4
where (session_id, unit_id, reach) = ($1, $2, $3) and begins_at < $4 and (ends_at <= $4) is not true;

-- name: open_coverage
-- What its session follows already stays, unless it was cut: the list begins an interval of its own.
insert into coverage as c (unit_id, reach, session_id, from_number, epoch, is_open, begins_at)
select t.unit_id, t.reach, t.session_id, t.from_number, t.epoch, true, t.begins_at
from unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::timestamptz[])
    as t (unit_id, reach, session_id, from_number, epoch, begins_at)
on conflict (unit_id, reach, session_id) where is_open do update set
    from_number = excluded.from_number, epoch = excluded.epoch, begins_at = excluded.begins_at
where c.begins_at is null;

-- name: find_followed_by
select * from followed() f where f.session_id = any ($1::bigint[]);

-- name: find_followed_units
select * from followed() f where f.unit_id = any ($1::bigint[]);

-- name: close_coverage
update coverage c set is_open = false, ends_at = t.ends_at
from unnest($1::bigint[], $2::timestamptz[]) as t (id, ends_at) where c.id = t.id;

-- name: drop_coverage
-- What leaves no interval.
delete from coverage where id = any ($1::bigint[]);

-- name: begin_coverage
update coverage set begins_at = $2 where id = any ($1::bigint[]);

-- name: mark_units_unverified
update unit set unverified_at = greatest(unverified_at, $2) where id = any ($1::bigint[]);

-- name: find_unkept
-- Of versions that were ignored as older, the sessions and kinds of those that are in neither row nor history.
select distinct t.session_id, t.unit_id
from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::boolean[])
    as t (session_id, unit_id, namespace, name, resource_version, epoch, deleted)
where not exists (
    select from resource r
    where (r.unit_id, r.namespace, r.name, r.epoch, r.resource_version, r.deleted)
        = (t.unit_id, t.namespace, t.name, t.epoch, t.resource_version, t.deleted)
    union all
    select from resource_history h
    where (h.unit_id, h.namespace, h.name, h.epoch, h.resource_version, false)
        = (t.unit_id, t.namespace, t.name, t.epoch, t.resource_version, t.deleted));
