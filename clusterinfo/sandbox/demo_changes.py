"""What happens in the simulated cluster of the demo: who changes what. Reads the database, changes nothing itself."""

from __future__ import annotations

import base64
import datetime as dt
import secrets
from dataclasses import dataclass
from typing import Any

import asyncpg

BEATS = 20
"""Pods whose kubelet reports, so that a delay can be measured more than a few times."""


@dataclass(frozen=True, slots=True)
class Change:
    """An object that changes: `op` of the simulated API's control endpoint, `more` its other arguments. `api_version`
    and `by` (manager, operation, subresource) are what a real one would note in managedFields.
    """

    op: str
    resource: str
    namespace: str
    name: str
    more: dict[str, Any]
    api_version: str = "v1"
    by: tuple[str, str, str] = ("", "", "")

    @property
    def unit(self) -> tuple[str, str]:
        """(group, resource)"""
        resource, _, group = self.resource.partition(".")
        return group, resource

    def command(self) -> dict[str, Any]:
        """What to send to the control endpoint, as of now."""
        command: dict[str, Any] = {"op": self.op, "resource": self.resource}
        metadata = {"managedFields": [self._entry()]}
        match self.op:
            case "create":
                named = metadata | {"name": self.name, "namespace": self.namespace}
                return command | {"body": {"metadata": named, **self.more}}
            case "update":
                command["patch"] = {"metadata": metadata, **self.more}
        return command | {"namespace": self.namespace, "name": self.name}

    def _entry(self) -> dict[str, Any]:
        manager, operation, subresource = self.by
        entry = {"manager": manager, "operation": operation, "apiVersion": self.api_version}
        entry |= {"time": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "fieldsType": "FieldsV1"}
        return entry | {"fieldsV1": {}} | ({"subresource": subresource} if subresource else {})


async def changes_of(database: asyncpg.Connection) -> list[Change]:
    """What happens to what is stored: kubelets report, then a Deployment is scaled, a Pod deleted, a Secret rotated, a
    ConfigMap created."""
    pods = await database.fetch("select namespace, name from pods order by ready desc, namespace, name limit $1", BEATS)
    heard = {"status": {"message": "reported by the demo"}}
    kubelet = ("kubelet", "Update", "status")
    beats = [Change("update", "pods", pod["namespace"], pod["name"], heard, by=kubelet) for pod in pods]
    return [*beats, *await _noticed(database, pods[0])]


async def _noticed(database: asyncpg.Connection, pod: asyncpg.Record) -> list[Change]:
    """What somebody would ask about, the Deployment first."""
    namespace, name, replicas = await database.fetchrow(
        "select namespace, name, replicas from deployments order by namespace, name limit 1"
    )
    secret = await database.fetchrow(
        "select namespace, name, data_keys[1] as key from secrets where type = 'Opaque' "
        "order by namespace, name limit 1"
    )
    rotated = {"data": {secret["key"]: base64.b64encode(secrets.token_bytes(24)).decode()}}
    more = {"spec": {"replicas": replicas + 3}}
    scale = Change("update", "deployments.apps", namespace, name, more, "apps/v1", ("kubectl", "Update", "scale"))
    operator = ("external-secrets", "Apply", "")
    return [
        scale,
        Change("delete", "pods", pod["namespace"], pod["name"], {}),
        Change("update", "secrets", secret["namespace"], secret["name"], rotated, by=operator),
        Change(
            "create", "configmaps", namespace, "demo-greeting", {"data": {"hello": "world"}}, by=("helm", "Update", "")
        ),
    ]
