"""The tools that read what is shipped. Not among `testpaths`: .ci/run installs them and puts them on PATH."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., str]


@pytest.fixture(scope="session")
def tool() -> Run:
    """Run a tool by its name: gives its stdout, fails with what it printed."""

    def run(name: str, *args: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
        assert shutil.which(name), f"{name} is not on PATH: see deployment_files in .ci/run"
        argv = [name, *map(str, args)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, cwd=cwd, env=env)
        assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run
