"""What people query: the views' columns, each kind read from a real object, odd objects, history, the reader's rights.

The connection's search_path does not contain the schema: views and functions must find their parts without it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.conftest import Database

MANIFESTS = Path(__file__).parent / "manifests"
RECORDED = Path(__file__).parents[1] / "recorded"

CLUSTER = "prod"
NOON = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
BEFORE = NOON - dt.timedelta(minutes=1)

IDENTITY = "cluster text, namespace text, name text, uid text, created_at timestamptz, labels jsonb"
CLUSTER_IDENTITY = "cluster text, name text, uid text, created_at timestamptz, labels jsonb"

# The contract: every view, its columns in order, their types.
COLUMNS = {
    "resources": (
        "cluster text, api_group text, api_version text, resource text, kind text, namespace text, name text, "
        "uid text, resource_version text, created_at timestamptz, first_observed_at timestamptz, "
        "last_observed_at timestamptz, changed_by text, changed_at timestamptz, state text, labels jsonb, "
        "annotations jsonb, owner_kind text, owner_name text, owner_uid text, object jsonb"
    ),
    "pods": f"{IDENTITY}, phase text, reason text, ready boolean, restarts bigint, node_name text, pod_ip text, "
    "host_ip text, qos_class text, service_account text, containers text[], cpu_request_cores numeric, "
    "cpu_limit_cores numeric, memory_request_bytes bigint, memory_limit_bytes bigint, owner_kind text, "
    "owner_name text, started_at timestamptz",
    "nodes": f"{CLUSTER_IDENTITY}, ready boolean, unschedulable boolean, internal_ip text, kubelet_version text, "
    "os_image text, kernel_version text, container_runtime text, architecture text, cpu_capacity_cores numeric, "
    "memory_capacity_bytes bigint, ephemeral_storage_capacity_bytes bigint, pods_capacity bigint, "
    "cpu_allocatable_cores numeric, memory_allocatable_bytes bigint, ephemeral_storage_allocatable_bytes bigint, "
    "pods_allocatable bigint",
    "deployments": f"{IDENTITY}, replicas integer, ready_replicas integer, updated_replicas integer, "
    "available_replicas integer, strategy text, images text[]",
    "services": f"{IDENTITY}, type text, cluster_ip text, external_ips text[], load_balancer_addresses text[], "
    "ports text[], selector jsonb",
    "ingresses": f"{IDENTITY}, class text, hosts text[], tls_hosts text[], load_balancer_addresses text[]",
    "configmaps": f"{IDENTITY}, data_keys text[], immutable boolean",
    "secrets": f"{IDENTITY}, type text, data_keys text[], immutable boolean",
    "persistentvolumes": f"{CLUSTER_IDENTITY}, phase text, capacity_bytes bigint, access_modes text[], "
    "reclaim_policy text, storage_class text, claim_namespace text, claim_name text, source text, status text",
    "persistentvolumeclaims": f"{IDENTITY}, phase text, requested_bytes bigint, capacity_bytes bigint, "
    "access_modes text[], storage_class text, volume_name text, status text",
    "namespaces": f"{CLUSTER_IDENTITY}, phase text",
    "replicasets": f"{IDENTITY}, replicas integer, current_replicas integer, ready_replicas integer, "
    "containers text[], images text[], selector jsonb, owner_kind text, owner_name text",
    "statefulsets": f"{IDENTITY}, replicas integer, ready_replicas integer, containers text[], images text[]",
    "daemonsets": f"{IDENTITY}, desired_pods integer, current_pods integer, ready_pods integer, "
    "updated_pods integer, available_pods integer, node_selector jsonb, containers text[], images text[], "
    "selector jsonb",
    "jobs": f"{IDENTITY}, status text, completions integer, parallelism integer, active integer, succeeded integer, "
    "failed integer, started_at timestamptz, completed_at timestamptz, duration_s double precision, "
    "containers text[], images text[], selector jsonb, owner_kind text, owner_name text",
    "cronjobs": f"{IDENTITY}, schedule text, time_zone text, suspend boolean, active integer, "
    "last_schedule_at timestamptz, last_successful_at timestamptz, containers text[], images text[], selector jsonb",
    "events": f"{IDENTITY}, last_seen_at timestamptz, type text, reason text, object_kind text, object_name text, "
    "object_field text, source text, message text, first_seen_at timestamptz, count integer",
    "container_images": "cluster text, namespace text, pod text, container text, image text, image_id text, "
    "init boolean",
    "freshness": "cluster text, api_group text, resource text, kind text, reach text, objects bigint, state text, "
    "following boolean, verified_at timestamptz, age_s double precision, last_error text",
}

# Resource -> its API group and Kind, of the kinds that have a view.
KINDS = {
    "pods": ("", "Pod"),
    "nodes": ("", "Node"),
    "services": ("", "Service"),
    "configmaps": ("", "ConfigMap"),
    "secrets": ("", "Secret"),
    "persistentvolumes": ("", "PersistentVolume"),
    "persistentvolumeclaims": ("", "PersistentVolumeClaim"),
    "namespaces": ("", "Namespace"),
    "events": ("", "Event"),
    "deployments": ("apps", "Deployment"),
    "replicasets": ("apps", "ReplicaSet"),
    "statefulsets": ("apps", "StatefulSet"),
    "daemonsets": ("apps", "DaemonSet"),
    "jobs": ("batch", "Job"),
    "cronjobs": ("batch", "CronJob"),
    "ingresses": ("networking.k8s.io", "Ingress"),
}


def manifest(resource: str) -> dict[str, Any]:
    """The hand-written object of that kind."""
    loaded: dict[str, Any] = json.loads((MANIFESTS / f"{resource}.json").read_text(encoding="utf-8"))
    return loaded


def recorded(name: str, index: int = 0) -> dict[str, Any]:
    """An item of a recorded list, as a real server gave it."""
    exchange = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    item: dict[str, Any] = json.loads(exchange["body"])["items"][index]
    return item


def moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00"))


class Store:
    """A database, and the rows a test wants in its tables."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    async def cluster(self, label: str = CLUSTER) -> int:
        found: int = await self.connection.fetchval(
            "insert into clusterinfo.cluster (uid, name, label, first_seen, last_seen) "
            "values ($1, $1, $1, now(), now()) on conflict (uid) do update set last_seen = now() returning id",
            label,
        )
        return found

    async def unit(self, resource: str, group: str | None = None, kind: str = "", **columns: Any) -> int:
        """The unit's id; made if missing. Group and kind as in KINDS unless given."""
        known = KINDS.get(resource, ("", ""))
        values = {
            "cluster_id": await self.cluster(),
            "api_group": known[0] if group is None else group,
            "resource": resource,
            "kind": kind or known[1],
            "api_version": "v1",
            **columns,
        }
        marks = ", ".join(f"${n}" for n in range(1, len(values) + 1))
        found: int = await self.connection.fetchval(
            f"insert into clusterinfo.unit ({', '.join(values)}) values ({marks}) "
            "on conflict (cluster_id, api_group, resource) do update set kind = excluded.kind returning id",
            *values.values(),
        )
        return found

    async def floor(self, unit: int, reach: str = "", **columns: Any) -> None:
        values = {"unit_id": unit, "reach": reach, **columns}
        marks = ", ".join(f"${n}" for n in range(1, len(values) + 1))
        await self.connection.execute(
            f"insert into clusterinfo.unit_floor ({', '.join(values)}) values ({marks})", *values.values()
        )

    async def put(
        self, resource: str, body: Any, *, name: str | None = None, namespace: str | None = None, **columns: Any
    ) -> None:
        """A row of `resource`: of an object, or of any body when named."""
        await self._insert("resource", resource, body, name, namespace, {"last_observed_at": NOON, **columns})

    async def put_history(
        self, resource: str, body: Any, *, name: str | None = None, namespace: str | None = None, **columns: Any
    ) -> None:
        """A row of `resource_history`."""
        await self._insert("resource_history", resource, body, name, namespace, columns)

    async def _insert(
        self, table: str, resource: str, body: Any, name: str | None, namespace: str | None, columns: dict[str, Any]
    ) -> None:
        metadata = body.get("metadata", {}) if name is None else {}
        values = {
            "unit_id": await self.unit(resource),
            "namespace": metadata.get("namespace", "") if namespace is None else namespace,
            "name": name or metadata["name"],
            "uid": metadata.get("uid", "uid"),
            "resource_version": metadata.get("resourceVersion", "1"),
            "epoch": 0,
            "live_at": 1,
            "deleted": False,
            "fidelity": 3,
            "normalization": 1,
            "content_hash": b"\0",
            "created": True,
            "valid_from": NOON,
            "first_observed_at": NOON,
            "manager": f"manager of {metadata.get('resourceVersion', '1')}",
            "managed_at": NOON,
            "body": body,
            **columns,
        }
        marks = ", ".join(f"${n}" for n in range(1, len(values) + 1))
        await self.connection.execute(
            f"insert into clusterinfo.{table} ({', '.join(values)}) values ({marks})", *values.values()
        )

    async def one(self, view: str, name: str | None = None) -> dict[str, Any]:
        """The only row of a view (of that name)."""
        column = "pod" if view == "container_images" else "name"
        where = "" if name is None else f"where {column} = '{name}'"
        rows = await self.connection.fetch(f"select * from clusterinfo.{view} {where}")
        assert len(rows) == 1, f"{view}: expected one row, found {len(rows)}"
        return dict(rows[0])

    async def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.connection.fetch(query, *arguments)]


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    connection = await asyncpg.connect(database.dsn, timeout=60)
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    yield Store(connection)
    await connection.close()


