-- The tables. What one row is stands in the comment on each table, what a column holds in the comment on it; `\d+` shows both.
-- Names are unqualified: the program sets search_path to the one schema (DB_SCHEMA) before it runs a migration.

create table cluster (
    id bigint generated always as identity primary key,
    uid text not null unique,
    name text not null,
    label text not null unique,
    topic text not null default '',
    server_version text,
    epoch bigint not null default 0,
    first_seen timestamptz not null,
    last_seen timestamptz not null,
    discovered_before timestamptz not null default '-infinity',
    contested_at timestamptz
);
comment on table cluster is 'A Kubernetes cluster.';
comment on column cluster.id is 'Key within this database.';
comment on column cluster.uid is 'Identity of the cluster: CLUSTER_ID, or else the uid of its kube-system namespace.';
comment on column cluster.name is 'What its collector calls it, as of the newest snapshot.';
comment on column cluster.label is 'Name shown in the views: name, or name-<first 8 of uid> for a second cluster of that name.';
comment on column cluster.topic is
    'The Kafka topic that it belongs to, the first that spoke of it: what others say of it is a dead letter. Empty: none spoke yet.';
comment on column cluster.server_version is 'Kubernetes version, as of the newest snapshot.';
comment on column cluster.epoch is 'Highest CLUSTER_EPOCH that a snapshot had.';
comment on column cluster.first_seen is 'When the oldest snapshot stored was observed.';
comment on column cluster.last_seen is 'When the newest snapshot stored was observed.';
comment on column cluster.discovered_before is
    'When the newest snapshot with a complete discovery began: kinds it did not name were gone by then.';
comment on column cluster.contested_at is
    'When names last alternated under this identity (a copied etcd): nothing of it is verified until that ends.';

create table cluster_name (
    cluster_id bigint not null references cluster on delete cascade,
    name text not null,
    first_said timestamptz not null,
    last_said timestamptz not null,
    primary key (cluster_id, name)
);
comment on table cluster_name is 'A name that snapshots gave a cluster.';
comment on column cluster_name.cluster_id is 'The cluster.';
comment on column cluster_name.name is 'CLUSTER_NAME of the collector, or what its kubeconfig calls the cluster.';
comment on column cluster_name.first_said is 'When the oldest snapshot with this name was observed.';
comment on column cluster_name.last_said is 'When the newest snapshot with this name was observed.';

create table unit (
    id bigint generated always as identity primary key,
    cluster_id bigint not null references cluster on delete cascade,
    api_group text not null,
    resource text not null,
    kind text not null default '',
    api_version text not null default '',
    namespaced boolean,
    by_clock boolean not null default false,
    state text check (state in ('excluded', 'gone')),
    state_at timestamptz not null default '-infinity',
    gone_before timestamptz not null default '-infinity',
    unverified_at timestamptz not null default '-infinity',
    unique (cluster_id, api_group, resource)
);
comment on table unit is 'A kind in a cluster: what is listed, ordered and verified as one.';
comment on column unit.id is 'Key within this database.';
comment on column unit.cluster_id is 'The cluster.';
comment on column unit.api_group is 'API group; empty: core.';
comment on column unit.resource is 'Plural name, as in the API''s paths.';
comment on column unit.kind is 'Kind, as of the newest records.';
comment on column unit.api_version is 'API version (v1, apps/v1) under which it was last seen.';
comment on column unit.namespaced is 'Whether its objects are in namespaces; null: none was seen yet.';
comment on column unit.by_clock is
    'What live_at counts: the server''s list versions, or (true) microseconds since 1970 at which a list began, where list versions '
    'order nothing. Never becomes false again.';
comment on column unit.state is 'excluded or gone; null: what unit_floor.state says of each reach.';
comment on column unit.state_at is 'When what state says was observed: an older statement never overwrites it.';
comment on column unit.gone_before is 'The kind was not served at that time: what was observed before is no longer there.';

