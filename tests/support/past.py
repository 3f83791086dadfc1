"""A cluster that has a past, made by SQL in the real tables: objects of six kinds in namespaces, and their versions.

Versions are written in the order of time, as a consumer writes them: those of one object, and of one namespace, lie far
apart. A body is one of a thousand pods of 2.7 to 10.7 kB (6.7 on average; 2.8 with lz4, so that half of them are in
TOAST, as real ones are), used again and again: what reading costs depends on the size of a body, not on what it says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import asyncpg

CLUSTER = "prod"
DAYS = 60
"""How far the past goes back."""


@dataclass(frozen=True, slots=True)
class Past:
    """How much of it: `objects` over `namespaces`, `versions` of each object beside the one that is live."""

    namespaces: int
    objects: int
    versions: int
    bodies: int = 1000
    other_kinds: int = 70
    """Kinds without an object, as a cluster has them."""
    largest: int = 6
    """Containers of the largest bodies; of 1 all have 2.7 kB."""


SCHEMA = """
set search_path = clusterinfo, pg_temp;
do $$
begin
    set default_toast_compression = lz4;
exception when invalid_parameter_value then
    null;  -- a server without lz4
end
$$;
do $$
begin
    for back in 0..3 loop
        if to_regclass('resource_history_' || to_char(now() - back * interval '1 month', 'YYYY_MM')) is null then
            perform make_history_month((now() - back * interval '1 month')::date);
        end if;
    end loop;
end
$$;
insert into cluster (uid, name, label, first_seen, last_seen) values ('prod', 'prod', 'prod', now(), now())
on conflict do nothing;
insert into unit (cluster_id, api_group, resource, kind, api_version)
select c.id, t.* from cluster c, (
    values ('', 'pods', 'Pod', 'v1'), ('apps', 'replicasets', 'ReplicaSet', 'apps/v1'),
        ('apps', 'deployments', 'Deployment', 'apps/v1'), ('', 'configmaps', 'ConfigMap', 'v1'),
        ('discovery.k8s.io', 'endpointslices', 'EndpointSlice', 'discovery.k8s.io/v1'),
        ('coordination.k8s.io', 'leases', 'Lease', 'coordination.k8s.io/v1')
    union all select 'group' || n, 'things' || n, 'Thing' || n, 'v1' from generate_series(1, {other_kinds}) n
) as t
on conflict do nothing;
"""

BODIES = """
create temp table past_body as
select n, jsonb_build_object(
    'apiVersion', 'v1', 'kind', 'Pod',
    'metadata', jsonb_build_object(
        'name', 'app-' || n, 'namespace', 'ns-0', 'uid', gen_random_uuid(), 'resourceVersion', (n * 7919)::text,
        'creationTimestamp', '2026-09-20T08:15:30Z', 'generateName', 'app-' || n % 100 || '-',
        'labels', jsonb_build_object(
            'app', 'app-' || n % 100, 'tier', (array['web', 'db', 'cache', 'batch'])[n % 4 + 1],
            'pod-template-hash', left(md5(n::text), 10), 'team', 'team-' || n % 17),
        'annotations', jsonb_build_object('example.com/checksum', md5(n::text) || md5((n + 1)::text)),
        'ownerReferences', jsonb_build_array(jsonb_build_object(
            'apiVersion', 'apps/v1', 'kind', 'ReplicaSet', 'name', 'app-' || n % 100 || '-' || left(md5(n::text), 10),
            'uid', gen_random_uuid(), 'controller', true, 'blockOwnerDeletion', true))),
    'spec', jsonb_build_object(
        'nodeName', 'node-' || n % 200, 'serviceAccountName', 'default', 'containers', c.containers),
    'status', jsonb_build_object(
        'phase', 'Running', 'podIP', '10.1.' || n % 250 || '.' || n % 249, 'containerStatuses', c.statuses,
        'conditions', (
            select jsonb_agg(jsonb_build_object(
                'type', t, 'status', 'True', 'lastTransitionTime', '2026-09-20T08:15:30Z', 'lastProbeTime', null))
            from unnest(array['Initialized', 'Ready', 'ContainersReady', 'PodScheduled']) as t))) as body
