-- The first statement of a batch, and the lock that holds batches off.

-- name: admit
-- Moves a lane's position past the batch, if it stands where the batch begins and is owned by this generation: the one
-- compare-and-set, of partitions and of lists that are written without Kafka ($1 null: a batch that has no position).
-- is_new is null if it does not stand there, true if there was no position at all. Reads what decides which records are
-- admitted, too. Reading `forgotten` locks it until the batch commits: forgetting waits for that.
with moved as (
    insert into kafka_offset as o (kafka_cluster, topic, partition, group_id, generation, next_offset)
    select $1::text, $2::text, $3::integer, '', $4::bigint, $6::bigint where $1 is not null
    on conflict (kafka_cluster, topic, partition) do update set next_offset = excluded.next_offset
    where o.generation = excluded.generation and coalesce(o.next_offset, $5::bigint) = $5
    returning xmax = 0 as is_new
)
select clock_timestamp() as now, (select is_new from moved) as is_new,
    array(
        select row (f.cluster, f.api_group, f.resource, f.forgotten_at) from forgotten f where f.cluster = any ($7::text[])
    ) as forgotten,
    array(select row (c.uid, c.id, c.contested_at is not null) from cluster c where c.uid = any ($7)) as clusters;

-- name: lock_forgotten
-- From here on no batch is under way: each begins with `admit`.
lock table forgotten in access exclusive mode;
