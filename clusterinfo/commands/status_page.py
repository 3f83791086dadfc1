"""`clusterinfo status` as it is printed: the verdict and its reasons, clusters, kinds on request, what waits. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clusterinfo.commands.output import Column, Line, Result, Table, ago
from clusterinfo.commands.status_kinds import complaint_of, name_of
from clusterinfo.commands.status_lag import Partition
from clusterinfo.commands.status_report import ClusterLine, Status
from clusterinfo.durations import short_duration
from clusterinfo.postgres.admin.overview import KindRow

UNLISTED = ("excluded", "gone")
"""States of kinds that nobody lists."""


def result_of(status: Status) -> Result:
    """All of it; as CSV and names the clusters, or the kinds where every kind is asked for."""
    data = status.as_json()
    if status.every_kind:
        return Result(page(status), data, data["kinds"], [name_of(kind) for kind in status.overview.kinds])
    return Result(page(status), data, data["clusters"], [row.cluster for row in status.overview.clusters])


def page(status: Status) -> list[Line | Table[Any]]:
    """What people read."""
    tables: list[Table[Any]] = [Table(_clusters(status), status.cluster_lines(), "no clusters")]
    if status.every_kind:
        tables.append(Table(_kinds(status), status.overview.kinds, "no kinds"))
    if rows := [row for row in status.partitions if row.lag or status.every_kind]:
        tables.append(Table(PARTITIONS, rows, "no partitions"))
    parts: list[Line | Table[Any]] = [verdict(status), *(Line(f"  {reason}") for reason in status.reasons)]
    for table in tables:
        parts += [Line(""), table]
    return [*parts, Line(""), *map(Line, last_lines(status))]


def verdict(status: Status) -> Line:
    """The first line."""
    return Line("healthy", "green") if status.is_healthy else Line("needs attention", "red")


def last_lines(status: Status) -> list[str]:
    """What waits, and who consumes."""
    lines = [f"lag: {_lag(status)}"] if status.partitions or status.lag is not None else []
    if status.consumers is not None:
        lines.append(f"consumers: {status.consumers.described(len(status.partitions))}")
    return [*lines, f"dead letters: {status.overview.dead_letters:,}"]


def _lag(status: Status) -> str:
    if status.lag is not None:
        return str(status.lag)
    why = "Kafka does not answer" if status.kafka_error else "KAFKA_ENABLED is false"
    last = f"; last stored {ago(status.moved_at, status.overview.now)} ago" if status.moved_at else ""
    return f"not known, {why}{last}"


def _clusters(status: Status) -> Sequence[Column[ClusterLine]]:
    return (
        Column("CLUSTER", lambda line: line.row.cluster),
        Column("VERSION", lambda line: line.row.server_version, is_wide=True),
        Column("AGE", lambda line: _age(line.age_s)),
        Column("KINDS", _verified),
        Column("STATES", lambda line: ", ".join(f"{n} {state}" for state, n in line.states.items()), is_wide=True),
        Column("FOLLOWED", lambda line: line.followed),
        Column("OBJECTS", lambda line: line.objects),
        Column("LAST RUN", lambda line: ago(line.row.last_run_at, status.overview.now)),
        Column("TOOK", lambda line: _age(line.row.last_run_s), is_wide=True),
        Column("WORST", lambda line: line.worst),
        Column("WHY", lambda line: line.why, nothing=""),
    )


def _verified(line: ClusterLine) -> str:
    """`57/58`: of the kinds that are listed."""
    listed = line.kinds - sum(line.states.get(state, 0) for state in UNLISTED)
    return f"{line.states.get('verified', 0)}/{listed}"


def _kinds(status: Status) -> Sequence[Column[KindRow]]:
    stale = {row.cluster: status.stale(row) for row in status.overview.clusters}

    def why(kind: KindRow) -> str:
        complaint = complaint_of(kind, stale[kind.cluster])
        return complaint.why if complaint else ""

    return (
        Column("CLUSTER", lambda kind: kind.cluster),
        Column("STATE", lambda kind: kind.state),
        Column("AGE", lambda kind: _age(kind.old_s)),
        Column("OBJECTS", lambda kind: kind.objects),
        Column("KIND", name_of),  # the longest, and most have no reason behind it: few lines are folded
        Column("WHY", why, nothing=""),
    )


PARTITIONS: Sequence[Column[Partition]] = (
    Column("TOPIC", lambda row: row.topic),
    Column("PARTITION", lambda row: row.partition),
    Column("STORED", lambda row: row.stored),
    Column("END", lambda row: row.end, nothing="<unknown>"),
    Column("LAG", lambda row: row.lag, nothing="<unknown>"),
)


def _age(seconds: float | None) -> str:
    return "" if seconds is None else short_duration(seconds)
