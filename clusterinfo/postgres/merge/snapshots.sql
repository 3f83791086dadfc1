-- Snapshots: runs of lists, what they state about their cluster, and kinds that are gone.

-- name: update_cluster
-- What a snapshot states about its cluster; an older snapshot changes nothing but first_seen.
update cluster set
    last_seen = greatest(last_seen, $2), first_seen = least(first_seen, $2), epoch = greatest(epoch, $3),
    server_version = case when $2 >= last_seen then coalesce($4, server_version) else server_version end
where id = $1;

-- name: start_snapshot
insert into snapshot (id, cluster_id, started_at) values ($1, $2, least($3, now()))
on conflict (id) do nothing;

-- name: complete_snapshot
-- How it ended, as its collector reports it: the same however often it comes. Another cluster's snapshot of that id stands.
insert into snapshot (
    id, cluster_id, started_at, completed_at, discovery_complete, interval_s, units_completed, units_failed, objects)
values ($1, $2, least($3, now()), $4, $5, $6, $7, $8, $9)
on conflict (id) do update set
    completed_at = excluded.completed_at, discovery_complete = excluded.discovery_complete, interval_s = excluded.interval_s,
    units_completed = excluded.units_completed, units_failed = excluded.units_failed, objects = excluded.objects
where snapshot.cluster_id = excluded.cluster_id;

-- name: exclude_units
-- Kinds left out on purpose, unless something newer is known of them; `*` names all of a group.
update unit u set state = 'excluded', state_at = $4
from unnest($2::text[], $3::text[]) as x (api_group, resource)
where u.cluster_id = $1 and u.api_group = x.api_group and x.resource in (u.resource, '*') and u.state_at <= $4
    and not exists (select from unit_floor f where f.unit_id = u.id and f.state_at > $4);

-- name: fail_groups
-- Kinds of the groups $2, whose discovery failed for the reasons $3, have failed in every reach: all but those that the
-- snapshot names ($4, $5), and unless something newer is known of them. What is gone or excluded stays so.
with failed as (
    select u.id, u.api_group, u.resource, g.reason
    from unnest($2::text[], $3::text[]) as g (api_group, reason)
    join unit u on u.api_group = g.api_group
    where u.cluster_id = $1 and u.state is null and not exists (
        select from unnest($4::text[], $5::text[]) as x (api_group, resource)
        where x.api_group = u.api_group and x.resource = u.resource)
)
update unit_floor f set state = 'failed', state_at = $6, last_error = failed.reason
from failed where f.unit_id = failed.id and f.state_at <= $6
returning failed.api_group, failed.resource, f.reach, f.last_error;

-- name: find_gone
-- Kinds that a complete discovery, begun at $5, no longer names: they are gone, unless something is known of them since then;
-- and what was last observed before it does not come back late, even where another collector's list is newer. A resource
-- `*` names all of a group: one that was left out on purpose and did not answer.
with unnamed as (
    select u.id, u.state_at < $5 and not exists (
            select from unit_floor f where f.unit_id = u.id and f.state_at >= $5) as is_gone
    from unit u
    where u.cluster_id = $1 and not exists (
        select from unnest($2::text[], $3::text[]) as x (api_group, resource)
        where u.api_group = x.api_group and x.resource in (u.resource, '*'))
)
update unit u set
    state = case when n.is_gone then 'gone' else u.state end, state_at = case when n.is_gone then $4 else u.state_at end,
    gone_before = greatest(u.gone_before, $5)
from unnamed n where u.id = n.id
returning u.id, u.api_group, u.resource, n.is_gone;

-- name: remember_discovery
-- Kinds that turn up later with records from before this snapshot were gone when it began.
update cluster set discovered_before = greatest(discovered_before, $2) where id = $1;