# The contract


async def test_views_have_exactly_the_promised_columns(store: Store) -> None:
    rows = await store.rows(
        "select c.relname, string_agg(a.attname || ' ' || replace(format_type(a.atttypid, a.atttypmod), "
        "'timestamp with time zone', 'timestamptz'), ', ' order by a.attnum) "
        "from pg_class c join pg_attribute a on a.attrelid = c.oid "
        "where c.relnamespace = 'clusterinfo'::regnamespace and c.relkind = 'v' and a.attnum > 0 group by 1"
    )
    assert dict(rows) == COLUMNS


async def test_as_of_has_the_columns_of_resources_but_when_last_observed_and_since_when(store: Store) -> None:
    statement = await store.connection.prepare("select * from clusterinfo.resources_as_of(now())")
    columns = [attribute.name for attribute in statement.get_attributes()]
    expected = [column.split()[0] for column in COLUMNS["resources"].split(", ")]
    assert columns == [*(name for name in expected if name != "last_observed_at"), "known_since"]


async def test_changes_have_the_promised_columns(store: Store) -> None:
    statement = await store.connection.prepare("select * from clusterinfo.resource_changes(now(), now())")
    assert [(attribute.name, attribute.type.name) for attribute in statement.get_attributes()] == [
        *((name, "text") for name in ("cluster", "api_group", "resource", "namespace", "name", "uid", "change")),
        ("at", "timestamptz"),
        ("resource_version", "text"),
        *((name, "text") for name in ("changed_by", "operation", "subresource")),
        ("changed_at", "timestamptz"),
        ("known_since", "timestamptz"),
    ]


# Every kind, from a hand-written manifest


EXPECTED: dict[str, dict[str, Any]] = {
    "pods": {
        "phase": "Running",
        "reason": None,
        "ready": True,
        "restarts": 3,  # the containers' and the sidecar's; not those of the init container that is done
        "node_name": "worker-3",
        "pod_ip": "10.42.3.17",
        "host_ip": "192.0.2.13",
        "qos_class": "Burstable",
        "service_account": "checkout",
        "containers": ["checkout", "exporter"],
        "cpu_request_cores": Decimal(2),  # the init container's peak, more than 0.25 + 0.05 + 0.1
        "cpu_limit_cores": Decimal(2),
        "memory_request_bytes": (512 + 128) * 2**20 + 10**7,
        "memory_limit_bytes": 2**30 + 256 * 2**20,
        "owner_kind": "ReplicaSet",
        "owner_name": "checkout-6f7d9c8b5",
        "started_at": moment("2026-11-20T08:15:31Z"),
    },
    "nodes": {
        "ready": False,
        "unschedulable": True,
        "internal_ip": "192.0.2.13",
        "kubelet_version": "v1.34.2",
        "os_image": "Debian GNU/Linux 13 (trixie)",
        "kernel_version": "6.12.48",
        "container_runtime": "containerd://2.1.4",
        "architecture": "arm64",
        "cpu_capacity_cores": Decimal(16),
        "memory_capacity_bytes": 65855396 * 1024,
        "ephemeral_storage_capacity_bytes": 102687672 * 1024,
        "pods_capacity": 110,
        "cpu_allocatable_cores": Decimal("15.89"),
        "memory_allocatable_bytes": 62605220 * 1024,
        "ephemeral_storage_allocatable_bytes": 94636958345,
        "pods_allocatable": 110,
    },
    "deployments": {
        "replicas": 3,
        "ready_replicas": 1,
        "updated_replicas": 2,
        "available_replicas": 0,
        "strategy": "RollingUpdate",
        "images": ["registry.example.com/shop/checkout:2.4.1", "registry.example.com/ops/exporter@sha256:4f5a"],
    },
    "services": {
        "type": "LoadBalancer",
        "cluster_ip": "10.96.14.2",
        "external_ips": ["203.0.113.7"],
        "load_balancer_addresses": ["198.51.100.4", "lb-1.example.net"],
        "ports": ["443:31443/TCP", "53/UDP"],
        "selector": {"app": "checkout"},
    },
    "ingresses": {
        "class": "nginx",
        "hosts": ["shop.example.com", "*"],
        "tls_hosts": ["shop.example.com", "www.example.com"],
        "load_balancer_addresses": ["lb-2.example.net"],
    },
    "configmaps": {"data_keys": ["application.yaml", "z.conf", "logo.png"], "immutable": True},
    "secrets": {"type": "kubernetes.io/tls", "data_keys": ["tls.crt", "tls.key"], "immutable": False},
    "persistentvolumes": {
        "phase": "Bound",
        "capacity_bytes": 20 * 2**30,
        "access_modes": ["ReadWriteOnce"],
        "reclaim_policy": "Delete",
        "storage_class": "gp3",
        "claim_namespace": "shop",
        "claim_name": "data-db-0",
        "source": "ebs.csi.aws.com",
        "status": "Bound",
    },
    "persistentvolumeclaims": {
        "phase": "Bound",
        "requested_bytes": 15 * 2**30,
        "capacity_bytes": 20 * 2**30,
        "access_modes": ["ReadWriteOnce", "ReadOnlyMany"],
        "storage_class": "gp3",
        "volume_name": "pvc-7c0e",
        "status": "Bound",
    },
    "namespaces": {"phase": "Terminating"},
    "replicasets": {
        "replicas": 3,
        "current_replicas": 3,
        "ready_replicas": 2,
        "containers": ["checkout"],
        "images": ["registry.example.com/shop/checkout:2.4.1"],
        "selector": {
            "matchLabels": {"app": "checkout"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["web"]}],
        },
        "owner_kind": "Deployment",
        "owner_name": "checkout",
    },
    "statefulsets": {"replicas": 2, "ready_replicas": 1, "containers": ["postgres"], "images": ["postgres:18"]},
    "daemonsets": {
        "desired_pods": 5,
        "current_pods": 5,
        "ready_pods": 4,
        "updated_pods": 3,
        "available_pods": 4,
        "node_selector": {"kubernetes.io/os": "linux"},
        "containers": ["agent"],
        "images": ["agent:7"],
        "selector": {"matchLabels": {"app": "log-agent"}},
    },
    "jobs": {
        "status": "Complete",
        "completions": 4,
        "parallelism": 2,
        "active": 0,
        "succeeded": 4,
        "failed": 1,
        "started_at": moment("2026-11-21T01:00:00Z"),
        "completed_at": moment("2026-11-21T01:02:30Z"),
        "duration_s": 150.0,
        "containers": ["report"],
        "images": ["report:3"],
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "33333333"}},
        "owner_kind": "CronJob",
        "owner_name": "report",
    },
    "cronjobs": {
        "schedule": "0 1 * * *",
        "time_zone": "Europe/Berlin",
        "suspend": False,
        "active": 1,
        "last_schedule_at": moment("2026-11-22T00:00:00Z"),
        "last_successful_at": moment("2026-11-21T01:02:30Z"),
        "containers": ["report"],
        "images": ["report:3"],
        "selector": {},
    },
    "events": {
        "last_seen_at": moment("2026-11-20T09:16:00Z"),
        "type": "Warning",
        "reason": "BackOff",
        "object_kind": "Pod",
        "object_name": "checkout-6f7d9c8b5-x2x7q",
        "object_field": "spec.containers{checkout}",
        "source": "kubelet, worker-3",
        "message": "Back-off restarting failed container",
        "first_seen_at": moment("2026-11-20T08:16:00Z"),
        "count": 12,
    },
}


