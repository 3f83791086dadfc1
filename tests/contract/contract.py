"""What the clauses of the contract need: which implementations there are, interruptions, and what is left behind.

An interruption comes at a given turn of the event loop, that is at every place where an operation can wait: before its
first step, while it waits, and between the end of a wait and the step that follows it.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import pkgutil
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import clusterinfo
from clusterinfo.errors import RestartError, TransientError

LONGEST_S = 60.0
"""No operation of these tests takes so long, on a busy machine either."""
MOST_TURNS = 2000
PACKAGE = f"{Path(clusterinfo.__file__).parent}/"


def implementations(protocol: type) -> set[type]:
    """The classes of the package that have all methods of `protocol`."""
    methods = {name for name, what in vars(protocol).items() if inspect.isfunction(what) and name[0] != "_"}
    modules = pkgutil.walk_packages(clusterinfo.__path__, "clusterinfo.")
    loaded = [import_module(module.name) for module in modules if not module.name.endswith("__main__")]
    classes = {one for module in loaded for one in vars(module).values() if inspect.isclass(one)}
    ours = {one for one in classes if one.__module__.startswith("clusterinfo.") and not is_protocol(one)}
    return {one for one in ours if one is not protocol and all(callable(getattr(one, name, 0)) for name in methods)}


def is_protocol(one: type) -> bool:
    """True for what only says which methods there are."""
    return bool(getattr(one, "_is_protocol", False))


def our_tasks() -> set[asyncio.Task[Any]]:
    """The tasks that run code of the program, and not of a server beside it or of a client that lives on."""
    return {task for task in asyncio.all_tasks() if _file(task).startswith(PACKAGE) and "/sandbox/" not in _file(task)}


def _file(task: asyncio.Task[Any]) -> str:
    code = getattr(task.get_coro(), "cr_code", None)
    return code.co_filename if code else ""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """An operation that has ended. `was_reached`: the interruption came before that."""

    task: asyncio.Task[Any]
    was_reached: bool

    def check_cancelled(self) -> None:
        """A cancellation that came in time went through; without one it succeeded."""
        if self.was_reached:
            assert self.task.cancelled(), "a cancellation was swallowed"
        else:
            self.task.result()


def error_of(task: asyncio.Task[Any]) -> RestartError | TransientError | None:
    """The error that says what to do after it, with which a task has ended; any other is raised."""
    try:
        task.result()
    except (RestartError, TransientError) as error:
        return error
    return None


async def interrupt(operation: Coroutine[Any, Any, Any], turn: int, action: Callable[[Any], object]) -> Interrupted:
    """Run `operation` to its end; before turn `turn` of the loop (0: its first step) call `action` with its task.

    Turns around which only others move, servers and proxies above all, do not count. The loop itself is wrapped, as a
    callback that put itself off from turn to turn would keep it from waiting.
    """
    loop: Any = asyncio.get_running_loop()
    task = loop.create_task(operation)
    run_once, turns, was_reached, moved = loop._run_once, itertools.count(), False, False

    def counted() -> None:
        nonlocal was_reached, moved
        before, moved = moved, _will_move(loop, task)
        if (before or moved) and not task.done() and next(turns) == turn:
            was_reached = True
            action(task)
        run_once()

    loop._run_once = counted
    try:
        done, _ = await asyncio.wait({task}, timeout=LONGEST_S)
    finally:
        del loop._run_once
    assert done, f"interrupted at turn {turn} it did not end within {LONGEST_S:g} s"
    return Interrupted(task, was_reached)


def _will_move(loop: Any, task: asyncio.Task[Any]) -> bool:
    """Whether the operation, or another task of the program, takes a step in the loop's next turn."""
    ours = {task, *our_tasks()}
    return any(getattr(handle._callback, "__self__", None) in ours for handle in list(loop._ready))


async def at_each_turn(
    prepare: Callable[[], Awaitable[object]],
    operation: Callable[[], Coroutine[Any, Any, Any]],
    action: Callable[[Any], object],
) -> AsyncIterator[Interrupted]:
    """`operation`, interrupted at turn 0, 1, 2, ... until it completes before; each is prepared, and yielded ended."""
    for turn in range(MOST_TURNS):
        await prepare()
        interrupted = await interrupt(operation(), turn, action)
        yield interrupted
        if not interrupted.was_reached:
            return
    raise AssertionError(f"it takes more than {MOST_TURNS} turns")


async def until(condition: Callable[[], object], timeout_s: float = LONGEST_S) -> None:
    """Wait for `condition`. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)
