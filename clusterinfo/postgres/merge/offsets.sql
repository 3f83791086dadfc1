-- Where a lane goes on: a partition's next offset, the pages of a list.

-- name: admit
-- Moves a lane's position past the batch, if it stands where the batch begins and is owned by this generation: the one
-- compare-and-set, of partitions and of lists that are written without Kafka ($1 null: a batch that has no position).
-- is_new is null if it does not stand there, true if there was no position at all. Reads what decides which records are
-- admitted, too. Reading `forgotten` locks it until the batch commits: forgetting waits for that.
with moved as (
    insert into kafka_offset as o (
        kafka_cluster, topic, partition, group_id, generation, next_offset, moved_at, observed_at, rate)
    select $1::text, $2::text, $3::integer, '', $4::bigint, $6::bigint, now(), $8::timestamptz, $9::double precision
    where $1 is not null
    on conflict (kafka_cluster, topic, partition) do update set
        next_offset = excluded.next_offset, moved_at = excluded.moved_at, observed_at = excluded.observed_at,
        rate = excluded.rate
    where o.generation = excluded.generation and coalesce(o.next_offset, $5::bigint) = $5
    returning xmax = 0 as is_new
)
select clock_timestamp() as now, (select is_new from moved) as is_new,
    array(
        select row (f.cluster, f.api_group, f.resource, f.forgotten_at) from forgotten f where f.cluster = any ($7::text[])
    ) as forgotten,
    array(
        select row (c.uid, c.id, c.contested_at is not null, c.epoch, c.topic) from cluster c where c.uid = any ($7)
    ) as clusters;

-- name: read_offset
-- Whose a position is and where it stands.
select generation, next_offset from kafka_offset where kafka_cluster = $1 and topic = $2 and partition = $3;

-- name: claim_partition
-- A new owner: one generation more than the last; the first is a time in microseconds, so that an owner from before the
-- offsets were reset never finds its own number again. No row: another consumer group has this database.
insert into kafka_offset as o (kafka_cluster, topic, partition, group_id, generation)
select $1, $2, $3, $4, (extract(epoch from clock_timestamp()) * 1000000)::bigint
where not exists (select from kafka_offset where group_id <> $4 and kafka_cluster <> '')
on conflict (kafka_cluster, topic, partition) do update set generation = o.generation + 1 where o.group_id = $4
returning generation, next_offset;

-- name: find_other_group
select group_id, topic from kafka_offset where group_id <> $1 and kafka_cluster <> '' order by topic limit 1;

-- name: stored_topics
select distinct topic from kafka_offset where kafka_cluster <> '' order by topic;

-- name: forget_offsets
-- An owner finds its claim lost, claims again, and begins at the beginning; the merge makes that harmless.
delete from kafka_offset where topic = $1 and kafka_cluster <> '' returning partition;
