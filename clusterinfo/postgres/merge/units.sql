-- Units: made where they are missing, locked in one order, described.

-- name: ensure_units
-- Missing units, in natural order so that two batches never deadlock.
-- A kind that the last complete discovery did not name was gone by then, until newer records say otherwise.
insert into unit (cluster_id, api_group, resource, kind, api_version, gone_before, state, state_at)
select u.*, c.discovered_before, case when c.discovered_before > '-infinity' then 'gone' end, c.discovered_before
from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[])
    as u (cluster_id, api_group, resource, kind, api_version)
join cluster c on c.id = u.cluster_id
order by 1, 2, 3
on conflict (cluster_id, api_group, resource) do nothing;

-- name: lock_units
-- The batch's units, locked in id order until commit; none of them if some are missing. place: which of them it is.
with wanted as (
    select * from unnest($1::bigint[], $2::text[], $3::text[])
        with ordinality as t (cluster_id, api_group, resource, place)
)
select w.place, u.id, u.kind, u.api_version, u.namespaced, u.by_clock,
    exists (select from coverage c where c.unit_id = u.id and c.is_open) as is_followed
from unit u
join wanted w using (cluster_id, api_group, resource)
where cardinality($1) = (select count(*) from unit join wanted using (cluster_id, api_group, resource))
order by u.id for update of u;

-- name: lock_completed
-- The batch's units and all of the clusters whose completed snapshots are about every one: at once, so that the order of ids
-- is kept over both.
select u.id from unit u
where u.cluster_id = any ($1::bigint[]) or exists (
    select from unnest($2::bigint[], $3::text[], $4::text[]) as wanted (cluster_id, api_group, resource)
    where (u.cluster_id, u.api_group, u.resource) = (wanted.cluster_id, wanted.api_group, wanted.resource))
order by u.id for update of u;

-- name: describe_units
-- Kind, API version and ordering as of the newest records. Lists under way of a kind that is ordered by the clock from now on
-- prove nothing.
with described as (
    select * from unnest($1::bigint[], $2::text[], $3::text[], $4::boolean[], $5::boolean[])
        as t (id, kind, api_version, namespaced, by_clock)
), dropped as (
    delete from list_progress p using described d join unit u using (id)
    where p.unit_id = d.id and d.by_clock and not u.by_clock
)
update unit u set
    kind = coalesce(nullif(d.kind, ''), u.kind), api_version = coalesce(nullif(d.api_version, ''), u.api_version),
    namespaced = coalesce(d.namespaced, u.namespaced), by_clock = u.by_clock or d.by_clock
from described d where u.id = d.id;
