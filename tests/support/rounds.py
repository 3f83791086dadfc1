"""What alternating rounds found, as a table of medians, spreads and ratios, and as JSON. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

HEAD = f"{'':28} {'rows/s':>8} {'MB/s':>7} {'CPU s/GB':>9} {'spread':>7} {'ratio':>6}"


@dataclass(frozen=True, slots=True)
class Run:
    """One side of a round: `size_bytes` of manifests, as the API serves them before compression; `cpu_s` of the
    program's process from start to end; of the server's, `server_cpu_s`, where that was measured."""

    rows: int
    size_bytes: float
    seconds: float
    cpu_s: float
    server_cpu_s: float | None = None


@dataclass(slots=True)
class Rounds:
    """The runs of each side, by round. The ratio of a side is the median of its rates, each divided by the base's in
    the same round."""

    base: str
    runs: dict[str, list[Run]] = field(default_factory=dict)

    def add(self, side: str, run: Run) -> None:
        self.runs.setdefault(side, []).append(run)

    def of(self, side: str) -> dict[str, Any]:
        """Medians; `spread`: from the lowest to the highest rate, in parts of the median."""
        runs = self.runs[side]
        rates = [run.rows / run.seconds for run in runs]
        of_base = [run.rows / run.seconds for run in self.runs[self.base]]
        rate = statistics.median(rates)
        return {
            "rows_s": rate,
            "mb_s": statistics.median(run.size_bytes / run.seconds for run in runs) / 1e6,
            "cpu_s_gb": statistics.median(run.cpu_s / run.size_bytes for run in runs) * 1e9,
            "spread": (max(rates) - min(rates)) / rate,
            "ratio": statistics.median(one / other for one, other in zip(rates, of_base, strict=True)),
            "runs": [asdict(run) for run in runs],
        }

    def as_json(self) -> dict[str, Any]:
        return {"base": self.base, "sides": {side: self.of(side) for side in self.runs}}

    def lines(self) -> Iterator[str]:
        yield HEAD
        for side in self.runs:
            of = self.of(side)
            yield (
                f"{side:28} {of['rows_s']:8,.0f} {of['mb_s']:7.1f} {of['cpu_s_gb']:9.1f} {of['spread']:7.0%} "
                f"{of['ratio']:6.2f}"
            )
