"""Two sinks on two connections, each let through one statement at a time, in an order that somebody else chooses.

A sink takes any pool. The pool here hands out its one connection wrapped so that every statement waits for its turn,
and so that the connection can be lost before or after any of them: at a commit, that is an answer that never came. What
waits for a lock in PostgreSQL is noticed (`pg_blocking_pids`), and the other one goes on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from clusterinfo.model import Batch, Lane, PartitionLane, Position
from clusterinfo.postgres.sink import PostgresSink
from clusterinfo.postgres.sql import statements

PATIENCE_S = 0.004
"""A statement takes 0.2 to 3 ms here; one that takes longer is asked what it waits for."""

MOST_PATIENCE_S = 0.1
STUCK_S = 30.0

BEFORE, AFTER = "before", "after"
AT_COMMIT = -1
"""As the step of a crash: the first commit, whenever that is."""


@dataclass(frozen=True)
class Crash:
    """The connection is lost before or after the `step`th statement of an actor; `hard`: its backend is ended too."""

    actor: int
    step: int
    when: str
    hard: bool = False


class StuckError(AssertionError):
    """The sinks wait for each other, or for nothing."""


class WatchedSink(PostgresSink):
    """A sink that says which batch a transaction is about."""

    batch: Batch | None = None
    claimed: PartitionLane | None = None

    async def open(self, lane: Lane) -> Position:
        self.claimed = lane if isinstance(lane, PartitionLane) else None
        try:
            return await super().open(lane)
        finally:
            self.claimed = None

    async def _write(self, batch: Batch, *, uses_savepoints: bool = False) -> None:
        self.batch = batch
        try:
            await super()._write(batch, uses_savepoints=uses_savepoints)
        finally:
            self.batch = None


async def _nothing() -> None:
    pass


class Actor:
    """One sink, its connection, and where it stands."""

    def __init__(self, number: int, raw: Any, connect: Callable[[], Awaitable[Any]], settings: Any) -> None:
        self.number, self.raw, self._connect, self._settings = number, raw, connect, settings
        self.link: Link | None = None
        self.turn: asyncio.Future[None] | None = None
        self.arrived: asyncio.Event = asyncio.Event()
        self.at = ""
        self.steps = 0
        self.crash: Crash | None = None
        self.ended_transaction = False
        self.task: asyncio.Task[Any] | None = None
        self.takes_turns = True
        self.on_commit: Callable[[Actor], None] = lambda _: None
        self.after_commit: Callable[[], Awaitable[None]] = _nothing
        self.counts: Counter[str] = Counter()
        self.sink = self.new_sink()

    def new_sink(self) -> WatchedSink:
        """A new process, so to speak: it holds no claims."""
        self.sink = WatchedSink(self, self._settings, lambda _: None)
        return self.sink

    @asynccontextmanager
    async def acquire(self, *, timeout: float | None = None) -> AsyncIterator[Link]:
        """As a pool's; there is one connection, and one task that borrows it."""
        if self.raw.is_closed():
            self.raw = await self._connect()
        self.link = Link(self)
        yield self.link

    async def expire_connections(self) -> None:
        """As a pool's: a connection that was ended is replaced by `acquire` anyway."""

    def get_size(self) -> int:
        return 1

    get_idle_size = get_max_size = get_size

    async def wait_for_turn(self, name: str) -> None:
        """Stand before a statement until it may go on."""
        self.at = name
        if not self.takes_turns:
            return
        self.turn = asyncio.get_running_loop().create_future()
        self.arrived.set()
        await self.turn

    def is_done(self, _: asyncio.Task[Any]) -> None:
        """The job came to its end, which is as far as it can go."""
        self.arrived.set()

    def crashes(self, when: str) -> bool:
        """True if the connection is to be lost here."""
        crash = self.crash
        here = AT_COMMIT if self.at == "commit" else self.steps - 1
        return bool(crash and crash.when == when and crash.step in (here, self.steps - 1))


