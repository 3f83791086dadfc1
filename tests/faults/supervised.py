"""Kept: a program that is started again whenever it ends unasked, as an orchestrator would."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.programs import PATIENCE_S, POLL_S, Launching, Program

PAUSE_AFTER_FAILURE_S = 0.5
"""Before a program that ended by itself is started again; one that was killed starts at once."""
SOON_S = 10.0
STOP_TIMEOUT_S = 60.0
TAIL_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Ending:
    """How one of its lives ended: exit code (negative: a signal), seconds it lasted, the end of what it printed."""

    code: int
    seconds: float
    tail: str


class Kept:
    """`async with Kept(name, argv, env, directory) as kept:` runs it until the block ends.

    Attributes: `endings`, one for each time it ended unasked; `failures`, how many of the last ones were of its own
    accord and soon after its start. Every life has a directory of its own under `directory`, with what it wrote.
    """

    def __init__(self, name: str, argv: tuple[str, ...], env: Mapping[str, str], directory: Path) -> None:
        self.name = name
        self.failures = 0
        self.endings: list[Ending] = []
        self._argv = argv
        self._env = env
        self._directory = directory
        self._lives = itertools.count()
        self._program: Program | None = None
        self._began = 0.0
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(signal.SIGKILL)

    @property
    def pid(self) -> int | None:
        """Its process id; None while it does not run."""
        return self._program.pid if self._program and self._program.is_running else None

    def start(self) -> None:
        """Run it (again, after `stop`)."""
        assert self._keeper is None, f"{self.name} is kept running already"
        self._launch()
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.name}")

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int | None:
        """End it and leave it ended; its exit code. After a minute it is killed."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
            self._keeper = None
        program, self._program = self._program, None
        if program is None:
            return None
        try:
            if program.is_running:
                program.signal(number)
                if number is not signal.SIGKILL:
                    program.signal(signal.SIGCONT)
            return (await program.ended(STOP_TIMEOUT_S)).code
        finally:
            program.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs; whatever comes of it, it is kept running."""
        if self._program is not None and self._program.is_running:
            self._program.signal(number)

    @contextlib.asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """It is stopped for the length of the block."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    async def wait_for_output(self, text: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until its present life has `text` on stderr."""
        assert self._program is not None
        await self._program.wait_for_output(text, timeout_s)

    def logs(self) -> list[Path]:
        """What all its lives wrote to stderr, one file each."""
        return sorted(self._directory.glob(f"{self.name}-*/stderr"))

    def _launch(self) -> None:
        directory = self._directory / f"{self.name}-{next(self._lives):04d}"
        directory.mkdir()
        self._program = Launching.launch(self._argv, self._env, directory)
        self._began = time.monotonic()

    async def _keep(self) -> None:
        while True:
            program = self._program
            assert program is not None
            if program.is_running:
                await asyncio.sleep(POLL_S)
                continue
            ended = await program.ended()
            seconds = time.monotonic() - self._began
            self.endings.append(Ending(ended.code, seconds, ended.stderr[-TAIL_CHARACTERS:]))
            self.failures = self.failures + 1 if ended.code >= 0 and seconds < SOON_S else 0
            if ended.code >= 0:
                await asyncio.sleep(PAUSE_AFTER_FAILURE_S)
            self._launch()
