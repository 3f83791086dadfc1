"""A forked program is the program: it says and returns what one that was started by itself does."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from tests.support.forkserver import Forked, ForkedProgram, ForkServer
from tests.support.programs import Ended, Program, run, started


@pytest.mark.parametrize(
    "args", [("--version",), ("--help",), ("colect",), ("consume",), ("collect", "--interval", "x")]
)
async def test_it_says_and_returns_the_same(fork_server: ForkServer, args: tuple[str, ...]) -> None:
    env = {"KAFKA_ENABLED": "maybe", "LOG_FORMAT": "console"}
    forked, own = await asyncio.gather(
        run(*args, env=env, launch=fork_server.launch), run(*args, env=env, launch=Program)
    )

    def outcome(ended: Ended) -> tuple[int, str, str]:
        return ended.code, ended.stdout, ended.stderr

    assert outcome(forked) == outcome(own)
    assert forked.stdout + forked.stderr


API = (sys.executable, "-m", "clusterinfo.sandbox.kubernetes", "--objects", "0")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
async def test_signals_reach_it(number: signal.Signals, code: int) -> None:
    async with started(API, {}) as program:
        assert isinstance(program, ForkedProgram)
        assert "url" in await program.prints()
        program.signal(number)
        ended = await program.ended()
    assert ended.code == code


async def test_it_ends_with_its_server(tmp_path: Path) -> None:
    with ForkServer() as server:
        program = server.launch(API, {}, tmp_path)
        await program.prints()
    async with asyncio.timeout(60):
        while Path(f"/proc/{program.pid}/exe").exists():
            await asyncio.sleep(0.02)


async def test_a_signal_to_one_that_has_just_ended_waits_for_its_exit_code(tmp_path: Path) -> None:
    gone = Forked(2**22 + 1, tmp_path / "ended")  # beyond any process id: pid_max is at most 2^22
    telling = asyncio.create_task(asyncio.to_thread(gone.send_signal, signal.SIGTERM))
    await asyncio.sleep(0.05)
    (tmp_path / "ended.new").write_text("3")
    (tmp_path / "ended.new").rename(tmp_path / "ended")  # at once, as the keeper does
    await telling
    assert gone.returncode == 3
