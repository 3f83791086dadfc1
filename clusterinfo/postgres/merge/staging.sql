-- The staging tables of a transaction.

-- name: begin
-- Settings for this transaction alone (so that a pooler in transaction mode may stand between), and its staging tables.
set local client_min_messages = warning;
create temp table if not exists staged_record (
    ord integer not null, unit_id bigint not null, namespace text not null, name text not null, uid text not null,
    resource_version text not null, epoch bigint not null, live_at bigint not null, deleted boolean not null,
    fidelity smallint not null, normalization smallint not null, content_hash bytea not null,
    observed_at timestamptz not null
) on commit delete rows;
create temp table if not exists staged_plan (
    body_ord integer not null, unit_id bigint not null, namespace text not null, name text not null, uid text not null,
    resource_version text not null, epoch bigint not null, live_at bigint not null, deleted boolean not null,
    fidelity smallint not null, normalization smallint not null, content_hash bytea not null,
    created boolean not null, ended_deleted boolean, valid_from timestamptz not null, valid_to timestamptz,
    first_observed_at timestamptz not null, last_observed_at timestamptz not null
) on commit delete rows;
create temp table if not exists staged_body (
    ord integer not null, body jsonb, original bytea
) on commit delete rows;
create temp table if not exists staged_list (
    list uuid not null, unit_id bigint not null, reach text not null, snapshot uuid, epoch bigint not null,
    live_at bigint not null, count bigint not null, digest numeric(39) not null, began_at timestamptz not null,
    completed_at timestamptz not null
) on commit delete rows;
