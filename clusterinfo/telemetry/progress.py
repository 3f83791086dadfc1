"""What a person at a terminal sees of a run, in place of log lines: one line that moves for what lists or stores, plain
lines for what prints a result. Always on stderr, since stdout is the result's alone. Not used otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from clusterinfo import observations as seen
from clusterinfo.observations import Observation, Observe


class _Tally:
    """Kinds, objects and bytes so far, in one moving line; above it what a person should read."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("connecting", total=None, objects=0, mib=0.0)
        self._objects = 0
        self._size_bytes = 0
        self._lists = False

    def observe(self, observation: Observation) -> None:
        """Move the line, or print one above it."""
        self._move(observation)
        if line := line_of(observation):
            self._progress.console.print(line, markup=False, highlight=False)

    def _move(self, observation: Observation) -> None:
        match observation:
            case seen.Discovered(units=units, cluster=cluster):
                self._lists, self._objects, self._size_bytes = True, 0, 0
                self._update(description=f"listing {cluster}", total=units, completed=0)
            case seen.PageListed(items=items, size_bytes=size_bytes):
                self._add(items, size_bytes)
            case seen.BatchStored(records=records, size_bytes=size_bytes) if not self._lists:
                self._add(records, size_bytes, description="storing")
            case seen.ListEnded():
                self._progress.advance(self._task)

    def _add(self, objects: int, size_bytes: int, **fields: Any) -> None:
        self._objects += objects
        self._size_bytes += size_bytes
        self._update(**fields)

    def _update(self, **fields: Any) -> None:
        mib = self._size_bytes / 1048576
        self._progress.update(self._task, objects=self._objects, mib=mib, **fields)


def line_of(observation: Observation) -> str:
    """The line a person should read, or "" for what only moves the progress."""
    line = ""
    match observation:
        case seen.Warned(message=message, remedy=remedy):
            line = f"{message}; {remedy}" if remedy else message
        case seen.Noted(message=message):
            line = message
        case seen.ListEnded(resource=resource, outcome=outcome, error=error) if error:
            line = f"{resource}: {outcome}: {error}"
        case seen.DeadLettered(lane=lane, offset=offset, reason=reason, letters=letters):
            more = f" and {letters - 1:,} more" if letters > 1 else ""
            line = f"{lane}, offset {offset}{more} was dead-lettered: {reason}"
        case seen.Retrying(lane=lane, step=step, error=error, wait_s=wait_s):
            line = f"{lane}, {step}: {error}; again in {wait_s:.1f} s"
        case seen.RunFailed(cluster=cluster, error=error, wait_s=wait_s):
            line = f"{cluster}, run of lists: {error}; again in {wait_s:.1f} s"
        case seen.SnapshotEnded() as ended:
            line = _summary(ended)
    return line


def _summary(ended: seen.SnapshotEnded) -> str:
    size = f"{ended.size_bytes / 1048576:.1f} MiB"
    text = f"{ended.cluster}: {ended.objects:,} objects of {ended.kinds} kinds, {size}, in {ended.seconds:.1f} s"
    return text + (
        f"; {ended.failed} kinds failed, {ended.forbidden} forbidden" if ended.failed or ended.forbidden else ""
    )


def print_line(observation: Observation) -> None:
    """Print on stderr what a person should read of it: all there is to see of a command that shows no progress."""
    if line := line_of(observation):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


@contextmanager
def shown() -> Iterator[Observe]:
    """Show progress on stderr while the block runs; yields what to give the observations to.

    stdout is left alone: rich would send what is written to it to stderr as well, even where it is a pipe or a file.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("kinds, {task.fields[objects]:,} objects, {task.fields[mib]:.1f} MiB"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        yield _Tally(progress).observe
