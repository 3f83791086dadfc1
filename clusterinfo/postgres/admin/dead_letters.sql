-- Dead letters, listed and dropped.

-- name: list_letters
-- The newest first; values stay where they are.
select id, created_at, topic, partition, record_offset, reason, sqlstate, replayed_at, key, headers,
    size_bytes, size_bytes > coalesce(length(value), 0) as is_cut_off, null::bytea as value
from dead_letter
where ($1::text is null or strpos(lower(reason), lower($1)) > 0) and ($2 or replayed_at is null)
order by id desc limit $3;

-- name: count_letters
select count(*) from dead_letter
where ($1::text is null or strpos(lower(reason), lower($1)) > 0) and ($2 or replayed_at is null);

-- name: open_letter
select id, created_at, topic, partition, record_offset, reason, sqlstate, replayed_at, key, headers,
    size_bytes, size_bytes > coalesce(length(value), 0) as is_cut_off, value
from dead_letter where id = $1;

-- name: find_missing_letters
select id from unnest($1::bigint[]) as wanted (id) where not exists (select from dead_letter d where d.id = wanted.id)
order by 1;

-- name: find_waiting_letters
select id from dead_letter where replayed_at is null order by id;

-- name: drop_letters
-- What came by Kafka is remembered, so that it stays dropped when Kafka is read again.
with dropped as (
    delete from dead_letter where ($1::bigint[] is null or id = any ($1)) and (not $2 or replayed_at is not null)
    returning *
), remembered as (
    insert into dropped_letter (topic, partition, record_offset, message_hash)
    select topic, partition, record_offset, message_hash from dropped where topic <> ''
    on conflict do nothing
)
select id from dropped;
