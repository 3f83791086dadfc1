"""The sandbox drives Debian's PostgreSQL as it does the embedded one.

Not among `testpaths`: it needs that server installed, as .ci/run does.
"""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from clusterinfo.postgres.sql import statements
from clusterinfo.sandbox.postgres import BIN_VARIABLE, EmbeddedPostgres

INSTALLED = Path("/usr/lib/postgresql")


async def test_another_installation_is_driven(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = [int(path.parents[1].name) for path in INSTALLED.glob("*/bin/initdb")]
    assert versions, "no PostgreSQL of Debian's here: apt-get install postgresql"
    monkeypatch.setenv(BIN_VARIABLE, str(INSTALLED / str(max(versions)) / "bin"))
    async with EmbeddedPostgres() as postgres:
        connection = await asyncpg.connect(postgres.dsn(), timeout=60)
        try:
            version = await connection.fetchval("select version()")
        finally:
            await connection.close()
    assert version.startswith(f"PostgreSQL {max(versions)}.")


async def test_it_takes_every_statement(connection: asyncpg.Connection) -> None:
    """What the rules of the merge decide is no matter of its version, and is tested on the embedded one alone."""
    await connection.execute(statements()["begin_chain"])
    for text in statements().values():
        for part in text.split(";\n"):
            if part.strip():
                await connection.prepare(part)
