-- Which units a partition carries, and what its lost messages leave unverified.

-- name: carry_units
-- Kinds whose records came by this partition.
insert into unit_partition (unit_id, kafka_cluster, topic, partition)
select unit_id, $2, $3, $4 from unnest($1::bigint[]) as t (unit_id) order by 1
on conflict do nothing;

-- name: lock_carried_units
select u.id from unit u
join unit_partition p on p.unit_id = u.id and p.kafka_cluster = $1 and p.topic = $2 and p.partition = $3
order by u.id for update of u;

-- name: unverify_carried_units
-- Messages of this partition are lost: what it carries is unverified from $4 on. Statements that are newer stand, and so
-- does a cluster that belongs to another topic by now.
with carried as (
    select unit_id from unit_partition p join unit u on u.id = p.unit_id join cluster c on c.id = u.cluster_id
    where p.kafka_cluster = $1 and p.topic = $2 and p.partition = $3 and c.topic = $2
)
update unit_floor f set state = 'unverified', state_at = $4, last_error = $5
from carried c where f.unit_id = c.unit_id and f.state = 'verified' and f.state_at <= $4;

-- name: mark_sessions_unverified
-- Messages of this partition are lost: whether any of a session were the next number shows.
update watch_session set is_unverified = true where (kafka_cluster, topic, partition) = ($1, $2, $3);
