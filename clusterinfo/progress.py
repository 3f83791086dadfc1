"""What a person at a terminal sees of a run: one line that moves, in place of log lines. Not used otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from clusterinfo import observations as seen
from clusterinfo.observations import Observation, Observe


class _Tally:
    """Kinds, objects and bytes so far, shown in one moving line."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("connecting", total=None, objects=0, mib=0.0)
        self._objects = 0
        self._size_bytes = 0

    def observe(self, observation: Observation) -> None:
        """Move the line, or print one above it for what a person should read."""
        match observation:
            case seen.Discovered(units=units, cluster=cluster):
                self._objects = self._size_bytes = 0
                self._update(description=f"listing {cluster}", total=units, completed=0)
            case seen.PageListed(items=items, size_bytes=size_bytes):
                self._add(items, size_bytes)
            case seen.BatchStored(lane=lane):
                self._progress.update(self._task, description=f"storing {lane}")
            case seen.ListEnded():
                self._progress.advance(self._task)
            case seen.Warned(message=message, remedy=remedy):
                self._progress.console.print(f"[yellow]{message}[/]" + (f"; {remedy}" if remedy else ""))

    def _add(self, objects: int, size_bytes: int) -> None:
        self._objects += objects
        self._size_bytes += size_bytes
        self._update()

    def _update(self, **fields: Any) -> None:
        mib = self._size_bytes / 1048576
        self._progress.update(self._task, objects=self._objects, mib=mib, **fields)


@contextmanager
def shown() -> Iterator[Observe]:
    """Show progress on stderr while the block runs; yields what to give the observations to."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("kinds, {task.fields[objects]:,} objects, {task.fields[mib]:.1f} MiB"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Tally(progress).observe