class Link:
    """A wrapped connection: one life of it, from acquire to loss."""

    def __init__(self, actor: Actor) -> None:
        self._actor, self._lost = actor, False

    async def execute(self, query: str, *arguments: Any) -> Any:
        if query.startswith("commit"):
            return await self._step("commit", self._commit, query)
        if query.startswith(("savepoint", "release", "rollback")):
            return await self._plain(query)
        return await self._step(_NAMES.get(query), self._actor.raw.execute, query, *arguments)

    async def fetch(self, query: str, *arguments: Any) -> Any:
        return await self._step(_NAMES.get(query), self._actor.raw.fetch, query, *arguments)

    async def fetchrow(self, query: str, *arguments: Any) -> Any:
        return await self._step(_NAMES.get(query), self._actor.raw.fetchrow, query, *arguments)

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        return await self._step(_NAMES.get(query), self._actor.raw.fetchval, query, *arguments)

    async def copy_records_to_table(self, table: str, **arguments: Any) -> Any:
        async def copy() -> Any:
            return await self._actor.raw.copy_records_to_table(table, **arguments)

        return await self._step(f"copy {table}", copy)

    async def copy_to_table(self, table: str, **_: object) -> str:
        """Of a body of more than half a MiB."""
        raise AssertionError(f"no body of a history is so large: {table}")

    def transaction(self, **_: object) -> AbstractAsyncContextManager[object]:
        """Not by a sink, which sends BEGIN and COMMIT itself."""
        raise AssertionError("asyncpg's transactions know nothing of those that a sink begins")

    async def _commit(self, query: str) -> None:
        await self._actor.raw.execute(query)
        self._actor.ended_transaction = True
        self._actor.on_commit(self._actor)
        if not self._actor.takes_turns:
            await self._actor.after_commit()

    async def _plain(self, statement: str) -> None:
        if self._lost:
            raise asyncpg.InterfaceError("the connection is closed")
        await self._actor.raw.execute(statement)
        if statement == "rollback":
            self._actor.ended_transaction = True

    async def _step(self, name: str, call: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        actor = self._actor
        if self._lost:
            raise asyncpg.InterfaceError("the connection is closed")
        await actor.wait_for_turn(name)
        actor.steps += 1
        actor.counts["statements"] += 1
        if actor.crashes(BEFORE):
            await self._lose(f"crash before {name}")
        result = await call(*arguments)
        if actor.crashes(AFTER):
            await self._lose(f"crash after {name}")
        return result

    async def _lose(self, what: str) -> None:
        actor = self._actor
        hard = bool(actor.crash and actor.crash.hard)
        actor.crash = None
        self._lost = True
        actor.counts[what] += 1
        if hard:
            actor.counts["connections ended"] += 1
            await _end(actor)
        elif actor.raw.is_in_transaction():
            await actor.raw.execute("rollback")
        actor.ended_transaction = True
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


async def _end(actor: Actor) -> None:
    """End the actor's backend from within, so that its locks are gone when this returns."""
    try:
        await actor.raw.execute("select pg_terminate_backend(pg_backend_pid())")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        actor.raw.terminate()


class Turns:
    """Gives turns to actors."""

    def __init__(self, admin: Any, counts: Counter[str], committed: Callable[[], Awaitable[None]]) -> None:
        self._admin, self._counts, self._committed = admin, counts, committed

    async def run(self, jobs: dict[Actor, Coroutine[Any, Any, None]], runs: Sequence[int]) -> None:
        """Run the jobs to their ends; `runs` says how many statements each does before the other has its turn."""
        for actor, job in jobs.items():
            actor.arrived.clear()
            actor.task = asyncio.create_task(job)
            actor.task.add_done_callback(actor.is_done)
        actors, blocked = list(jobs), set[Actor]()
        try:
            for actor in actors:
                await self._settle(actor, blocked)
            await self._take_turns(actors, blocked, runs)
            for actor in actors:
                assert actor.task
                actor.task.result()
        finally:
            await _cancel(actors)

    async def _take_turns(self, actors: list[Actor], blocked: set[Actor], runs: Sequence[int]) -> None:
        left = list(reversed(runs))
        current, budget = 0, left.pop() if left else 1 << 30
        while alive := [actor for actor in actors if actor.task and not actor.task.done()]:
            ready = [actor for actor in alive if actor not in blocked]
            if not ready:
                await self._end_deadlock(alive, blocked)
                continue
            if actors[current % len(actors)] not in ready or budget <= 0:
                current += 1
                if budget <= 0:
                    budget = left.pop() if left else 1 << 30
                if actors[current % len(actors)] not in ready:
                    current += 1
            actor = actors[current % len(actors)]
            budget -= 1
            if len(alive) > 1:
                self._counts["statements interleaved"] += 1
            await self._go(actor, blocked)

    async def _end_deadlock(self, alive: list[Actor], blocked: set[Actor]) -> None:
        """PostgreSQL lets one of them fail after its `deadlock_timeout`; that one begins its transaction again."""
        at = sorted(actor.at for actor in alive)
        waits = [asyncio.create_task(actor.arrived.wait()) for actor in alive]
        done, _ = await asyncio.wait(waits, timeout=STUCK_S, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if not done:
            raise StuckError(f"both wait: {at}")
        self._counts[f"deadlocks ended: {' and '.join(at)}"] += 1
        blocked.clear()
        for actor in alive:
            actor.ended_transaction = False
            await self._settle(actor, blocked)
        await self._committed()

    async def _go(self, actor: Actor, blocked: set[Actor]) -> None:
        assert actor.turn
        actor.arrived.clear()
        actor.ended_transaction = False
        actor.turn.set_result(None)
        await self._settle(actor, blocked)
        if actor.ended_transaction:
            actor.ended_transaction = False
            for other in list(blocked):
                blocked.discard(other)
                await self._settle(other, blocked)
            await self._committed()

    async def _settle(self, actor: Actor, blocked: set[Actor]) -> None:
        """Wait until the actor stands before its next statement, is done, or waits for a lock."""
        waited_s, patience_s = 0.0, PATIENCE_S
        while not actor.arrived.is_set():
            try:
                async with asyncio.timeout(patience_s):
                    await actor.arrived.wait()
            except TimeoutError:
                waited_s += patience_s
                patience_s = min(2 * patience_s, MOST_PATIENCE_S)
                if await self._waits_for_a_lock(actor):
                    self._counts["lock waits"] += 1
                    self._counts[f"lock wait at {actor.at}"] += 1
                    blocked.add(actor)
                    return
                if waited_s > STUCK_S:
                    raise StuckError(f"no answer to {actor.at}") from None

    async def _waits_for_a_lock(self, actor: Actor) -> bool:
        if actor.raw.is_closed():
            return False
        pid = actor.raw.get_server_pid()
        return bool(await self._admin.fetchval("select cardinality(pg_blocking_pids($1)) > 0", pid))


async def _cancel(actors: list[Actor]) -> None:
    for actor in actors:
        if actor.task and not actor.task.done():
            actor.task.cancel()
            await asyncio.wait([actor.task])
            if actor.raw.is_in_transaction():
                await actor.raw.execute("rollback")


class _Names(dict[str, str]):
    """Statement text -> its name, also of mutated ones."""

    def get(self, query: str, default: Any = None) -> Any:
        if query not in self:
            named = {text: name for name, text in statements().items()}
            begins = query.startswith("set local search_path")
            self[query] = "begin" if begins else named.get(query) or " ".join(query.split()[:3])
        return self[query]


_NAMES = _Names()
