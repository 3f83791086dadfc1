"""`clusterinfo demo --keep`, and what it prints of how to connect."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.programs import running

OBJECTS = 60
HEADING = "It goes on running. To connect:"


@dataclass(frozen=True, slots=True)
class Kept:
    """What runs. `commands`: the printed ones by their program; `kafka`: the line that says where Kafka is."""

    commands: dict[str, str]
    kafka: str


@contextlib.asynccontextmanager
async def kept_demonstration(temporary: Path) -> AsyncIterator[Kept]:
    """A demonstration whose files are in `temporary`, until the block ends; then all of it is gone."""
    env = {"TMPDIR": str(temporary)}
    async with running("demo", "--keep", "--objects", str(OBJECTS), env=env) as program:
        await program.wait_for_output("Ctrl-C ends it all", timeout_s=120)
        *commands, kafka = (line.strip() for line in program.stdout().partition(HEADING)[2].split("\n") if line.strip())
        yield Kept({line.split()[0]: line for line in commands}, kafka)
        program.signal(signal.SIGINT)
        (await program.ended(30)).expect(130)
    assert list(temporary.iterdir()) == []
