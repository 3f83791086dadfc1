-- The lock that holds batches off. What begins each of them is `admit`, in offsets.sql.

-- name: lock_forgotten
-- From here on no batch is under way: each begins with `admit`.
lock table forgotten in access exclusive mode;
