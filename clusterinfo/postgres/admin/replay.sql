-- A dead letter, stored after all. What tells a version: $1 to $5 its cluster, kind, namespace and name, $6 to $9 its epoch,
-- resourceVersion, normalization and content hash.

-- name: lock_letter
-- One replay of a letter at a time.
select id from dead_letter where id = $1 for update;

-- name: mark_replayed
update dead_letter set replayed_at = now() where id = $1;

-- name: expect_body
-- The row whose body was refused before, if it still is that version: for the merge that follows, any body is better. Its unit
-- is locked first, as the merge locks it.
with locked as (
    select u.id from unit u join cluster c on c.id = u.cluster_id
    where c.uid = $1 and u.api_group = $2 and u.resource = $3
    for update of u
)
update resource r set fidelity = -1 from locked
where r.unit_id = locked.id and r.namespace = $4 and r.name = $5 and r.fidelity = 0 and not r.deleted
    and r.epoch = $6 and r.resource_version = $7 and r.normalization = $8 and r.content_hash = $9;

-- name: give_history_its_body
-- Versions that were superseded meanwhile and lack their body ($10 to $12: fidelity, body, original).
update resource_history h set fidelity = $10, body = $11, original = $12
from unit u join cluster c on c.id = u.cluster_id
where c.uid = $1 and u.api_group = $2 and u.resource = $3 and h.unit_id = u.id and h.namespace = $4 and h.name = $5
    and h.fidelity = 0 and h.epoch = $6 and h.resource_version = $7 and h.normalization = $8 and h.content_hash = $9;
