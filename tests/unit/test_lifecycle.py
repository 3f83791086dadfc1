"""How a run ends: by itself, asked to drain, out of patience, asked twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from clusterinfo import lifecycle
from clusterinfo.exit_codes import EXIT_INTERRUPTED, EXIT_STOPPED


async def _signal(delay_s: float = 0.05, number: signal.Signals = signal.SIGTERM) -> None:
    asyncio.get_running_loop().call_later(delay_s, os.kill, os.getpid(), number)


def test_a_run_that_ends_by_itself_returns_its_code() -> None:
    async def main(_: asyncio.Event) -> int:
        return 3

    assert lifecycle.run(main, 5) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_asked_to_drain_it_returns_what_main_returns(number: signal.Signals) -> None:
    async def main(draining: asyncio.Event) -> int:
        await _signal(number=number)
        await draining.wait()
        return 0

    assert lifecycle.run(main, 5) == 0


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGINT, signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]])
def test_after_ctrl_c_it_returns_130_however_it_ended(numbers: list[signal.Signals]) -> None:
    async def main(draining: asyncio.Event) -> int:
        for at, number in enumerate(numbers):
            await _signal(0.05 + at / 10, number)
        await (draining.wait() if len(numbers) == 1 else asyncio.sleep(60))
        return 0

    assert lifecycle.run(main, 5) == EXIT_INTERRUPTED


def test_who_ignores_that_the_terminal_is_closed_goes_on() -> None:
    async def main(draining: asyncio.Event) -> int:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.05)
        return 3 if draining.is_set() else 0

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert lifecycle.run(main, 5) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_out_of_patience_the_work_is_cancelled() -> None:
    cancelled = []

    async def main(_: asyncio.Event) -> int:
        await _signal()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return 0

    assert lifecycle.run(main, 0.1) == EXIT_STOPPED
    assert cancelled == [True]


def test_a_second_signal_ends_it_now() -> None:
    async def main(_: asyncio.Event) -> int:
        await _signal(0.05)
        await _signal(0.15)
        await asyncio.sleep(60)
        return 0

    assert lifecycle.run(main, 50) == EXIT_STOPPED


STUBBORN = """
import asyncio
from clusterinfo import lifecycle

async def asked(draining):
    await draining.wait()
    print("asked", flush=True)

async def main(draining):
    telling = asyncio.create_task(asked(draining))
    print("working", flush=True)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("not yet")

lifecycle.run(main, {grace_s}, 0.2)
"""


@pytest.mark.parametrize(
    ("grace_s", "signals", "code"),
    [
        (60, [signal.SIGTERM, signal.SIGTERM], EXIT_STOPPED),
        (0.2, [signal.SIGTERM], EXIT_STOPPED),
        (0.2, [signal.SIGINT], EXIT_INTERRUPTED),
    ],
)
def test_work_that_does_not_end_when_cancelled_is_left_behind(
    grace_s: float, signals: list[signal.Signals], code: int
) -> None:
    argv = [sys.executable, "-c", STUBBORN.format(grace_s=grace_s)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "working\n"
        program.send_signal(signals[0])
        assert program.stdout.readline() == "asked\n"
        for number in signals[1:]:
            program.send_signal(number)
        assert program.wait(60) == code
        assert program.stdout.read() == "not yet\n", "what was printed before is not lost"


def test_an_error_of_the_work_is_raised() -> None:
    async def main(_: asyncio.Event) -> int:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        lifecycle.run(main, 5)