comment on column unit.unverified_at is 'Only a list begun after that lets it be followed.';

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
    'Up to which (epoch, live_at) a kind is proven within one reach: what was absent then is deleted. And the state of that reach.';
comment on column unit_floor.unit_id is 'The kind.';
comment on column unit_floor.reach is 'The namespace that is listed by itself; empty: all.';
comment on column unit_floor.epoch is 'Epoch of the newest proven list.';
comment on column unit_floor.live_at is 'live_at of the newest proven list; -1: none, or no longer believed.';
comment on column unit_floor.digest is 'Digest of the newest proven list.';
comment on column unit_floor.proven_at is 'When the newest proven list was complete.';
comment on column unit_floor.state is 'How far the rows within the reach can be trusted.';
comment on column unit_floor.state_at is 'When what state says was observed: an older statement never overwrites it.';
comment on column unit_floor.last_error is 'Why it is not verified, or not followed.';
comment on column unit_floor.objects is 'Objects of the newest proven list.';
comment on column unit_floor.verified_at is 'When it was last verified.';

create table snapshot (
    id uuid primary key,
    cluster_id bigint not null references cluster on delete cascade,
    started_at timestamptz not null,
    completed_at timestamptz,
    discovery_complete boolean,
    interval_s double precision,
    units_completed integer not null default 0,
    units_failed integer not null default 0,
    objects bigint not null default 0
);
comment on table snapshot is 'A run of lists over one cluster, as its collector reports it.';
comment on column snapshot.id is 'UUIDv7 of the run.';
comment on column snapshot.cluster_id is 'The cluster.';
comment on column snapshot.started_at is 'When it began.';
comment on column snapshot.completed_at is 'When it ended; null: it has not, or was abandoned.';
comment on column snapshot.discovery_complete is 'Whether discovery answered for every API group.';
comment on column snapshot.interval_s is
    'Seconds from one run of its collector to the next; null: it lists once, and nobody knows when again.';
comment on column snapshot.units_completed is 'Kinds that were listed to the end.';
comment on column snapshot.units_failed is 'Kinds that could not be listed, the forbidden ones included.';
comment on column snapshot.objects is 'Objects that the completed lists sent.';
create index snapshot_cluster_started on snapshot (cluster_id, started_at desc);

-- What is stored beside a body, so that whoever selects by it reads none, is found by functions of the kind that 0002 has;
-- these run for each row that is copied.

create function moment(value text) returns timestamptz
    language plpgsql immutable strict parallel safe cost 10 as $$
declare
    year smallint;
begin
    -- As Kubernetes writes nearly all: seconds, UTC, and a day that every month has. A third of what the pattern costs.
    if value like '2___-__-__T__:__:__Z' and translate(value, '0123456789', '') = '--T::Z'
        and (value like '_____0%' and value not like '_____00%' or value like '_____10%' or value like '_____11%'
            or value like '_____12%')
        and substr(value, 9, 2) between '01' and '28' and substr(value, 12, 2) < '24'
        and substr(value, 15, 1) < '6' and substr(value, 18, 1) < '6' then
        return value::timestamptz;
    end if;
    if value !~ ('^[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|[12][0-9]))'
        'T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])$') then
        return null;
    end if;
    year := left(value, 4);
    if year = 0 or substr(value, 6, 5) = '02-29' and (year % 4 <> 0 or year % 100 = 0 and year % 400 <> 0) then
        return null;
    end if;
    return value::timestamptz;
end
$$;
comment on function moment is
    'An RFC 3339 time; NULL for what is none. Immutable because what it casts has an offset and never asks for TimeZone.';

-- In SQL it would be inlined three times by each statement that stores, which takes as long as to store a row.
create function owner_of(object jsonb, field text) returns text
    language plpgsql immutable parallel safe cost 10 as $$
