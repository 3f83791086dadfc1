-- What looking after the database needs: dead letters that can be replayed, clusters and kinds that stay forgotten, lists
-- that a snapshot counts once. A release before this one goes on writing: it leaves the new columns alone.

alter table dead_letter add column key bytea, add column size_bytes bigint;
comment on column dead_letter.headers is
    'The message''s headers, name to value; what is no text as {"base64": ...}, what is there several times as an array.';
comment on column dead_letter.key is 'The message''s key: [cluster, group, resource, namespace, name] as JSON.';
comment on column dead_letter.size_bytes is 'Of the whole value; NULL where an earlier release set the record aside.';

create table forgotten (
    cluster text not null,
    api_group text not null,
    resource text not null,
    forgotten_at timestamptz not null,
    primary key (cluster, api_group, resource)
);
comment on table forgotten is
    'A cluster (resource empty) or a kind of it whose rows were deleted on request: what lists begun before then say is ignored.';

alter table unit_floor add column counted uuid[] not null default '{}';
comment on column unit_floor.counted is
    'The newest lists that their snapshots have counted, newest first: a replayed list is not counted again.';

-- What is verified has as many rows as its list proved. Of any other kind they are counted, each once: where namespaces are
-- listed by themselves, the row of all of them has the rest. Columns as before.
create or replace view freshness as
select
    s.cluster, s.api_group, s.resource, s.kind, s.reach, s.objects, s.state, s.verified_at,
    extract(epoch from now() - s.verified_at)::double precision as age_s,
    s.last_error
from (
    select
        c.label as cluster, u.api_group, u.resource, u.kind,
        coalesce(f.reach, '') as reach,
        case
            when coalesce(f.state, u.state) = 'verified' then coalesce(f.objects, u.objects)
            else (
                select count(*) from resource r
                where r.unit_id = u.id and not r.deleted and coalesce(f.reach, '') in ('', r.namespace) and not exists (
                    select from unit_floor o
                    where f.reach = '' and o.unit_id = u.id and o.reach <> '' and o.reach = r.namespace))
        end as objects,
        case when f.unit_id is null then u.state else f.state end as state,
        case when f.unit_id is null then u.last_verified else f.verified_at end as verified_at,
        case when f.unit_id is null then u.last_error else f.last_error end as last_error
    from unit u
    join cluster c on c.id = u.cluster_id
    left join unit_floor f on f.unit_id = u.id and u.state not in ('gone', 'excluded')
) as s;
