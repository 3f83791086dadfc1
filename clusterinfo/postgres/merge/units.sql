-- Units: made where they are missing, locked in one order, described; and locked behind them the sessions of a batch.

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
-- The batch's units, locked in id order until commit, none of them if some are missing; then the sessions of one partition
-- ($4 to $6) that it names ($7, $8), in the order of their keys. place: which of them it is. A session of which the number
-- comes first ($9) that is due goes on to the one after those that follow it ($10); returned is what it was before.
with wanted as (
    select * from unnest($1::bigint[], $2::text[], $3::text[])
        with ordinality as t (cluster_id, api_group, resource, place)
), named as (
    select * from unnest($7::text[], $8::uuid[], $9::bigint[], $10::bigint[])
        with ordinality as t (cluster, session, first_number, after_number, place)
), held as materialized (
    select w.place, u.id, u.kind, u.api_version, u.namespaced, u.by_clock,
        exists (select from coverage c where c.unit_id = u.id and c.is_open) as is_followed
    from unit u
    join wanted w using (cluster_id, api_group, resource)
    where cardinality($1) = (select count(*) from unit join wanted using (cluster_id, api_group, resource))
    order by u.id for update of u
), speaking as materialized (
    select n.place, n.first_number, n.after_number, s.*
    from named n
    cross join lateral (  -- one by one: a partition may have many, and no planner knows that few are named
        select * from watch_session w
        where (w.kafka_cluster, w.topic, w.partition, w.cluster, w.session) = ($4, $5, $6, n.cluster, n.session)
        for update) s
    where cardinality($1) = (select count(*) from held)
), advanced as (
    update watch_session s set next_number = t.after_number, is_unverified = false, updated_at = now()
    from speaking t where s.id = t.id and t.next_number = t.first_number
)
select u.place, u.id, u.kind, u.api_version, u.namespaced, u.by_clock, u.is_followed,
    s.place as session_place, s.id as session_id, s.next_number, s.missing, s.heard, s.heard_number, s.behind::text,
    s.ended::text, s.interval_s, s.is_unverified, s.cut_number
from held u full join speaking s on s.place = u.place;

-- name: lock_completed
-- The batch's units and all of the clusters whose completed snapshots are about every one: at once, so that the order of ids
-- is kept over both.
select u.id from unit u
where u.cluster_id = any ($1::bigint[]) or exists (
    select from unnest($2::bigint[], $3::text[], $4::text[]) as wanted (cluster_id, api_group, resource)
    where (u.cluster_id, u.api_group, u.resource) = (wanted.cluster_id, wanted.api_group, wanted.resource))
order by u.id for update of u;

-- name: make_sessions
insert into watch_session (kafka_cluster, topic, partition, cluster, session)
select $1, $2, $3, * from unnest($4::text[], $5::uuid[])
on conflict (kafka_cluster, topic, partition, cluster, session) do nothing;

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
