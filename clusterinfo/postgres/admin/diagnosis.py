"""What `clusterinfo doctor` asks of PostgreSQL: whether it is reached, its encoding, clock, schema, and our rights."""

from __future__ import annotations

import datetime as dt

from clusterinfo.findings import Findings, State
from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.errors import FOREIGN, translate
from clusterinfo.postgres.migrations import check_encoding, check_migrated, migrations
from clusterinfo.postgres.pool import open_pool, present
from clusterinfo.postgres.sql import statements
from clusterinfo.settings import Settings

NAMED = 5
"""Rights in a line."""


async def examine(settings: Settings, findings: Findings, within_s: float) -> None:
    """Check all of it, in order. Raises a ClusterinfoError for what ends the examination; `within_s`: to connect."""
    findings.begin("database", "check DB_HOST and DB_PORT, and that the server runs")
    where = f"{settings.db_host}:{settings.db_port}/{settings.db_name} as {settings.db_user}"
    try:
        async with open_pool(settings, within_s) as pool, pool.acquire(timeout=within_s) as connection:
            findings.ok(f"{where}, PostgreSQL {await connection.fetchval('show server_version')}")
            await _check(connection, settings, findings)
    except FOREIGN as error:
        raise translate(error, f"asking for its {findings.check}") from error


async def _check(connection: Connection, settings: Settings, findings: Findings) -> None:
    findings.begin("database's clock")
    before = dt.datetime.now(dt.UTC)
    theirs = await present(connection)
    findings.compare_clock(theirs, before, dt.datetime.now(dt.UTC))
    findings.begin("encoding")
    await check_encoding(connection)
    findings.ok("UTF8")
    findings.begin("schema")
    await check_migrated(connection, settings.db_schema)
    findings.ok(f"{settings.db_schema}, up to date ({migrations()[-1].name})")
    await _check_rights(connection, settings.db_schema, findings)


async def _check_rights(connection: Connection, schema: str, findings: Findings) -> None:
    """What a writer needs: the schema's owner has it."""
    findings.begin("rights in the database")
    lacking = [row["lacking"] for row in await connection.fetch(statements()["lacking_rights"], schema)]
    if lacking:
        more = f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
        remedy = (
            "as the schema's owner: `clusterinfo migrate --print-grants`, then grant clusterinfo_writer to this user"
        )
        findings.note(State.FAILED, f"not allowed: {', '.join(lacking[:NAMED])}{more}", remedy)
    else:
        findings.ok("what is stored may be written")
