"""Every SQL of Grafana's dashboards runs as Grafana runs it: as one who may only read, on what was collected."""

from __future__ import annotations

import asyncpg
import pytest

from tests.conftest import Database
from tests.support.monitoring import sql
from tests.support.programs import QUIET, run, simulated_api

pytestmark = pytest.mark.embedded_only

EMPTY_IN_HEALTH = {"What cannot be believed", "Deployments short of replicas", "Warnings"}
"""Panels that are empty as long as nothing is wrong, or nothing happened within a day."""


async def test_every_query_runs_and_shows_something(database: Database) -> None:
    async with simulated_api(400) as api:
        (await run("legacy", "--once", env=api.env | database.env | QUIET)).expect(0)
        await api.control("create_namespace", name="new")
        (await run("legacy", "--once", env=api.env | database.env | QUIET)).expect(0)
        connection = await asyncpg.connect(database.dsn, timeout=60)
        try:
            await connection.execute("set role clusterinfo_reader")
            names = [
                row["cluster"] for row in await connection.fetch("select distinct cluster from clusterinfo.freshness")
            ]
            queries = sql(names)
            found = {where.split(": ")[-1]: await connection.fetch(query, timeout=30) for where, query in queries}
        finally:
            await connection.close()
    assert len(found) == len(queries) > 10
    assert {panel for panel, rows in found.items() if not rows} <= EMPTY_IN_HEALTH
    (objects,) = found["Objects"]
    assert objects["objects"] >= 400
    changes = {(row["change"], row["kind"], row["name"]) for row in found["What changed"]}
    assert ("created", "namespaces", "new") in changes, "what the first lists found did not change"
    assert len(changes) < 10
