-- Clusters: made where they are missing, named, and contested where two write under one identity.

-- name: find_clusters
select uid, id, contested_at is not null, epoch, topic from cluster where uid = any ($1::text[]);

-- name: ensure_cluster
-- The cluster's row, which belongs to the topic ($5) that spoke of it first; a second cluster of one name is shown as
-- <name>-<first 8 of uid>.
insert into cluster (uid, name, label, epoch, first_seen, last_seen, topic)
values ($1, $2, free_label($1, $2), $3, $4, $4, $5)
on conflict (uid) do nothing
returning label;

-- name: adopt_clusters
-- What was written without Kafka belongs to the first topic that speaks of it.
update cluster set topic = $2 where uid = any ($1::text[]) and topic = '';

-- name: rename_cluster
-- The newest snapshot names the cluster.
update cluster set name = $2, label = free_label(uid, $2) where id = $1 and name <> $2 and last_seen <= $3
returning label;

-- name: record_name
insert into cluster_name as n (cluster_id, name, first_said, last_said) values ($1, $2, $3, $3)
on conflict (cluster_id, name) do update set
    first_said = least(n.first_said, excluded.first_said), last_said = greatest(n.last_said, excluded.last_said);

-- name: contest_cluster
-- Names that alternate, whichever order the statements come in: one began before another, went on after that began, and ended
-- before that ended, and is among the last five snapshots. A cluster is no longer contested when the last turn is more
-- than five snapshots ago. No row: nothing of the sort.
with recent as (
    select coalesce(min(started_at), '-infinity') as since from (
        select started_at from snapshot where cluster_id = $1 order by started_at desc limit 5) as newest
), turns as (
    select earlier.name, later.name as other, earlier.last_said as turned_at
    from cluster_name earlier
    join cluster_name later using (cluster_id)
    cross join recent
    where cluster_id = $1 and earlier.first_said < later.first_said and later.first_said < earlier.last_said
        and earlier.last_said < later.last_said and earlier.last_said >= recent.since
), named as (
    select array_agg(distinct name order by name) as names, max(turned_at) as turned_at
    from (select name, turned_at from turns union select other, turned_at from turns) as both_sides
)
update cluster c set contested_at = case
    when named.names is not null then greatest(c.contested_at, named.turned_at)
    when c.contested_at >= recent.since then c.contested_at
end
from named, recent
where c.id = $1 and (named.names is not null or c.contested_at is not null)
returning c.contested_at is not null as is_contested, named.names;

-- name: lock_cluster_units
select id from unit where cluster_id = $1 order by id for update;

-- name: unverify_units
-- Nothing of these kinds counts as newer than what comes next, and lists that are under way prove nothing.
with progress as (
    delete from list_progress where unit_id = any ($1::bigint[])
), rows as (
    update resource r set live_at = -1, last_observed_at = s.last_observed_at
    from positioned() s where r.unit_id = any ($1) and (s.unit_id, s.namespace, s.name) = (r.unit_id, r.namespace, r.name)
), seen as (
    delete from list_seen where unit_id = any ($1)
)
update unit_floor set
    live_at = -1, state = case when state = 'verified' then 'unverified' else state end,
    state_at = greatest(state_at, $2), last_error = $3
where unit_id = any ($1);
