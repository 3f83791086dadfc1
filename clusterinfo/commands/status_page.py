"""`clusterinfo status` for people: the verdict and its reasons, clusters, kinds on request, what waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from clusterinfo.commands.status_kinds import complaint_of, name_of
from clusterinfo.commands.status_report import ClusterLine, Partition, Status
from clusterinfo.durations import short_duration
from clusterinfo.postgres.admin.overview import KindRow


@dataclass(frozen=True, slots=True)
class Page:
    """A status, to be printed by a rich console."""

    status: Status

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        status = self.status
        parts: list[Any] = [Text(verdict(status), style="green" if status.is_healthy else "red")]
        parts += [Text(f"  {reason}") for reason in status.reasons]
        if status.overview.clusters:
            parts += [Text(), self._clusters()]
        if status.every_kind:
            parts += [Text(), self._kinds()]
        if rows := [row for row in status.partitions if row.lag or status.every_kind]:
            parts += [Text(), self._partitions(rows)]
        yield Group(*parts, Text(), *map(Text, last_lines(status)))

    def _clusters(self) -> Table:
        table = _table("CLUSTER", "VERSION", "AGE", "KINDS", "OBJECTS", "LAST RUN", "WORST", "WHY")
        for line in self.status.cluster_lines():
            table.add_row(*cluster_cells(line, self.status))
        return table

    def _kinds(self) -> Table:
        table = _table("CLUSTER", "KIND", "STATE", "OBJECTS", "AGE", "WHY")
        stale = {row.cluster: self.status.stale_s(row) for row in self.status.overview.clusters}
        for kind in self.status.overview.kinds:
            table.add_row(*kind_cells(kind, stale[kind.cluster]))
        return table

    def _partitions(self, rows: list[Partition]) -> Table:
        table = _table("TOPIC", "PARTITION", "STORED", "END", "LAG")
        for row in rows:
            table.add_row(row.topic, str(row.partition), f"{row.stored:,}", _number(row.end), _number(row.lag))
        return table


def verdict(status: Status) -> str:
    """The first line."""
    return "healthy" if status.is_healthy else "needs attention"


def last_lines(status: Status) -> list[str]:
    """What waits, and who consumes."""
    lines = [] if status.lag is None else [f"lag: {status.lag}"]
    if status.consumers is not None:
        lines.append(f"consumers: {status.consumers.described(len(status.partitions))}")
    return [*lines, f"dead letters: {status.overview.dead_letters:,}"]


def cluster_cells(line: ClusterLine, status: Status) -> list[str]:
    """A cluster in the table."""
    row, last = line.row, line.row.last_run_at
    return [
        row.cluster,
        row.server_version or "",
        "" if line.age_s is None else short_duration(line.age_s),
        ", ".join(f"{count} {state}" for state, count in line.states.items()),
        f"{line.objects:,}",
        "never" if last is None else short_duration((status.overview.now - last).total_seconds()),
        line.worst,
        line.why,
    ]


def kind_cells(kind: KindRow, stale_after_s: float) -> list[str]:
    """A kind in the table."""
    complaint = complaint_of(kind, stale_after_s)
    age = "" if kind.age_s is None else short_duration(kind.age_s)
    return [kind.cluster, name_of(kind), kind.state, _number(kind.objects), age, complaint.why if complaint else ""]


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in _NUMBERS else "left")
    return table


_NUMBERS = ("OBJECTS", "PARTITION", "STORED", "END", "LAG")
