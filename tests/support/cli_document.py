"""docs/CLI.md: the help pages of all commands, as the program prints them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from typer.testing import CliRunner

from clusterinfo import cli

WIDTH = 100
"""Columns of a page in the document."""

Path = tuple[str, ...]
"""The words that lead to a help page: () is the program's own."""


def paths(command: Any = None, path: Path = ()) -> Iterator[Path]:
    """Every help page, a command's before those of its own commands."""
    command = command or typer.main.get_command(cli.app)
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from paths(below, (*path, name))


def page(path: Path, width: int = WIDTH) -> str:
    """A help page, as it is printed where there are `width` columns."""
    result = CliRunner().invoke(cli.app, [*path, "--help"], terminal_width=width)
    assert result.exit_code == 0, result.output
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


def pages() -> str:
    """All of them in Markdown, each under its command."""
    return "\n\n".join(f"## {' '.join(('clusterinfo', *path))}\n\n```text\n{page(path)}\n```" for path in paths())
