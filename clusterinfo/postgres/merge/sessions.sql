-- Sessions: the numbers that came, by partition; see numbers.py for what they mean. `lock_units` locks them.

-- name: save_sessions
update watch_session s set
    next_number = t.next_number, missing = t.missing::int8multirange, heard = t.heard, heard_number = t.heard_number,
    behind = t.behind::jsonb, ended = t.ended::jsonb, interval_s = t.interval_s, is_unverified = t.is_unverified,
    cut_number = t.cut_number, updated_at = now()
from unnest($1::bigint[], $2::bigint[], $3::text[], $4::timestamptz[], $5::bigint[], $6::text[], $7::text[], $8::float8[],
    $9::boolean[], $10::bigint[])
    as t (id, next_number, missing, heard, heard_number, behind, ended, interval_s, is_unverified, cut_number)
where s.id = t.id;
