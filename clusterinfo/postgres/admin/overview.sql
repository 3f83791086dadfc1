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
-- And how long ago each was last known to be followed, if it was within a day: by watches that are open, or have ended.
select f.cluster, f.api_group, f.resource, f.reach, f.state, f.objects, f.verified_at, f.age_s, f.last_error, f.following,
    extract(epoch from now() - w.until)::double precision as followed_s
from freshness f
join cluster c on c.label = f.cluster
join unit u on (u.cluster_id, u.api_group, u.resource) = (c.id, f.api_group, f.resource)
left join (
    select unit_id, reach, max(until) as until
    from (
        select o.unit_id, o.reach, o.heard as until
        from followed() o join watch_session s on s.id = o.session_id where not s.is_unverified
        union all
        select unit_id, reach, ends_at from coverage where ends_at > now() - interval '1 day'
    ) as e
    group by unit_id, reach
) as w on (w.unit_id, w.reach) = (u.id, f.reach)
order by f.cluster, f.resource, f.api_group, f.reach;

-- name: overview_offsets
select kafka_cluster, topic, partition, group_id, coalesce(next_offset, 0) as next_offset, moved_at, observed_at, rate
from kafka_offset
where kafka_cluster <> '' order by topic, partition;

-- name: overview_dead_letters
select count(*) from dead_letter where replayed_at is null;
