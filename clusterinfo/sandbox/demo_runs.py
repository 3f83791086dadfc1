"""`clusterinfo collect` and two `clusterinfo consume` side by side, as anybody would run them, followed to their end.

Children are the real executable in processes of their own; what they achieve is read from the database.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from rich.console import Console
from rich.text import Text

from clusterinfo.sandbox.demo_servers import Servers, last_lines
from clusterinfo.sandbox.processes import Process, SandboxError

CONSUMERS = 2
UNTIL_IDLE = "2s"
POLL_S = 0.2
PLAIN_LINE_EVERY_S = 2.0
STOP_GRACE_S = 8.0  # more than the SHUTDOWN_GRACE_S that the children get
DONE = (0, 3)  # 3: a kind could not be listed, which `freshness` shows

COLLECT = ("collect", "--once")
CONSUME = ("consume", "--until-idle", UNTIL_IDLE)

STORED = """
select (select count(*) from resource where not deleted) as rows,
       (select count(distinct unit_id) from unit_floor where state = 'verified') as kinds,
       (select coalesce(sum(greatest(count, expected_count)), 0)::bigint
        from list_progress where updated_at >= $1) as listed
"""

Report = Callable[[str], None]


@contextmanager
def progress(console: Console) -> Iterator[Report]:
    """Yields what reports how far we are: one live line on a terminal, else a plain one every 2 s at most."""
    if console.is_terminal:
        with console.status("") as status:
            yield lambda text: status.update(Text(text))
        return
    printed_at = float("-inf")

    def report(text: str) -> None:
        nonlocal printed_at
        if time.monotonic() - printed_at >= PLAIN_LINE_EVERY_S:
            printed_at = time.monotonic()
            console.print(text, markup=False, soft_wrap=True)

    yield report


@dataclass(slots=True)
class Measured:
    """A run in seconds since its processes were started: `first_s` the first row, `last_s` the last news. `rows`,
    `kinds`: stored by then; `listed`: objects that the lists of this run brought."""

    rows: int = 0
    kinds: int = 0
    listed: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def note(self, rows: int, kinds: int, listed: int) -> None:
        """Take in what the database holds now."""
        now_s = time.monotonic() - self.began
        if rows and not self.first_s:
            self.first_s = now_s
        if (rows, kinds, listed) != (self.rows, self.kinds, self.listed):
            self.last_s = now_s
        self.rows, self.kinds, self.listed = rows, kinds, listed

    def __str__(self) -> str:
        return (
            f"{time.monotonic() - self.began:5.1f} s: {self.listed:,} objects listed, {self.rows:,} rows stored, "
            f"{self.kinds} kinds verified"
        )


class _Run:
    """The processes of one run and how far the database shows them to be."""

    def __init__(self, servers: Servers, database: asyncpg.Connection, report: Report) -> None:
        self.measured = Measured()
        self._since = dt.datetime.now(dt.UTC)
        self._servers = servers
        self._database = database
        self._report = report

    async def follow(self, children: list[Process], count: int) -> None:
        """Until all is stored. `children` is empty, and filled with what is started; the caller stops them."""
        collect = start(self._servers, children, "collect", COLLECT)
        consumers = [start(self._servers, children, f"consume {n + 1}", CONSUME) for n in range(count)]
        collected = False
        while not collected:
            await self._poll(children)
            collected = collect.returncode is not None
            # One that ended before the last list was sent did so too early: a slow API looks idle.
            for number, consumer in enumerate(consumers):
                if consumer.returncode is not None:
                    consumers[number] = start(self._servers, children, consumer.name, CONSUME)
        while any(consumer.returncode is None for consumer in consumers):
            await self._poll(children)
        await self._poll(children)

    async def _poll(self, children: Sequence[Process]) -> None:
        """Measure once, then pause: four times as long as measuring took, at least 0.2 s."""
        began = time.monotonic()
        check(self._servers, children, done=DONE)
        with suppress(asyncpg.UndefinedTableError):  # the consumers have not migrated yet
            self.measured.note(*await self._database.fetchrow(STORED, self._since))
        self._report(str(self.measured))
        await asyncio.sleep(max(POLL_S, 4 * (time.monotonic() - began)))


async def collect_and_consume(
    servers: Servers, database: asyncpg.Connection, report: Report, consumers: int = CONSUMERS
) -> Measured:
    """One run of lists, and so many consumers beside it until all of it is stored.

    Raises SandboxError, with the end of its log, if a child fails.
    """
    run = _Run(servers, database, report)
    async with _stopped_afterwards() as children:
        await run.follow(children, consumers)
    return run.measured


@asynccontextmanager
async def continuous(servers: Servers, interval: str) -> AsyncIterator[list[Process]]:
    """A collector that lists every `interval` and consumers that stay, until the block ends."""
    async with _stopped_afterwards() as children:
        start(servers, children, "collect", ("collect", "--interval", interval))
        for number in range(CONSUMERS):
            start(servers, children, f"consume {number + 1}", ("consume",))
        yield children


def start(servers: Servers, children: list[Process], name: str, arguments: Sequence[str]) -> Process:
    """Start `clusterinfo` with these arguments, where we are: a relative KUBECONFIG keeps its meaning."""
    argv: list[str | Path] = [sys.executable, "-m", "clusterinfo", *arguments]
    log = servers.directory / f"{name}.log"
    child = Process.start(name, argv, log=log, cwd=Path.cwd(), env=servers.environment)
    children.append(child)
    return child


def check(servers: Servers, children: Sequence[Process], *, done: Sequence[int] = ()) -> None:
    """Raises SandboxError, with the end of its log, if a server has ended, or a child with a code that `done` lacks."""
    servers.check()
    for child in children:
        if child.returncode is not None and child.returncode not in done:
            raise SandboxError(f"{child.name} exited with {child.returncode}: {last_lines(child.log)}")


@asynccontextmanager
async def _stopped_afterwards() -> AsyncIterator[list[Process]]:
    children: list[Process] = []
    try:
        yield children
    finally:
        await asyncio.gather(*(child.stop(signal.SIGTERM, STOP_GRACE_S) for child in children))
