"""Brings the schema up to date: numbered SQL files, each once, checksummed, under an advisory lock."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from clusterinfo.errors import ClusterinfoError, FatalError
from clusterinfo.postgres.connection import Connection, Pool
from clusterinfo.postgres.errors import FOREIGN, translate
from clusterinfo.postgres.pool import ACQUIRE_FIRST_S, open_pool
from clusterinfo.settings import Settings

LOCK_KEY = 0x636C7573  # "clus": one migration at a time in a database, whatever the schema
LOCK_TIMEOUT = "5min"

_FILE = re.compile(r"(\d{4})_\w+\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `schema/`: its number, name, SQL text and SHA-256."""

    version: int
    name: str
    sql: str
    checksum: str


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations, in order."""
    found = []
    for entry in files("clusterinfo.postgres").joinpath("schema").iterdir():
        if match := _FILE.fullmatch(entry.name):
            sql = entry.read_text(encoding="utf-8")
            found.append(Migration(int(match[1]), entry.name, sql, hashlib.sha256(sql.encode()).hexdigest()))
    return tuple(sorted(found, key=lambda migration: migration.version))


async def migrate(connection: Connection, schema: str) -> list[str]:
    """Apply what is missing, in one transaction; return the names of the files applied.

    Waits for another migration to end. Raises FatalError when rights are missing, the database's encoding is another
    than UTF8, or a file applied before has changed.
    """
    try:
        async with connection.transaction():
            return await _migrate(connection, schema)
    except FOREIGN as error:
        raise translate(error, f"migrating schema {schema}") from error


async def check_migrated(connection: Connection, schema: str) -> None:
    """Raise FatalError unless every migration of this release is applied."""
    try:
        if await connection.fetchval("select to_regclass($1)", f"{schema}.schema_migration") is None:
            raise FatalError(f"schema {schema} is not there yet; run `clusterinfo migrate`")
        rows = await connection.fetch(f"select version from {schema}.schema_migration")  # noqa: S608 - pattern-checked
    except FOREIGN as error:
        raise translate(error, f"reading schema {schema}") from error
    missing = [entry.name for entry in migrations() if entry.version not in {row["version"] for row in rows}]
    if missing:
        raise FatalError(f"schema {schema} lacks {', '.join(missing)}; run `clusterinfo migrate`")


async def check_encoding(connection: Connection) -> None:
    """Raise FatalError unless the database holds every character: else it refuses objects later, one by one or all."""
    encoding = await connection.fetchval("show server_encoding")
    if encoding != "UTF8":
        name = await connection.fetchval("select current_database()")
        raise FatalError(
            f"database {name} has the encoding {encoding}, which cannot hold what Kubernetes serves: expected UTF8; "
            f"create another one (createdb -E UTF8 -T template0 NAME) and set DB_NAME"
        )


async def _migrate(connection: Connection, schema: str) -> list[str]:
    await check_encoding(connection)
    await connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'; set local statement_timeout = 0")
    await connection.execute("select pg_advisory_xact_lock($1)", LOCK_KEY)
    if not await connection.fetchval("select exists (select from pg_namespace where nspname = $1)", schema):
        await connection.execute(f"create schema {schema}")
    # What is created goes to the first schema named; pg_catalog, which is not, is searched before it all the same.
    await connection.execute(f"set local search_path = {schema}, pg_temp; set local client_min_messages = warning")
    await connection.execute(
        "create table if not exists schema_migration (version integer primary key, name text not null, "
        "checksum text not null, applied_at timestamptz not null default now())"
    )
    applied = {row["version"]: row["checksum"] for row in await connection.fetch("select * from schema_migration")}
    done = []
    for migration in migrations():
        if migration.version in applied:
            _check(migration, applied[migration.version])
            continue
        await _apply(connection, migration)
        done.append(migration.name)
    return done


def _check(migration: Migration, checksum: str) -> None:
    if migration.checksum != checksum:
        raise FatalError(
            f"migration {migration.name} was applied with another content: expected checksum {checksum[:12]}, "
            f"found {migration.checksum[:12]}; use the release that made this schema, or a new schema"
        )


async def _apply(connection: Connection, migration: Migration) -> None:
    try:
        await connection.execute(migration.sql)
    except FOREIGN as error:
        translated: ClusterinfoError = translate(error, f"applying {migration.name}")
        raise translated from error
    await connection.execute(
        "insert into schema_migration (version, name, checksum) values ($1, $2, $3)",
        migration.version,
        migration.name,
        migration.checksum,
    )


@asynccontextmanager
async def open_migrated_pool(settings: Settings) -> AsyncIterator[Pool]:
    """`open_pool` on a schema that is up to date. Raises as `check_migrated` does if it is not."""
    async with open_pool(settings) as pool:
        async with pool.acquire(timeout=ACQUIRE_FIRST_S) as connection:
            await check_migrated(connection, settings.db_schema)
        yield pool
