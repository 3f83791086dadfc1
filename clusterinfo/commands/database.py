"""The database as a pipeline opens it: the schema is migrated first, and the history is maintained beside its work."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from clusterinfo.commands.migrate import migrate_schema
from clusterinfo.errors import ClusterinfoError, TransientError
from clusterinfo.observations import Observe, Warned
from clusterinfo.postgres.admin import history
from clusterinfo.postgres.connection import Pool
from clusterinfo.postgres.errors import FOREIGN, translate
from clusterinfo.postgres.migrations import open_migrated_pool
from clusterinfo.postgres.pool import ACQUIRE_FIRST_S, ping
from clusterinfo.postgres.sink import PostgresSink
from clusterinfo.settings import Settings
from clusterinfo.telemetry.probes import probed

HISTORY_INTERVAL_S = 6 * 3600.0
"""From one maintenance of the history to the next: partitions are made two months ahead, any part of a day will do."""
HISTORY_RETRY_S = 300.0
"""The same after one that failed, as while somebody reads the history for long: nothing depends on it today."""


@asynccontextmanager
async def open_sink(settings: Settings, observe: Observe, *, do_migrate: bool) -> AsyncIterator[PostgresSink]:
    """A sink on a schema that is up to date, whose history is maintained while it is open."""
    _warn_of_plain_connection(settings, observe)
    if do_migrate:
        await migrate_schema(settings, observe)
    async with open_migrated_pool(settings) as pool:
        wait_s = await maintain_history(pool, settings, observe)
        sink = PostgresSink(pool, settings, observe)
        maintenance = asyncio.create_task(_maintain_regularly(pool, settings, observe, wait_s))
        try:
            async with probed(observe, PostgreSQL=partial(ping, pool)):
                yield sink
        finally:
            maintenance.cancel()
            await asyncio.wait({maintenance})


async def maintain_history(pool: Pool, settings: Settings, observe: Observe) -> float:
    """Maintain the history's partitions; return in how many seconds to do so again. Raises FatalError."""
    today = dt.datetime.now(dt.UTC).date()
    try:
        async with pool.acquire(timeout=ACQUIRE_FIRST_S) as connection:
            await history.maintain_history(connection, settings.db_schema, today, settings.history_retention)
    except (*FOREIGN, TransientError) as error:
        failed = error if isinstance(error, TransientError) else translate(error, "maintaining the history")
        if not isinstance(failed, TransientError):
            raise failed from error
        _warn_of_failure(failed, observe)
        return HISTORY_RETRY_S
    return HISTORY_INTERVAL_S


async def _maintain_regularly(pool: Pool, settings: Settings, observe: Observe, wait_s: float) -> None:
    while True:
        await asyncio.sleep(wait_s)
        try:
            wait_s = await maintain_history(pool, settings, observe)
        except ClusterinfoError as error:  # what would end the program at its start does not end it now
            _warn_of_failure(error, observe)
            wait_s = HISTORY_RETRY_S


def _warn_of_failure(error: ClusterinfoError, observe: Observe) -> None:
    observe(Warned(message=f"the history's partitions were not maintained: {error}"))


def _warn_of_plain_connection(settings: Settings, observe: Observe) -> None:
    local = settings.db_host in ("localhost", "127.0.0.1", "::1") or settings.db_host.startswith("/")
    if settings.db_ssl_mode == "disable" and not local:
        observe(
            Warned(
                message=f"the connection to PostgreSQL at {settings.db_host} is not encrypted",
                remedy="set DB_SSL_MODE=verify-full and DB_SSL_ROOT_CERT",
            )
        )
