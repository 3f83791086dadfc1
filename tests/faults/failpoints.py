"""Failpoints: named places in the product where a process ends or stops, armed from outside.

    FAILPOINTS="after_merge:0.05:kill,mid_claim:1:stop"     point:chance:action, or @FILE that holds that text
    FAILPOINT_HITS=FILE                                     every hit is a line of it, written before anything happens

A file may be rewritten while programs run: each looks at it whenever it passes a point. `kill` is SIGKILL, `stop` is
SIGSTOP, both to oneself: whoever arms `stop` sends the SIGCONT. Nothing of the product is known here; which function is
which point stands in `program.py`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

Action = Literal["kill", "stop"]
SIGNALS: dict[str, signal.Signals] = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}

CONSUMER = (
    "after_fetch", "after_admit", "after_merge", "mid_copy", "after_copy", "after_refusal", "before_commit",
    "commit_sent_no_reply", "after_commit", "before_kafka_commit", "mid_revoke", "mid_claim",
)  # fmt: skip
COLLECTOR = ("mid_page", "after_last_item_before_completion")
FOLLOWER = ("before_produce", "before_version_moved", "before_progress")
"""In a collector that follows: events are read and have no numbers; Kafka has them; progress is about to be said."""
POINTS = (*CONSUMER, *COLLECTOR, *FOLLOWER)


@dataclass(frozen=True, slots=True)
class Armed:
    """What happens at a point, and with which chance (0 to 1) at each pass."""

    chance: float
    action: Action


@dataclass(frozen=True, slots=True)
class Hit:
    """One hit, as its line has it: `at` in seconds since 1970, `detail` what the point says of itself."""

    point: str
    action: str
    pid: int
    at: float
    detail: Mapping[str, Any]


def parse(text: str) -> dict[str, Armed]:
    """The text of FAILPOINTS. Raises ValueError for a point or an action that does not exist."""
    armed: dict[str, Armed] = {}
    for entry in filter(None, text.strip().split(",")):
        point, chance, action = entry.split(":")
        if point not in POINTS or action not in get_args(Action):
            raise ValueError(f"FAILPOINTS has {entry!r}: allowed are {', '.join(POINTS)}, with kill or stop")
        armed[point] = Armed(float(chance), "kill" if action == "kill" else "stop")
    return armed


def text_of(armed: Mapping[str, Armed]) -> str:
    """The same, as text."""
    return ",".join(f"{point}:{one.chance:g}:{one.action}" for point, one in armed.items())


class Failpoints:
    """Within a program: which points are armed, and what happens at them."""

    def __init__(self, armed: str, hits: str) -> None:
        self._file = Path(armed[1:]) if armed.startswith("@") else None
        self._armed = {} if self._file else parse(armed)
        self._seen = (0, 0)
        self._hits = hits
        self._random = random.Random()

    def draw(self, point: str) -> Action | None:
        """What is to happen at this pass of `point`: mostly nothing."""
        self._look()
        armed = self._armed.get(point)
        return armed.action if armed is not None and self._random.random() < armed.chance else None

    def strike(self, point: str, action: Action, **detail: object) -> None:
        """Write it down, then do it. Returns once a stopped process is continued."""
        line = json.dumps([point, action, os.getpid(), time.time(), detail]) + "\n"
        descriptor = os.open(self._hits, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, line.encode())
        os.close(descriptor)
        os.kill(os.getpid(), SIGNALS[action])

    def pass_by(self, point: str, **detail: object) -> None:
        """Draw, and strike if so."""
        if action := self.draw(point):
            self.strike(point, action, **detail)

    def _look(self) -> None:
        if self._file is None:
            return
        status = self._file.stat()
        seen = (status.st_mtime_ns, status.st_ino)
        if seen != self._seen:
            self._seen = seen
            self._armed = parse(self._file.read_text())


class Arsenal:
    """Outside: arms the programs that are given its `env`, and reads what they hit."""

    def __init__(self, directory: Path) -> None:
        self._armed = directory / "failpoints"
        self._hits = directory / "hits"
        self._read_bytes = 0
        self.hits: list[Hit] = []
        self._hits.touch()
        self.disarm()

    @property
    def env(self) -> dict[str, str]:
        return {"FAILPOINTS": f"@{self._armed}", "FAILPOINT_HITS": str(self._hits)}

    def arm(self, armed: Mapping[str, Armed]) -> None:
        """From now on these points, and no others. In one step, so that no program reads half of it."""
        with tempfile.NamedTemporaryFile("w", dir=self._armed.parent, delete=False) as file:
            file.write(text_of(armed))
        Path(file.name).replace(self._armed)

    def disarm(self) -> None:
        """From now on nothing happens at any point."""
        self.arm({})

    def look(self) -> list[Hit]:
        """The hits since the last look; all of them are in `hits`."""
        with self._hits.open("rb") as file:
            file.seek(self._read_bytes)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        new = [Hit(*json.loads(line)) for line in whole.splitlines()]
        self.hits += new
        return new
