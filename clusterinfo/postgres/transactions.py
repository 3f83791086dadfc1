"""A transaction whose settings are sent with its BEGIN, and what follows it with its COMMIT; and a savepoint in it.

A small batch takes as long as its round trips: asyncpg's own transactions send BEGIN and COMMIT by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from clusterinfo.postgres.connection import Connection

BEGIN_TIMEOUT_S = 10.0
"""To begin takes no lock: a connection that does not answer so long was cut in silence while it was idle."""


@asynccontextmanager
async def transaction(connection: Connection, settings: str, afterwards: Sequence[str] = ()) -> AsyncIterator[None]:
    """A transaction around a block: rolled back if that raises.

    `settings` (SET LOCAL ..., separated by semicolons) are sent with its BEGIN; with its COMMIT what is to be done once
    it is committed, the statements `afterwards`, to which the block may still add.
    """
    try:
        async with asyncio.timeout(BEGIN_TIMEOUT_S):
            await connection.execute(f"begin; {settings}")
        yield
        await commit(connection, afterwards)
    except BaseException:
        await connection.execute("rollback")
        raise


async def commit(connection: Connection, afterwards: Sequence[str]) -> None:
    """Send COMMIT and the statements `afterwards`, which are a transaction of their own, at once."""
    await connection.execute("; ".join(["commit", *afterwards]))


@asynccontextmanager
async def savepoint(connection: Connection) -> AsyncIterator[None]:
    """A part of such a transaction, which is undone if the block raises; the rest of it goes on."""
    await connection.execute("savepoint part")
    try:
        yield
    except BaseException:
        await connection.execute("rollback to part; release part")
        raise
    await connection.execute("release part")
