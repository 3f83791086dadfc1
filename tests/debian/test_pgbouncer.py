"""PgBouncer in transaction mode between the program and PostgreSQL: every transaction may have another connection.

Debian 12 has 1.18, which knows no prepared statements: DB_STATEMENT_CACHE=0. From 1.21 on the default works, too.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from clusterinfo.sandbox.postgres import EmbeddedPostgres
from clusterinfo.sandbox.processes import Account, Process, free_port, unprivileged_account
from clusterinfo.sandbox.servers import accepts_connections
from tests.conftest import Database
from tests.support import checker
from tests.support.programs import run, run_all, simulated_api

SERVER_CONNECTIONS = 2


@pytest.fixture
async def pooled(postgres: EmbeddedPostgres, database: Database) -> AsyncIterator[dict[str, str]]:
    """What makes `clusterinfo` reach the database through a pooler of two connections."""
    program = shutil.which("pgbouncer")
    assert program, "no PgBouncer here: apt-get install pgbouncer"
    account, port = unprivileged_account(), free_port()
    with TemporaryDirectory(prefix="clusterinfo-pgbouncer-") as directory:
        config = _write_config(Path(directory), postgres, database, account, port)
        pooler = Process.start("pgbouncer", [program, config], log=Path(directory) / "log", cwd=Path(directory))
        try:
            await pooler.wait_ready(lambda: accepts_connections("127.0.0.1", port), 20)
            yield database.env | {"DB_HOST": "127.0.0.1", "DB_PORT": str(port), "DB_STATEMENT_CACHE": "0"}
        finally:
            await pooler.stop()


def _write_config(
    directory: Path, postgres: EmbeddedPostgres, database: Database, account: Account | None, port: int
) -> Path:
    """Files that whoever PgBouncer becomes may read: it does not stay root."""
    config, users = directory / "pgbouncer.ini", directory / "users"
    users.write_text(f'"{database.env["DB_USER"]}" "{database.env["DB_PASSWORD"]}"\n')
    config.write_text(
        f"[databases]\n* = host={postgres.host} port={postgres.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = plain\nauth_file = {users}\n"
        f"pool_mode = transaction\ndefault_pool_size = {SERVER_CONNECTIONS}\nmax_client_conn = 100\n"
        "unix_socket_dir =\n" + (f"user = {account.name}\n" if account else "")
    )
    directory.chmod(0o755)
    return config


async def test_consumers_share_two_connections(
    pooled: dict[str, str], database: Database, kafka_env: dict[str, str]
) -> None:
    async with simulated_api(600, 12) as api:
        env = api.env | pooled | kafka_env | {"BATCH_SIZE": "50", "BATCH_WAIT": "100ms"}
        (await run("migrate", env=env)).expect(0)
        (await run("collect", "--once", env=env)).expect(0)
        for consumer in await run_all(*[("consume", "--until-idle", "2s")] * 3, env=env):
            consumer.expect(0)
            assert consumer.errors() == []
        assert await checker.check(api.url, api.token, database.dsn) == []
        (await run("status", env=env)).expect(0)
        (await run("legacy", "--once", env=env)).expect(0)
        assert await checker.check(api.url, api.token, database.dsn) == []


async def test_prepared_statements_are_named_as_the_cause(pooled: dict[str, str]) -> None:
    env = pooled | {"DB_STATEMENT_CACHE": "100"}
    for _ in range(SERVER_CONNECTIONS + 1):  # a second client on one server's connection prepares under the same name
        ended = await run("migrate", env=env)
        if ended.code:
            break
    (error,) = ended.expect(1).errors()
    assert "DB_STATEMENT_CACHE=0" in error
