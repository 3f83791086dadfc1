"""The history's partitions are maintained in whatever state the database is, and by whatever clock."""

from __future__ import annotations

import asyncio
import datetime as dt

import asyncpg
import pytest

from clusterinfo.commands import database as database_command
from clusterinfo.observations import Observation, Warned
from clusterinfo.postgres.admin import history
from clusterinfo.postgres.admin.history import maintain_history, month_of, partition_name
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from tests.conftest import Database

THIS_MONTH = partition_name(month_of(dt.datetime.now(dt.UTC).date()))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Observation]:
    """What is observed; all waits are short."""
    monkeypatch.setattr(history, "LOCK_TIMEOUT", "100ms")
    monkeypatch.setattr(database_command, "HISTORY_RETRY_S", 0.1)
    return []


async def until_made(connection: asyncpg.Connection) -> None:
    async with asyncio.timeout(60):
        while await connection.fetchval("select to_regclass($1)", THIS_MONTH) is None:
            await asyncio.sleep(0.05)


def warnings(seen: list[Observation]) -> list[str]:
    return [observed.message for observed in seen if isinstance(observed, Warned)]


async def test_a_program_starts_while_somebody_reads_the_history(
    database: Database, connection: asyncpg.Connection, seen: list[Observation]
) -> None:
    reading = connection.transaction()
    await reading.start()
    await connection.fetch("select from resource_history")
    async with database_command.open_sink(database.settings(), seen.append, do_migrate=False):
        assert "were not maintained: PostgreSQL, maintaining the history: canceling" in warnings(seen)[0]
        await reading.rollback()
        await until_made(connection)


async def test_what_was_dropped_is_remembered_as_long_as_history(
    database: Database, connection: asyncpg.Connection
) -> None:
    dropped = "insert into dropped_letter select 't', 0, $1, '', now() - $2::interval"
    for days in (29, 32):
        await connection.execute(dropped, days, dt.timedelta(days=days))
    await maintain_history(connection, "clusterinfo", dt.datetime.now(dt.UTC).date(), 30 * 86400)
    assert await connection.fetchval("select array_agg(record_offset) from dropped_letter") == [29]


async def test_it_goes_on_once_the_database_can_be_logged_in_to_again(
    database: Database,
    connection: asyncpg.Connection,
    postgres: EmbeddedPostgres,
    seen: list[Observation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database_command, "HISTORY_INTERVAL_S", 0.1)
    admin = await asyncpg.connect(postgres.dsn(), timeout=60)
    async with database_command.open_sink(database.settings(), seen.append, do_migrate=False):
        await connection.execute(f"drop table {THIS_MONTH}")
        await admin.execute(f"alter database {database.name} allow_connections false")
        await admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", database.name)
        async with asyncio.timeout(60):
            while not any("not currently accepting connections" in message for message in warnings(seen)):
                await asyncio.sleep(0.05)
        await admin.execute(f"alter database {database.name} allow_connections true")
        onlooker = await database.connect()
        await until_made(onlooker)
        await onlooker.close()
    await admin.close()


async def test_a_clock_that_is_ahead_drops_nothing(database: Database, connection: asyncpg.Connection) -> None:
    today = dt.datetime.now(dt.UTC).date()
    for by_clock in (today, today.replace(year=2099)):
        await maintain_history(connection, "clusterinfo", by_clock, 90 * 86400.0)
        assert await connection.fetchval("select to_regclass($1)", THIS_MONTH)
