"""`clusterinfo collect` beside two `clusterinfo consume`, as anybody would run them.

Children are the real executable in processes of their own; what they achieve is read from the database. All of them
stay from beginning to end. A cluster has arrived once a run of lists has ended and the database has got as far as Kafka
had by then. What happens to an object afterwards is a row when the database says so: its NOTIFY is listened to.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from rich.console import Console
from rich.text import Text

from clusterinfo.sandbox.demo_changes import Change
from clusterinfo.sandbox.demo_servers import Servers, last_lines
from clusterinfo.sandbox.processes import Process, SandboxError

CONSUMERS = 2
POLL_S = 0.2
STUCK_AFTER_S = 120.0  # a broker or database that does nothing for so long will do nothing
PLAIN_LINE_EVERY_S = 2.0
STOP_GRACE_S = 8.0  # more than the SHUTDOWN_GRACE_S that the children get
FOLLOWED_WITHIN_S = 3.0  # from the end of the lists until it is stored what is followed
ROW_WITHIN_S = 30.0
LOOK_S = 0.1

TOPIC, GROUP = "cluster-info", "cluster-info-consumer"  # the defaults of KAFKA_TOPIC and KAFKA_GROUP_ID
COLLECT = ("collect", "--watch")  # the user may have set COLLECT_INTERVAL
CONSUME = ("consume",)
NOTIFIED = "clusterinfo"  # the channel on which each commit that changed rows is announced

STORED = """
select (select count(*) from resource where not deleted) as rows,
       (select count(distinct unit_id) from unit_floor where state = 'verified') as kinds,
       (select coalesce(sum(greatest(count, expected_count)), 0)::bigint
        from list_progress where updated_at >= $1) as listed
