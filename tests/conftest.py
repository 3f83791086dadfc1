"""Fixtures that every test may use: a PostgreSQL server for the session, a database of its own for each test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import pytest

from clusterinfo.postgres.migrations import migrate
from clusterinfo.postgres.pool import prepare_connection
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from clusterinfo.settings import Settings, load

TEMPLATE = "clusterinfo_template"


@dataclass(frozen=True, slots=True)
class Database:
    """A migrated database for one test."""

    name: str
    env: dict[str, str]
    dsn: str

    def settings(self, **flags: object) -> Settings:
        """Settings that use this database."""
        return load({}, **{name.lower(): value for name, value in self.env.items()}, **flags)

    async def connect(self) -> asyncpg.Connection:
        """A connection with search_path set to the schema; close it yourself."""
        connection = await asyncpg.connect(self.dsn, server_settings={"search_path": "clusterinfo"}, timeout=10)
        await prepare_connection(connection)
        return connection


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[EmbeddedPostgres]:
    """A PostgreSQL server with a migrated template database."""
    async with EmbeddedPostgres() as server:
        admin = await asyncpg.connect(server.dsn(), timeout=10)
        await admin.execute(f"create database {TEMPLATE}")
        template = await asyncpg.connect(server.dsn(TEMPLATE), timeout=10)
        await migrate(template, "clusterinfo")
        await template.close()
        await admin.close()
        yield server


@asynccontextmanager
async def fresh_database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """A migrated database, dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(postgres.dsn(), timeout=10)
    await admin.execute(f"create database {name} template {TEMPLATE}")
    yield Database(name, postgres.env(name), postgres.dsn(name))
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """A fresh migrated database, dropped afterwards."""
    async with fresh_database(postgres) as fresh:
        yield fresh


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the test's database, search_path set to the schema."""
    opened = await database.connect()
    yield opened
    await opened.close()
