"""Asked to stop under load: the batch in hand is finished or rolled back, and whoever comes next misses nothing.

Each command is stopped while what it waits for does not come: a lock in the database, a page of the API. What a broker
that is stopped does to them is in tests/apache: the embedded one never forgets a member that could not say goodbye.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from clusterinfo.postgres.migrations import LOCK_KEY
from tests.conftest import Database
from tests.support import checker
from tests.support.programs import Api, Ended, Program, run, running, simulated_api

GRACE_S = 14  # 11 of it are kept for leaving the group
AT_ONCE_S = 30.0  # 2 s to close connections, and a busy machine
QUIET = {"METRICS_ADDRESS": "", "SHUTDOWN_GRACE_S": str(GRACE_S)}
PATIENT = QUIET | {"SHUTDOWN_GRACE_S": "100"}
"""Of those that end at once nevertheless."""

ONCE = {"collect": ("collect", "--once"), "legacy": ("legacy", "--once"), "consume": ("consume", "--until-idle", "2s")}


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with simulated_api(100, 8) as served:
        yield served


@asynccontextmanager
async def locked(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """Nothing can be stored in the block."""
    connection = await database.connect()
    try:
        async with connection.transaction():
            await connection.execute("lock table resource in access exclusive mode")
            yield connection
    finally:
        await connection.close()


async def someone_waits(connection: asyncpg.Connection) -> None:
    """Until a write waits for the lock."""
    async with asyncio.timeout(60):
        while not await connection.fetchval("select count(*) from pg_locks where not granted"):
            await asyncio.sleep(0.05)


async def stopped(program: Program, within_s: float, signals: int = 1) -> Ended:
    """Signal it, once or twice, and see it end in time."""
    began = time.monotonic()
    for _ in range(signals):
        program.signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
    ended = await program.ended(within_s + 10)
    assert time.monotonic() - began < within_s, f"took {time.monotonic() - began:.1f} s to stop"
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended


async def converges(api: Api, database: Database, env: dict[str, str], *commands: str) -> None:
    """`commands`, run to their ends, store all that the API serves."""
    for command in commands:
        (await run(*ONCE[command], env=env)).expect(0)
    truth = await checker.truth(api.url, api.token)
    assert await checker.problems(truth, database.dsn) == []


async def test_a_consumer_finishes_the_batch_in_hand(api: Api, database: Database, kafka_env: dict[str, str]) -> None:
    env = api.env | database.env | kafka_env | QUIET | {"KAFKA_PARTITION": "0"}
    (await run(*ONCE["collect"], env=env)).expect(0)
    async with running("consume", env=env) as program:
        async with locked(database) as connection:
            await someone_waits(connection)
            program.signal(signal.SIGTERM)
            await asyncio.sleep(1)
            assert program.is_running, "it drains"
        (await program.ended()).expect(0)
    connection = await database.connect()
    assert await connection.fetchval("select next_offset from kafka_offset where partition = 0") > 0
    await connection.close()
    await converges(api, database, env, "consume")


@pytest.mark.parametrize(("signals", "within_s", "code"), [(1, 2 * GRACE_S, 0), (2, AT_ONCE_S, 1)])
async def test_a_consumer_whose_write_does_not_end(
    api: Api, database: Database, kafka_env: dict[str, str], signals: int, within_s: float, code: int
) -> None:
    env = api.env | database.env | kafka_env | (QUIET if signals == 1 else PATIENT)
    (await run(*ONCE["collect"], env=env)).expect(0)
    async with running("consume", env=env) as program, locked(database) as connection:
        await someone_waits(connection)
        (await stopped(program, within_s, signals)).expect(code)
    await converges(api, database, env, "consume")


@pytest.mark.parametrize(("command", "code"), [("migrate", 1), ("consume", 0), ("legacy", 0)])
async def test_one_that_waits_to_migrate(
    api: Api, database: Database, kafka_env: dict[str, str], command: str, code: int
) -> None:
    env = api.env | database.env | kafka_env | PATIENT
    connection = await database.connect()
    await connection.execute("select pg_advisory_lock($1)", LOCK_KEY)
    async with running(command, env=env) as program:
        await someone_waits(connection)
        (await stopped(program, AT_ONCE_S)).expect(code)
    await connection.close()


@pytest.mark.embedded_only
@pytest.mark.parametrize(("once", "signals", "code"), [((), 1, 0), (("--once",), 1, 1), ((), 2, None)])
async def test_legacy_whose_write_does_not_end(
    api: Api, database: Database, once: tuple[str, ...], signals: int, code: int | None
) -> None:
    env = api.env | database.env | PATIENT
    async with running("legacy", *once, env=env) as program, locked(database) as connection:
        await someone_waits(connection)
        ended = await stopped(program, AT_ONCE_S, signals)
    # a second signal may come after the end, or when nobody listens any more
    assert ended.code in ((0, 1, -signal.SIGTERM) if code is None else (code,))
    async with checked(database) as connection:
        assert await connection.fetchval("select count(*) from freshness where state = 'verified'") == 0
    await converges(api, database, env, "legacy")


@asynccontextmanager
async def checked(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await database.connect()
    yield connection
    await connection.close()


@pytest.mark.embedded_only
async def test_a_collector_whose_page_comes_slowly(api: Api, database: Database, kafka_env: dict[str, str]) -> None:
    env = api.env | database.env | kafka_env | PATIENT
    await api.control("stall", resource="pods", seconds=60, times=None)
    async with running("collect", env=env) as program, running("legacy", "--once", env=env) as other:
        await asyncio.gather(*(one.wait_for_output('"List ended"') for one in (program, other)))
        first, second = await asyncio.gather(stopped(program, AT_ONCE_S), stopped(other, AT_ONCE_S))
    first.expect(0)
    second.expect(1)
    await api.control("clear")
    await converges(api, database, env, "collect", "consume")
