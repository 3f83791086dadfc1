-- The clusters that are stored: whose they are, what they are called.

-- name: show_clusters
select c.label as cluster, c.uid, c.name, c.topic, c.server_version, c.epoch, c.first_seen, c.last_seen, c.contested_at,
    (select count(*) from unit u join resource r on r.unit_id = u.id where u.cluster_id = c.id and not r.deleted) as objects
from cluster c where c.uid not like 'forgotten %' order by c.label;

-- name: find_clusters_called
-- By what the views show or the uid (exact), or else by a name that clusters may share.
select id, uid, label, topic, label = $1 or uid = $1 as exact from cluster
where $1 in (label, uid, name) and uid not like 'forgotten %'
order by label;

-- name: list_clusters
select label from cluster where uid not like 'forgotten %' order by label;

-- name: move_cluster
-- What another topic's sessions follow of it is over.
with closed as (
    delete from coverage c using unit u where u.id = c.unit_id and u.cluster_id = $1 and c.is_open
), unverified as (
    update unit set unverified_at = now() where cluster_id = $1
)
update cluster set topic = $2 where id = $1;

-- name: find_label
-- Whose a name is that nobody else may be shown by.
select uid from cluster where label = $1;

-- name: relabel_cluster
-- What its collector calls it stays in `name`: only another name said by it takes this one away again.
update cluster set label = $2 where id = $1;

-- name: count_letters_of_topic
select count(*) from dead_letter where topic = $1 and replayed_at is null;
