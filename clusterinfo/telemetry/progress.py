"""What a person at a terminal sees of a run, in place of log lines: one line that moves for what lists or stores, plain
lines for what prints a result. Always on stderr, since stdout is the result's alone. Not used otherwise.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

from clusterinfo import observations as seen
from clusterinfo.observations import Observation, Observe
from clusterinfo.telemetry.tally import Tally

BAR_COLUMNS = 12
"""What is left of 80 by the words for it."""


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
        case seen.SnapshotEnded(is_news=True) as ended:
            line = _summary(ended)
        case seen.AllStored() as stored:
            line = _sum(stored)
    return line or _of_a_watch(observation) or _of_a_lease(observation)


def _of_a_watch(observation: Observation) -> str:
    match observation:
        case seen.WatchLost(resource=resource, reason=reason):
            return f"{resource}: its watch cannot be continued: {reason}; it is listed again"
        case seen.WatchFailing(resource=resource, error=error, seconds=seconds):
            return f"{resource}: its watch has not worked for {seconds:.0f} s: {error}; it is listed meanwhile"
        case seen.WatchRecovered(resource=resource, seconds=seconds):
            return f"{resource}: its watch works again, after {seconds:.0f} s"
    return ""


def _of_a_lease(observation: Observation) -> str:
    match observation:
        case seen.StandsBy(lease=lease, holder=holder):
            return f"stands by: {holder or 'somebody'} holds the Lease {lease}"
        case seen.Leads(lease=lease):
            return f"leads: it holds the Lease {lease}"
        case seen.LeadershipLost(lease=lease, reason=reason):
            return f"leads no more, the Lease {lease} is lost: {reason}"
    return ""


def _summary(ended: seen.SnapshotEnded) -> str:
    size = f"{ended.size_bytes / 1048576:.1f} MiB"
    text = f"{ended.cluster}: {ended.objects:,} objects of {ended.kinds} kinds, {size}, in {ended.seconds:.1f} s"
    return text + (
        f"; {ended.failed} kinds failed, {ended.forbidden} forbidden" if ended.failed or ended.forbidden else ""
    )


def _sum(stored: seen.AllStored) -> str:
    letters = f", {stored.dead_letters:,} dead letters" if stored.dead_letters else ""
    return (
        f"all is stored: {stored.records:,} records in {stored.batches:,} batches, "
        f"{stored.size_bytes / 1048576:.1f} MiB, in {stored.seconds:.1f} s: {stored.rows_written:,} rows written, "
        f"{stored.rows_unchanged:,} unchanged, {stored.rows_deleted:,} deleted{letters}"
    )


def print_line(observation: Observation) -> None:
    """Print on stderr what a person should read of it: all there is to see of a command that shows no progress."""
    if line := line_of(observation):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


class _Drawn(ProgressColumn):
    """What the tally says, asked each time it is drawn: rates and waits change without being told."""

    def __init__(self, draw: Callable[[], RenderableType]) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis"))
        self._draw = draw

    def render(self, task: Task) -> RenderableType:
        return self._draw()


def _bar(tally: Tally) -> RenderableType:
    done, total = tally.bar or (0, 0)
    return ProgressBar(total, done, width=BAR_COLUMNS) if total else ""


@contextmanager
def shown() -> Iterator[Observe]:
    """Show progress on stderr while the block runs; yields what to give the observations to.

    stdout is left alone: rich would send what is written to it to stderr as well, even where it is a pipe or a file.
    """
    tally, console = Tally(time.monotonic), Console(stderr=True)
    words, bar = _Drawn(lambda: Text(tally.words())), _Drawn(lambda: _bar(tally))
    columns = SpinnerColumn(), bar, words, TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        progress.add_task("")

        def observe(observation: Observation) -> None:
            tally.note(observation)
            if line := line_of(observation):
                console.print(line, markup=False, highlight=False, soft_wrap=True)

        yield observe
