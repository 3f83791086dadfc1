"""What .ci/audit.py makes of the reports that pip-audit writes, or does not write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.deployed import ROOT

SOUND = {"name": "aiohttp", "version": "3.0", "vulns": []}
SKIPPED = {"name": "aiokafka", "skip_reason": "Dependency not found on PyPI"}
FOUND = SOUND | {"vulns": [{"id": "CVE-1", "fix_versions": ["3.1"]}]}


def audited(tmp_path: Path, *packages: dict[str, Any], report: bool = True) -> subprocess.CompletedProcess[str]:
    if report:
        (tmp_path / "report.json").write_text(json.dumps({"dependencies": packages}))
    (tmp_path / "locked.txt").write_text("")
    asked: list[str | Path] = [sys.executable, ROOT / ".ci/audit.py", tmp_path / "locked.txt", tmp_path / "report.json"]
    return subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)


def test_what_was_looked_up_and_is_sound_passes(tmp_path: Path) -> None:
    ended = audited(tmp_path, SOUND)
    assert (ended.returncode, ended.stdout) == (0, "nothing found\n")


@pytest.mark.parametrize(
    ("packages", "says"),
    [
        ([FOUND], "aiohttp 3.0: CVE-1, fixed in 3.1"),
        ([SOUND, SKIPPED], "aiokafka: not audited: Dependency not found on PyPI"),
        ([], "not audited: the report names no package"),
    ],
)
def test_what_was_found_or_not_looked_up_fails(packages: list[dict[str, Any]], says: str, tmp_path: Path) -> None:
    ended = audited(tmp_path, *packages)
    assert ended.returncode == 1
    assert says in ended.stdout


def test_an_index_that_knows_nothing_of_any_package_is_named(tmp_path: Path) -> None:
    ended = audited(tmp_path, SKIPPED, SKIPPED)
    assert (ended.returncode, ended.stdout) == (0, "nothing found\n")
    assert "NOT AUDITED: the package index knows findings about none of 2 packages" in ended.stderr


def test_a_service_that_did_not_answer_fails(tmp_path: Path) -> None:
    ended = audited(tmp_path, report=False)
    assert (ended.returncode, ended.stdout) == (1, "not audited: the vulnerability service did not answer\n")
