"""`python -m tests.support.turns FILE COMMAND...`: `clusterinfo COMMAND...`, and how long its event loop's turns took.

A turn begins when the loop has been told what happened, and ends when it asks again: until then nothing else of the
program goes on. Counted in processor time of the loop's thread, since whoever else has the cores is no fault of its
own; without those that import modules, which are the program's start.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import selectors
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LONG_S = 0.01
SHOWN = 12


@dataclass
class Turns:
    """Of a process: how many, the longest in ms, how many took longer than 10 ms, and what ran longest in those."""

    count: int = 0
    longest_ms: float = 0.0
    over_10_ms: int = 0
    slowest: list[tuple[float, str]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Turns:
        """What `watch` wrote."""
        return cls(**json.loads(path.read_text()))

    def note(self, seconds: float) -> None:
        """A turn has ended."""
        self.count += 1
        self.longest_ms = max(self.longest_ms, round(seconds * 1000, 1))
        self.over_10_ms += seconds > LONG_S

    def blame(self, seconds: float, what: str) -> None:
        """One step of a turn has ended."""
        if seconds > LONG_S:
            self.slowest = sorted([*self.slowest, (round(seconds * 1000, 1), what[:300])], reverse=True)[:SHOWN]


def _name_of(handle: asyncio.Handle) -> str:
    """What it runs. Not its repr, which would show all of a result, and take longer than what it is about."""
    callback: Any = handle._callback  # type: ignore[attr-defined]
    owner = getattr(callback, "__self__", None)
    runs: Any = owner.get_coro() if isinstance(owner, asyncio.Task) else callback
    return str(getattr(runs, "__qualname__", runs))


def watch(path: Path) -> None:
    """Time the turns of this process's loop from here on; they are written to `path` at its end."""
    turns, ask, step = Turns(), selectors.EpollSelector.select, asyncio.Handle._run
    began: list[tuple[float, int]] = []

    def select(self: Any, timeout: float | None = None) -> Any:
        if began:
            at_s, modules = began.pop()
            if len(sys.modules) == modules:
                turns.note(time.thread_time() - at_s)
        events = ask(self, timeout)
        began[:] = [(time.thread_time(), len(sys.modules))]
        return events

    def run(self: asyncio.Handle) -> None:
        before = time.thread_time()
        step(self)
        if (seconds := time.thread_time() - before) > LONG_S:
            turns.blame(seconds, _name_of(self))

    selectors.EpollSelector.select = select  # type: ignore[method-assign]
    asyncio.Handle._run = run  # type: ignore[method-assign]
    atexit.register(lambda: path.write_text(json.dumps(asdict(turns))))


def main() -> None:
    path, *command = sys.argv[1:]
    from clusterinfo.cli import main as clusterinfo

    watch(Path(path))
    sys.argv = ["clusterinfo", *command]
    clusterinfo()


if __name__ == "__main__":
    main()