async def test_every_kind_reads_a_whole_manifest(store: Store) -> None:
    assert set(EXPECTED) == set(KINDS)
    for resource, expected in EXPECTED.items():
        body = manifest(resource)
        metadata = body["metadata"]
        await store.put(resource, body)
        identity = {
            "cluster": CLUSTER,
            "name": metadata["name"],
            "uid": metadata["uid"],
            "created_at": moment(metadata["creationTimestamp"]),
            "labels": metadata.get("labels", {}),
        }
        if "namespace" in metadata:
            identity["namespace"] = metadata["namespace"]
        assert await store.one(resource) == {**identity, **expected}, resource


async def test_resources_shows_objects_of_every_kind(store: Store) -> None:
    body = manifest("pods")
    await store.put("pods", body, first_observed_at=NOON - dt.timedelta(hours=1))
    await store.put("widgets", {"metadata": {"name": "w"}}, namespace="", name="w", fidelity=2)
    shown = await store.one("resources", body["metadata"]["name"])
    assert shown == {
        "cluster": CLUSTER,
        "api_group": "",
        "api_version": "v1",
        "resource": "pods",
        "kind": "Pod",
        "namespace": "shop",
        "name": "checkout-6f7d9c8b5-x2x7q",
        "uid": body["metadata"]["uid"],
        "resource_version": "184467",
        "created_at": moment("2026-11-20T08:15:30Z"),
        "first_observed_at": NOON - dt.timedelta(hours=1),
        "last_observed_at": NOON,
        "changed_by": "manager of 184467",
        "changed_at": NOON,
        "state": "whole",
        "labels": body["metadata"]["labels"],
        "annotations": body["metadata"]["annotations"],
        "owner_kind": "ReplicaSet",
        "owner_name": "checkout-6f7d9c8b5",
        "owner_uid": body["metadata"]["ownerReferences"][1]["uid"],
        "object": body,
    }
    widget = await store.one("resources", "w")
    assert (widget["state"], widget["namespace"], widget["labels"], widget["owner_kind"]) == ("sanitised", "", {}, None)


async def test_container_images_shows_every_container(store: Store) -> None:
    await store.put("pods", manifest("pods"))
    shop = "registry.example.com/shop/checkout"
    rows = await store.rows("select container, image, image_id, init from clusterinfo.container_images order by 1")
    assert rows == [
        (
            "checkout",
            "registry.example.com/shop/checkout:2.4.1",
            "registry.example.com/shop/checkout@sha256:aa11",
            False,
        ),
        ("debugger-abcde", "busybox:1.37", "docker.io/library/busybox@sha256:cc33", False),
        ("exporter", "registry.example.com/ops/exporter@sha256:4f5a", None, False),
        ("migrate", f"{shop}:2.4.1", f"{shop}@sha256:aa11", True),
        ("proxy", "registry.example.com/mesh/proxy:1.9", "registry.example.com/mesh/proxy@sha256:bb22", True),
    ]


# What a real server answered


RECORDED_EXPECTED: list[tuple[str, str, dict[str, Any]]] = [
    (
        "list-pods-page-1",
        "pods",
        {
            "name": "app-0-0000000-x0",
            "namespace": "ns-000",
            "created_at": moment("2026-11-22T09:24:17Z"),
            "containers": ["main", "sidecar"],
            "cpu_request_cores": Decimal("0.5"),
            "memory_limit_bytes": 2 * 2**30,
            "owner_kind": "ReplicaSet",
            "owner_name": "app-0-0000000",
        },
    ),
    (
        "list-nodes",
        "nodes",
        {
            "name": "node-00000",
            "ready": True,
            "unschedulable": False,
            "internal_ip": None,
            "cpu_capacity_cores": Decimal(16),
            "memory_allocatable_bytes": 60 * 2**30,
            "ephemeral_storage_capacity_bytes": None,
            "pods_capacity": 110,
            "container_runtime": "containerd://2",
        },
    ),
    (
        "list-deployments",
        "deployments",
        {"name": "app-0", "replicas": 3, "ready_replicas": 0, "images": ["registry.example.com/app:v1"]},
    ),
    (
        "list-services",
        "services",
        {
            "name": "kubernetes",
            "type": "ClusterIP",
            "cluster_ip": "10.96.0.1",
            "external_ips": [],
            "load_balancer_addresses": [],
            "ports": ["443/TCP"],
            "selector": {},
        },
    ),
    ("list-secrets", "secrets", {"name": "sec-0", "type": "Opaque", "data_keys": ["password", "token"]}),
    ("list-configmaps", "configmaps", {"data_keys": ["since"], "immutable": False}),
    ("list-namespaces", "namespaces", {"name": "clusterpedia-system", "phase": "Terminating"}),
]


async def test_every_kind_reads_what_a_real_server_answered(store: Store) -> None:
    for name, resource, expected in RECORDED_EXPECTED:
        await store.put(resource, recorded(name))
        row = await store.one(resource)
        assert {column: row[column] for column in expected} == expected, name


# What kubectl's STATUS, READY and RESTARTS make of a pod


def waiting(reason: str, **status: Any) -> dict[str, Any]:
    return {"name": "app", "state": {"waiting": {"reason": reason}}, "ready": False, **status}


def terminated(exit_code: int, reason: str = "", **status: Any) -> dict[str, Any]:
    state = {"terminated": {"exitCode": exit_code, **({"reason": reason} if reason else {})}}
    return {"name": "app", "state": state, "ready": False, **status}


def running(ready: bool = True, **status: Any) -> dict[str, Any]:
    return {"name": "app", "state": {"running": {}}, "ready": ready, "started": True, **status}


def condition(name: str, status: str = "True", **more: str) -> dict[str, Any]:
    return {"conditions": [{"type": name, "status": status, **more}]}


INIT = {"initContainers": [{"name": "one"}, {"name": "app"}]}
SIDECAR: dict[str, Any] = {"initContainers": [{"name": "app", "restartPolicy": "Always"}]}
DELETED = {"deletionTimestamp": "2026-11-22T10:00:00Z"}

