"""Every query of the README, docs/DATA.md and docs/COOKBOOK.md runs as a reader, on a cluster that has changed."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from clusterinfo.sandbox.postgres import EmbeddedPostgres
from tests.conftest import fresh_database
from tests.support import data_document
from tests.support.programs import QUIET, run, simulated_api

pytestmark = pytest.mark.embedded_only

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "docs/DATA.md", "docs/COOKBOOK.md")
EMPTY_IN_HEALTH = (
    "image ~ '(:latest|/[^:]+)$'",
    "from freshness where state",
    "where not ready or unschedulable",
    "status = 'Failed'",
    "last_successful_at, created_at)",
    "from services s",
    "phase in ('Released'",
    "where phase <> 'Bound'",
    "memory_limit_bytes is null",
)
"""What only queries have that find what is wrong, and nothing here is."""


def queries(document: str) -> list[str]:
    """The statements of the document's blocks of SQL, but for the one that sets the search path."""
    blocks = re.findall(r"```sql\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)
    found = [one.strip() for block in blocks for one in re.split(r";\n", block)]
    return [one for one in found if one and not one.startswith("set ")]


def with_times_of_here(query: str, before: dt.datetime) -> str:
    """The query as its reader completes it: this cluster is seconds old, and `before` lies before its changes."""
    query = re.sub(r"(resources_as_of\()now\(\) - interval '\d+ days?'", rf"\1'{before.isoformat()}'", query)
    return re.sub(r"(started_at < )'[^']+'", r"\1now()", query)


@dataclass(frozen=True, slots=True)
class Reader:
    """Logged in as one who may only read; `before` the cluster changed it was listed once."""

    connection: asyncpg.Connection
    before: dt.datetime


@pytest.fixture(scope="module")
async def reader(postgres: EmbeddedPostgres) -> AsyncIterator[Reader]:
    """A cluster was listed, changed, and listed again."""
    async with fresh_database(postgres) as database, simulated_api(500) as api:
        env = api.env | database.env | QUIET | {"CLUSTER_NAME": "prod"}
        (await run("legacy", "--once", env=env)).expect(0)
        connection = await database.connect()
        before = await connection.fetchval("select clock_timestamp()")
        await api.control(
            "update", resource="deployments.apps", namespace="ns-000", name="app-0", patch={"spec": {"replicas": 9}}
        )
        await api.control(
            "update", resource="secrets", namespace="ns-000", name="sec-0", patch={"data": {"password": "bmV3"}}
        )
        pod = await connection.fetchrow("select namespace, name from pods where ready order by 1, 2 limit 1")
        await api.control("delete", resource="pods", namespace=pod["namespace"], name=pod["name"])
        (await run("legacy", "--once", env=env)).expect(0)
        await connection.execute("set role clusterinfo_reader")
        yield Reader(connection, before)
        await connection.close()


@pytest.mark.parametrize("document", DOCUMENTS)
async def test_every_query_runs_and_finds_something(reader: Reader, document: str) -> None:
    asked = queries(document)
    assert len(asked) >= 5
    for query in asked:
        rows = await reader.connection.fetch(with_times_of_here(query, reader.before), timeout=30)
        assert rows or any(part in query for part in EMPTY_IN_HEALTH), f"nothing found: {query}"


def test_there_are_as_many_as_the_documents_say() -> None:
    assert len(queries("docs/DATA.md")) >= 20
    nights = re.findall(r"^## (\d+)\. ", (ROOT / "docs/COOKBOOK.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert nights == [str(number) for number in range(1, 11)]


async def test_what_was_and_what_is_differ(reader: Reader) -> None:
    (query,) = [one for one in queries("docs/COOKBOOK.md") if "'before' as version" in one]
    was, now = await reader.connection.fetch(with_times_of_here(query, reader.before))
    assert was["replicas"] != now["replicas"] == "9"


async def test_the_document_has_every_view_table_and_column(reader: Reader) -> None:
    for region in await data_document.regions(reader.connection):
        assert region.found() == region.text(), f"run `{data_document.COMMAND}`"
