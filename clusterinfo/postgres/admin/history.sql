-- Bookkeeping that ages.

-- name: drop_stale_progress
-- Lists of which nothing came for a day: their collector is gone.
delete from list_progress where updated_at < now() - interval '1 day' and not settled;
