-- The tables. What one row is stands in the comment on each table; `\d+` shows it too.
-- Names are unqualified: the program sets search_path to the one schema (DB_SCHEMA) before it runs a migration.

create table cluster (
    id bigint generated always as identity primary key,
    uid text not null unique,
    former_uid text unique,
    name text not null,
    label text not null unique,
    server_version text,
    epoch bigint not null default 0,
    first_seen timestamptz not null,
    last_seen timestamptz not null,
    discovered_before timestamptz not null default '-infinity'
);
comment on table cluster is 'A cluster: uid of its kube-system namespace, or its name where that may not be read.';
comment on column cluster.former_uid is 'The name it was known by before its uid could be read: late records still say it.';
comment on column cluster.discovered_before is
    'When the newest snapshot with a complete discovery began: kinds it did not name were gone by then.';
comment on column cluster.label is 'Name shown in the views: name, or name-<first 8 of uid> for a second cluster of that name.';

create table unit (
    id bigint generated always as identity primary key,
    cluster_id bigint not null references cluster on delete cascade,
    api_group text not null,
    resource text not null,
    kind text not null default '',
    api_version text not null default '',
    namespaced boolean,
    live_at_source text check (live_at_source in ('version', 'clock')),
    state text not null default 'unverified'
        check (state in ('verified', 'unverified', 'failed', 'forbidden', 'excluded', 'gone')),
    state_at timestamptz not null default '-infinity',
    last_error text,
    objects bigint,
    last_verified timestamptz,
    gone_before timestamptz not null default '-infinity',
    unique (cluster_id, api_group, resource)
);
comment on table unit is 'A kind in a cluster.';
comment on column unit.live_at_source is
    'What live_at counts: the server''s list versions, or microseconds where they are no integers or stand still. '
    'Changes from version to clock only.';
comment on column unit.state_at is 'When what `state` says was observed: an older statement never overwrites it.';

comment on column unit.gone_before is 'The kind was not served at that time: what was observed before is no longer there.';

create table unit_floor (
    unit_id bigint not null references unit on delete cascade,
    reach text not null,
    epoch bigint not null default 0,
    live_at bigint not null default -1,
    digest numeric(39),
    proven_at timestamptz,
    state text not null default 'unverified' check (state in ('verified', 'unverified', 'failed', 'forbidden')),
    state_at timestamptz not null default '-infinity',
    last_error text,
    objects bigint,
    verified_at timestamptz,
    primary key (unit_id, reach)
);
comment on table unit_floor is
    'Up to which (epoch, live_at) a kind is proven within one reach (a namespace; empty: all): what was absent then is deleted.';

create table snapshot (
    id uuid primary key,
    cluster_id bigint not null references cluster on delete cascade,
    started_at timestamptz not null,
    completed_at timestamptz,
    discovery_complete boolean,
    units_verified integer not null default 0,
    units_failed integer not null default 0,
    objects bigint not null default 0
);
comment on table snapshot is 'A run of lists over one cluster.';
create index snapshot_cluster_started on snapshot (cluster_id, started_at desc);

create table resource (
    unit_id bigint not null references unit on delete cascade,
    namespace text not null,
    name text not null,
    uid text not null,
    resource_version text not null,
    epoch bigint not null,
    live_at bigint not null,
    deleted boolean not null default false,
    fidelity smallint not null,
    normalization smallint not null,
    content_hash bytea not null,
    created boolean not null,
    valid_from timestamptz not null,
    first_observed_at timestamptz not null,
    last_observed_at timestamptz not null,
    body jsonb,
    original bytea,
    primary key (unit_id, namespace, name)
) with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05);
comment on table resource is 'A live object, or the tombstone of a deleted one.';
comment on column resource.live_at is 'As of when the object was seen; ordered within a unit together with epoch.';
comment on column resource.fidelity is '0 identity only, body set aside; 1 stub; 2 sanitised, original beside it; 3 whole.';
comment on column resource.created is 'This version began the object''s life (no predecessor, or one of another uid).';
comment on column resource.valid_from is 'When this content was first observed.';
comment on column resource.original is 'The bytes as they came, where jsonb could not hold them as they are.';
create index resource_uid on resource (uid);
create index resource_valid_from on resource (valid_from);

create table resource_history (
    unit_id bigint not null,
    namespace text not null,
    name text not null,
    uid text not null,
    resource_version text not null,
    epoch bigint not null,
    live_at bigint not null,
    fidelity smallint not null,
    normalization smallint not null,
    content_hash bytea not null,
    created boolean not null,
    deleted boolean not null,
    valid_from timestamptz not null,
    valid_to timestamptz not null,
    first_observed_at timestamptz not null,
    body jsonb,
    original bytea,
    check (valid_from <= valid_to)
) partition by range (valid_to);
comment on table resource_history is 'A superseded or deleted version of an object, from valid_from to before valid_to.';
comment on column resource_history.deleted is 'The version ended with the deletion of the object.';
create index resource_history_key on resource_history (unit_id, namespace, name, valid_to);
create index resource_history_from on resource_history (valid_from);
create index resource_history_deleted on resource_history (valid_to) where deleted;
create table resource_history_default partition of resource_history default;

create table kafka_offset (
    kafka_cluster text not null,
    topic text not null,
    partition integer not null,
    group_id text not null,
    generation bigint not null,
    next_offset bigint,
    primary key (kafka_cluster, topic, partition)
);
comment on table kafka_offset is 'Up to where a partition is stored; moves in the same transaction as the rows.';
comment on column kafka_offset.generation is 'Counts the claims of the partition: only the newest owner may write.';

create table dead_letter (
    id bigint generated always as identity primary key,
    topic text not null,
    partition integer not null,
    record_offset bigint not null,
    reason text not null,
    sqlstate text,
    headers jsonb not null,
    value bytea,
    created_at timestamptz not null default now(),
    replayed_at timestamptz
);
comment on table dead_letter is 'A record that could not be stored; value holds at most its first MiB.';
create index dead_letter_created on dead_letter (created_at);

create table list_progress (
    list uuid primary key,
    unit_id bigint not null references unit on delete cascade,
    reach text not null,
    snapshot uuid,
    epoch bigint not null,
    live_at bigint not null,
    pages integer not null default 0,
    count bigint not null default 0,
    digest numeric(39) not null default 0,
    expected_count bigint,
    expected_digest numeric(39),
    completed_at timestamptz,
    settled boolean not null default false,
    updated_at timestamptz not null default now()
);
comment on table list_progress is 'What has arrived of one list, held against what its completion says.';
create index list_progress_unit on list_progress (unit_id, reach);
create index list_progress_updated on list_progress (updated_at);

create function free_label(cluster_uid text, cluster_name text) returns text
language sql stable parallel safe
begin atomic
    select candidate
    from unnest(array[cluster_name, cluster_name || '-' || left(cluster_uid, 8), cluster_name || '-' || cluster_uid])
        with ordinality as c (candidate, place)
    where not exists (select from cluster where label = candidate and uid <> cluster_uid)
    order by place limit 1;
end;
comment on function free_label is
    'The name a cluster is shown by: its own, or with part of its uid where another cluster has that already.';

-- lz4 halves the time of storing a body; a server built without it keeps its default.
do $$
begin
    alter table resource alter column body set compression lz4;
    alter table resource_history alter column body set compression lz4;
exception when feature_not_supported then
    raise notice 'this server has no lz4: bodies use its default compression';
end
$$;
