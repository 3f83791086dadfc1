-- Looking after the database: dead letters, and clusters or kinds that are to be forgotten. `-- name:` begins a statement,
-- as in `merge.sql`.

-- name: list_letters
-- The newest first; values stay where they are.
select id, created_at, topic, partition, record_offset, reason, sqlstate, replayed_at, key, headers,
    coalesce(size_bytes, length(value), 0) as size_bytes,
    coalesce(size_bytes > length(value), length(value) >= 1048576, false) as is_cut_off, null::bytea as value
from dead_letter
where ($1::text is null or strpos(lower(reason), lower($1)) > 0) and ($2 or replayed_at is null)
order by id desc limit $3;

-- name: count_letters
select count(*) from dead_letter
where ($1::text is null or strpos(lower(reason), lower($1)) > 0) and ($2 or replayed_at is null);

-- name: open_letter
-- An earlier release kept no size: a value of 1 MiB was cut off then.
select id, created_at, topic, partition, record_offset, reason, sqlstate, replayed_at, key, headers,
    coalesce(size_bytes, length(value), 0) as size_bytes,
    coalesce(size_bytes > length(value), length(value) >= 1048576, false) as is_cut_off, value
from dead_letter where id = $1;

-- name: find_missing_letters
select id from unnest($1::bigint[]) as wanted (id) where not exists (select from dead_letter d where d.id = wanted.id)
order by 1;

-- name: waiting_letters
select id from dead_letter where replayed_at is null order by id;

-- name: lock_letter
-- One replay of a letter at a time.
select id from dead_letter where id = $1 for update;

-- name: mark_replayed
update dead_letter set replayed_at = now() where id = $1;

-- name: drop_letters
delete from dead_letter where ($1::bigint[] is null or id = any ($1)) and (not $2 or replayed_at is not null)
returning id;

-- name: expect_body
-- The row whose body was refused before, if it still is that version: for the merge that follows, any body is better.
update resource set fidelity = -1
where unit_id = $1 and namespace = $2 and name = $3 and fidelity = 0 and not deleted
    and epoch = $4 and resource_version = $5 and normalization = $6 and content_hash = $7;

-- name: give_history_its_body
-- Versions that were superseded meanwhile and lack the body that staged_body holds.
update resource_history
set body = b.body, original = b.original, fidelity = case when b.original is null then $8 else least($8, 2) end
from staged_body b
where unit_id = $1 and namespace = $2 and name = $3 and fidelity = 0
    and epoch = $4 and resource_version = $5 and normalization = $6 and content_hash = $7;

-- name: lacks_body_in_history
select exists (
    select from resource_history
    where unit_id = $1 and namespace = $2 and name = $3 and fidelity = 0
        and epoch = $4 and resource_version = $5 and normalization = $6 and content_hash = $7);
