"""Running histories: one machine, many examples, on a bench."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from clusterinfo.postgres.migrations import migrate
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from clusterinfo.settings import load
from tests.model.bench import Bench
from tests.model.machine import MergeMachine

STEPS = 9
"""Rules a history: with the final lists some 10 to 20 batches."""


class Hunt:
    """Runs histories on a bench until one fails."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def run(self, histories: int, *, seed: int | None = None, shrink: bool = False) -> None:
        """Run so many histories; without a seed the same ones each time. Raises Violation."""

        class Machine(MergeMachine):
            bench = self._bench

        if seed is not None:
            seeded(seed)(Machine)
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=histories,
                stateful_step_count=STEPS,
                derandomize=seed is None,
                deadline=None,
                database=None,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
            ),
        )


@contextmanager
def on_a_server() -> Iterator[Bench]:
    """A bench on a PostgreSQL of its own."""
    loop = asyncio.new_event_loop()
    server = EmbeddedPostgres({"deadlock_timeout": "100ms", "autovacuum": "off"})
    loop.run_until_complete(server.__aenter__())
    try:
        loop.run_until_complete(_migrate(server.dsn()))
        flags = {name.lower(): value for name, value in server.env().items()}
        bench = Bench(server.dsn(), load({}, **flags))
        bench.run(bench.open())
        try:
            yield bench
        finally:
            bench.shut()
    finally:
        loop.run_until_complete(server.__aexit__(None, None, None))
        loop.close()


async def _migrate(dsn: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        await migrate(connection, "clusterinfo")
    finally:
        await connection.close()
