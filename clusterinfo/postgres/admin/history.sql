-- The history's partitions, and bookkeeping that expires.

-- name: list_history_partitions
select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'resource_history'::regclass order by 1;

-- name: is_month_in_default
-- Whether the default partition holds rows of a month: its own partition cannot be made then.
select exists (select from resource_history_default where valid_to >= $1 and valid_to < $2);

-- name: make_history_partition
select make_history_month($1);

-- name: drop_history_partition
select drop_history_month($1);

-- name: delete_expired_history
delete from resource_history_default where valid_to < $1;

-- name: drop_stale_progress
-- Lists of which nothing came for a day: their collector has ended.
delete from list_progress where updated_at < now() - interval '1 day' and not settled;

-- name: drop_expired_coverage
delete from coverage where ends_at < $1;

-- name: drop_silent_sessions
-- What sessions follow of which nothing came for a day is over. Those that leave no interval go with it.
with over as (
    select f.id, f.begins_at, f.heard from followed() f join watch_session s on s.id = f.session_id
    where s.updated_at < now() - interval '1 day'
), dropped as (
    delete from coverage c using over o where c.id = o.id and (o.heard >= o.begins_at) is not true
)
update coverage c set is_open = false, ends_at = o.heard from over o where c.id = o.id and o.heard >= o.begins_at;

-- name: drop_ended_sessions
delete from watch_session s
where s.updated_at < now() - interval '1 day' and not exists (select from coverage c where c.session_id = s.id);

-- name: forget_dropped_letters
-- Kafka holds none of them any more, unless its retention is longer than ours.
delete from dropped_letter where dropped_at < $1;

-- name: drop_list_positions
-- Of lists that were written without Kafka and begun a day ago or more; a list's id begins with its time.
delete from kafka_offset
where kafka_cluster = '' and list_began_at(topic::uuid, now()) < now() - interval '1 day';