from generate_series(0, {bodies} - 1) n
cross join lateral (
    select
        jsonb_agg(jsonb_build_object(
            'name', 'c' || k, 'image', 'registry.example.com/team/app-' || n % 100 || ':' || k,
            'imagePullPolicy', 'IfNotPresent', 'terminationMessagePath', '/dev/termination-log',
            'resources', jsonb_build_object(
                'limits', '{{"cpu": "500m", "memory": "256Mi"}}'::jsonb,
                'requests', '{{"cpu": "100m", "memory": "128Mi"}}'::jsonb),
            'livenessProbe', jsonb_build_object(
                'httpGet', '{{"path": "/healthz", "port": 8080}}'::jsonb, 'periodSeconds', 10, 'timeoutSeconds', 1),
            'volumeMounts', jsonb_build_array(jsonb_build_object(
                'name', 'kube-api-access-' || left(md5(n::text), 5), 'readOnly', true,
                'mountPath', '/var/run/secrets/kubernetes.io/serviceaccount')),
            'env', (
                select jsonb_agg(jsonb_build_object(
                    'name', 'SETTING_' || e, 'value', left(md5((n * 100 + k * 10 + e)::text), 12)))
                from generate_series(1, 12) e))) as containers,
        jsonb_agg(jsonb_build_object(
            'name', 'c' || k, 'ready', true, 'restartCount', 0, 'started', true,
            'image', 'registry.example.com/team/app-' || n % 100 || ':' || k,
            'imageID', 'registry.example.com/team/app@sha256:' || md5((n % 100)::text) || md5(k::text),
            'containerID', 'containerd://' || md5(n::text || k) || md5(k || n::text),
            'state', '{{"running": {{"startedAt": "2026-09-20T08:15:33Z"}}}}'::jsonb, 'lastState', '{{}}'::jsonb
        )) as statuses
    from generate_series(1, 1 + n % {largest}) k
) as c
"""

# One object in ten is gone by now. `phase`: when within a step of time it changes.
OBJECTS = """
create temp table past_object as
select o, u.id as unit_id, 'ns-' || (o / 10) % {namespaces} as namespace, u.resource || '-' || md5(o::text) as name,
    gen_random_uuid()::text as uid, date_trunc('hour', now()) - {days} * interval '1 day' as start,
    (o * 7919 % {objects}) / {objects}::float8 as phase,
    interval '1 day' * ({days} - 1) / greatest({versions}, 1) as step, o % 10 = 3 as gone
from generate_series(0::bigint, {objects} - 1) o
join unit u on u.resource = (array[
    'pods', 'pods', 'pods', 'pods', 'replicasets', 'replicasets', 'deployments', 'configmaps', 'endpointslices',
    'leases'
])[(o % 10 + 1)::integer]
"""

VERSIONS = """
insert into resource_history (
    unit_id, namespace, name, uid, resource_version, epoch, live_at, fidelity, normalization, content_hash, created,
    deleted, valid_from, valid_to, first_observed_at, manager, operation, managed_at, body)
select unit_id, namespace, name, uid, (o * 100 + {v})::text, 0, o * 100 + {v}, 3, 1,
    decode(md5(o::text || {v}), 'hex'), {v} = 1, gone and {v} = {versions}, start + ({v} - 1 + phase) * step,
    start + ({v} + phase) * step, start + phase * step, 'kubelet', 'Update', start, b.body
from past_object join past_body b on b.n = (o * 31 + {v}) % {bodies}
order by phase
"""

LIVE = """
insert into resource (
    unit_id, namespace, name, uid, resource_version, epoch, live_at, fidelity, normalization, content_hash, created,
    valid_from, first_observed_at, last_observed_at, manager, operation, managed_at, body)
select unit_id, namespace, name, uid, o::text, 0, o, 3, 1, decode(md5(o::text), 'hex'), false,
    start + ({versions} + phase) * step, start + phase * step, now(), 'kubelet', 'Update', start, b.body
from past_object join past_body b on b.n = o % {bodies} where not gone
"""


async def make_past(connection: asyncpg.Connection, past: Past, say: Callable[[str], None] = lambda _: None) -> None:
    """Fill a migrated database, whose schema is the search_path from then on; `say` hears how far it is."""
    fill = {
        "namespaces": past.namespaces, "objects": past.objects, "versions": past.versions, "bodies": past.bodies,
        "other_kinds": past.other_kinds, "largest": past.largest, "days": DAYS,
    }  # fmt: skip
    for statement in (SCHEMA, BODIES, OBJECTS):
        await connection.execute(statement.format(**fill))
    for v in range(1, past.versions + 1):
        await connection.execute(VERSIONS.format(**fill, v=v))
        say(f"{v} of {past.versions} versions")
    await connection.execute(LIVE.format(**fill))
    for table in ("resource", "resource_history", "unit"):
        await connection.execute(f"vacuum analyze {table}")
