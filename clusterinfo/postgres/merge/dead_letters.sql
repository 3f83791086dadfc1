-- Messages that could not be stored.

-- name: add_dead_letters
insert into dead_letter (topic, partition, record_offset, reason, sqlstate, key, headers, value, size_bytes)
select * from unnest($1::text[], $2::integer[], $3::bigint[], $4::text[], $5::text[], $6::bytea[], $7::jsonb[],
    $8::bytea[], $9::bigint[]);
