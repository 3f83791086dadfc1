"""What is read of the tables: a question about one namespace, kind or object reads that, however much else is stored.

Rows are counted as PostgreSQL counts them (`pg_stat_xact_user_tables`), in a past of 20,000 versions, of which a
namespace has a fiftieth. No time is measured.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from clusterinfo.sandbox.postgres import EmbeddedPostgres
from tests.conftest import fresh_database
from tests.support.past import Past, make_past

pytestmark = pytest.mark.embedded_only

PAST = Past(namespaces=50, objects=2000, versions=10, bodies=10)
ALL = PAST.objects * (PAST.versions + 1)
OF_A_NAMESPACE = PAST.objects // PAST.namespaces
"""Objects of one namespace; each has PAST.versions versions in history, and a row unless it is gone."""

READ = """
select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint from pg_stat_xact_user_tables
where schemaname = 'clusterinfo' and (relname = 'resource' or relname like 'resource_history%')"""


LABELLED = """
update resource set body = jsonb_set(body, '{metadata,labels,pod-template-hash}', '"of-one"')
where name = 'pods-' || md5('70')"""


@pytest.fixture(scope="module")
async def reader(postgres: EmbeddedPostgres) -> AsyncIterator[asyncpg.Connection]:
    """Logged in as one who may only read, where there is a past."""
    async with fresh_database(postgres) as database:
        connection = await database.connect()
        await make_past(connection, PAST)
        await connection.execute(LABELLED)
        await connection.execute("vacuum analyze resource")
        await connection.execute("set role clusterinfo_reader; set jit = off")
        yield connection
        await connection.close()


async def found_and_read(reader: asyncpg.Connection, query: str, *arguments: object) -> tuple[int, int]:
    """How many rows a query finds, and how many of the two tables the server reads for it."""
    async with reader.transaction():  # the counters are a session's, until it sends them on between transactions
        before = await reader.fetchval(READ) or 0
        rows = await reader.fetch(query, *arguments)
        return len(rows), await reader.fetchval(READ) - before


ONE = "namespace = 'ns-7' and resource = 'pods' and name = 'pods-' || md5('70')"
QUESTIONS = pytest.mark.parametrize(
    ("which", "objects"),
    [
        ("namespace = 'ns-7'", OF_A_NAMESPACE),
        ("cluster = 'prod' and namespace = 'ns-7'", OF_A_NAMESPACE),
        ("namespace = 'ns-7' and resource = 'pods'", OF_A_NAMESPACE * 4 // 10),
        (ONE, 1),
    ],
    ids=["namespace", "cluster", "kind", "object"],
)


@pytest.mark.parametrize("days", [1, 30, 58])
@QUESTIONS
async def test_of_what_was_the_versions_of_those_asked_for_are_read(
    reader: asyncpg.Connection, which: str, objects: int, days: int
) -> None:
    query = f"select * from resources_as_of(now() - $1 * interval '1 day') where {which}"
    found, read = await found_and_read(reader, query, days)
    assert 0 < found <= objects
    assert read <= objects * (PAST.versions + 1), f"{read} rows read of {ALL}"


@pytest.mark.parametrize("days", [1, 58])
@QUESTIONS
async def test_of_what_changed_the_versions_of_those_asked_for_are_read(
    reader: asyncpg.Connection, which: str, objects: int, days: int
) -> None:
    query = f"select * from resource_changes(now() - $1 * interval '1 day', now()) where {which}"
    found, read = await found_and_read(reader, query, days)
    assert found <= objects * (PAST.versions + 1)
    # Of a short while it may read all that changed.
    assert read <= objects * (PAST.versions + 2) + ALL // 100, f"{read} rows read of {ALL}"


@pytest.mark.parametrize(
    ("view", "which", "objects"),
    [
        ("resources", "cluster = 'prod' and namespace = 'ns-7'", OF_A_NAMESPACE),
        ("resources", "name = 'pods-' || md5('70')", 1),
        ("resources", """labels @> '{"pod-template-hash": "of-one"}'""", 1),
        ("pods", """namespace = 'ns-7' and labels @> '{"pod-template-hash": "of-one"}'""", 1),
    ],
)
async def test_of_what_there_is_those_asked_for_are_read(
    reader: asyncpg.Connection, view: str, which: str, objects: int
) -> None:
    found, read = await found_and_read(reader, f"select * from {view} where {which}")
    assert 0 < found <= objects
    assert read <= objects, f"{read} rows read of {PAST.objects}"


@pytest.mark.parametrize("view", ["resources", "pods"])
async def test_a_selection_by_label_age_or_owner_reads_no_body(reader: asyncpg.Connection, view: str) -> None:
    plan = await reader.fetch(
        f"""explain (verbose, costs off) select name, labels, created_at, owner_kind, owner_name from {view}
        where labels ? 'app' and created_at > now() - interval '1 day' and owner_kind = 'ReplicaSet'"""
    )
    assert "#>" not in str(plan)
