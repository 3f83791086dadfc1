-- Messages that could not be stored: kept, the newest of them.

-- name: add_dead_letters
insert into dead_letter (topic, partition, record_offset, reason, sqlstate, key, headers, value, size_bytes)
select * from unnest($1::text[], $2::integer[], $3::bigint[], $4::text[], $5::text[], $6::bytea[], $7::jsonb[],
    $8::bytea[], $9::bigint[]);

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