# What it is; metadata, spec, status; phase, reason and restarts shown. Source: printPod's tests and code.
POD_STATES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], str | None, int]] = [
    ("running", {}, {}, {"phase": "Running", "containerStatuses": [running(restartCount=4)]}, None, 4),
    ("pending", {}, {}, {"phase": "Pending"}, None, 0),
    (
        "scheduling gated",
        {},
        {},
        {"phase": "Pending", **condition("PodScheduled", "False", reason="SchedulingGated")},
        "SchedulingGated",
        0,
    ),
    (
        "creating",
        {},
        {},
        {"phase": "Pending", "containerStatuses": [waiting("ContainerCreating")]},
        "ContainerCreating",
        0,
    ),
    (
        "first container wins",
        {},
        {},
        {
            "phase": "Running",
            "containerStatuses": [waiting("CrashLoopBackOff", restartCount=7), waiting("ImagePullBackOff")],
        },
        "CrashLoopBackOff",
        7,
    ),
    ("evicted", {}, {}, {"phase": "Failed", "reason": "Evicted"}, "Evicted", 0),
    ("completed", {}, {}, {"phase": "Succeeded", "containerStatuses": [terminated(0, "Completed")]}, "Completed", 0),
    ("error", {}, {}, {"phase": "Failed", "containerStatuses": [terminated(1, "Error")]}, "Error", 0),
    ("exit code", {}, {}, {"phase": "Failed", "containerStatuses": [terminated(3)]}, "ExitCode:3", 0),
    (
        "signal",
        {},
        {},
        {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 137, "signal": 9}}}]},
        "Signal:9",
        0,
    ),
    (
        "one completed, one running and ready",
        {},
        {},
        {"phase": "Running", "containerStatuses": [terminated(0, "Completed"), running()], **condition("Ready")},
        None,
        0,
    ),
    (
        "one completed, one running, not ready",
        {},
        {},
        {
            "phase": "Running",
            "containerStatuses": [terminated(0, "Completed"), running()],
            **condition("Ready", "False"),
        },
        "NotReady",
        0,
    ),
    (
        "second of two init containers runs",
        {},
        INIT,
        {
            "phase": "Pending",
            "initContainerStatuses": [terminated(0, "Completed", restartCount=2), running(restartCount=1)],
            "containerStatuses": [waiting("PodInitializing", restartCount=9)],
        },
        "Init:1/2",
        3,
    ),
    (
        "init container crashes",
        {},
        INIT,
        {"phase": "Pending", "initContainerStatuses": [waiting("CrashLoopBackOff", restartCount=6)]},
        "Init:CrashLoopBackOff",
        6,
    ),
    ("init fails", {}, INIT, {"phase": "Pending", "initContainerStatuses": [terminated(1, "Error")]}, "Init:Error", 0),
    ("init exit code", {}, INIT, {"phase": "Failed", "initContainerStatuses": [terminated(2)]}, "Init:ExitCode:2", 0),
    (
        "init waits",
        {},
        INIT,
        {"phase": "Pending", "initContainerStatuses": [waiting("PodInitializing")]},
        "Init:0/2",
        0,
    ),
    (
        "sidecar runs beside",
        {},
        SIDECAR,
        {
            "phase": "Running",
            "initContainerStatuses": [running(restartCount=2)],
            "containerStatuses": [running(restartCount=1)],
        },
        None,
        3,
    ),
    (
        "sidecar starts",
        {},
        SIDECAR,
        {"phase": "Pending", "initContainerStatuses": [running(started=False)]},
        "Init:0/1",
        0,
    ),
    ("terminating", DELETED, {}, {"phase": "Running", "containerStatuses": [running()]}, "Terminating", 0),
    (
        "deleted but done",
        DELETED,
        {},
        {"phase": "Succeeded", "containerStatuses": [terminated(0, "Completed")]},
        "Completed",
        0,
    ),
    ("node lost", DELETED, {}, {"phase": "Running", "reason": "NodeLost"}, "Unknown", 0),
]


async def test_reason_and_restarts_are_as_kubectl_shows_them(store: Store) -> None:
    for name, metadata, spec, status, _, _ in POD_STATES:
        await store.put("pods", {"metadata": metadata, "spec": spec, "status": status}, name=name, namespace="x")
    shown = {row[0]: row[1:] for row in await store.rows("select name, phase, reason, restarts from clusterinfo.pods")}
    assert shown == {case[0]: (case[3]["phase"], case[4], case[5]) for case in POD_STATES}


def container(name: str = "c", *, sidecar: bool = False, **requests: str) -> dict[str, Any]:
    return {
        "name": name,
        "resources": {"requests": requests, "limits": requests},
        **({"restartPolicy": "Always"} if sidecar else {}),
    }


POD_AMOUNTS: list[tuple[str, dict[str, Any], str | None, str | None]] = [
    ("none set", {"containers": [container()]}, None, None),
    ("one of two set", {"containers": [container(), container(cpu="100m")]}, "0.1", "0.1"),
    ("sum", {"containers": [container(cpu="1500m"), container(cpu="0.5")]}, "2", "2"),
    (
        "init peak",
        {"containers": [container(cpu="1")], "initContainers": [container(cpu="3"), container(cpu="2")]},
        "3",
        "3",
    ),
    (
        "sidecars run with the containers",
        {"containers": [container(cpu="1")], "initContainers": [container(sidecar=True, cpu="2")]},
        "3",
        "3",
    ),
    (
        "only sidecars before an init container count with it",
        {
            "containers": [container(cpu="1")],
            "initContainers": [
                container(sidecar=True, cpu="1"),
                container(cpu="4"),
                container(sidecar=True, cpu="1"),
            ],
        },
        "5",
        "5",
    ),
    ("only an init container", {"containers": [container()], "initContainers": [container(cpu="2")]}, "2", "2"),
    ("overhead", {"containers": [container(cpu="1")], "overhead": {"cpu": "250m"}}, "1.25", "1.25"),
    ("overhead alone is requested, not a limit", {"containers": [container()], "overhead": {"cpu": "1"}}, "1", None),
    (
        "given for the pod",
        {"containers": [container(cpu="1")], "resources": {"requests": {"cpu": "4"}, "limits": {"cpu": "5"}}},
        "4",
        "5",
    ),
]


async def test_requests_and_limits_are_what_the_scheduler_reckons(store: Store) -> None:
    for name, spec, _, _ in POD_AMOUNTS:
        await store.put("pods", {"metadata": {}, "spec": spec}, name=name, namespace="x")
    shown = {
        row[0]: row[1:]
        for row in await store.rows("select name, cpu_request_cores, cpu_limit_cores from clusterinfo.pods")
    }
    assert shown == {
        name: (request and Decimal(request), limit and Decimal(limit)) for name, _, request, limit in POD_AMOUNTS
    }


