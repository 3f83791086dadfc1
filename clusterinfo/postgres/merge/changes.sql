-- What listeners are told.

-- name: notify
select pg_notify('clusterinfo', $1);
