"""`clusterinfo demo --keep`, and what it prints of how to connect."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.programs import Program, running

OBJECTS = 100
RUNNING, BREAKING = "It goes on running", "Break something"


@dataclass(frozen=True, slots=True)
class Kept:
    """What runs. `commands`: the printed ones, in order; `breaking`: those that break something, and show it."""

    program: Program
    commands: list[str]
    breaking: list[str]

    @property
    def environment(self) -> Path:
        """The file that the first command reads."""
        source, path = shlex.split(self.commands[0])
        assert source == "source"
        return Path(path)


def _indented(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.startswith("  ")]


@contextlib.asynccontextmanager
async def kept_demonstration(temporary: Path) -> AsyncIterator[Kept]:
    """A demonstration whose files are in `temporary`, until the block ends; then all of it is gone."""
    env = {"TMPDIR": str(temporary)}
    async with running("demo", "--keep", "--objects", str(OBJECTS), env=env) as program:
        await program.wait_for_output("Ctrl-C ends it all")
        commands, breaking = program.stdout().partition(RUNNING)[2].split(BREAKING)
        yield Kept(program, _indented(commands), _indented(breaking))
        program.signal(signal.SIGINT)
        (await program.ended()).expect(130)
    assert list(temporary.iterdir()) == []


async def typed(line: str, environment: Path, home: Path) -> tuple[int, str]:
    """Exit code and output of a line that somebody types after `source environment`, with an empty home."""
    argv = [
        "env",
        "-u",
        "KUBECONFIG",
        f"HOME={home}",
        "bash",
        "-c",
        f"source {shlex.quote(str(environment))} && {line}",
    ]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=150, check=False)
    return done.returncode, done.stdout + done.stderr
