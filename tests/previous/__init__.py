"""The previous release, in the wheel that lies here, run beside today's program.

After every release this is replaced by it: `python -m tests.previous v1.2.3`, and commit. Until there is one it is the
program that is to be 0.1.0, as of the last change of its schema.

A wheel is a zip file that Python imports from, so nothing is installed and no network is needed. What the program
depends on is today's: a release that leaves the range of the one before needs a virtual environment here.
"""

from __future__ import annotations

import contextlib
import re
import sys
import zipfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from tests.support.programs import PATIENCE_S, Ended, Program, started

HERE = Path(__file__).parent
(WHEEL,) = HERE.glob("clusterinfo-*.whl")


def migrations() -> list[str]:
    """The names of its migrations, in order."""
    with zipfile.ZipFile(WHEEL) as wheel:
        found = (re.fullmatch(r"clusterinfo/postgres/schema/(\d{4}_\w+\.sql)", name) for name in wheel.namelist())
    return sorted(match[1] for match in found if match)


@contextlib.asynccontextmanager
async def python(*args: str, env: Mapping[str, str]) -> AsyncIterator[Program]:
    """`python ARGS` with the previous release in front of today's, until the block ends."""
    async with started((sys.executable, *args), {**env, "PYTHONPATH": str(WHEEL)}) as program:
        yield program


@contextlib.asynccontextmanager
async def running(*args: str, env: Mapping[str, str]) -> AsyncIterator[Program]:
    """The previous `clusterinfo ARGS`, until the block ends."""
    async with python("-m", "clusterinfo", *args, env=env) as program:
        yield program


async def run(*args: str, env: Mapping[str, str], timeout_s: float = PATIENCE_S) -> Ended:
    """The previous `clusterinfo ARGS` until it ends by itself."""
    async with running(*args, env=env) as program:
        return await program.ended(timeout_s)
