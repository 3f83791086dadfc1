-- What is needed to doubt what is stored: which kinds a partition carries, and by which names one cluster was called.

create table unit_partition (
    unit_id bigint not null references unit on delete cascade,
    kafka_cluster text not null,
    topic text not null,
    partition integer not null,
    primary key (kafka_cluster, topic, partition, unit_id)
);
comment on table unit_partition is
    'A kind whose records came by this partition: unverified when messages of it are lost before they are stored.';
create index unit_partition_unit on unit_partition (unit_id);

create table cluster_name (
    cluster_id bigint not null references cluster on delete cascade,
    name text not null,
    first_said timestamptz not null,
    last_said timestamptz not null,
    primary key (cluster_id, name)
);
comment on table cluster_name is 'A name that snapshots gave a cluster, and from when to when.';

alter table cluster add column clones text[] not null default '{}';
comment on column cluster.clones is
    'Names of other clusters with the same uid (a copied etcd): each is a row of its own, with uid <uid>/<name>.';
