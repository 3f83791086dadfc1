-- Snapshots: runs of lists, what they state about their cluster, and kinds that are gone.

-- name: rename_cluster
-- The newest snapshot names the cluster.
update cluster set name = $2, label = free_label(uid, $2) where id = $1 and name <> $2 and last_seen <= $3
returning label;

-- name: update_cluster
-- What a snapshot states about its cluster; an older snapshot changes nothing but first_seen.
update cluster set
    last_seen = greatest(last_seen, $2), first_seen = least(first_seen, $2), epoch = greatest(epoch, $3),
    server_version = case when $2 >= last_seen then coalesce($4, server_version) else server_version end
where id = $1;

-- name: count_snapshot
-- How the lists of a snapshot ended, so far.
insert into snapshot as s (id, cluster_id, started_at, units_verified, units_failed, objects)
values ($1, $2, least($3, now()), $4, $5, $6)
on conflict (id) do update set
    units_verified = s.units_verified + excluded.units_verified, units_failed = s.units_failed + excluded.units_failed,
    objects = s.objects + excluded.objects;

-- name: complete_snapshot
update snapshot set completed_at = $2, discovery_complete = $3 where id = $1;

-- name: exclude_units
-- Kinds left out on purpose.
update unit u set state = 'excluded', state_at = $4, last_error = null
from unnest($2::text[], $3::text[]) as x (api_group, resource)
where u.cluster_id = $1 and u.api_group = x.api_group and u.resource = x.resource and u.state_at <= $4;

-- name: delete_gone
-- Kinds that a complete discovery no longer names: what was last observed before that snapshot began is deleted, and does
-- not come back late, even where another collector's list is newer. A resource `*` names all of a
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
), emptied as (
    update unit_floor f set digest = null  -- it no longer describes the stored rows
    from (select distinct unit_id from doomed) d where f.unit_id = d.unit_id
), counted as (
    select unit_id, count(*) as deleted from doomed where not deleted group by unit_id
)
select u.api_group, u.resource, g.id is not null as is_gone, coalesce(c.deleted, 0) as deleted
from gone g
full join counted c on c.unit_id = g.id
join unit u on u.id = coalesce(g.id, c.unit_id);

-- name: remember_discovery
-- Kinds that turn up later with records from before this snapshot were gone when it began.
update cluster set discovered_before = greatest(discovered_before, $2) where id = $1;
