"""The commands that `clusterinfo demo --keep` prints, each run as it stands by a shell."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.demonstration import Kept, kept_demonstration, typed


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A directory that every user may enter, with a blank in its name."""
    path = Path(tempfile.mkdtemp(prefix="clusterinfo test demo "))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


async def test_what_it_prints_can_be_typed(temporary: Path, tmp_path: Path) -> None:
    """In its order. kubectl and psql name the same pods; what is broken heals, and what is deleted is seen to be."""
    assert shutil.which("kubectl"), "kubectl is not on PATH: see deployment_files in .ci/run"
    async with kept_demonstration(temporary) as kept:
        printed: dict[str, str] = {}
        for line in [*kept.commands[1:], "psql -Atc 'select namespace, name from pods'", *kept.breaking]:
            code, printed[line] = await typed(line, kept.environment, tmp_path)
            assert code == 0, f"{line}\n{printed[line]}"
            if line.startswith("kill"):
                await kept.program.wait_for_output("was started again")
        get, stored = (printed[line] for line in printed if line.startswith(("kubectl get", "psql -Atc")))
        listed = [tuple(line.split()[:2]) for line in get.splitlines()]
        assert listed.pop(0) == ("NAMESPACE", "NAME")
        assert len(listed) > 10
        assert sorted(listed) == sorted(tuple(line.split("|")) for line in stored.splitlines())
        await _seen(kept, tmp_path)


async def _seen(kept: Kept, home: Path) -> None:
    """Until the last command shows what the one before deleted; the collector follows."""
    changes = kept.breaking[-1]
    async with asyncio.timeout(240):
        while not re.search(r"deleted +\| deployments/", (await typed(changes, kept.environment, home))[1]):
            await asyncio.sleep(1)
