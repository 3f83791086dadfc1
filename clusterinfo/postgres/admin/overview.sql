-- What `clusterinfo status` reads. Nothing here writes.

-- name: overview_clusters
select c.label as cluster, c.uid, c.server_version, c.last_seen,
    s.started_at as last_run_at, extract(epoch from s.completed_at - s.started_at)::double precision as last_run_s,
    s.objects as last_run_objects, s.discovery_complete as knows_all_kinds, s.interval_s,
    (select coalesce(sum(h.objects), 0)::bigint from snapshot h
     where h.cluster_id = c.id and h.started_at > now() - interval '1 hour') as objects_last_hour
from cluster c
left join lateral (
    select * from snapshot s where s.cluster_id = c.id and s.completed_at is not null order by s.started_at desc limit 1
) s on true
order by c.label;

-- name: overview_kinds
select cluster, api_group, resource, reach, state, objects, verified_at, age_s, last_error
from freshness order by cluster, resource, api_group, reach;

-- name: overview_offsets
select kafka_cluster, topic, partition, group_id, coalesce(next_offset, 0) as next_offset, moved_at, observed_at, rate
from kafka_offset
where kafka_cluster <> '' order by topic, partition;

-- name: overview_dead_letters
select count(*) from dead_letter where replayed_at is null;