def resized(
    asked: str, has: str | None, promised: str | None, name: str = "c"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A container of a pod that is resized in place, and its status; `has`: None for no `resources` in it."""
    amounts: dict[str, Any] = {} if has is None else {"resources": {"requests": {"cpu": has}, "limits": {"cpu": has}}}
    allocated = {} if promised is None else {"allocatedResources": {"cpu": promised}}
    return container(name, cpu=asked), {"name": name, **amounts, **allocated}


PENDING: dict[str, Any] = {"type": "PodResizePending", "status": "True"}
INFEASIBLE: dict[str, Any] = {"conditions": [{"type": "Ready"}, PENDING | {"reason": "Infeasible"}]}
DEFERRED: dict[str, Any] = {"conditions": [PENDING | {"reason": "Deferred"}]}
RESTARTS: dict[str, Any] = {"restartPolicy": "Always"}

# name, containers with their statuses, init containers with theirs, more of spec, more of status, request, limit
RESIZED: list[tuple[str, list[Any], list[Any], dict[str, Any], dict[str, Any], str | None, str | None]] = [
    ("not resized", [resized("1", "1", "1")], [], {}, {}, "1", "1"),
    ("before Kubernetes 1.33", [resized("1", None, None)], [], {}, {}, "1", "1"),
    ("growing, not given yet", [resized("2", "1", "1")], [], {}, {}, "2", "2"),
    ("growing, promised", [resized("2", "1", "2")], [], {}, {}, "2", "2"),
    ("growing, on a node that is full now", [resized("2", "1", "1")], [], {}, DEFERRED, "2", "2"),
    ("growing beyond the node", [resized("60", "1", "1")], [], {}, INFEASIBLE, "1", "1"),
    ("growing beyond the node, as 1.32 said it", [resized("60", "1", "1")], [], {}, {"resize": "Infeasible"}, "1", "1"),
    ("shrinking", [resized("500m", "2", "2")], [], {}, {}, "2", "2"),
    ("shrinking, promised", [resized("500m", "2", "500m")], [], {}, {}, "2", "2"),
    ("promised more than it has or asks for", [resized("1", "1", "3")], [], {}, {}, "3", "1"),
    ("promised, without resources", [resized("1", None, "3")], [], {}, {}, "1", "1"),
    ("two ways at once", [resized("1", "3", "3"), resized("4", "2", "2", "d")], [], {}, {}, "7", "7"),
    ("a sidecar", [resized("1", "1", "1")], [resized("1", "3", "3", "s")], RESTARTS, {}, "4", "4"),
    ("an init container is not resized", [resized("1", "1", "1")], [resized("2", "5", "5", "s")], {}, {}, "2", "2"),
    ("a status of another name", [(container("c", cpu="1"), resized("1", "9", "9", "d")[1])], [], {}, {}, "1", "1"),
    (
        "statuses in another order",
        [(container("c", cpu="1"), resized("2", "1", "1", "d")[1]), (container("d"), resized("1", "3", "3")[1])],
        [],
        {},
        {},
        "4",
        "4",
    ),
    ("null and odd", [(container("c", cpu="1"), {"name": "c", "resources": None})], [], {}, {}, "1", "1"),
    (
        "as a whole, shrinking, with overhead",
        [resized("1", "1", "1")],
        [],
        {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "3"}}, "overhead": {"cpu": "250m"}},
        {
            "resources": {"requests": {"cpu": "4250m"}, "limits": {"cpu": "6250m"}},
            "allocatedResources": {"cpu": "3250m"},
        },
        "4.25",
        "6.25",
    ),
    (
        "as a whole, growing beyond the node",
        [resized("1", "1", "1")],
        [],
        {"resources": {"requests": {"cpu": "60"}}},
        INFEASIBLE | {"resources": {"requests": {"cpu": "2"}}, "allocatedResources": {"cpu": "3"}},
        "3",
        "1",
    ),
    (
        "as a whole, growing beyond the node, where the status does not tell",
        [resized("1", "1", "1")],
        [],
        {"resources": {"requests": {"cpu": "60"}}},
        INFEASIBLE,
        "60",
        "1",
    ),
    (
        "of another resource as a whole",
        [resized("1", "1", "1")],
        [],
        {"resources": {"requests": {"memory": "1Gi"}}},
        {},
        "1",
        "1",
    ),
]


async def test_of_a_pod_that_is_resized_the_most_of_what_it_asks_for_and_has_is_reckoned(store: Store) -> None:
    """Source: PodRequests and PodLimits of k8s.io/component-helpers/resource, Kubernetes 1.33 to 1.36."""
    for name, containers, inits, more_spec, more_status, _, _ in RESIZED:
        sort = {key: value for key, value in more_spec.items() if key == "restartPolicy"}
        spec = {
            "containers": [one for one, _ in containers],
            **({"initContainers": [one | sort for one, _ in inits]} if inits else {}),
            **{key: value for key, value in more_spec.items() if key not in sort},
        }
        status = {"containerStatuses": [s for _, s in containers], "initContainerStatuses": [s for _, s in inits]}
        await store.put(
            "pods", {"metadata": {}, "spec": spec, "status": status | more_status}, name=name, namespace="x"
        )
    query = "select name, cpu_request_cores::text, cpu_limit_cores::text from clusterinfo.pods"
    shown = {row[0]: row[1:] for row in await store.rows(query)}
    assert shown == {line[0]: line[-2:] for line in RESIZED}


async def test_volumes_and_claims_that_are_being_deleted_say_terminating(store: Store) -> None:
    for resource in ("persistentvolumes", "persistentvolumeclaims"):
        await store.put(resource, {"metadata": DELETED, "spec": {}, "status": {"phase": "Bound"}}, name="gone")
        await store.put(resource, {"metadata": {}, "spec": {}, "status": {"phase": "Lost"}}, name="kept")
        await store.put(resource, {"metadata": {"deletionTimestamp": None}, "spec": {}, "status": {}}, name="new")
        rows = await store.rows(f"select name, phase, status from clusterinfo.{resource} order by name")
        assert rows == [("gone", "Bound", "Terminating"), ("kept", "Lost", "Lost"), ("new", None, None)]


JOB_STATES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("Running", {}, {}),
    ("Failed", {}, condition("Failed")),
    ("Complete", DELETED, condition("Complete")),
    ("Terminating", DELETED, condition("Complete", "False")),
    ("Suspended", {}, condition("Suspended")),
    ("FailureTarget", {}, condition("FailureTarget")),
    ("SuccessCriteriaMet", {}, condition("SuccessCriteriaMet")),
]


async def test_the_status_of_a_job_is_as_kubectl_shows_it(store: Store) -> None:
    for name, metadata, status in JOB_STATES:
        await store.put("jobs", {"metadata": metadata, "spec": {}, "status": status}, name=name, namespace="x")
    rows = await store.rows("select name, status from clusterinfo.jobs")
    assert dict(rows) == {name: name for name, _, _ in JOB_STATES}


async def test_a_running_job_has_lasted_until_now(store: Store) -> None:
    await store.put("jobs", {"status": {"startTime": "2026-01-01T00:00:00Z"}}, name="j", namespace="x")
    row = await store.one("jobs")
    assert row["duration_s"] > 86400
    assert row["completed_at"] is None


async def test_a_job_that_failed_lasted_until_then(store: Store) -> None:
    started = "2026-11-20T00:00:00Z"
    failed: dict[str, Any] = {"type": "Failed", "status": "True", "lastTransitionTime": "2026-11-20T00:10:00Z"}
    jobs: dict[str, dict[str, Any]] = {
        "failed": {"conditions": [{"type": "FailureTarget", "status": "True"}, failed]},
        "failed, nobody says when": {"conditions": [{"type": "Failed", "status": "True"}]},
        "complete": {"completionTime": "2026-11-20T00:05:00Z", "conditions": [{"type": "Complete", "status": "True"}]},
        "failed once": {"completionTime": "2026-11-20T00:05:00Z", "conditions": [failed | {"status": "False"}]},
    }
    for name, status in jobs.items():
        await store.put("jobs", {"spec": {}, "status": {"startTime": started, **status}}, name=name, namespace="x")
    rows = dict(await store.rows("select name, duration_s from clusterinfo.jobs"))
    assert rows == {"failed": 600, "failed, nobody says when": None, "complete": 300, "failed once": 300}


MAPS = {
    "resources": ["labels", "annotations"],
    "services": ["labels", "selector"],
    "daemonsets": ["labels", "node_selector", "selector"],
    **{view: ["labels", "selector"] for view in ("replicasets", "jobs", "cronjobs")},
    **{view: ["labels"] for view in ("pods", "nodes", "secrets", "events", "namespaces")},
}


@pytest.mark.parametrize("odd", [None, "text", 7, [], ["a"]])
async def test_a_map_that_is_null_or_none_reads_as_an_empty_one(store: Store, odd: Any) -> None:
    """So that jsonb_each(labels) fails for no row of a view."""
    template = {"spec": {"nodeSelector": odd}}
    spec = {"selector": odd, "template": template, "jobTemplate": {"spec": {"selector": odd}}}
    body = {"metadata": {"labels": odd, "annotations": odd}, "spec": spec, "status": {}}
    for resource in (view for view in MAPS if view != "resources"):
        await store.put(resource, body, name="a", namespace="x")
    for view, columns in [*MAPS.items(), ("resources_as_of(now())", MAPS["resources"])]:
        for column in columns:
            rows = await store.rows(
                f"select distinct {column}, (select count(*) from jsonb_each({column})) from clusterinfo.{view}"
            )
            assert rows == [({}, 0)], (view, column)


async def test_kinds_have_more_than_one_way_to_say_it(store: Store) -> None:
    await store.put("services", {"spec": {"type": "ExternalName", "externalName": "db.example.net"}}, name="s")
    await store.put("ingresses", {"metadata": {"annotations": {"kubernetes.io/ingress.class": "old"}}}, name="i")
    await store.put("persistentvolumes", {"spec": {"nfs": {"server": "n"}, "capacity": {"storage": "1.5G"}}}, name="v")
    pending = {"spec": {"accessModes": ["ReadWriteMany"]}, "status": {"accessModes": None}}
    await store.put("persistentvolumeclaims", pending, name="c")
    await store.put("events", {"eventTime": "2026-11-20T08:16:00.123456Z", "reportingComponent": "scheduler"}, name="e")
    await store.put(
        "events", {"series": {"count": 3, "lastObservedTime": "2026-11-20T09:00:00.5Z"}, "count": 1}, name="f"
    )
    assert (await store.one("services"))["external_ips"] == ["db.example.net"]
    assert (await store.one("ingresses"))["class"] == "old"
    volume = await store.one("persistentvolumes")
    assert (volume["source"], volume["capacity_bytes"]) == ("nfs", 1_500_000_000)
    assert (await store.one("persistentvolumeclaims"))["access_modes"] == ["ReadWriteMany"]
    event = await store.one("events", "e")
    assert (event["source"], event["count"], event["first_seen_at"]) == (
        "scheduler",
        1,
        moment("2026-11-20T08:16:00.123456Z"),
    )
    assert event["last_seen_at"] == event["first_seen_at"]
    series = await store.one("events", "f")
    assert (series["count"], series["last_seen_at"]) == (3, moment("2026-11-20T09:00:00.5Z"))


async def test_a_kind_of_another_group_is_not_shown(store: Store) -> None:
    other = await store.unit("pods", group="metrics.k8s.io", kind="PodMetrics")
    await store.connection.execute(
        "insert into clusterinfo.resource (unit_id, namespace, name, uid, resource_version, epoch, live_at, fidelity, "
        "normalization, content_hash, created, valid_from, first_observed_at, last_observed_at, body) "
        "values ($1, 'x', 'p', 'u', '1', 0, 1, 3, 1, '', true, now(), now(), now(), '{}')",
        other,
    )
    assert await store.rows("select 1 from clusterinfo.pods") == []
    assert (await store.one("resources"))["kind"] == "PodMetrics"


# Objects that are not as they should be


ODD_PARTS: list[Any] = [None, 7, True, "text", [], {}, ["text", None, 7, [], {}], {"a": {"b": "c"}}]
ODD_VALUES: list[Any] = [None, "lots", -1.5, [{}], {"x": []}]
PART_NAMES = [
    *("metadata", "spec", "status", "data", "binaryData", "immutable", "type", "reason", "count", "series"),
    *("involvedObject", "source", "firstTimestamp", "eventTime", "lastTimestamp"),
]


def spoiled(body: Any, odd: Any) -> list[Any]:
    """The body with one value after another, at any depth, replaced by the odd one."""
    if isinstance(body, dict):
        return [{**body, key: new} for key, value in body.items() for new in (odd, *spoiled(value, odd))]
    if isinstance(body, list):
        return [
            [*body[:place], new, *body[place + 1 :]]
            for place, value in enumerate(body)
            for new in (odd, *spoiled(value, odd))
        ]
    return []


async def test_odd_bodies_never_make_a_view_fail(store: Store) -> None:
    """Bodies that are no objects, objects whose parts are anything, and every value of every manifest spoiled."""
    for resource in KINDS:
        bodies: list[Any] = [part for part in ODD_PARTS if part is not None]
        bodies += [dict.fromkeys(PART_NAMES, odd) for odd in ODD_PARTS]
        bodies += [new for odd in ODD_VALUES for new in spoiled(manifest(resource), odd)]
        unit = await store.unit(resource)
        await store.connection.execute(
            "insert into clusterinfo.resource (unit_id, namespace, name, uid, resource_version, epoch, live_at, "
            "fidelity, normalization, content_hash, created, valid_from, first_observed_at, last_observed_at, body) "
            "select $1, '', place, '', '', 0, 1, 3, 1, '', true, now(), now(), now(), body::jsonb "
            "from unnest($2::text[]) with ordinality as b (body, place)",
            unit,
            [json.dumps(body) for body in bodies],
        )
        rows = await store.connection.fetch(f"select * from clusterinfo.{resource}")
        assert len(rows) == len(bodies), resource
    await store.connection.fetch("select * from clusterinfo.container_images")
    await store.connection.fetch("select * from clusterinfo.resources")
    await store.connection.fetch("select * from clusterinfo.resources_as_of(now())")


async def test_what_could_not_be_stored_shows_with_its_identity(store: Store) -> None:
    states = {"oversize": (1, {"size_bytes": 9_000_000, "sha256": "00"}), "identity": (0, None)}
    for resource in KINDS:
        for state, (fidelity, body) in states.items():
            await store.put(resource, body, name=state, namespace="x", fidelity=fidelity)
            row = await store.one(resource, state)
            known = {column: value for column, value in row.items() if value is not None}
            expected = {"cluster": CLUSTER, "namespace": "x", "name": state, "uid": "uid"}
            assert known == {column: value for column, value in expected.items() if column in row}, resource
    assert await store.rows(
        "select state, count(*), count(created_at), count(labels), count(owner_kind), count(object) "
        "from clusterinfo.resources group by 1 order by 1"
    ) == [("identity", len(KINDS), 0, 0, 0, 0), ("oversize", len(KINDS), 0, 0, 0, 0)]
    assert await store.rows("select 1 from clusterinfo.container_images") == []


async def test_deleted_objects_are_not_shown(store: Store) -> None:
    for resource in KINDS:
        await store.put(resource, manifest(resource), deleted=True)
        assert await store.rows(f"select 1 from clusterinfo.{resource}") == []
    for view in ("resources", "container_images"):
        assert await store.rows(f"select 1 from clusterinfo.{view}") == []


async def test_clusters_are_separated_by_their_label(store: Store) -> None:
    await store.put("pods", manifest("pods"))
    await store.connection.execute("update clusterinfo.cluster set name = 'x', label = 'prod-5180eaa4'")
    assert (await store.one("pods"))["cluster"] == "prod-5180eaa4"
    assert (await store.one("resources"))["cluster"] == "prod-5180eaa4"


async def test_counting_objects_reads_no_body(store: Store) -> None:
    """The plan holds no call that takes a body apart: counting 100,000 objects must not decompress them."""
    for query in (
        "select count(*) from clusterinfo.pods",
        "select kind, count(*) from clusterinfo.resources group by 1",
    ):
        plan = "\n".join(row[0] for row in await store.rows(f"explain verbose {query}"))
        assert "#>" not in plan, plan


# Values


QUANTITIES: list[tuple[str | None, str | None]] = [
    ("0", "0"),
    ("1", "1"),
    ("110", "110"),
    ("250m", "0.25"),
    ("1500m", "1.5"),
    ("100n", "0.0000001"),
    ("5u", "0.000005"),
    ("2k", "2000"),
    ("2M", "2000000"),
    ("1.5G", "1500000000"),
    ("1T", "1000000000000"),
    ("1P", "1000000000000000"),
    ("1E", "1000000000000000000"),
    ("1Ki", "1024"),
    ("64Mi", "67108864"),
    ("0.5Gi", "536870912"),
    ("1Ti", "1099511627776"),
    ("1Pi", "1125899906842624"),
    ("8Ei", "9223372036854775808"),
    ("1e3", "1000"),
    ("1E3", "1000"),
    ("12e6", "12000000"),
    ("1e-3", "0.001"),
    ("1.5e+2", "150"),
    ("+5", "5"),
    ("-5", "-5"),
    ("-250m", "-0.25"),
    ("5.", "5"),
    (".5", "0.5"),
    (".5Gi", "536870912"),
    ("00012", "12"),
    (None, None),
    ("", None),
    (" 1", None),
    ("1 ", None),
    ("1\n", None),
    ("lots", None),
    ("1K", None),
    ("1ki", None),
    ("1mi", None),
    ("1Mi5", None),
    ("1 Gi", None),
    ("1GiB", None),
    ("1e", None),
    ("1e3Ki", None),
    ("1e999999999", None),
    ("e3", None),
    ("m", None),
    (".", None),
    ("-", None),
    ("1,5", None),
    ("1..5", None),
    ("0x10", None),
    ("NaN", None),
    ("Infinity", None),
    ("١٢", None),
    ("9" * 200, None),
]


async def test_quantities(store: Store) -> None:
    texts = [text for text, _ in QUANTITIES]
    rows = await store.rows(
        "select clusterinfo.quantity(t) from unnest($1::text[]) with ordinality as u (t, n) order by n", texts
    )
    found = dict(zip(texts, (row[0] for row in rows), strict=True))
    assert found == {text: number and Decimal(number) for text, number in QUANTITIES}


async def test_bytes_are_rounded_up_and_fit_64_bits(store: Store) -> None:
    rows = await store.rows(
        "select clusterinfo.whole_bytes(clusterinfo.quantity(t)) from unnest($1::text[]) with ordinality as u (t, n) "
        "order by n",
        ["1", "100m", "1500m", "7Ei", "9223372036854775807", "9223372036854775807500m", "8Ei", "-1.5", "lots", None],
    )
    assert [row[0] for row in rows] == [1, 1, 2, 7 * 2**60, 2**63 - 1, None, None, -1, None, None]


MOMENTS: list[tuple[str | None, str | None]] = [
    ("2026-11-22T09:24:17Z", "2026-11-22T09:24:17Z"),
    ("2026-11-22T09:24:17.123456Z", "2026-11-22T09:24:17.123456Z"),
    ("2026-11-22T09:24:17.123456000Z", "2026-11-22T09:24:17.123456Z"),
    ("2026-11-22T09:24:17+02:00", "2026-11-22T07:24:17Z"),
    ("2026-11-22T09:24:17-05:30", "2026-11-22T14:54:17Z"),
    ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
    ("2000-02-29T00:00:00Z", "2000-02-29T00:00:00Z"),
    ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
    ("2026-02-29T00:00:00Z", None),
    ("1900-02-29T00:00:00Z", None),
    ("2026-02-30T00:00:00Z", None),
    ("2026-04-31T00:00:00Z", None),
    ("2026-13-01T00:00:00Z", None),
    ("2026-00-01T00:00:00Z", None),
    ("2026-01-00T00:00:00Z", None),
    ("2026-10-28T23:59:59Z", "2026-10-28T23:59:59Z"),
    ("2026-12-01T00:00:00Z", "2026-12-01T00:00:00Z"),
    ("2026-00-28T00:00:00Z", None),
    ("2026-19-28T00:00:00Z", None),
    ("2026-1x-01T00:00:00Z", None),
    ("2026-01-01T29:00:00Z", None),
    ("2026-01-01T00:70:00Z", None),
    ("2026-01-01T00:00:7٣Z", None),
    ("0000-01-01T00:00:00Z", None),
    ("2026-11-22T24:00:00Z", None),
    ("2026-11-22T09:60:00Z", None),
    ("2026-11-22T09:00:60Z", None),
    ("2026-11-22T09:24:17", None),
    ("2026-11-22T09:24:17+99:00", None),
    ("2026-11-22 09:24:17Z", None),
    ("2026-11-22T09:24:17.Z", None),
    ("2026-11-22T09:24:17Z\n", None),
    ("2026-11-22", None),
    ("now", None),
    ("infinity", None),
    ("epoch", None),
    ("", None),
    (None, None),
]


@pytest.mark.parametrize(
    ("references", "owner"),
    [
        ([{"name": "a"}], "a"),
        ([{"name": "a", "controller": False}], "a"),
        ([{"name": "a"}, {"name": "b", "controller": True}], "b"),
        ([{"name": "a", "controller": True}, {"name": "b"}], "a"),
        ([{"name": "a"}, {"name": "b"}], "a"),
        ([{"controller": True}], None),
        ([None, {"name": "b", "controller": True}], "b"),
        ([], None),
        ({"name": "a"}, None),
        ("a", None),
        (None, None),
    ],
)
async def test_owners(store: Store, references: Any, owner: str | None) -> None:
    body = json.dumps({"metadata": {"ownerReferences": references}})
    assert (await store.rows("select clusterinfo.owner_of($1::text::jsonb, 'name')", body))[0][0] == owner


@pytest.mark.parametrize("zone", ["UTC", "America/St_Johns"])
async def test_moments(store: Store, zone: str) -> None:
    await store.connection.execute(f"set timezone = '{zone}'; set datestyle = 'SQL, DMY'")
    texts = [text for text, _ in MOMENTS]
    rows = await store.rows(
        "select clusterinfo.moment(t) from unnest($1::text[]) with ordinality as u (t, n) order by n", texts
    )
    found = dict(zip(texts, (row[0] for row in rows), strict=True))
    assert found == {text: time and moment(time) for text, time in MOMENTS}


async def test_integers_and_booleans(store: Store) -> None:
    integers = {
        "0": 0, "-1": -1, "999999999": 999999999, "2147483647": 2147483647, "-2147483648": -2147483648,
        "2147483648": None, "-2147483649": None, "99999999999": None, "1.5": None, "1e3": None, "": None, "x": None,
    }  # fmt: skip
    rows = await store.rows("select t, clusterinfo.as_integer(t) from unnest($1::text[]) as t", list(integers))
    assert dict(rows) == integers
    booleans = {"true": True, "false": False, "True": None, "1": None, "": None}
    rows = await store.rows("select t, clusterinfo.as_boolean(t) from unnest($1::text[]) as t", list(booleans))
    assert dict(rows) == booleans


# Freshness


async def test_freshness_shows_each_reach_and_what_has_none(store: Store) -> None:
    pods = await store.unit("pods")
    await store.floor(pods, "", state="verified", objects=7, verified_at=NOON)
    await store.floor(pods, "shop", state="failed", last_error="503")
    await store.unit("secrets")
    gone = await store.unit("widgets", "example.com", "Widget", state="gone")
    await store.floor(gone, "", state="verified", objects=5, verified_at=NOON)
    await store.floor(gone, "shop", state="failed", objects=5, verified_at=BEFORE, last_error="503")
    left_out = await store.unit("leases", "coordination.k8s.io", "Lease", state="excluded")
    await store.floor(left_out, "shop", state="forbidden", last_error="403")
    rows = await store.rows(
        "select api_group, resource, kind, reach, objects, state, verified_at, last_error "
        "from clusterinfo.freshness order by resource, reach"
    )
    assert rows == [
        ("coordination.k8s.io", "leases", "Lease", "", 0, "excluded", None, None),
        ("", "pods", "Pod", "", 7, "verified", NOON, None),
        ("", "pods", "Pod", "shop", 0, "failed", None, "503"),
        ("", "secrets", "Secret", "", 0, "unverified", None, None),
        ("example.com", "widgets", "Widget", "", 0, "gone", NOON, None),
    ]


@pytest.mark.parametrize(
    ("state", "counted"),
    [
        ("failed", {"": 2, "blue": 1}),
        ("forbidden", {"": 2, "blue": 1}),
        ("unverified", {"": 2, "blue": 1}),
        ("verified", {"": 99, "blue": 99}),
        ("excluded", {"": 3}),
    ],
)
async def test_rows_of_what_is_not_verified_are_counted_each_once(
    state: str, counted: dict[str, int], store: Store
) -> None:
    pods = await store.unit("pods", state="excluded" if state == "excluded" else None)
    for reach in ("", "blue"):
        await store.floor(pods, reach, state="verified" if state == "excluded" else state, objects=99)
    for name, namespace in (("a", "blue"), ("b", "green"), ("c", "green")):
        await store.put("pods", {}, name=name, namespace=namespace)
    await store.put("pods", {}, name="d", namespace="green", deleted=True)
    assert dict(await store.rows("select reach, objects from clusterinfo.freshness")) == counted


async def test_age_counts_from_the_last_proof(store: Store) -> None:
    pods = await store.unit("pods")
    await store.floor(pods, verified_at=dt.datetime.now(dt.UTC) - dt.timedelta(seconds=90))
    assert 89 < (await store.one("freshness"))["age_s"] < 180


# History


def pod(name: str, version: str, uid: str = "u1") -> dict[str, Any]:
    return {"apiVersion": "v1", "metadata": {"namespace": "x", "name": name, "uid": uid, "resourceVersion": version}}


def at(minutes: int) -> dt.datetime:
    return NOON + dt.timedelta(minutes=minutes)


@pytest.fixture
async def lives(store: Store) -> Store:
    """Three objects' lives, in minutes after noon.

    kept: created at 0, updated at 10, still there. lost: created at 5, deleted at 20 (a tombstone). again: created at 0
    as u1, deleted at 15, created at 15 as u2, updated at 30.
    """
    await store.put_history("pods", pod("kept", "1"), created=True, valid_from=at(0), valid_to=at(10))
    await store.put("pods", pod("kept", "2"), created=False, valid_from=at(10), first_observed_at=at(0))
    await store.put_history("pods", pod("lost", "3"), created=True, deleted=True, valid_from=at(5), valid_to=at(20))
    await store.put("pods", pod("lost", "4"), created=False, deleted=True, valid_from=at(20))
    await store.put_history("pods", pod("again", "5"), created=True, deleted=True, valid_from=at(0), valid_to=at(15))
    await store.put_history("pods", pod("again", "6", "u2"), created=True, valid_from=at(15), valid_to=at(30))
    await store.put("pods", pod("again", "7", "u2"), created=False, valid_from=at(30))
    return store


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        (-1, {}),
        (0, {"kept": "1", "again": "5"}),
        (5, {"kept": "1", "lost": "3", "again": "5"}),
        (10, {"kept": "2", "lost": "3", "again": "5"}),
        (15, {"kept": "2", "lost": "3", "again": "6"}),
        (20, {"kept": "2", "again": "6"}),
        (29, {"kept": "2", "again": "6"}),
        (30, {"kept": "2", "again": "7"}),
        (9999, {"kept": "2", "again": "7"}),
    ],
)
async def test_resources_as_of_a_moment(lives: Store, minutes: int, expected: dict[str, str]) -> None:
    rows = await lives.rows(
        "select name, resource_version, object #>> '{metadata,resourceVersion}' from clusterinfo.resources_as_of($1)",
        at(minutes),
    )
    assert {name: version for name, version, _ in rows} == expected
    assert all(version == stored for _, version, stored in rows)


async def test_the_past_is_shown_as_the_present_is(lives: Store) -> None:
    now = await lives.connection.fetch("select * from clusterinfo.resources order by name")
    then = await lives.connection.fetch("select * from clusterinfo.resources_as_of($1) order by name", at(60))
    shown = [{k: v for k, v in row.items() if k != "last_observed_at"} | {"known_since": None} for row in now]
    assert [dict(row) for row in then] == shown


async def test_changes_in_a_range_of_time(lives: Store) -> None:
    query = (
        "select name, change, at, resource_version, uid from clusterinfo.resource_changes($1, $2) order by 3, 1, 2 desc"
    )
    by = await lives.rows("select change, resource_version, changed_by from clusterinfo.resource_changes($1, $2)", *ALL)
    assert {who == (None if change == "deleted" else f"manager of {version}") for change, version, who in by} == {True}
    changes = [
        ("again", "created", at(0), "5", "u1"),
        ("kept", "created", at(0), "1", "u1"),
        ("lost", "created", at(5), "3", "u1"),
        ("kept", "updated", at(10), "2", "u1"),
        ("again", "deleted", at(15), "5", "u1"),
        ("again", "created", at(15), "6", "u2"),
        ("lost", "deleted", at(20), "3", "u1"),
        ("again", "updated", at(30), "7", "u2"),
    ]
    assert await lives.rows(query, at(-1), at(60)) == changes
    assert await lives.rows(query, at(5), at(15)) == changes[2:4]
    assert await lives.rows(query, at(15), at(15)) == []
    parts = [await lives.rows(query, at(start), at(start + 5)) for start in range(-5, 60, 5)]
    assert [change for part in parts for change in part] == changes


ALL = at(-1), at(60)


async def snapshot(store: Store, cluster: int, started: int, completed: int | None) -> None:
    """A run of lists, in minutes after noon; None: it has not ended."""
    await store.connection.execute(
        "insert into clusterinfo.snapshot (id, cluster_id, started_at, completed_at) "
        "values (gen_random_uuid(), $1, $2, $3)", cluster, at(started), None if completed is None else at(completed)
    )  # fmt: skip


async def since(store: Store, label: str = CLUSTER) -> dt.datetime | None:
    found: dt.datetime | None = await store.connection.fetchval("select clusterinfo.known_since($1)", label)
    return found


async def test_the_past_is_known_since_the_first_run_of_lists_had_ended(lives: Store) -> None:
    cluster = await lives.cluster()
    await snapshot(lives, await lives.cluster("another"), -90, -80)
    await snapshot(lives, cluster, -1, None)
    assert await since(lives) is None
    for started in (50, 0, 20):
        await snapshot(lives, cluster, started, started + 6)
    assert await since(lives) == at(6)
    assert await since(lives, "nobody") is None
    for function in ("resources_as_of($1)", "resource_changes($1, 'infinity')"):
        rows = await lives.rows(f"select known_since from clusterinfo.{function}", at(0))
        assert set(rows) == {(at(6),)}, function
    found = await lives.rows(
        "select min(at) from clusterinfo.resource_changes('-infinity', 'infinity') where at > known_since"
    )
    assert found == [(at(10),)]


async def test_the_past_is_not_known_longer_than_history_is_kept(lives: Store) -> None:
    await snapshot(lives, await lives.cluster(), 0, 6)
    month = NOON.date().replace(day=1)
    later = (month + dt.timedelta(days=32)).replace(day=1)
    assert (await since(lives)) == at(6)
    for (name,) in await lives.rows(
        "select relname from pg_class where relispartition and relkind = 'r' and relname ~ 'history_[0-9]'"
    ):
        await lives.connection.execute(f"drop table clusterinfo.{name}")
    await lives.connection.execute("select clusterinfo.make_history_month($1)", later)
    await lives.connection.execute("set timezone = 'Asia/Tokyo'")
    assert await since(lives) == dt.datetime.combine(later, dt.time.min, dt.UTC)


async def test_since_when_costs_nothing_unless_it_is_asked_for(store: Store) -> None:
    for function in ("resources_as_of(now())", "resource_changes(now(), now())"):
        for columns, asked in (("name", False), ("name, known_since", True)):
            plan = await store.rows(f"explain select {columns} from clusterinfo.{function}")
            assert ("snapshot" in str(plan)) == asked, plan


# Rights


async def test_the_reader_may_read_what_is_known_of_clusters_and_change_nothing(store: Store) -> None:
    await store.put("pods", manifest("pods"))
    relations = [row[0] for row in await store.rows(
        "select relname from pg_class where relnamespace = 'clusterinfo'::regnamespace and relkind in ('r', 'p', 'v')"
    )]  # fmt: skip
    await store.connection.execute("set role clusterinfo_reader")
    hidden = {"dead_letter", "dropped_letter", "resource", "resource_history", "resource_history_default"}
    for relation in relations:
        columns = "*" if relation not in hidden else "unit_id, name, body"
        if relation in ("dead_letter", "dropped_letter", "resource_history_default"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await store.connection.fetch(f"select from clusterinfo.{relation}")
        else:
            await store.connection.fetch(f"select {columns} from clusterinfo.{relation}")
    await store.connection.fetch("select * from clusterinfo.resources_as_of(now())")
    await store.connection.fetch("select * from clusterinfo.resource_changes(now(), now())")
    for statement in (
        "delete from clusterinfo.resource",
        "update clusterinfo.cluster set name = 'x'",
        "insert into clusterinfo.kafka_offset values ('k', 't', 0, 'g', 0, 0)",
        "truncate clusterinfo.resource_history",
        "create table clusterinfo.mine ()",
        "drop view clusterinfo.pods",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await store.connection.execute(statement)


async def test_tables_made_later_are_readable_too(store: Store) -> None:
    await store.connection.execute("create table clusterinfo.later ()")
    await store.connection.execute("set role clusterinfo_reader")
    assert await store.rows("select * from clusterinfo.later") == []


ROLES_SQL = Path(__file__).parents[2].joinpath("clusterinfo/postgres/schema/0005_roles.sql").read_text(encoding="utf-8")
READER_SQL, _ = ROLES_SQL.split("-- The months of the history")


async def test_without_the_right_to_make_the_role_the_migration_goes_on(database: Database) -> None:
    owner = await asyncpg.connect(database.dsn, timeout=60)
    notices: list[str] = []
    owner.add_log_listener(lambda _, message: notices.append(message.message))
    # The role of the other databases of this server must stay: another name stands for the missing one.
    sql = READER_SQL.replace("clusterinfo_reader", "clusterinfo_absent")
    await owner.execute("create role plain")
    try:
        await owner.execute("create schema s authorization plain; set role plain; set search_path = s")
        await owner.execute(sql)
        assert "no right to create the role" in notices[0]
        assert "schema s " in notices[0]
    finally:
        await owner.execute("reset role; drop schema s cascade; drop role plain")
        await owner.close()


async def test_two_databases_may_make_the_role_at_once(database: Database) -> None:
    sql = READER_SQL.replace("clusterinfo_reader", "clusterinfo_rival")
    first, second = [await asyncpg.connect(database.dsn, timeout=60) for _ in range(2)]
    await first.execute("set search_path = clusterinfo")
    await second.execute("create schema other; set search_path = other")
    try:
        async with asyncio.timeout(60), first.transaction():
            await first.execute(sql)
            waiting_one = asyncio.create_task(second.execute(sql))
            await asyncio.sleep(0.2)
        async with asyncio.timeout(60):
            await waiting_one
        for schema in ("clusterinfo", "other"):
            assert await first.fetchval("select has_schema_privilege('clusterinfo_rival', $1, 'usage')", schema)
    finally:
        await first.execute("drop owned by clusterinfo_rival; drop role clusterinfo_rival")
        await first.close()
        await second.close()
