"""A migration lets the previous release go on writing: its program really does, on the schema of today."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from clusterinfo.kubernetes.normalize import NORMALIZATION
from clusterinfo.postgres.admin.grants import WRITER
from tests import previous
from tests.previous.upgrade import Upgrade
from tests.support import checker
from tests.support.programs import run

pytestmark = pytest.mark.embedded_only  # tests/apache/test_previous.py has both

PASSWORD = "canary-of-upgrades-24"


async def test_what_runs_is_the_wheel() -> None:
    async with previous.python("-c", "import clusterinfo.cli as it; print(it.__file__)", env={}) as program:
        assert (await program.prints()).startswith(f"{previous.WHEEL}/")


async def test_it_writes_directly(upgrade: Upgrade) -> None:
    """With migrations left on, as a Pod that restarts has them; what one of the two wrote the other leaves as it is.

    But for the version of the rules: whatever today's have judged stays judged by them.
    """
    await upgrade.migrate()
    for writer, other in ((previous.run, run), (run, previous.run)):
        await upgrade.change()
        (await writer("legacy", "--once", env=upgrade.env)).expect(0)
        await upgrade.check()
        written = await _rows(upgrade.connection)
        (await other("legacy", "--once", env=upgrade.env)).expect(0)
        assert await _rows(upgrade.connection) == written
        judged = await upgrade.connection.fetch("select distinct normalization from resource where not deleted")
        assert [row["normalization"] for row in judged] == [NORMALIZATION]
        await upgrade.check()


async def _rows(connection: asyncpg.Connection) -> list[tuple[object, ...]]:
    """All rows but when they were last seen alive, and by which rules."""
    live_at, normalization = 14, 17  # see checker.ROWS
    rows = await checker.rows(connection)
    return [row[:live_at] + row[live_at + 1 : normalization] + row[normalization + 1 :] for row in rows]


async def test_both_write_at_once(upgrade: Upgrade) -> None:
    await upgrade.migrate()
    await upgrade.change()
    both = await asyncio.gather(*(program("legacy", "--once", env=upgrade.env) for program in (previous.run, run)))
    assert [ended.expect(0).errors() for ended in both] == [[], []]
    await upgrade.check()


async def test_it_consumes_while_the_schema_changes(upgrade: Upgrade, kafka_env: dict[str, str]) -> None:
    """What it holds open (connections, prepared statements) outlives the migration; then the two take turns."""
    env = upgrade.env | kafka_env
    (await previous.run("collect", "--once", env=env)).expect(0)
    async with previous.running("consume", env=env) as consumer:
        await upgrade.stored(kafka_env, consumer)
        await upgrade.check()
        await upgrade.migrate()
        for collector in (previous.run, run):
            await upgrade.change()
            (await collector("collect", "--once", env=env)).expect(0)
            await upgrade.stored(kafka_env, consumer)
            await upgrade.check()
        consumer.signal(signal.SIGTERM)
        ended = (await consumer.ended()).expect(0)
    assert ended.errors() == []

    for collector, next_consumer in ((previous.run, run), (run, previous.run)):
        await upgrade.change()
        (await collector("collect", "--once", env=env)).expect(0)
        (await next_consumer("consume", "--until-idle", "1s", env=env)).expect(0)
        await upgrade.check()


async def test_it_writes_with_the_rights_printed_today(upgrade: Upgrade) -> None:
    await upgrade.migrate()
    printed = await run("migrate", "--print-grants", env={"DB_NAME": upgrade.database.name})
    await upgrade.connection.execute(printed.expect(0).stdout)
    async with _member_of(WRITER, upgrade.connection) as writer:
        await upgrade.change()
        (await previous.run("legacy", "--once", "--no-migrate", env=upgrade.env | writer)).expect(0)
        await upgrade.check()


@asynccontextmanager
async def _member_of(role: str, owner: asyncpg.Connection) -> AsyncIterator[dict[str, str]]:
    """A user with that role and nothing else: what makes a program log in as it."""
    user = f"user_{uuid.uuid4().hex[:8]}"
    await owner.execute(f"create role {user} login password '{PASSWORD}' in role {role}")
    try:
        yield {"DB_USER": user, "DB_PASSWORD": PASSWORD}
    finally:
        await owner.execute(f"drop role {user}")
