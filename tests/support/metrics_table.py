"""The table of metrics in docs/MONITORING.md, made from the metrics themselves."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from clusterinfo.telemetry.metrics import Metrics


def rows() -> list[tuple[str, str, tuple[str, ...], str]]:
    """(name as Prometheus stores it, type, labels, what it says) of every metric, in order."""
    found = []
    for metric in vars(Metrics()).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            suffix = "_total" if isinstance(metric, Counter) else ""
            name = f"{metric._name}{suffix}"
            found.append((name, type(metric).__name__.lower(), tuple(metric._labelnames), metric._documentation))
    return found


def table() -> str:
    """The table in Markdown."""
    head = "| metric | type | labels | |\n|---|---|---|---|\n"
    return head + "\n".join(
        f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {says} |"
        for name, kind, labels, says in rows()
    )
