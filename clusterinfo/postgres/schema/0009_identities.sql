-- What is needed to tell a cluster whose uid may not be read from another one of its name whose uid is known.

create table cluster_identity (
    cluster_id bigint not null references cluster on delete cascade,
    identity text not null,
    first_said timestamptz not null,
    last_said timestamptz not null,
    primary key (cluster_id, identity)
);
comment on table cluster_identity is
    'An identity, the uid or the name from before it was known, that snapshots gave a cluster, and from when to when.';
