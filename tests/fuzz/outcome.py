"""What comes of executions: counts, and failures with the input that led to them."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that is not treated as it should be. `chunk` and the run's seed make it again."""

    target: str
    chunk: int
    reason: str
    input: bytes

    def save(self) -> Path:
        """The input in a file of its own."""
        with tempfile.NamedTemporaryFile(prefix=f"clusterinfo-fuzz-{self.target}-", delete=False) as file:
            file.write(self.input)
        return Path(file.name)


@dataclass(slots=True)
class Outcome:
    """Of a chunk, or of many. `counts`: what became of inputs, by name; `executions` are inputs tried."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Take in another one."""
        self.counts += other.counts
        self.failures += other.failures


class Judged(AssertionError):
    """The package and the judge disagree."""


def expect(condition: object, message: str) -> None:
    """Raise Judged unless `condition` holds."""
    if not condition:
        raise Judged(message)