begin
    return case
        when object #>> '{metadata,ownerReferences,0,controller}' = 'true' or object #> '{metadata,ownerReferences,1}' is null
            then object #>> array['metadata', 'ownerReferences', '0', field]
        else coalesce(
            jsonb_path_query_first(object, '$.metadata.ownerReferences[*] ? (@.controller == true)', '{}', true) ->> field,
            object #>> array['metadata', 'ownerReferences', '0', field])
    end;
end
$$;
comment on function owner_of is 'A field of the reference to the controller that owns the object, else of the first reference.';

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
    manager text,
    operation text,
    subresource text,
    managed_at timestamptz,
    labels jsonb generated always as (
        case when fidelity >= 2 then
            case jsonb_typeof(body #> '{metadata,labels}') when 'object' then body #> '{metadata,labels}' else '{}' end
        end) stored,
    created_at timestamptz generated always as (
        case when fidelity >= 2 then moment(body #>> '{metadata,creationTimestamp}') end) stored,
    owner_kind text generated always as (case when fidelity >= 2 then owner_of(body, 'kind') end) stored,
    owner_name text generated always as (case when fidelity >= 2 then owner_of(body, 'name') end) stored,
    owner_uid text generated always as (case when fidelity >= 2 then owner_of(body, 'uid') end) stored,
    body jsonb,
    original bytea,
    id bigint generated by default as identity,
    primary key (unit_id, namespace, name)
) with (autovacuum_vacuum_scale_factor = 0.05);
-- A changed object is deleted and copied again, so that no page has use for free space (HOT updates: none in a day of changes), and
-- what is dead goes by VACUUM alone, of TOAST as well. docs/SCALING.md has what was measured.
comment on table resource is 'A live object, or the tombstone of a deleted one.';
comment on column resource.unit_id is 'The kind.';
comment on column resource.namespace is 'Namespace; empty: none.';
comment on column resource.name is 'Name.';
comment on column resource.uid is 'metadata.uid: another one is another object of that name.';
comment on column resource.resource_version is
    'metadata.resourceVersion, compared for equality only; the content hash of an object without one.';
comment on column resource.epoch is 'CLUSTER_EPOCH of the collector that saw it.';
comment on column resource.live_at is
    'As of when the object was seen, ordered within a unit together with epoch; lists that named it unchanged since are in list_seen.';
comment on column resource.deleted is 'A tombstone: the object was deleted under a watch.';
comment on column resource.fidelity is '0 identity only, the body is a dead letter; 1 stub; 2 sanitised, original beside it; 3 whole.';
comment on column resource.normalization is 'Version of the rules by which secrets were removed.';
comment on column resource.content_hash is 'xxh3_128 of the content without its version: another one is a change.';
comment on column resource.created is 'This version began the object''s life (no predecessor, or one of another uid).';
comment on column resource.valid_from is 'When this content was first observed.';
comment on column resource.first_observed_at is 'When the object, of this uid, was first observed.';
comment on column resource.last_observed_at is
    'When the object was last observed, where it was listed when that list began; later ones, which change no row, are in list_seen.';
comment on column resource.manager is
    'Field manager of the newest of managedFields: who wrote this version. A name that a client gives itself, no user; null: none.';
comment on column resource.operation is 'Apply or Update.';
comment on column resource.subresource is 'By which subresource it was written; null: by none.';
comment on column resource.managed_at is 'When, to the second.';
comment on column resource.labels is
    'metadata.labels, name to value, beside the body, so that a selection by labels reads none; null: the body is not stored.';
comment on column resource.created_at is
    'metadata.creationTimestamp, beside the body as labels are; so are the three that follow. Null: none, or the body is not stored.';
comment on column resource.owner_kind is 'Kind of the controller that owns the object, else of its first owner; null: none.';
comment on column resource.owner_name is 'Its name.';
comment on column resource.owner_uid is 'Its uid.';
comment on column resource.body is 'The object as jsonb; of a stub its size and SHA-256.';
comment on column resource.original is 'The bytes as they came, where jsonb could not hold them as they are.';
comment on column resource.id is 'What list_seen calls the row by; never used again for another.';
create index resource_uid on resource (uid);
create index resource_valid_from on resource (valid_from);
-- By the primary key they are asked for kind by kind. Partial, so that the merge, which looks up whole keys, never does so by
-- these: a namespace has thousands of objects, and some names are in each namespace of each cluster.
create index resource_namespace on resource (namespace) where not deleted;
create index resource_name on resource (name) where not deleted;
create index resource_labels on resource using gin (labels jsonb_path_ops);  -- labels @> '{"app": "shop"}'

create table list_seen (
    unit_id bigint not null references unit on delete cascade,
    reach text not null,
    epoch bigint not null,
    live_at bigint not null,
    seen_at timestamptz not null,
    ids int8multirange not null
);
comment on table list_seen is
    'Rows that a list named as they are: what is unchanged costs no row of its own. What is read of it: positioned(), sighting().';
comment on column list_seen.unit_id is 'The kind.';
comment on column list_seen.reach is 'The namespace the list is confined to; empty: all.';
comment on column list_seen.epoch is 'CLUSTER_EPOCH of its collector.';
comment on column list_seen.live_at is 'As of when the list shows its objects.';
comment on column list_seen.seen_at is 'When the list began.';
comment on column list_seen.ids is 'resource.id of rows that it named: 256 of them, or 64 ranges once the list is proven, at most.';
create index list_seen_unit on list_seen (unit_id);
-- 64 ranges are what fits into the row: of more, in TOAST, each look-up would cost 60 us.
-- Whoever looks for a row asks by its id alone: so the planner does not take the other index, which finds all of the kind.
create index list_seen_ids on list_seen using gist (ids);

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
    manager text,
    operation text,
    subresource text,
    managed_at timestamptz,
    body jsonb,
    original bytea,
    check (valid_from <= valid_to)
) partition by range (valid_to);
comment on table resource_history is 'A superseded or deleted version of an object, from valid_from to before valid_to.';
comment on column resource_history.unit_id is 'The kind.';
comment on column resource_history.namespace is 'As of resource.';
comment on column resource_history.name is 'As of resource.';
comment on column resource_history.uid is 'As of resource.';
comment on column resource_history.resource_version is 'As of resource.';
comment on column resource_history.epoch is 'As of resource.';
comment on column resource_history.live_at is 'As of resource.';
comment on column resource_history.fidelity is 'As of resource.';
comment on column resource_history.normalization is 'As of resource.';
comment on column resource_history.content_hash is 'As of resource.';
comment on column resource_history.created is 'As of resource.';
comment on column resource_history.deleted is 'The version ended with the deletion of the object.';
comment on column resource_history.valid_from is 'When this content was first observed.';
comment on column resource_history.valid_to is 'When it was first observed to be superseded or gone.';
comment on column resource_history.first_observed_at is 'As of resource.';
comment on column resource_history.manager is 'As of resource.';
comment on column resource_history.operation is 'As of resource.';
comment on column resource_history.subresource is 'As of resource.';
comment on column resource_history.managed_at is 'As of resource.';
comment on column resource_history.body is 'As of resource.';
comment on column resource_history.original is 'As of resource.';
create index resource_history_key on resource_history (unit_id, namespace, name, valid_to);
create index resource_history_from on resource_history (valid_from);
-- What a namespace had at a moment, or what changed in it: both times are compared in the index, so that no version is read
-- that is not asked for.
create index resource_history_namespace on resource_history (namespace, valid_from, valid_to);
create index resource_history_deleted on resource_history (valid_to, namespace) where deleted;
create table resource_history_default partition of resource_history default;

create table kafka_offset (
    kafka_cluster text not null,
    topic text not null,
    partition integer not null,
    group_id text not null,
    generation bigint not null,
    next_offset bigint,
    moved_at timestamptz,
    observed_at timestamptz,
    rate double precision,
    primary key (kafka_cluster, topic, partition)
);
comment on table kafka_offset is
    'Up to where a partition is stored, or a list that is written without Kafka; moves in the same transaction as the rows.';
comment on column kafka_offset.kafka_cluster is 'Id of the Kafka cluster; empty: a list that is written without Kafka.';
comment on column kafka_offset.topic is 'The topic; of a list its id.';
comment on column kafka_offset.partition is 'The partition; of a list 0.';
comment on column kafka_offset.group_id is 'The consumer group that this database belongs to; empty: of a list.';
comment on column kafka_offset.generation is 'Counts the claims of the partition: only the newest owner may write.';
comment on column kafka_offset.next_offset is 'The next offset to store, or the next page of a list; null: nothing is stored yet.';
comment on column kafka_offset.moved_at is 'When something of it was last stored; null: never.';
comment on column kafka_offset.observed_at is 'When what was last stored of it had been observed; null: not known.';
comment on column kafka_offset.rate is
    'Messages of it stored a second, over the last two minutes of work; null: its owner has not stored enough to tell.';

create table unit_partition (
    unit_id bigint not null references unit on delete cascade,
    kafka_cluster text not null,
    topic text not null,
    partition integer not null,
    primary key (kafka_cluster, topic, partition, unit_id)
);
comment on table unit_partition is
    'A kind whose records came by this partition: unverified when messages of it are lost before they are stored.';
comment on column unit_partition.unit_id is 'The kind.';
comment on column unit_partition.kafka_cluster is 'Id of the Kafka cluster.';
comment on column unit_partition.topic is 'The topic.';
comment on column unit_partition.partition is 'The partition.';
create index unit_partition_unit on unit_partition (unit_id);

create table dead_letter (
    id bigint generated always as identity primary key,
    topic text not null,
    partition integer not null,
    record_offset bigint not null,
    reason text not null,
    sqlstate text,
    key bytea,
    headers jsonb not null,
    value bytea,
    size_bytes bigint not null,
    message_hash bytea not null,
    created_at timestamptz not null default now(),
    replayed_at timestamptz
);
comment on table dead_letter is 'A record that could not be stored.';
comment on column dead_letter.id is 'What `clusterinfo dead-letters` calls it by.';
comment on column dead_letter.topic is 'The topic it came by; empty: none.';
comment on column dead_letter.partition is 'The partition it came by; -1: none.';
comment on column dead_letter.record_offset is 'The offset it had; -1: none.';
comment on column dead_letter.reason is 'Why it could not be stored, in one line.';
comment on column dead_letter.sqlstate is 'PostgreSQL''s code, if it was PostgreSQL that refused it.';
comment on column dead_letter.key is 'The message''s key: [cluster, group, resource, namespace, name] as JSON.';
comment on column dead_letter.headers is
    'The message''s headers, name to value; what is no text as {"base64": ...}, what is there several times as an array.';
comment on column dead_letter.value is 'The message''s value, its first MiB at most.';
comment on column dead_letter.size_bytes is 'Of the whole value, and of what was left out of key and headers.';
comment on column dead_letter.message_hash is
    'xxh3_128 of key and value: whether a message that is read again, at its place in Kafka, is the one that is kept.';
comment on column dead_letter.created_at is 'When it was stored here.';
comment on column dead_letter.replayed_at is 'When it was stored after all.';
create index dead_letter_created on dead_letter (created_at);
create unique index dead_letter_message on dead_letter (topic, partition, record_offset, message_hash) where topic <> '';

create table dropped_letter (
    topic text not null,
    partition integer not null,
    record_offset bigint not null,
    message_hash bytea not null,
    dropped_at timestamptz not null default now(),
    primary key (topic, partition, record_offset, message_hash)
);
comment on table dropped_letter is
    'A dead letter that somebody dropped: it does not come back when Kafka is read again. Kept for HISTORY_RETENTION.';
comment on column dropped_letter.topic is 'As of dead_letter.';
comment on column dropped_letter.partition is 'As of dead_letter.';
comment on column dropped_letter.record_offset is 'As of dead_letter.';
comment on column dropped_letter.message_hash is 'As of dead_letter.';
comment on column dropped_letter.dropped_at is 'When it was dropped.';

create table list_progress (
    list uuid primary key,
    unit_id bigint not null references unit on delete cascade,
    reach text not null,
    epoch bigint not null,
    live_at bigint not null,
    count bigint not null default 0,
    digest numeric(39) not null default 0,
    expected_count bigint,
    expected_digest numeric(39),
    completed_at timestamptz,
    settled boolean not null default false,
    updated_at timestamptz not null default now(),
    session_id bigint,
    from_number bigint,
    place bigint,
    seen_at timestamptz,
    corrected bigint not null default 0
);
comment on table list_progress is 'What has arrived of one list, held against what its completion says.';
comment on column list_progress.list is 'UUIDv7 of the attempt to list.';
comment on column list_progress.unit_id is 'The kind.';
comment on column list_progress.reach is 'The namespace it is confined to; empty: all.';
comment on column list_progress.epoch is 'CLUSTER_EPOCH of its collector.';
comment on column list_progress.live_at is 'As of when it shows its objects.';
comment on column list_progress.count is 'Objects that arrived.';
comment on column list_progress.digest is 'Sum modulo 2^128 over what arrived.';
comment on column list_progress.expected_count is 'Objects that its completion announces; null: it has not arrived.';
comment on column list_progress.expected_digest is 'Digest that its completion announces.';
comment on column list_progress.completed_at is 'When its collector had all of it.';
comment on column list_progress.settled is 'Count and digest agreed: it proves its reach.';
comment on column list_progress.updated_at is 'When something of it last arrived.';
comment on column list_progress.session_id is 'The session that follows the kind from this list on; null: none.';
comment on column list_progress.from_number is 'What that session says of the kind after the list has this number or a higher one.';
comment on column list_progress.place is 'The number that was due when the completion came.';
comment on column list_progress.seen_at is 'When the first page of the list had come.';
comment on column list_progress.corrected is 'Objects of a kind that is followed whose rows it had to write.';
create index list_progress_unit on list_progress (unit_id, reach);
-- None by updated_at: each page moves it, which would take away HOT updates; who asks for it reads all, every six hours.

create table watch_session (
    id bigint generated always as identity primary key,
    kafka_cluster text not null,
    topic text not null,
    partition integer not null,
    cluster text not null,
    session uuid not null,
    next_number bigint not null default 1,
    missing int8multirange not null default '{}',
    heard timestamptz not null default '-infinity',
    heard_number bigint not null default 0,
    behind jsonb not null default '[]',
    ended jsonb not null default '{}',
    interval_s double precision not null default 0,
    is_unverified boolean not null default false,
    cut_number bigint not null default 0,
    updated_at timestamptz not null default now(),
    unique (kafka_cluster, topic, partition, cluster, session)
) with (fillfactor = 50);
comment on table watch_session is 'What one collector, in one life, has said on one partition by watching.';
comment on column watch_session.id is 'Key within this database.';
comment on column watch_session.kafka_cluster is 'Id of the Kafka cluster; empty: written without Kafka.';
comment on column watch_session.topic is 'The topic; without Kafka the kind and the reach that is watched.';
comment on column watch_session.partition is 'The partition; without Kafka 0.';
comment on column watch_session.cluster is 'Identity of the cluster that it watches.';
comment on column watch_session.session is 'UUIDv7 of the collector''s life.';
comment on column watch_session.next_number is 'The number that is due.';
comment on column watch_session.missing is
    'Lower ones that have not come: 64 gaps at most; the two oldest become one where there are more.';
comment on column watch_session.heard is 'Up to when every watch was heard from that is not behind, by the newest progress.';
comment on column watch_session.heard_number is 'The number of that progress: it holds where none is missing up to there.';
comment on column watch_session.behind is 'Kinds whose watch was not heard from, and until when it was: [{group, resource, reach, since}].';
comment on column watch_session.ended is 'Group/resource/reach of a watch, and the number under which it last ended.';
comment on column watch_session.interval_s is 'Seconds after which the next progress is due.';
comment on column watch_session.is_unverified is 'Messages of the partition were lost; whether any of this session the next number shows.';
comment on column watch_session.cut_number is
    'The highest number that came out of order, or too late to be kept: what is followed from there or before begins with a progress.';
comment on column watch_session.updated_at is 'When something of it last arrived.';

create index watch_session_cluster on watch_session (cluster);

create table coverage (
    id bigint generated always as identity primary key,
    unit_id bigint not null references unit on delete cascade,
    reach text not null,
    session_id bigint not null references watch_session on delete cascade,
    from_number bigint not null,
    epoch bigint not null,
    is_open boolean not null,
    begins_at timestamptz,
    ends_at timestamptz,
    check (is_open = (ends_at is null))
);
comment on table coverage is 'An interval of time in which every change of a kind, within a reach, was followed.';
comment on column coverage.id is 'Key within this database.';
comment on column coverage.unit_id is 'The kind.';
comment on column coverage.reach is 'The namespace that is watched by itself; empty: all.';
comment on column coverage.session_id is 'By which session.';
comment on column coverage.from_number is 'From which of its numbers on: with none missing, what is stored is all there was.';
comment on column coverage.epoch is 'CLUSTER_EPOCH of its collector.';
comment on column coverage.is_open is 'It goes on: it ends when the session was last heard, in order.';
comment on column coverage.begins_at is 'When the first page of its list had come; null: when the next progress is said.';
comment on column coverage.ends_at is 'When it ended; null: it goes on.';
create unique index coverage_open on coverage (unit_id, reach, session_id) where is_open;
create index coverage_session on coverage (session_id) where is_open;
create index coverage_unit on coverage (unit_id);
create index coverage_ends on coverage (ends_at);

create table forgotten (
    cluster text not null,
    api_group text not null,
    resource text not null,
    forgotten_at timestamptz not null,
    primary key (cluster, api_group, resource)
);
comment on table forgotten is
    'A cluster or a kind of it whose rows were deleted on request: what lists begun before then say is ignored.';
comment on column forgotten.cluster is 'Identity of the cluster.';
comment on column forgotten.api_group is 'API group of the kind.';
comment on column forgotten.resource is 'Plural name of the kind; empty: all of the cluster.';
comment on column forgotten.forgotten_at is 'When that was asked for.';

comment on table schema_migration is 'A file of the schema that was applied here.';
comment on column schema_migration.version is 'Number of the file.';
comment on column schema_migration.name is 'Name of the file.';
comment on column schema_migration.checksum is 'SHA-256 of the file.';
comment on column schema_migration.applied_at is 'When it was applied.';

create function list_began_at(list uuid, completed_at timestamptz) returns timestamptz
language sql immutable parallel safe
begin atomic
    select least(completed_at, to_timestamp(('x' || left(replace(list::text, '-', ''), 12))::bit(48)::bigint / 1000.0));
end;
comment on function list_began_at is
    'When a list began, from its UUIDv7, and not after it was complete: it shows what existed then, however long it took.';

create function is_whole(missing int8multirange, first_number bigint, next_number bigint) returns boolean
language sql immutable parallel safe
begin atomic
    select case when first_number < next_number then not missing && int8range(first_number, next_number) else true end;
end;
comment on function is_whole is 'Whether no number is missing from the first to before the next one.';

create function heard_until(session watch_session, first_number bigint, unit_group text, unit_resource text, unit_reach text)
returns timestamptz
language sql stable parallel safe
begin atomic
    select case
        when session.heard_number >= first_number
                and is_whole(session.missing, first_number, session.heard_number) then
            least(now(), coalesce((
                select min((b.unit ->> 'since')::timestamptz)
                from jsonb_array_elements(session.behind) as b (unit)
                where b.unit ->> 'group' = unit_group and b.unit ->> 'resource' = unit_resource
                    and b.unit ->> 'reach' in ('', unit_reach)), session.heard))
    end;
end;
comment on function heard_until is
    'Up to when a session has said all that it saw of a kind, from a number on; NULL if it has not, or if any of it is missing.';

create function followed() returns table (
    id bigint, unit_id bigint, api_group text, resource text, reach text, session_id bigint, from_number bigint, epoch bigint,
    begins_at timestamptz, heard timestamptz)
language sql stable parallel safe
begin atomic
    select c.id, c.unit_id, u.api_group, u.resource, c.reach, c.session_id, c.from_number, c.epoch, c.begins_at,
        heard_until(s, c.from_number, u.api_group, u.resource, c.reach)
    from coverage c
    join watch_session s on s.id = c.session_id
    join unit u on u.id = c.unit_id
    where c.is_open;
end;
comment on function followed is 'What is followed, by which session, and up to when that was heard in order.';

create function is_followed_by(session bigint, unit bigint, unit_reach text) returns boolean
language sql stable parallel safe
begin atomic
    select exists (
        select from followed() f
        where f.session_id = session and f.unit_id = unit and f.reach = unit_reach and f.heard is not null
            and f.begins_at is not null);
end;
comment on function is_followed_by is 'Whether a session follows a kind within a reach, with nothing missing.';

create function ended_number(session watch_session, unit_group text, unit_resource text, unit_reach text) returns bigint
language sql immutable parallel safe
begin atomic
    select greatest(
        (session.ended ->> format('%s/%s/', unit_group, unit_resource))::bigint,
        (session.ended ->> format('%s/%s/%s', unit_group, unit_resource, unit_reach))::bigint, 0);
end;
comment on function ended_number is 'The number under which the watch of a kind last ended; 0: it never did.';

create function sighting() returns table (
    unit_id bigint, namespace text, epoch bigint, live_at bigint, last_observed_at timestamptz)
language sql stable parallel safe
begin atomic
    select r.unit_id, r.namespace, r.epoch, r.live_at, r.last_observed_at from resource r
    union all
    select r.unit_id, r.namespace, l.epoch, l.live_at, l.seen_at
    from list_seen l join resource r on r.unit_id = l.unit_id and l.ids @> r.id;
end;
comment on function sighting is
    'As of when each row was seen, and when: by what wrote it, and by each list that named it unchanged since.';

create function positioned() returns table (
    unit_id bigint, namespace text, name text, uid text, resource_version text, epoch bigint, live_at bigint, deleted boolean,
    fidelity smallint, normalization smallint, content_hash bytea, created boolean, valid_from timestamptz,
    first_observed_at timestamptz, last_observed_at timestamptz)
language sql stable parallel safe
begin atomic
    select r.unit_id, r.namespace, r.name, r.uid, r.resource_version, r.epoch, greatest(r.live_at, l.live_at), r.deleted,
        r.fidelity, r.normalization, r.content_hash, r.created, r.valid_from, r.first_observed_at,
        greatest(r.last_observed_at, l.seen_at)
    from resource r
    cross join lateral (
        select max(s.live_at) as live_at, max(s.seen_at) as seen_at
        from list_seen s where s.epoch = r.epoch and s.ids @> r.id
    ) as l;
end;
comment on function positioned is 'The rows of resource, each with the newest as of when it was seen, and the last time.';

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
