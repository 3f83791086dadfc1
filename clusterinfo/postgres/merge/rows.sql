-- Rows of objects that a batch shows once: one statement compares them with what is stored and retires what they replace;
-- what it returns is COPYed.

-- name: merge_rows
-- What becomes of each object, by the decision table of docs/DESIGN.md, section 4:
--
--   row present : (epoch, live_at) greater : the record becomes the row; if the version is the same, only live_at moves  (1)
--                 same epoch and version   : greater (normalization, fidelity), or another hash on the later list,
--                                            rewrites the body in place and adds no history                           (2)
--                 else                     : older, ignored                                                           (3)
--   row absent  : insert iff (epoch, live_at) > every floor that covers its namespace, and the kind was not gone by then (4)
--   deleted     : a tombstone row, same comparison                                                                    (5)
--
-- in these classes: new; listed (a list names the row as it is: nothing is written but its id, into list_seen; all else is
-- compared with the newest sighting of the row); seen (the row stays, its position moves); known (it is exactly that row);
-- replaced (written again without a change in the history); changed, deleted, reborn (another content; gone; here again after
-- its tombstone); older; chain (several versions meet in one row, or less of a body may lose: left to the statements in
-- chain.sql). Rows that are to be written again go first. Returned are how many fell to each class; of those that are to be
-- COPYed, or are older, their places, from 1; and of those that replace a row their created, valid_from, first_observed_at and
-- last_observed_at.
with limits as materialized (  -- once a kind, not once an object
    select u.id, u.gone_before, f.epoch, f.live_at,
        exists (select from unit_floor n where n.unit_id = u.id and n.reach <> '') as has_reaches
    from unit u left join unit_floor f on f.unit_id = u.id and f.reach = ''
    where u.id = any (array(select distinct unnest($1::bigint[])))
), compared as materialized (
    select t.*, s.ctid as at, s.id, s.created, s.valid_from, s.first_observed_at, p.last_observed_at,
        case
            when s.unit_id is null then case  -- (4)
                when t.seen_at >= l.gone_before and not coalesce((l.epoch, l.live_at) >= (t.epoch, t.live_at), false)
                    and not (l.has_reaches and exists (
                        select from unit_floor f
                        where f.unit_id = t.unit_id and f.reach = t.namespace
                            and (f.epoch, f.live_at) >= (t.epoch, t.live_at))) then 'new'
                else 'older' end
            when is_listed then 'listed'
            when (t.epoch, t.live_at) > (s.epoch, p.live_at) then case  -- (1)
                when same_version and (same_body or (t.normalization, t.fidelity) < (s.normalization, s.fidelity))
                    then 'seen'
                when same_version and not (t.normalization > s.normalization and t.uid = s.uid and not t.deleted)
                    then 'chain'
                when same_version then 'replaced'  -- (2)
                when t.deleted then case when s.deleted then 'chain' else 'deleted' end  -- (5)
                when s.deleted then 'reborn'
                when t.uid <> s.uid then 'chain'
                when t.content_hash = s.content_hash then 'replaced'
                else 'changed' end
            when not same_version then 'older'  -- (3)
            when (t.epoch, t.live_at) = (s.epoch, p.live_at) then case  -- sent again, or two looks at one moment
                when not same_body then 'chain'
                when t.seen_at > p.last_observed_at then 'seen'
                else 'known' end
            when not t.deleted and (t.normalization, t.fidelity) > (s.normalization, s.fidelity) and not same_body
                then 'chain'  -- (2)
            else 'older'  -- (3)
        end as class
    from (
        select *
        from unnest($11::text::integer[], $12::text::text[], $13::text::text[], $14::text::text[], $15::text::bytea[])
            with ordinality as object (page, name, uid, resource_version, content_hash, place)
        join unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::boolean[], $6::smallint[], $7::smallint[],
            $8::timestamptz[], $9::timestamptz[], $10::text[])
            with ordinality as alike (unit_id, namespace, epoch, live_at, deleted, fidelity, normalization, observed_at,
                seen_at, reach, page) using (page)
    ) as t
    left join limits l on l.id = t.unit_id
    -- Looked up one by one, whatever the planner takes a table that has just been filled for.
    left join lateral (
        select r.ctid, r.* from resource r
        where r.unit_id = t.unit_id and r.namespace = t.namespace and r.name = t.name limit 1) s on true
    cross join lateral (
        select t.epoch = s.epoch and t.resource_version = s.resource_version and t.deleted = s.deleted as same_version,
            t.content_hash = s.content_hash and t.normalization = s.normalization
                and (t.fidelity <= s.fidelity or s.fidelity in (0, 2)) as same_body
    ) as same
    cross join lateral (
        select t.reach is not null and same_version and same_body and (t.epoch, t.live_at) >= (s.epoch, s.live_at)
            as is_listed
    ) as listed
    cross join lateral (
        select greatest(s.live_at, max(l.live_at)) as live_at, greatest(s.last_observed_at, max(l.seen_at)) as last_observed_at
        from list_seen l
        where is_listed is not true and l.epoch = s.epoch and l.ids @> s.id
    ) as p
), named as (
    insert into list_seen (unit_id, reach, epoch, live_at, seen_at, ids)
    select unit_id, reach, epoch, live_at, seen_at, range_agg(int8range(id, id, '[]'))
    from (
        select unit_id, reach, epoch, live_at, seen_at, id,
            row_number() over (partition by unit_id, reach, epoch, live_at, seen_at order by id) / 256 as part
        from compared where class = 'listed'
    ) as part
    group by unit_id, reach, epoch, live_at, seen_at, part
), moved as (
    update resource s set
        epoch = c.epoch, live_at = c.live_at, last_observed_at = greatest(c.last_observed_at, c.seen_at)
    from compared c where c.class = 'seen' and s.ctid = c.at
), retired as (
    delete from resource s using compared c
    where c.class in ('replaced', 'changed', 'deleted', 'reborn') and s.ctid = c.at
    returning s.*, c.class, c.observed_at
), remembered as (
    insert into resource_history (
        unit_id, namespace, name, uid, resource_version, epoch, live_at, fidelity, normalization, content_hash,
        created, deleted, valid_from, valid_to, first_observed_at, manager, operation, subresource, managed_at, body, original)
    select unit_id, namespace, name, uid, resource_version, epoch, live_at, fidelity, normalization, content_hash,
        created, class = 'deleted', valid_from, greatest(valid_from, observed_at),
        case when class = 'changed' then least(first_observed_at, observed_at) else first_observed_at end, manager, operation, subresource,
        managed_at, body, original
    from retired where class in ('changed', 'deleted')
)
select c.class, count(*) as count,
    array_agg(c.place) filter (where c.class not in ('listed', 'seen', 'known')) as places,
    array_agg(row (
        case c.class when 'replaced' then c.created else c.class <> 'changed' end,
        case c.class when 'replaced' then c.valid_from else greatest(c.valid_from, c.observed_at) end,
        case when c.class in ('replaced', 'changed') then least(c.first_observed_at, c.observed_at) else c.observed_at end,
        greatest(c.last_observed_at, c.seen_at)))
        filter (where c.class in ('replaced', 'changed', 'deleted', 'reborn')) as times
from compared c group by c.class;
