-- Coverage: what is followed by which session, since when, and until when it was.

-- name: name_sessions
-- Lists ($1, of the kinds $2) from which on a session follows their kind.
update list_progress p set session_id = t.session_id, from_number = t.from_number, place = t.place, seen_at = t.seen_at
from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::timestamptz[])
    as t (list, unit_id, session_id, from_number, place, seen_at)
where p.list = t.list and p.unit_id = t.unit_id;

-- name: find_broken
-- Of these lists, those whose session said something of their kind before their completion that has not come.
select p.list from list_progress p join watch_session s on s.id = p.session_id
where p.list = any ($1::uuid[]) and not is_whole(s.missing, p.from_number, p.place);

-- name: open_coverage
-- Lists ($1) that prove their kind let it be followed, also where the floor is theirs already, or above: if nothing is missing
-- before their completion, if the watch has not ended since, and if nothing has cast doubt on the kind since they began. What
-- their session follows already stays, unless it was cut: the list begins an interval of its own.
with opened as (
    select distinct on (p.unit_id, p.reach, p.session_id) p.*,
        p.from_number <= s.cut_number as is_cut
    from list_progress p
    join watch_session s on s.id = p.session_id
    join unit u on u.id = p.unit_id
    join unit_floor f on f.unit_id = p.unit_id and f.reach = p.reach
    where p.list = any ($1::uuid[]) and p.epoch >= f.epoch
        and is_whole(s.missing, p.from_number, p.place)
        and ended_number(s, u.api_group, u.resource, p.reach) < p.from_number
        and not u.by_clock and list_began_at(p.list, p.completed_at) > u.doubted_at
    order by p.unit_id, p.reach, p.session_id, is_whole(s.missing, p.from_number, s.next_number) desc, p.from_number
)
insert into coverage as c (unit_id, reach, session_id, from_number, epoch, is_open, begins_at)
select unit_id, reach, session_id, from_number, epoch, true, case when not is_cut then seen_at end from opened
on conflict (unit_id, reach, session_id) where is_open do update set
    from_number = excluded.from_number, epoch = excluded.epoch, begins_at = excluded.begins_at
where c.begins_at is null
returning session_id;

-- name: cut_coverage
-- What these sessions ($1) follow of these kinds ($2; null: of all) has an interval up to when they were last heard; the next
-- one begins with the next progress.
with cut as (
    select c.*, heard_until(s, c.from_number, u.api_group, u.resource, c.reach) as heard
    from coverage c join watch_session s on s.id = c.session_id join unit u on u.id = c.unit_id
    join unnest($1::bigint[], $2::bigint[]) as t (session_id, unit_id)
        on c.session_id = t.session_id and c.unit_id = coalesce(t.unit_id, c.unit_id)
    where c.is_open
    order by c.id for update of c
), kept as (
    insert into coverage (unit_id, reach, session_id, from_number, epoch, is_open, begins_at, ends_at)
    select unit_id, reach, session_id, from_number, epoch, false, begins_at, heard from cut where heard >= begins_at
)
update coverage c set begins_at = null from cut where c.id = cut.id;

-- name: begin_coverage
-- What was cut is followed in order again, as of $3, where nothing is missing up to number $2 of the session.
update coverage c set begins_at = $3
from watch_session s
where s.id = $1 and c.session_id = s.id and c.is_open and c.begins_at is null and c.from_number <= $2
    and is_whole(s.missing, c.from_number, $2);

-- name: note_cut
-- Whether an interval of these sessions begins with the next progress.
update watch_session s set is_cut = exists (
    select from coverage c where c.session_id = s.id and c.is_open and c.begins_at is null)
where s.id = any ($1::bigint[]);

-- name: end_coverage
-- The watches ($3 to $6: group, resource, reach, and until when they were heard) of a session ($1) have ended, under number
-- $2: what it followed from that number or a lower one on is over.
with over as (
    select c.id, c.begins_at, greatest(
            heard_until(s, c.from_number, u.api_group, u.resource, c.reach),
            case when is_whole(s.missing, c.from_number, $2) then least(now(), t.since) end) as heard
    from coverage c join watch_session s on s.id = c.session_id join unit u on u.id = c.unit_id
    join unnest($3::text[], $4::text[], $5::text[], $6::timestamptz[]) as t (api_group, resource, reach, since)
        on t.api_group = u.api_group and t.resource = u.resource and t.reach in ('', c.reach)
    where c.session_id = $1 and c.is_open and c.from_number <= $2
    order by c.id for update of c
), dropped as (
    delete from coverage c using over o where c.id = o.id and (o.heard >= o.begins_at) is not true
)
update coverage c set is_open = false, ends_at = o.heard from over o where c.id = o.id and o.heard >= o.begins_at;

-- name: doubt_units
-- What is followed of these kinds is over, and only a list begun after $2 lets one be followed.
with doubted as (
    update unit set doubted_at = greatest(doubted_at, $2) where id = any ($1::bigint[])
), over as (
    select c.id, c.begins_at, heard_until(s, c.from_number, u.api_group, u.resource, c.reach) as heard
    from coverage c join watch_session s on s.id = c.session_id join unit u on u.id = c.unit_id
    where c.unit_id = any ($1) and c.is_open
    order by c.id for update of c
), dropped as (
    delete from coverage c using over o where c.id = o.id and (o.heard >= o.begins_at) is not true
)
update coverage c set is_open = false, ends_at = o.heard from over o where c.id = o.id and o.heard >= o.begins_at;

-- name: find_unkept
-- Of what was ignored as older, the sessions and kinds of what is in neither row nor history.
select distinct t.session_id, t.unit_id
from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::boolean[])
    as t (session_id, unit_id, namespace, name, resource_version, epoch, deleted)
where not exists (
    select from resource r
    where r.unit_id = t.unit_id and r.namespace = t.namespace and r.name = t.name
        and r.epoch = t.epoch and r.resource_version = t.resource_version and r.deleted = t.deleted)
    and (t.deleted or not exists (
        select from resource_history h
        where h.unit_id = t.unit_id and h.namespace = t.namespace and h.name = t.name
            and h.epoch = t.epoch and h.resource_version = t.resource_version));
