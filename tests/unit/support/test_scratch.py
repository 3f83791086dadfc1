"""Tests put what is gone after them into memory only where that is safe."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support import scratch


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that suits, where none was chosen."""
    directory = tmp_path / "shm"
    directory.mkdir()
    directory.chmod(0o1777)
    found(monkeypatch, free_bytes=scratch.ROOM_BYTES)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.delenv("TMPDIR", raising=False)
    return directory


def found(monkeypatch: pytest.MonkeyPatch, *, free_bytes: int, flags: int = 0) -> None:
    answer = SimpleNamespace(f_flag=flags, f_frsize=4096, f_bavail=free_bytes // 4096)
    monkeypatch.setattr(os, "statvfs", lambda path: answer)


def test_it_is_used_by_this_process_and_by_those_it_starts(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "")  # for monkeypatch to put back what was there
    monkeypatch.delenv("TMPDIR")
    scratch.use_memory(memory)
    assert (tempfile.gettempdir(), os.environ["TMPDIR"]) == (str(memory), str(memory))


def test_what_was_chosen_stays(memory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    scratch.use_memory(memory)
    assert tempfile.gettempdir() == str(tmp_path)


def test_there_must_be_such_a_directory(memory: Path) -> None:
    assert scratch.suits(memory)
    assert not scratch.suits(memory / "none")


def test_there_must_be_room(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, free_bytes=64 << 20)
    assert not scratch.suits(memory)


def test_programs_must_be_allowed_there(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, free_bytes=scratch.ROOM_BYTES, flags=os.ST_NOEXEC)
    assert not scratch.suits(memory)


def test_anybody_must_be_allowed_there(memory: Path) -> None:
    memory.chmod(0o755)
    assert not scratch.suits(memory)
