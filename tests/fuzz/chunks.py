"""A chunk of executions of one target: what a process does at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random

import asyncpg

from clusterinfo.postgres.pool import prepare_connection
from tests.fuzz import batches, bodies, messages, pages
from tests.fuzz.outcome import Outcome

CHUNK = 2000
"""Executions that share their PostgreSQL round trips."""
SHARES = {"messages": 0.5, "batches": 0.1, "pages": 0.15, "bodies": 0.25}
"""Target -> its share of all executions, by what one costs."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """`size` executions of `target`, made from `seed` and `number`."""

    target: str
    seed: int
    number: int
    size: int


async def run_chunk(chunk: Chunk, dsn: str) -> Outcome:
    """Run it on a connection of its own."""
    random = Random(f"{chunk.seed}/{chunk.target}/{chunk.number}")
    if chunk.target == "batches":
        return batches.run(random, chunk.size, chunk.number)
    if chunk.target == "pages":
        return pages.run(random, chunk.size, chunk.number)
    connection = await asyncpg.connect(dsn, timeout=60)
    try:
        await prepare_connection(connection)
        if chunk.target == "messages":
            return await messages.run(random, chunk.size, chunk.number, connection)
        await bodies.prepare(connection)
        return await bodies.run(random, chunk.size, chunk.number, connection)
    finally:
        await connection.close()


def run_alone(chunk: Chunk, dsn: str) -> Outcome:
    """The same in a process that does nothing else."""
    return asyncio.run(run_chunk(chunk, dsn))
