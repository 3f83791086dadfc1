-- Which row is which cluster: a name that gains its uid, and clusters that share a uid or a name.

-- name: find_clusters
select id, uid, former_uid, first_seen, last_seen from cluster
where uid = any ($1::text[]) or former_uid = any ($1::text[]);

-- name: adopt_cluster
-- A cluster known by its name alone gains its uid and keeps its rows.
update cluster set uid = $1, former_uid = $2
where uid = $2 and name = $2 and not exists (select from cluster where uid = $1);

-- name: recall_cluster
-- A late record of the time before the uid was known: the cluster of that name, or the one that had it, if there is one
-- only and it was seen later only.
with named as (
    select id from cluster where name = $1 and uid <> $1
    union
    select cluster_id from cluster_name n join cluster c on c.id = n.cluster_id where n.name = $1 and c.uid <> $1
)
update cluster set former_uid = $1
where id = (select min(id) from named having count(*) = 1) and former_uid is null and first_seen > $2;

-- name: join_units
-- Kinds of cluster $2 that $1 lacks become its own.
update unit n set cluster_id = $1
where n.cluster_id = $2 and not exists (
    select from unit u where u.cluster_id = $1 and (u.api_group, u.resource) = (n.api_group, n.resource));

-- name: join_rows
-- Of the other kinds, objects that $1 knows nothing of and has not proven absent, with their history. Where $1 knows the
-- object, what is late is left out, as a late record is.
with late as (
    select r.unit_id as former_id, u.id as unit_id, r.namespace, r.name
    from unit n
    join unit u on u.cluster_id = $1 and (u.api_group, u.resource) = (n.api_group, n.resource)
        and u.live_at_source is not distinct from n.live_at_source
    join resource r on r.unit_id = n.id
    where n.cluster_id = $2 and r.last_observed_at >= u.gone_before
        and not exists (
            select from resource k where k.unit_id = u.id and (k.namespace, k.name) = (r.namespace, r.name))
        and not exists (
            select from resource_history k where k.unit_id = u.id and (k.namespace, k.name) = (r.namespace, r.name))
        and not exists (
            select from unit_floor f
            where f.unit_id = u.id and f.reach in ('', r.namespace) and (f.epoch, f.live_at) >= (r.epoch, r.live_at))
), past as (
    update resource_history h set unit_id = l.unit_id from late l
    where (h.unit_id, h.namespace, h.name) = (l.former_id, l.namespace, l.name)
)
update resource r set unit_id = l.unit_id from late l
where (r.unit_id, r.namespace, r.name) = (l.former_id, l.namespace, l.name);

-- name: drop_former_history
delete from resource_history where unit_id in (select id from unit where cluster_id = $1);

-- name: join_snapshots
update snapshot set cluster_id = $1 where cluster_id = $2;

-- name: join_cluster
-- What else is known of cluster $2 is known of $1; then $2 is no more.
with joined as (
    update cluster c set
        first_seen = least(c.first_seen, f.first_seen), epoch = greatest(c.epoch, f.epoch),
        discovered_before = greatest(c.discovered_before, f.discovered_before)
    from cluster f where c.id = $1 and f.id = $2
)
delete from cluster where id = $2;

-- name: become_former
update cluster set former_uid = $2, label = free_label(uid, name) where id = $1;

-- name: find_clones
-- Of these clusters, those whose uid others have too.
select uid, clones from cluster where uid = any ($1::text[]) and clones <> '{}';

-- name: find_identities
-- Which rows these identities have, and who has the same, now that the units are locked.
select i.identity, c.id, case when c.uid = i.identity then c.clones else '{}' end as clones
from unnest($1::text[]) as i (identity)
join cluster c on c.uid = i.identity or c.former_uid = i.identity and not exists (
    select from cluster o where o.uid = i.identity);

-- name: record_name
insert into cluster_name as n (cluster_id, name, first_said, last_said) values ($1, $2, $3, $3)
on conflict (cluster_id, name) do update set
    first_said = least(n.first_said, excluded.first_said), last_said = greatest(n.last_said, excluded.last_said);

-- name: find_crossing_names
-- Names that alternate with one that was seen first: whichever order the statements come in, the same names.
select array_agg(distinct later.name order by later.name)
from cluster_name earlier
join cluster_name later using (cluster_id)
where cluster_id = $1 and earlier.first_said < later.first_said
    and later.first_said < earlier.last_said and earlier.last_said < later.last_said;

-- name: record_identity
insert into cluster_identity as n (cluster_id, identity, first_said, last_said) values ($1, $2, $3, $3)
on conflict (cluster_id, identity) do update set
    first_said = least(n.first_said, excluded.first_said), last_said = greatest(n.last_said, excluded.last_said);

-- name: separate_namesakes
-- A name and a uid that alternate are two clusters: the row stays with the uid.
update cluster set former_uid = null
where id = (
    select c.id
    from cluster c
    join cluster_identity f on f.cluster_id = c.id and f.identity = c.former_uid
    join cluster_identity u on u.cluster_id = c.id and u.identity = c.uid
    where c.id = $1 and (
        f.first_said < u.first_said and u.first_said < f.last_said and f.last_said < u.last_said
        or u.first_said < f.first_said and f.first_said < u.last_said and u.last_said < f.last_said)
    for update of c)
returning uid, label;

-- name: split_cluster
-- The clusters named $2 are others with the same uid, beside those that were separated before: the row stays with the name
-- that was seen last beside theirs. Locked for update: a batch that makes a kind for it meanwhile waits, and then sees it.
update cluster c set clones = separated.names, name = n.name, label = free_label(c.uid, n.name)
from (
    select array(select unnest(clones) union select unnest($2::text[]) order by 1) as names
    from cluster where id = $1 and not clones @> $2::text[] for update
) separated
cross join lateral (
    select name from cluster_name where cluster_id = $1 and name <> all (separated.names) order by last_said desc limit 1
) n
where c.id = $1
returning c.label;

-- name: lock_cluster_units
-- Every unit of a cluster, to which two have written.
select id from unit where cluster_id = any ($1::bigint[]) order by id for update;

-- name: unverify_cluster_rows
-- Two clusters' rows are mixed: none counts as newer than what comes next.
update resource r set live_at = -1 from unit u where u.cluster_id = $1 and r.unit_id = u.id;

-- name: unverify_cluster_floors
update unit_floor f set
    live_at = -1, digest = null, state = case when f.state = 'verified' then 'unverified' else f.state end,
    state_at = greatest(f.state_at, $2), last_error = $3
from unit u where u.cluster_id = $1 and f.unit_id = u.id;

-- name: unverify_cluster_units
update unit set state = 'unverified', state_at = greatest(state_at, $2), last_error = $3
where cluster_id = $1 and state = 'verified';
