"""A cluster of which not everything can be listed, and then a cluster that changed: what the database says of both."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from tests.conftest import Database
from tests.support import checker
from tests.support.programs import Api, Ended, run, simulated_api

# What an API answers is no matter of the broker's. test_end_to_end.py takes the same road through Apache Kafka into
# PostgreSQL 15, and test_postgres_* have the merge there.
pytestmark = pytest.mark.embedded_only

OBJECTS, KINDS = 300, 12
FORBIDDEN, FAILING, EXPIRING = "secrets", "services", "pods"
WIDGETS = ("widgets", "shop.example.com")
PAGES = {"PAGE_SIZE": "50", "BATCH_WAIT": "100ms"}

Collect = Callable[[], Awaitable[Ended]]
"""Brings the database up to the cluster; how the listing program ended."""


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with simulated_api(OBJECTS, KINDS) as running:
        yield running


@pytest.fixture(params=["legacy", "kafka"])
def collect(request: pytest.FixtureRequest, api: Api, database: Database, kafka_env: dict[str, str]) -> Collect:
    """One run of lists, stored, by either way."""
    env = api.env | database.env | PAGES

    async def directly() -> Ended:
        return await run("legacy", "--once", env=env)

    async def through_kafka() -> Ended:
        ended = await run("collect", "--once", env=env | kafka_env)
        (await run("consume", "--until-idle", "1s", env=env | kafka_env)).expect(0)
        return ended

    return directly if request.param == "legacy" else through_kafka


EXCLUDED = {"leases.coordination.k8s.io", "componentstatuses", "events.events.k8s.io"}


async def not_verified(connection: asyncpg.Connection) -> dict[str, str]:
    """Kind -> state of those that are not verified, as people see it; without those left out on purpose."""
    rows = await connection.fetch(
        "select concat_ws('.', resource, nullif(api_group, '')), state from freshness where reach = ''"
    )
    states = dict(rows)
    assert {kind for kind, state in states.items() if state == "excluded"} == EXCLUDED
    return {kind: state for kind, state in states.items() if state not in ("verified", "excluded")}


async def stored(connection: asyncpg.Connection, resource: str) -> set[str]:
    found = await connection.fetch(
        "select namespace || '/' || name as name from resources where resource = $1", resource
    )
    return {row["name"] for row in found}


async def served(api: Api, resource: str) -> set[str]:
    items = (await api.get(f"/api/v1/{resource}"))["items"]
    return {f"{item['metadata'].get('namespace', '')}/{item['metadata']['name']}" for item in items}


async def test_a_kind_that_cannot_be_listed_is_not_a_kind_that_was_deleted(
    api: Api, collect: Collect, connection: asyncpg.Connection
) -> None:
    (await collect()).expect(0)
    assert await not_verified(connection) == {}
    before = {kind: await stored(connection, kind) for kind in (FORBIDDEN, FAILING, EXPIRING, "configmaps")}
    assert all(before.values())

    for resource in (FORBIDDEN, FAILING, EXPIRING, "configmaps"):
        namespace, name = min(before[resource]).split("/")
        await api.control("delete", resource=resource, namespace=namespace, name=name)
    await api.control("forbid", resource=FORBIDDEN)
    await api.control("fail", resource=FAILING, status=500)
    await api.control("expire_token", resource=EXPIRING, after_page=2)
    ended = await collect()
    ended.expect(3)
    outcomes = {line["resource"]: line["outcome"] for line in ended.logged("List ended") if line["error"]}
    assert outcomes == {FORBIDDEN: "forbidden", FAILING: "failed"}
    assert [line["resource"] for line in ended.logged("List starts again")] == [EXPIRING]

    assert await not_verified(connection) == {FORBIDDEN: "forbidden", FAILING: "failed"}
    assert await stored(connection, FORBIDDEN) == before[FORBIDDEN]
    assert await stored(connection, FAILING) == before[FAILING]
    for kind in (EXPIRING, "configmaps"):
        assert await stored(connection, kind) == await served(api, kind) == before[kind] - {min(before[kind])}
    errors = dict(
        await connection.fetch("select resource, last_error from freshness where state in ('failed', 'forbidden')")
    )
    assert "403" in errors[FORBIDDEN]
    assert "500" in errors[FAILING]

    await api.control("clear", resource=FAILING)
    (await collect()).expect(0)  # a forbidden kind is no failure
    assert await not_verified(connection) == {FORBIDDEN: "forbidden"}
    assert await stored(connection, FAILING) == await served(api, FAILING)
    assert await stored(connection, FORBIDDEN) == before[FORBIDDEN]


async def test_a_forbidden_kind_that_was_asked_for_is_a_failure(api: Api, database: Database) -> None:
    await api.control("forbid", resource=FORBIDDEN)
    env = api.env | database.env | {"INCLUDE": "secrets,configmaps"}
    (await run("legacy", "--once", env=env)).expect(3)


async def test_a_second_run_shows_exactly_what_changed(
    api: Api, collect: Collect, connection: asyncpg.Connection, database: Database
) -> None:
    (await collect()).expect(0)
    at = await connection.fetchval("select now()")
    removed = await checker.truth(api.url, api.token)
    expected = await _change(api)
    gone = [identity for identity in removed if identity.resource == WIDGETS[0]]
    expected |= {("widgets", one.namespace, one.name, "deleted") for one in gone}
    expected.add(("customresourcedefinitions", "", ".".join(WIDGETS), "deleted"))
    (await collect()).expect(0)

    truth = await checker.truth(api.url, api.token)
    assert await checker.problems(truth, database.dsn) == []
    assert await _changes(connection, at) == expected
    assert await _changes(connection, None) == expected, "what the first lists found is told from what happened"
    assert await not_verified(connection) == {".".join(WIDGETS): "gone"}
    await _history_holds(connection, removed, expected)

    (await collect()).expect(0)
    assert await _changes(connection, at) == expected, "a run that finds nothing new adds nothing"


async def _change(api: Api) -> set[tuple[str, str, str, str]]:
    """Delete, change, recreate, create; what `resource_changes` has to say: (resource, namespace, name, change)."""
    pods = sorted(name.split("/") for name in await served(api, "pods"))
    expected: set[tuple[str, str, str, str]] = set()
    for namespace, name in pods[:5]:
        await api.control("delete", resource="pods", namespace=namespace, name=name)
        expected.add(("pods", namespace, name, "deleted"))
    for namespace, name in pods[5:12]:
        await api.control(
            "update",
            resource="pods",
            namespace=namespace,
            name=name,
            patch={"metadata": {"labels": {"changed": "yes"}}},
        )
        expected.add(("pods", namespace, name, "updated"))
    for namespace, name in pods[12:15]:
        await api.control("recreate", resource="pods", namespace=namespace, name=name)
        expected |= {("pods", namespace, name, "deleted"), ("pods", namespace, name, "created")}
    namespace = pods[0][0]
    body = {"metadata": {"name": "brand-new", "namespace": namespace}, "data": {"a": "b"}}
    await api.control("create", resource="configmaps", body=body)
    expected.add(("configmaps", namespace, "brand-new", "created"))
    await api.control("remove_crd", plural=WIDGETS[0], group=WIDGETS[1])
    return expected


async def _changes(connection: asyncpg.Connection, since: dt.datetime | None) -> set[tuple[str, str, str, str]]:
    """Since a moment, or all that are known as such."""
    rows = await connection.fetch(
        "select resource, namespace, name, change "
        "from resource_changes(coalesce($1, timestamptz '-infinity'), 'infinity') "
        "where $1 is not null or at > known_since",
        since,
    )
    found = [tuple(row) for row in rows]
    assert len(found) == len(set(found)), "every change once"
    return set(found)


async def _history_holds(
    connection: asyncpg.Connection,
    before: dict[checker.Identity, checker.JSON],
    changes: set[tuple[str, str, str, str]],
) -> None:
    """Exactly the versions that are no more, each with its uid and version of before."""
    ended = {change[:3] for change in changes if change[3] != "created"}
    wanted = {
        (one.resource, one.namespace, one.name, one.uid, one.resource_version)
        for one in before
        if (one.resource, one.namespace, one.name) in ended
    }
    rows = await connection.fetch(
        "select u.resource, h.namespace, h.name, h.uid, h.resource_version "
        "from resource_history h join unit u on u.id = h.unit_id"
    )
    assert sorted(tuple(row) for row in rows) == sorted(wanted)
