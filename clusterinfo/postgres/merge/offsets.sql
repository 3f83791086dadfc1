-- Where a lane goes on: a partition's next offset, the pages of a list. What moves it is `admit`, in admission.sql.

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
