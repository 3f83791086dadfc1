-- What was, what changed, and since when either can be told. The functions only read; the planner puts them in line, so a
-- condition on cluster, namespace or name reaches the tables' indexes.

create function known_since(cluster text) returns setof timestamptz
    stable parallel safe
begin atomic
    select (
        select greatest(s.completed_at, (
            select min(to_date(right(p.relname, 7), 'YYYY_MM')::timestamp at time zone 'UTC')
            from pg_inherits i
            join pg_class p on p.oid = i.inhrelid
            where i.inhparent = 'resource_history'::regclass and i.inhrelid <> 'resource_history_default'::regclass))
        from snapshot s
        where s.cluster_id = (select c.id from cluster c where c.label = known_since.cluster)
            and s.completed_at is not null
        order by s.started_at
        limit 1)
    having true;  -- one row, and no part of the query around it: asked once for each cluster, not for each object
end;
comment on function known_since is
    'Since when the past of a cluster is known: its first run of lists had ended, and no history from then on has been dropped '
    '(HISTORY_RETENTION). NULL: not yet. A kind that could not be listed by then is known only since it could.';

create function resources_as_of(at timestamptz) returns table (
    cluster text, api_group text, api_version text, resource text, kind text, namespace text, name text, uid text,
    resource_version text, created_at timestamptz, first_observed_at timestamptz, changed_by text,
    changed_at timestamptz, state text, labels jsonb,
    annotations jsonb, owner_kind text, owner_name text, owner_uid text, object jsonb, known_since timestamptz)
    stable parallel safe
begin atomic
    select
        v.label, v.api_group, coalesce(b.object ->> 'apiVersion', v.api_version), v.resource, v.kind,
        v.namespace, v.name, v.uid, v.resource_version,
        moment(b.object #>> '{metadata,creationTimestamp}'),
        v.first_observed_at, v.manager, v.managed_at,
        case v.fidelity when 3 then 'whole' when 2 then 'sanitised' when 1 then 'oversize' else 'identity' end,
        case when v.fidelity >= 2 then as_map(b.object #> '{metadata,labels}') end,
        case when v.fidelity >= 2 then as_map(b.object #> '{metadata,annotations}') end,
        owner_of(b.object, 'kind'),
        owner_of(b.object, 'name'),
        owner_of(b.object, 'uid'),
        b.object,
        v.known_since
    from (
        select c.label, u.api_group, u.api_version, u.resource, u.kind, r.namespace, r.name, r.uid, r.resource_version,
            r.first_observed_at, r.manager, r.managed_at, r.fidelity, r.body, k.known_since
        from resource r
        join unit u on u.id = r.unit_id
        join cluster c on c.id = u.cluster_id
        left join lateral known_since(c.label) as k (known_since) on true
        where not r.deleted and r.valid_from <= resources_as_of.at
        union all
        select c.label, u.api_group, u.api_version, u.resource, u.kind, h.namespace, h.name, h.uid, h.resource_version,
            h.first_observed_at, h.manager, h.managed_at, h.fidelity, h.body, k.known_since
        from resource_history h
        join unit u on u.id = h.unit_id
        join cluster c on c.id = u.cluster_id
        left join lateral known_since(c.label) as k (known_since) on true
        where h.valid_from <= resources_as_of.at and h.valid_to > resources_as_of.at
    ) as v
    left join lateral (select case when v.fidelity >= 2 then v.body #> '{}' end as object having true) as b on true;
end;
comment on function resources_as_of is
    'The objects as they were known at a moment. Columns of the view resources but for last_observed_at: history keeps when a '
    'version was first and no longer seen, not every time in between. The api_version is the one it was stored under. Of a '
    'moment before known_since there are too few, or none.';

create function resource_changes(from_time timestamptz, to_time timestamptz) returns table (
    cluster text, api_group text, resource text, namespace text, name text, uid text, change text, at timestamptz,
    resource_version text, changed_by text, operation text, subresource text, changed_at timestamptz, known_since timestamptz)
    stable parallel safe
begin atomic
    select v.label, v.api_group, v.resource, v.namespace, v.name, v.uid, v.change, v.at, v.resource_version,
        v.manager, v.operation, v.subresource, v.managed_at, v.known_since
    from (
        select c.label, u.api_group, u.resource, r.namespace, r.name, r.uid, r.resource_version, r.valid_from as at,
            case when r.created then 'created' else 'updated' end as change,
            r.manager, r.operation, r.subresource, r.managed_at, k.known_since
        from resource r
        join unit u on u.id = r.unit_id
        join cluster c on c.id = u.cluster_id
        left join lateral known_since(c.label) as k (known_since) on true
        where not r.deleted and r.valid_from >= from_time and r.valid_from < to_time
        union all
        select c.label, u.api_group, u.resource, h.namespace, h.name, h.uid, h.resource_version, h.valid_from,
            case when h.created then 'created' else 'updated' end,
            h.manager, h.operation, h.subresource, h.managed_at, k.known_since
        from resource_history h
        join unit u on u.id = h.unit_id
        join cluster c on c.id = u.cluster_id
        left join lateral known_since(c.label) as k (known_since) on true
        where h.valid_from >= from_time and h.valid_from < to_time
        union all
        select c.label, u.api_group, u.resource, h.namespace, h.name, h.uid, h.resource_version, h.valid_to, 'deleted',
            null, null, null, null, k.known_since
        from resource_history h
        join unit u on u.id = h.unit_id
        join cluster c on c.id = u.cluster_id
        left join lateral known_since(c.label) as k (known_since) on true
        where h.deleted and h.valid_to >= from_time and h.valid_to < to_time
    ) as v;
end;
comment on function resource_changes is
    'What was created, updated or deleted from from_time to before to_time, as observed: what the first lists found counts as '
    'created, and WHERE at > known_since leaves it out. In no order: add ORDER BY at. Who: the field manager that wrote the '
    'version, its operation, the subresource it wrote by, and when. A deletion bears the last version seen, and does not say who.';

create function not_observed(from_time timestamptz, to_time timestamptz) returns table (
    cluster text, api_group text, resource text, reach text, begins_at timestamptz, ends_at timestamptz)
    stable parallel safe
begin atomic
    select c.label, u.api_group, u.resource, coalesce(f.reach, ''), lower(g.gap), upper(g.gap)
    from unit u
    join cluster c on c.id = u.cluster_id
    left join unit_floor f on f.unit_id = u.id
    cross join lateral (
        select coalesce(range_agg(tstzrange(v.begins_at, v.ends_at)), '{}') as intervals
        from (
            select o.begins_at,
                coalesce(o.ends_at, heard_until(t, o.from_number, u.api_group, u.resource, o.reach)) as ends_at
            from coverage o join watch_session t on t.id = o.session_id
            where o.unit_id = u.id and o.reach in ('', coalesce(f.reach, '')) and o.begins_at is not null
        ) as v
        where v.ends_at >= v.begins_at
    ) as covered
    cross join lateral unnest(
        tstzmultirange(tstzrange(least(from_time, to_time), to_time)) - covered.intervals) as g (gap);
end;
comment on function not_observed is
    'The intervals of a range of time in which a kind was not followed, so that changes may have been missed: nobody looked, or '
    'lists alone did. One row for each interval, kind and reach (a namespace; empty: all).';
