"""Signals, grace periods and the event loop: how a run begins and ends. Knows nothing of what runs."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from clusterinfo.exit_codes import EXIT_INTERRUPTED, EXIT_STOPPED

Main = Callable[[asyncio.Event], Coroutine[Any, Any, int]]
"""The work: takes the event that asks it to drain, returns the exit code."""

STOPS = (signal.SIGTERM, signal.SIGINT)
LAST_S = 2.0
"""For what is cancelled to close its connections. Nothing is lost without it: what is not committed is read again."""


def run(main: Main, grace_s: float, last_s: float = LAST_S) -> int:
    """Run `main` on a fresh event loop (uvloop's where it is installed) and return its exit code; 130 after Ctrl-C.

    Cancelled (a second signal, or out of patience) it has `last_s` to end; then the process ends with exit code 1.
    """
    gc.freeze()  # what was imported stays: to visit it in a collection takes 50 ms
    gc.enable()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_until_signalled(main, grace_s, last_s))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _until_signalled(main: Main, grace_s: float, last_s: float) -> int:
    """The first SIGTERM, SIGINT or SIGHUP asks `main` to drain, for at most `grace_s`; a second one ends it now."""
    loop = asyncio.get_running_loop()
    draining, now, asked_by = asyncio.Event(), asyncio.Event(), list[signal.Signals]()

    def asked(number: signal.Signals) -> None:
        asked_by.append(number)
        (now if draining.is_set() else draining).set()

    # Whoever ignores SIGHUP, as nohup does, means to go on when the terminal is closed.
    numbers = STOPS if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (*STOPS, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, asked, number)
    work = asyncio.create_task(main(draining))
    warden = asyncio.create_task(_patience(draining, now, grace_s))
    try:
        await asyncio.wait({work, warden}, return_when=asyncio.FIRST_COMPLETED)
        code = await _ended(work, last_s, asked_by)
        return EXIT_INTERRUPTED if signal.SIGINT in asked_by else code
    finally:
        warden.cancel()
        for number in numbers:
            loop.remove_signal_handler(number)


async def _patience(draining: asyncio.Event, now: asyncio.Event, grace_s: float) -> None:
    """Return when the time to drain is over."""
    await draining.wait()
    try:
        async with asyncio.timeout(grace_s):
            await now.wait()
    except TimeoutError:
        return


async def _ended(work: asyncio.Task[int], last_s: float, asked_by: Sequence[signal.Signals]) -> int:
    if not work.done():
        work.cancel()
        await asyncio.wait({work}, timeout=last_s)
    if not work.done():  # whatever it waits for, whoever stops us does not
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED if signal.SIGINT in asked_by else EXIT_STOPPED)
    return EXIT_STOPPED if work.cancelled() else work.result()
