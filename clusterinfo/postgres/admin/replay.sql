-- A dead letter, stored after all.

-- name: lock_letter
-- One replay of a letter at a time.
select id from dead_letter where id = $1 for update;

-- name: mark_replayed
update dead_letter set replayed_at = now() where id = $1;

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
