"""Runs a command: logs, metrics and signals around it, its exit code at the end of the process."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import typer

from clusterinfo import __version__, lifecycle
from clusterinfo.exit_codes import EXIT_STOPPED
from clusterinfo.observations import Observe, Started, Stopped, Warned
from clusterinfo.settings import Settings, load, near_misses
from clusterinfo.waiting import unless

Command = Callable[[Settings, Observe, asyncio.Event], Coroutine[Any, Any, int]]
"""Takes the event that asks it to stop, returns the exit code."""


def run(settings: Settings, command: Command, *, serve: bool, name: str = "") -> NoReturn:
    """Run a command; ends the process with its exit code.

    `serve`: metrics and health are served meanwhile. `name`: of one that works on; its log says when it starts and
    stops, and a display on a terminal how far it is. A command that prints a result has none of that.
    """
    from clusterinfo.telemetry import logs
    from clusterinfo.telemetry.server import Telemetry

    logs.configure_logging(settings.log_level, settings.log_format)
    with _observer(settings, bool(name)) as observer:
        telemetry = Telemetry(observer)

        async def main(stopping: asyncio.Event) -> int:
            for variable, other in near_misses(os.environ).items():
                telemetry.observe(
                    Warned(message=f"{variable} is set, and nothing reads it", remedy=f"did you mean {other}?")
                )
            async with telemetry.served(settings, wanted=serve):
                if not name:
                    return await command(settings, telemetry.observe, stopping)
                return await _worked(name, settings, command, telemetry.observe, stopping)

        code = lifecycle.run(main, settings.shutdown_grace_s)
    raise typer.Exit(code)


async def _worked(name: str, settings: Settings, command: Command, observe: Observe, stopping: asyncio.Event) -> int:
    """The command, with a word at its start, and one at its end about why it ends; of an error there is one already."""
    began_s = time.monotonic()
    observe(Started(version=__version__, command=name, settings=settings.changed()))
    reason = "it did not end in time after it was asked to"
    try:
        code = await command(settings, observe, stopping)
        reason = "it was asked to (SIGTERM or SIGINT)" if stopping.is_set() else "all is done"
    except Exception:
        reason = ""
        raise
    finally:
        if reason:
            observe(Stopped(command=name, reason=reason, seconds=time.monotonic() - began_s))
    return code


def run_short(command: Callable[..., Coroutine[Any, Any, int]], *args: Any, **named: Any) -> NoReturn:
    """Run a command that has no batch in hand: asked to stop, it ends at once."""

    async def main(settings: Settings, observe: Observe, stopping: asyncio.Event) -> int:
        code = await unless(stopping, command(settings, observe, *args, **named))
        return EXIT_STOPPED if code is None else code

    run(load(dict(os.environ)), main, serve=False)


def _observer(settings: Settings, moves: bool) -> AbstractContextManager[Observe]:
    """What observations are given to: the log, or what a person reads instead at a terminal if LOG_FORMAT is unset."""
    if not sys.stderr.isatty() or settings.was_set("log_format"):
        from clusterinfo.telemetry.logs import log_observation

        return nullcontext(log_observation)
    from clusterinfo.telemetry import progress

    return progress.shown() if moves else nullcontext(progress.print_line)
