-- What was forgotten, and the lock that holds batches off.

-- name: read_forgotten
-- What was forgotten of these clusters. Reading locks the table until the batch commits: forgetting waits for that.
select cluster, api_group, resource, forgotten_at from forgotten where cluster = any ($1::text[]);

-- name: lock_forgotten
-- From here on no batch is under way: each begins with `read_forgotten`.
lock table forgotten in access exclusive mode;
