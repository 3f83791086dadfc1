"""`clusterinfo rbac` against an API that grants what it printed, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
import yaml

from clusterinfo.kubernetes.client import resource_path
from clusterinfo.kubernetes.rbac import BUILT_IN
from clusterinfo.model import GroupVersionResource
from clusterinfo.sandbox.kubernetes.catalog import Catalog
from clusterinfo.sandbox.kubernetes.requests import parse_path
from tests.conftest import Database
from tests.support.programs import QUIET, Api, Ended, run, simulated_api

pytestmark = pytest.mark.embedded_only

JSON = dict[str, Any]
CUSTOM_GROUP = "shop.example.com"


async def printed(*flags: str, **env: str) -> list[JSON]:
    ended = (await run("rbac", *flags, env=QUIET | env)).expect(0)
    return list(yaml.safe_load_all(ended.stdout))


def rules(manifests: list[JSON], namespace: str | None) -> Iterator[JSON]:
    """The rules that hold for a request within `namespace`, or for one of the whole cluster."""
    for one in manifests:
        if one["kind"] == "ClusterRole" or (one["kind"] == "Role" and one["metadata"]["namespace"] == namespace):
            yield from one["rules"]


def allows(manifests: list[JSON], verb: str, path: str) -> bool:
    """As the API server's RBAC authorizer decides."""
    if (target := parse_path(path)) is None or not target.resource:
        return True  # discovery
    # A namespace is looked up as if it were within itself.
    namespace = target.name if target.resource == "namespaces" and target.name else target.namespace
    return any(
        target.group in rule["apiGroups"]
        and target.resource in rule["resources"]
        and verb in rule["verbs"]
        and ("resourceNames" not in rule or target.name in rule["resourceNames"])
        for rule in rules(manifests, namespace)
    )


def listable() -> Iterator[GroupVersionResource]:
    """Every kind that the simulated cluster serves, its own custom one too."""
    catalog = Catalog.builtin()
    for group, names in BUILT_IN.items():
        for name in " ".join(names).split():
            found = catalog.preferred(f"{name}.{group}".rstrip("."))
            yield GroupVersionResource(found.group, found.version, found.resource, found.kind, found.namespaced)
    yield GroupVersionResource(CUSTOM_GROUP, "v1", "widgets", "Widget", namespaced=True)


async def restrict(api: Api, manifests: list[JSON], namespaces: list[str]) -> None:
    """Have the API refuse the lists that the manifests do not allow: those of the whole cluster, or of `namespaces`."""
    for kind in listable():
        for reach in namespaces if namespaces and kind.namespaced else [""]:
            if not allows(manifests, "list", resource_path(kind, reach)):
                where = {"namespace": reach} if reach else {}
                await api.control("forbid", resource=kind.dotted, verb="list", **where)


async def collected(api: Api, database: Database, **env: str) -> Ended:
    return await run("legacy", "--once", env=api.env | database.env | QUIET | env)


async def refused(api: Api, manifests: list[JSON]) -> list[str]:
    """Requests that were answered although the manifests do not allow them."""
    asked = [one for one in await api.get("/_control/requests") if not one["path"].startswith("/_control")]
    assert len(asked) > 5
    verb = {True: "get", False: "list"}
    found = []
    for one in asked:
        target = parse_path(one["path"])
        named = bool(target and target.name)
        if one["status"] == 200 and not allows(manifests, verb[named], one["path"]):
            found.append(one["path"])
    return found


async def test_the_default_role_is_all_a_collector_needs(database: Database, connection: asyncpg.Connection) -> None:
    """It ends with 0: that Secrets and custom kinds may not be read is no failure, and is shown."""
    manifests = await printed()
    async with simulated_api(300) as api:
        await restrict(api, manifests, [])
        (await collected(api, database)).expect(0)
        assert await refused(api, manifests) == []
    states = await connection.fetch("select resource, state from freshness where state not in ('verified', 'excluded')")
    assert {(row["resource"], row["state"]) for row in states} == {("secrets", "forbidden"), ("widgets", "forbidden")}


async def test_secrets_are_granted_where_include_names_them(database: Database, connection: asyncpg.Connection) -> None:
    chosen = {"INCLUDE": "*,secrets", "EXCLUDE": f"*.{CUSTOM_GROUP}"}
    manifests = await printed(**chosen)
    async with simulated_api(300) as api:
        await restrict(api, manifests, [])
        (await collected(api, database, **chosen)).expect(0)
        assert await refused(api, manifests) == []
    assert await connection.fetchval("select count(*) from freshness where state = 'forbidden'") == 0
    assert await connection.fetchval("select count(*) from secrets") > 0


async def test_with_namespaces_it_is_a_role_in_each(database: Database, connection: asyncpg.Connection) -> None:
    chosen = {"NAMESPACES": "ns-000,kube-system", "INCLUDE": "pods,*.apps,nodes"}
    manifests = await printed(**chosen)
    kinds = [(one["kind"], one["metadata"].get("namespace")) for one in manifests]
    assert kinds == [
        ("ClusterRole", None), ("ClusterRoleBinding", None), ("Role", "ns-000"), ("RoleBinding", "ns-000"),
        ("Role", "kube-system"), ("RoleBinding", "kube-system"),
    ]  # fmt: skip
    async with simulated_api(300) as api:
        await restrict(api, manifests, ["ns-000", "kube-system"])
        (await collected(api, database, **chosen)).expect(0)
        assert await refused(api, manifests) == []
    assert {row["state"] for row in await connection.fetch("select state from freshness where state <> 'excluded'")} == {"verified"}  # fmt: skip  # noqa: E501


async def test_a_cluster_that_is_asked_names_its_custom_kinds(
    database: Database, connection: asyncpg.Connection
) -> None:
    async with simulated_api(300) as api:
        manifests = await printed("--discover", **api.env)
        assert allows(manifests, "list", f"/apis/{CUSTOM_GROUP}/v1/widgets")
        await restrict(api, manifests, [])
        (await collected(api, database)).expect(0)
        assert await refused(api, manifests) == []
    assert await connection.fetchval("select state from freshness where resource = 'widgets'") == "verified"


async def test_a_pattern_that_grants_nothing_is_warned_of() -> None:
    ended = (await run("rbac", env=QUIET | {"INCLUDE": f"pods,widgets.{CUSTOM_GROUP}"})).expect(0)
    (warning,) = ended.lines()
    assert CUSTOM_GROUP in warning["msg"]
    assert "--discover" in warning["remedy"]


@pytest.mark.parametrize("account", ["collector", "/collector", "monitoring/", "a/b/c", ""])
async def test_an_account_that_is_none_is_refused(account: str) -> None:
    ended = (await run("rbac", "--service-account", account, env=QUIET)).expect(2)
    (message,) = ended.errors()
    assert message.startswith(f"--service-account is {account!r}")


async def test_whom_it_is_bound_to_can_be_set() -> None:
    """The guide's Deployment names no ServiceAccount: it runs as `default`."""
    manifests = await printed("--service-account", "default/default")
    (binding,) = [one for one in manifests if one["kind"] == "ClusterRoleBinding"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]
