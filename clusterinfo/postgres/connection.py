"""Settings -> a pool of connections. Every wait has a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import asyncpg

from clusterinfo.errors import ConfigError, FatalError, TransientError
from clusterinfo.postgres.translate import FOREIGN, translate
from clusterinfo.settings import Settings

FIRST_CONNECTION_S = 20.0
CONNECT_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 90.0
"""Longer than the server's own statement timeout, which gives the better message."""


def connection_arguments(settings: Settings) -> dict[str, Any]:
    """`asyncpg.connect` arguments; a certificate file that cannot be read is a ConfigError."""
    files = {
        "sslrootcert": ("DB_SSL_ROOT_CERT", settings.db_ssl_root_cert),
        "sslcert": ("DB_SSL_CERT", settings.db_ssl_cert),
        "sslkey": ("DB_SSL_KEY", settings.db_ssl_key),
    }
    query: dict[str, str] = {"sslmode": settings.db_ssl_mode}
    for option, (variable, path) in files.items():
        if path is not None:
            if not path.is_file():
                raise ConfigError(f"{variable} names {str(path)!r}, which is no file: expected a PEM file")
            query[option] = str(path)
    return {
        "dsn": f"postgresql:///?{urlencode(query)}",
        "host": settings.db_host,
        "port": settings.db_port,
        "user": settings.db_user,
        "password": settings.db_password.get_secret_value() if settings.db_password else None,
        "database": settings.db_name,
        "timeout": CONNECT_TIMEOUT_S,
        "command_timeout": COMMAND_TIMEOUT_S,
        "target_session_attrs": "read-write",
        "server_settings": {"application_name": "clusterinfo"},
    }


async def prepare_connection(connection: Any) -> None:
    """Let jsonb pass as the bytes it is, in COPY too: a version byte and the text."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=lambda body: b"\x01" + body, decoder=lambda raw: raw[1:], format="binary"
    )


@asynccontextmanager
async def open_pool(settings: Settings) -> AsyncIterator[Any]:
    """A pool of at most DB_POOL_SIZE connections.

    The first connection is tried for 20 s; then, or at once where trying again cannot help, FatalError with one line.
    """
    arguments = connection_arguments(settings)
    pool = await _first_connection(settings, arguments)
    try:
        yield pool
    finally:
        await _close(pool)


async def _first_connection(settings: Settings, arguments: dict[str, Any]) -> Any:
    where = f"at {settings.db_host}:{settings.db_port}"
    deadline = time.monotonic() + FIRST_CONNECTION_S
    while True:
        try:
            async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                return await asyncpg.create_pool(
                    min_size=1, max_size=settings.db_pool_size, init=prepare_connection, **arguments
                )
        except FOREIGN as error:
            translated = translate(error, f"connecting {where}")
            if not isinstance(translated, TransientError):
                raise translated from error
            if time.monotonic() + 1 >= deadline:
                raise FatalError(
                    f"PostgreSQL {where} cannot be reached: {str(error).strip() or 'no answer within 20 s'}; "
                    "check DB_HOST and DB_PORT, and that the server runs"
                ) from error
            await asyncio.sleep(1)


async def _close(pool: Any) -> None:
    try:
        async with asyncio.timeout(5):
            await pool.close()
    except TimeoutError:
        pool.terminate()
