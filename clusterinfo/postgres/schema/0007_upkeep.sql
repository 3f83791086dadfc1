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
