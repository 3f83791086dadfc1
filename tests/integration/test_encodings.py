"""A database whose encoding is not UTF8: refused before anything is made in it, not when storing stops later."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from clusterinfo.sandbox.postgres import EmbeddedPostgres
from tests.conftest import Database
from tests.support.programs import QUIET, run_all, simulated_api

pytestmark = pytest.mark.embedded_only


@pytest.fixture(params=["SQL_ASCII", "LATIN1"])
async def encoded(postgres: EmbeddedPostgres, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """An empty database of that encoding, named after it."""
    name = f"test_{request.param.lower()}"
    admin = await asyncpg.connect(postgres.dsn(), timeout=60)
    await admin.execute(f"create database {name} template template0 encoding '{request.param}' locale 'C'")
    yield Database(name, postgres.env(name), postgres.dsn(name))
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


async def test_a_database_that_cannot_hold_every_character_is_refused_with_the_remedy(encoded: Database) -> None:
    """SQL_ASCII refuses a batch whole (0A000), LATIN1 objects one by one (22P05), with the first letter beyond it."""
    async with simulated_api(30) as api:
        commands = [("migrate",), ("consume",), ("legacy", "--once")]
        kafka = {"KAFKA_ENABLED": "true"}
        for ended in await run_all(*commands, env=api.env | encoded.env | kafka | QUIET):
            (error,) = ended.expect(1).errors()
            assert error.startswith(
                f"database {encoded.name} has the encoding {encoded.name[5:].upper()}, which cannot hold"
            )
            assert "expected UTF8; create another one (createdb -E UTF8 -T template0 NAME) and set DB_NAME" in error
            assert "Traceback" not in ended.stderr
    connection = await asyncpg.connect(encoded.dsn, timeout=60)
    assert await connection.fetchval("select count(*) from pg_namespace where nspname = 'clusterinfo'") == 0
    await connection.close()