"""

LISTED = "select exists (select from snapshot where completed_at >= $1)"
UNFOLLOWED = "select exists (select from freshness where state = 'verified' and not following)"
VERSION = """
select resource_version from resources where (api_group, resource, namespace, name) = ($1, $2, $3, $4)"""

OFFSETS = "select partition, next_offset from kafka_offset where kafka_cluster <> '' and next_offset is not null"

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
    """The arrival in seconds since the processes were started: `first_s` the first row, `last_s` the last news. `rows`,
    `kinds`: stored by then; `listed`: objects that the lists brought."""

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

    @property
    def quiet_s(self) -> float:
        """Seconds since the last news."""
        return time.monotonic() - self.began - self.last_s

    def __str__(self) -> str:
        return (
            f"{time.monotonic() - self.began:5.1f} s: {self.listed:,} objects listed, {self.rows:,} rows stored, "
            f"{self.kinds} kinds verified"
        )


class Arrival:
    """The first run of lists, and how far the database shows it to be."""

    def __init__(
        self, servers: Servers, database: asyncpg.Connection, children: Sequence[Process], report: Report
    ) -> None:
        self.measured = Measured()
        self._since = dt.datetime.now(dt.UTC)
        self._servers = servers
        self._database = database
        self._children = children
        self._report = report

    async def wait(self) -> Measured:
        """Until all is stored, and what is followed is known. Raises SandboxError, with the end of its log, if a child
        fails."""
        while not await self._asked(LISTED, self._since):
            await self._poll()
        ends = await self._servers.broker.ends(TOPIC)
        while not await self._has_reached(ends):
            await self._poll()
            if self.measured.quiet_s > STUCK_AFTER_S:
                raise SandboxError(f"nothing was stored for {STUCK_AFTER_S:.0f} s; please report it")
        await self._poll()
        looked_s = 0.0
        while looked_s < FOLLOWED_WITHIN_S and await self._asked(UNFOLLOWED):
            looked_s += await self._poll()
        return self.measured

    async def _asked(self, question: str, *arguments: object) -> bool:
        with suppress(asyncpg.UndefinedTableError):  # the consumers have not migrated yet
            return bool(await self._database.fetchval(question, *arguments))
        return False

    async def _has_reached(self, ends: Mapping[int, int]) -> bool:
        stored = dict(await self._database.fetch(OFFSETS))
        return all(stored.get(partition, 0) >= end for partition, end in ends.items())

    async def _poll(self) -> float:
        """Measure once, then pause: four times as long as measuring took, at least 0.2 s. How long all that took."""
        began = time.monotonic()
        check(self._servers, self._children)
        with suppress(asyncpg.UndefinedTableError):  # the consumers have not migrated yet
            self.measured.note(*await self._database.fetchrow(STORED, self._since))
        self._report(str(self.measured))
        await asyncio.sleep(max(POLL_S, 4 * (time.monotonic() - began)))
        return time.monotonic() - began


@asynccontextmanager
async def running(servers: Servers) -> AsyncIterator[list[Process]]:
    """Two consumers and a collector, in this order, until the block ends."""
    async with _stopped_afterwards() as children:
        for number in range(CONSUMERS):
            start(servers, children, f"consume {number + 1}", CONSUME)
        start(servers, children, "collect", COLLECT)
        yield children


class Changes:
    """Makes changes one after another, and measures how long each takes to be a row; `delays_s` has them in order."""

    def __init__(self, servers: Servers, database: asyncpg.Connection, children: Sequence[Process]) -> None:
        self.delays_s: list[float] = []
        self._servers = servers
        self._database = database
        self._children = children
        self._news = asyncio.Event()

    async def follow(self, changes: Sequence[Change], send: Callable[[Change], Awaitable[None]]) -> None:
        """Have each made by `send`, and wait until it is seen. Raises SandboxError if one is not seen within 30 s."""
        listen = self._hear
        await self._database.add_listener(NOTIFIED, listen)
        try:
            for change in changes:
                before, began_s = await self._version(change), time.monotonic()
                await send(change)
                await self._until_changed(change, before)
                self.delays_s.append(time.monotonic() - began_s)
        finally:
            await self._database.remove_listener(NOTIFIED, listen)

    def _hear(self, *_: object) -> None:
        self._news.set()

    async def _version(self, change: Change) -> str | None:
        group, resource = change.unit
        version: str | None = await self._database.fetchval(VERSION, group, resource, change.namespace, change.name)
        return version

    async def _until_changed(self, change: Change, before: str | None) -> None:
        until_s = time.monotonic() + ROW_WITHIN_S
        while True:
            self._news.clear()
            if await self._version(change) != before:
                return
            check(self._servers, self._children)
            if time.monotonic() > until_s:
                raise SandboxError(f"a change was no row after {ROW_WITHIN_S:.0f} s; please report it")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), LOOK_S)


async def revive(servers: Servers, children: list[Process]) -> list[Process]:
    """Start those children again that somebody has stopped or killed, in their places; what runs instead of them.

    Raises SandboxError if a server has ended, or a child by a fault of its own. The broker takes a consumer that was
    killed for a member: see `broker.py`.
    """
    servers.check()
    revived = []
    for place, child in enumerate(children):
        if child.returncode is None:
            continue
        if child.returncode > 0:
            check(servers, [child])
        if "consume" in child.argv:
            await servers.broker.forget_members(GROUP)
        children[place] = Process.start(child.name, child.argv, log=child.log, cwd=Path.cwd(), env=servers.environment)
        revived.append(children[place])
    return revived


def start(servers: Servers, children: list[Process], name: str, arguments: Sequence[str]) -> Process:
    """Start `clusterinfo` with these arguments, where we are: a relative KUBECONFIG keeps its meaning."""
    argv: list[str | Path] = [sys.executable, "-m", "clusterinfo", *arguments]
    log = servers.directory / f"{name}.log"
    child = Process.start(name, argv, log=log, cwd=Path.cwd(), env=servers.environment)
    children.append(child)
    return child


def check(servers: Servers, children: Sequence[Process]) -> None:
    """Raises SandboxError, with the end of its log, if a server or a child has ended."""
    servers.check()
    for child in children:
        if child.returncode is not None:
            raise SandboxError(f"{child.name} exited with {child.returncode}: {last_lines(child.log)}")


@asynccontextmanager
async def _stopped_afterwards() -> AsyncIterator[list[Process]]:
    children: list[Process] = []
    try:
        yield children
    finally:
        await asyncio.gather(*(child.stop(signal.SIGTERM, STOP_GRACE_S) for child in children))
