"""Docker Compose reads its files, and the script it mounts does what it says on a PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import yaml

from clusterinfo.postgres.admin.grants import READER, WRITER
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from tests.conftest import Database
from tests.deploy.conftest import Run
from tests.support.deployed import COMPOSE, ROOT
from tests.support.programs import QUIET, run, simulated_api

LOGIN = ROOT / "compose/postgres/login.sh"


@pytest.mark.parametrize("file", ["compose.yaml", "compose/compose.yaml"])
@pytest.mark.parametrize("profiles", [[], ["demo"], ["monitoring"], ["demo", "monitoring"]])
def test_compose_reads_it(file: str, profiles: list[str], tool: Run) -> None:
    """From the repository's top and from its own folder, with each profile."""
    chosen = [flag for profile in profiles for flag in ("--profile", profile)]
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "POSTGRES_PASSWORD": "checked"}
    read = yaml.safe_load(tool("docker-compose", "-f", ROOT / file, *chosen, "config", env=env))
    wanted = {name for name, one in COMPOSE["services"].items() if set(one.get("profiles", profiles)) <= set(profiles)}
    assert read["services"].keys() == wanted
    assert read["name"] == "cluster-info"
    assert read["services"]["consumer"]["deploy"]["replicas"] == 2
    assert read["services"]["collector"]["volumes"][0]["source"] == "/nonexistent/.kube/config"


def test_compose_asks_for_the_password(tool: Run) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    with pytest.raises(AssertionError, match=r"copy compose/\.env\.example to compose/\.env"):
        tool(
            "docker-compose",
            "--project-directory",
            "/nonexistent",
            "-f",
            ROOT / "compose/compose.yaml",
            "config",
            env=env,
        )


async def logins(database: Database, tool: Run, tmp_path: Path, login: str, role: str) -> list[str]:
    """The passwords of two runs: the second time the user is there already, and gets a new one."""
    given = database.env
    (tmp_path / "superuser").write_text(given["DB_PASSWORD"])
    env = {
        "PATH": os.environ["PATH"],
        "PGHOST": given["DB_HOST"],
        "PGPORT": given["DB_PORT"],
        "PGUSER": given["DB_USER"],
        "PGDATABASE": given["DB_NAME"],
        "PASSWORD_FILE": str(tmp_path / "superuser"),
        "LOGIN": login,
        "ROLE": role,
        "LOGIN_PASSWORD_FILE": str(tmp_path / login),
    }
    passwords = []
    for _ in range(2):
        assert tool("sh", LOGIN, env=env) == ""
        passwords.append((tmp_path / login).read_text())
    assert passwords[0] != passwords[1]
    assert len(passwords[1]) == 48
    return passwords


@asynccontextmanager
async def logged_in(
    database: Database, postgres: EmbeddedPostgres, login: str, passwords: list[str]
) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the login, which is dropped afterwards. Its former password is refused."""
    given = database.env
    address = {"host": given["DB_HOST"], "port": int(given["DB_PORT"]), "database": given["DB_NAME"], "timeout": 10}
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(user=login, password=passwords[0], **address)
    connection = await asyncpg.connect(user=login, password=passwords[1], **address)
    try:
        yield connection
    finally:
        await connection.close()
        admin = await asyncpg.connect(postgres.dsn(), timeout=60)
        await admin.execute(f"drop role {login}")
        await admin.close()


async def test_grafana_may_read_and_nothing_else(
    database: Database, postgres: EmbeddedPostgres, tool: Run, tmp_path: Path
) -> None:
    passwords = await logins(database, tool, tmp_path, "grafana", READER)
    async with logged_in(database, postgres, "grafana", passwords) as connection:
        assert await connection.fetchval("select count(*) from clusterinfo.pods") == 0
        assert [await connection.fetchval(f"show {name}") for name in ("jit", "statement_timeout")] == ["off", "30s"]
        for forbidden in (
            "delete from clusterinfo.resource", "create table clusterinfo.t ()", "create role other",
            "select from clusterinfo.dead_letter", "select original from clusterinfo.resource",
        ):  # fmt: skip
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(forbidden)


async def test_consumers_may_store_and_make_nothing(
    database: Database, postgres: EmbeddedPostgres, tool: Run, tmp_path: Path
) -> None:
    """On a schema that the migration made: it gave the role its rights."""
    passwords = await logins(database, tool, tmp_path, "clusterinfo", WRITER)
    async with logged_in(database, postgres, "clusterinfo", passwords) as connection:
        for forbidden in (
            "drop table clusterinfo.resource", "create table clusterinfo.t ()", "create role other",
            "delete from clusterinfo.schema_migration", "select clusterinfo.grant_rights()",
        ):  # fmt: skip
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(forbidden)
        env = database.env | {"DB_USER": "clusterinfo", "DB_PASSWORD": passwords[1]} | QUIET
        async with simulated_api(50) as api:
            (await run("legacy", "--once", "--no-migrate", env=env | api.env)).expect(0)
        assert await connection.fetchval("select count(*) from clusterinfo.resources") > 50
