-- Forgetting a cluster, or one kind of it.

-- name: note_forgotten
insert into forgotten (cluster, api_group, resource, forgotten_at)
values ($1, $2, $3, clock_timestamp())
on conflict (cluster, api_group, resource) do update set forgotten_at = excluded.forgotten_at;

-- name: drop_progress_of
-- A list under way is cut in two: by a collector's clock that is ahead it may seem to begin after this, and proves nothing.
delete from list_progress p using unit u
where u.id = p.unit_id and u.cluster_id = $1 and ($3 = '' or u.api_group = $2 and u.resource = $3);

-- name: find_unit
select id from unit where cluster_id = $1 and api_group = $2 and resource = $3;

-- name: list_units
select api_group, resource from unit where cluster_id = $1 order by resource, api_group;

-- name: hide_cluster
-- All of a cluster, under an identity and a name that no collector sends.
update cluster set uid = $2, name = $3, label = $3 where id = $1;

-- name: hide_unit
-- One kind of a cluster, as the only one of a placeholder cluster.
with place as (
    insert into cluster (uid, name, label, first_seen, last_seen) values ($4, $5, $5, now(), now())
    returning id
)
update unit u set cluster_id = p.id from place p where u.cluster_id = $1 and u.api_group = $2 and u.resource = $3;

-- name: find_hidden_units
select u.id from unit u join cluster c on c.id = u.cluster_id where c.uid like 'forgotten %' order by u.id;

-- name: find_edge_of_resource
-- The key up to which the next step deletes: that of the row $2 rows on, or of the last one. It looks from where the step
-- before ended ($3, $4), so as not to walk over all that is deleted.
select namespace, name from (
    (select 1 as place, namespace, name from resource where unit_id = $1 and (namespace, name) >= ($3, $4)
        order by namespace, name offset $2 limit 1)
    union all
    (select 2, namespace, name from resource where unit_id = $1 and (namespace, name) >= ($3, $4)
        order by namespace desc, name desc limit 1)
) as edge order by place limit 1;

-- name: delete_up_to_edge_of_resource
delete from resource where unit_id = $1 and (namespace, name) >= ($2, $3) and (namespace, name) <= ($4, $5);

-- name: find_edge_of_history
select namespace, name, valid_to from (
    (select 1 as place, namespace, name, valid_to from resource_history
        where unit_id = $1 and (namespace, name, valid_to) >= ($3, $4, $5)
        order by namespace, name, valid_to offset $2 limit 1)
    union all
    (select 2, namespace, name, valid_to from resource_history
        where unit_id = $1 and (namespace, name, valid_to) >= ($3, $4, $5)
        order by namespace desc, name desc, valid_to desc limit 1)
) as edge order by place limit 1;

-- name: delete_up_to_edge_of_history
delete from resource_history
where unit_id = $1 and (namespace, name, valid_to) >= ($2, $3, $4) and (namespace, name, valid_to) <= ($5, $6, $7);

-- name: delete_hidden_units
-- Floors and progress go with them.
delete from unit where id = any ($1::bigint[]) returning id;

-- name: delete_hidden_clusters
-- Snapshots go with them.
delete from cluster c where uid like 'forgotten %' and not exists (select from unit u where u.cluster_id = c.id);
