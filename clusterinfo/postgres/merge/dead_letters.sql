-- Messages that could not be stored: kept, the newest of them.

-- name: add_dead_letters
-- Those that are new. What is read again, after `offsets reset`, is there already, or was dropped; another message at its
-- place, of a topic that was recreated, is another letter.
insert into dead_letter (topic, partition, record_offset, reason, sqlstate, key, headers, value, size_bytes, message_hash)
select topic, partition, record_offset, reason, sqlstate, key, headers, value, size_bytes, message_hash
from unnest($1::text[], $2::integer[], $3::bigint[], $4::text[], $5::text[], $6::bytea[], $7::jsonb[], $8::bytea[],
    $9::bigint[], $10::bytea[]) with ordinality
    as letter (topic, partition, record_offset, reason, sqlstate, key, headers, value, size_bytes, message_hash, place)
where not exists (
    select from dropped_letter d
    where d.topic = letter.topic and d.partition = letter.partition and d.record_offset = letter.record_offset
        and d.message_hash = letter.message_hash)
order by place
on conflict do nothing
returning record_offset;

-- name: drop_oldest_letters
-- The oldest letters beyond the newest $1, and beyond the newest that take $2 bytes as they are stored; at most $3 of them
-- at once, and none that is being replayed.
with counted as (
    select id, row_number() over newest as place, sum(
            128 + pg_column_size(reason) + coalesce(pg_column_size(key), 0) + pg_column_size(headers)
            + pg_column_size(value)) over newest as size_bytes
    from dead_letter window newest as (order by id desc)
), oldest as (
    select id from dead_letter
    where id <= (select max(id) from counted where place > $1 or size_bytes > $2)
    order by id limit $3
    for update skip locked
)
delete from dead_letter d using oldest o where d.id = o.id returning d.id;
