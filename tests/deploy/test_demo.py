"""The commands that `clusterinfo demo --keep` prints, each run as it stands by a shell."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.demonstration import kept_demonstration

PODS = "\\pset format unaligned\n\\pset tuples_only on\nselect namespace, name from pods;\n"
"""For psql, on its stdin."""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A directory that every user may enter, with a blank in its name."""
    path = Path(tempfile.mkdtemp(prefix="clusterinfo test demo "))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


async def typed(line: str, home: Path, stdin: str = "") -> str:
    """What a shell prints to somebody who types the line, with an empty home: nothing of ours helps."""
    program, *_ = line.split(maxsplit=1)
    assert shutil.which(program), f"{program} is not on PATH: see deployment_files in .ci/run"
    argv = ["env", "-u", "KUBECONFIG", f"HOME={home}", "sh", "-c", line]
    done = await asyncio.to_thread(
        subprocess.run, argv, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


async def test_what_it_prints_can_be_typed(temporary: Path, tmp_path: Path) -> None:
    """kubectl and psql name the same pods."""
    async with kept_demonstration(temporary) as kept:
        assert kept.commands.keys() == {"psql", "kubectl"}
        listed = [tuple(line.split()[:2]) for line in (await typed(kept.commands["kubectl"], tmp_path)).splitlines()]
        stored = [
            tuple(line.split("|"))
            for line in (await typed(kept.commands["psql"], tmp_path, PODS)).splitlines()
            if "|" in line
        ]
    assert listed.pop(0) == ("NAMESPACE", "NAME")
    assert len(listed) > 10
    assert sorted(listed) == sorted(stored)
