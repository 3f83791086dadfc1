-- Deletion by absence: the one statement by which rows go into history because something no longer names them.

-- name: bury
-- The rows of a unit within a reach that a proven list at (epoch, live_at) does not name, and the tombstones that it covers;
-- or, where unseen_since is given, what was last observed before a discovery began that no longer names the unit. A row was
-- gone when the first of the lists that this batch proves ($6) that should have named it began, or that discovery; where a
-- session follows, when the list's first page had come: another may have followed the object until then. One that several
-- lists take away counts for one of them. Returns how many objects each of $1 to $5 took away: place counts from 1.
with absence as materialized (
    select t.*, (
            select range_agg(n.ids) from list_seen l cross join unnest(l.ids) as n (ids)
            where l.unit_id = t.unit_id and (l.epoch, l.live_at) >= (t.epoch, t.live_at)
                and (l.seen_at < t.unseen_since) is not true) as named
    from unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::timestamptz[])
        with ordinality as t (unit_id, reach, epoch, live_at, unseen_since, place)
), buried as (
    delete from resource r using absence a
    where r.unit_id = a.unit_id and (a.reach = '' or r.namespace = a.reach) and (r.id <@ a.named) is not true
        and case
        when a.unseen_since is not null then r.last_observed_at < a.unseen_since
        when r.deleted then (r.epoch, r.live_at) <= (a.epoch, a.live_at)
        else (r.epoch, r.live_at) < (a.epoch, a.live_at) end
    returning r.*, a.place, coalesce(a.unseen_since, (
        select min(coalesce(p.seen_at, list_began_at(p.list, p.completed_at))) from list_progress p
        where p.list = any ($6::uuid[]) and p.unit_id = r.unit_id and p.reach in ('', r.namespace)
            and (p.epoch, p.live_at) > (r.epoch, r.live_at) and not exists (
                select from list_seen l
                where l.ids @> r.id and (l.epoch, l.live_at) >= (p.epoch, p.live_at))))
        as gone_at
), remembered as (
    insert into resource_history (
        unit_id, namespace, name, uid, resource_version, epoch, live_at, fidelity, normalization, content_hash,
        created, deleted, valid_from, valid_to, first_observed_at, manager, operation, subresource, managed_at, body, original)
    select unit_id, namespace, name, uid, resource_version, epoch, live_at, fidelity, normalization, content_hash,
        created, true, valid_from, greatest(valid_from, gone_at), first_observed_at, manager, operation, subresource, managed_at, body,
        original
    from buried where not deleted
)
select place, count(*) as deleted from buried where not deleted group by place;
