"""Passwords, tokens and keys change while the programs run: new connections use what their files say now.

A token of Kubernetes, too: see tests/integration/test_kubernetes_client.py.
"""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from tests.conftest import Database
from tests.kafka.apache import ApacheKafka
from tests.security.brokers import LOGIN_LASTS_MS, PASSWORD, ROTATED, USER, unsigned_token
from tests.support.programs import QUIET, Api, Program, running, simulated_api

MECHANISM = "SCRAM-SHA-256"
QUICK = {"COLLECT_INTERVAL": "500ms", "INCLUDE": "namespaces,secrets"}
NEW = "canary-of-the-next-password"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with simulated_api(100) as started:
        yield started


@pytest.fixture
def env(api: Api, database: Database, kafka: ApacheKafka) -> dict[str, str]:
    """On the listener whose logins do not last."""
    unique = uuid.uuid4().hex[:8]
    reached = {"KAFKA_ENABLED": "true", "KAFKA_BROKERS": kafka.bootstrap_of("EXPIRING")}
    named = {"KAFKA_TOPIC": f"topic-{unique}", "KAFKA_GROUP_ID": f"group-{unique}", "KAFKA_TOPIC_PARTITIONS": "1"}
    how = {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SASL_MECHANISM": MECHANISM, "KAFKA_SASL_USERNAME": USER}
    return api.env | database.env | reached | named | how | QUIET | QUICK


async def until(reached: Callable[[], Awaitable[bool]], programs: list[Program], within_s: float = 150) -> None:
    """Wait, as long as the programs run. Raises TimeoutError with what they printed."""
    deadline = time.monotonic() + within_s
    while not await reached():
        for program in programs:
            assert program.is_running, program.stderr()
        if time.monotonic() > deadline:
            raise TimeoutError("\n".join(program.stderr()[-3000:] for program in programs))
        await asyncio.sleep(0.1)


async def verified(connection: asyncpg.Connection) -> int:
    """Runs of lists that were stored whole."""
    return int(await connection.fetchval("select count(*) from snapshot where completed_at is not null"))


async def goes_on(connection: asyncpg.Connection, programs: list[Program], runs: int = 3) -> None:
    """Another few runs of lists come through."""
    before = await verified(connection)

    async def came() -> bool:
        return await verified(connection) >= before + runs

    await until(came, programs)


async def stopped(*programs: Program) -> None:
    for program in programs:
        program.signal(signal.SIGTERM)
        (await program.ended()).expect(0)
        assert PASSWORD not in program.stderr()
        assert NEW not in program.stderr()


async def test_a_login_that_expires_is_made_again(
    env: dict[str, str], connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """KIP-368 asks clients to log in again on the connection; aiokafka cannot, and is thrown out every 1.5 s."""
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    env |= {"KAFKA_SASL_PASSWORD_FILE": str(secret)}
    async with running("consume", env=env) as consumer, running("collect", env=env) as collector:
        await goes_on(connection, [consumer, collector], runs=1)
        began = time.monotonic()
        while time.monotonic() < began + 3 * LOGIN_LASTS_MS / 1000:
            await goes_on(connection, [consumer, collector])
        await stopped(collector, consumer)


async def test_a_token_that_expires_is_read_again(
    env: dict[str, str], connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """Each is good for six seconds, and another is put in its place every second."""
    secret = tmp_path / "token"

    async def renew() -> None:
        while True:
            fresh = tmp_path / "fresh"
            fresh.write_text(unsigned_token(USER, 6.0))
            fresh.rename(secret)
            await asyncio.sleep(1)

    renewing = asyncio.create_task(renew())
    await asyncio.sleep(0.1)
    env |= {"KAFKA_SASL_MECHANISM": "OAUTHBEARER", "KAFKA_SASL_PASSWORD_FILE": str(secret)}
    try:
        async with running("consume", env=env) as consumer, running("collect", env=env) as collector:
            began = time.monotonic()
            while time.monotonic() < began + 9:
                await goes_on(connection, [consumer, collector])
            await stopped(collector, consumer)
    finally:
        renewing.cancel()


async def test_a_kafka_password_is_read_again(
    env: dict[str, str], connection: asyncpg.Connection, kafka: ApacheKafka, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    env |= {"KAFKA_SASL_PASSWORD_FILE": str(secret), "KAFKA_SASL_USERNAME": ROTATED}
    async with running("consume", env=env) as consumer, running("collect", env=env) as collector:
        await goes_on(connection, [consumer, collector])
        await kafka.change_password(ROTATED, MECHANISM, NEW)
        await asyncio.sleep(2 * LOGIN_LASTS_MS / 1000)  # every login of before is over, and refused since
        secret.write_text(NEW)
        await goes_on(connection, [consumer, collector])
        await stopped(collector, consumer)


async def test_a_database_password_is_read_again(
    env: dict[str, str], database: Database, connection: asyncpg.Connection, kafka: ApacheKafka, tmp_path: Path
) -> None:
    secret, user = tmp_path / "password", f"rotated_{uuid.uuid4().hex[:8]}"
    secret.write_text(PASSWORD)
    await connection.execute(f"create role {user} superuser login password '{PASSWORD}'")
    stored = {name: value for name, value in env.items() if name != "DB_PASSWORD"}
    stored |= {"KAFKA_BROKERS": kafka.bootstrap, "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}
    stored |= {"DB_USER": user, "DB_PASSWORD_FILE": str(secret), "DB_NAME": database.name}
    async with running("consume", env=stored) as consumer, running("collect", env=stored) as collector:
        await goes_on(connection, [consumer, collector])
        await connection.execute(f"alter role {user} password '{NEW}'")
        await connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = $1", user)
        await asyncio.sleep(1)  # refused meanwhile
        secret.write_text(NEW)
        await goes_on(connection, [consumer, collector])
        await stopped(collector, consumer)
    await connection.execute(f"drop role {user}")


async def test_a_redaction_key_is_read_again(api: Api, database: Database, tmp_path: Path) -> None:
    """A fingerprint by another key: from the next run of lists on."""
    secret = tmp_path / "key"
    secret.write_text("canary-of-the-first-key")
    env = database.env | api.env | QUIET | {"REDACTION_KEY_FILE": str(secret)} | QUICK
    connection = await database.connect()
    fingerprint = "select min(object #>> '{data,password}') from resources where resource = 'secrets'"
    async with running("legacy", env=env) as program:
        await goes_on(connection, [program], runs=1)
        before = await connection.fetchval(fingerprint)
        assert before.startswith("hmac-sha256:")
        secret.write_text(NEW)

        async def another() -> bool:
            # At one and the same list version neither fingerprint is the later one, and a run may be under way.
            await api.control("tick")
            return bool(before != await connection.fetchval(fingerprint))

        await until(another, [program])
        await stopped(program)
    await connection.close()
