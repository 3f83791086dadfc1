"""`clusterinfo migrate`: bring the schema up to date, or print the rights that its users need."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clusterinfo.exit_codes import EXIT_DONE
from clusterinfo.observations import Noted, Observe, Warned
from clusterinfo.postgres.admin.grants import grants
from clusterinfo.postgres.migrations import migrate
from clusterinfo.postgres.pool import ACQUIRE_FIRST_S, open_pool
from clusterinfo.settings import Settings


async def migrate_schema(settings: Settings, observe: Observe) -> int:
    """Bring the schema up to date."""
    async with open_pool(settings) as pool, pool.acquire(timeout=ACQUIRE_FIRST_S) as connection:
        with _warnings_of(connection, observe):
            applied = await migrate(connection, settings.db_schema)
    for name in applied:
        observe(Noted(message=f"applied migration {name}"))
    observe(Noted(message=f"schema {settings.db_schema} is up to date"))
    return EXIT_DONE


@contextmanager
def _warnings_of(connection: Any, observe: Observe) -> Iterator[None]:
    """Observe what the server warns asyncpg's `connection` of within the block, as of a role that it may not create."""

    def warn(_: object, told: Any) -> None:
        if told.severity_en == "WARNING":
            observe(Warned(message=told.message))

    connection.add_log_listener(warn)
    try:
        yield
    finally:
        connection.remove_log_listener(warn)


def show_grants(settings: Settings) -> None:
    """Print to stdout, as SQL, the rights a writer and a reader need; connects to nothing."""
    sys.stdout.write(grants(settings.db_schema, settings.db_name))
