"""What files repeat of the code, whole or between the markers `<!-- NAME -->` and `<!-- /NAME -->`: made from the code.

`python -m tests.support.generated` writes all of it; a test holds each against the code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clusterinfo.kubernetes.redaction import rules
from tests.support import chart_schema, cli_document, json_schemas, metrics_table, prometheus_rule, settings_table

ROOT = Path(__file__).parents[2]
COMMAND = "python -m tests.support.generated"


@dataclass(frozen=True, slots=True)
class Region:
    """A part of `document` (from the repository's top) that is `text()`."""

    document: str
    name: str
    text: Callable[[], str]

    def split(self, whole: str) -> tuple[str, str, str]:
        """What stands before, between and after the markers. Raises ValueError where they are not there once."""
        begin, end = f"<!-- {self.name} -->\n", f"<!-- /{self.name} -->"
        if whole.count(begin) != 1 or whole.count(end) != 1:
            raise ValueError(f"{self.document} has no place for {self.name}: {begin.strip()} and {end}, once each")
        before, _, rest = whole.partition(begin)
        between, _, after = rest.partition(end)
        return before + begin, between, end + after

    def found(self) -> str:
        """What stands there now."""
        return self.split((ROOT / self.document).read_text(encoding="utf-8"))[1].strip("\n")

    def write(self) -> None:
        """Put there what should."""
        path = ROOT / self.document
        before, _, after = self.split(path.read_text(encoding="utf-8"))
        path.write_text(f"{before}{self.text()}\n{after}", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Whole:
    """A file that is `text()` from its first line to its last."""

    document: str
    text: Callable[[], str]

    def found(self) -> str:
        """What it holds now; nothing where there is none."""
        path = ROOT / self.document
        return path.read_text(encoding="utf-8").rstrip("\n") if path.exists() else ""

    def write(self) -> None:
        """Put there what should."""
        path = ROOT / self.document
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{self.text()}\n", encoding="utf-8")


PARTS: tuple[Region | Whole, ...] = (
    Region("docs/CLI.md", "commands", cli_document.pages),
    Region("docs/SETTINGS.md", "settings", settings_table.table),
    Region("docs/MONITORING.md", "metrics", metrics_table.table),
    Whole("k8s/components/prometheusrule/prometheusrule.yaml", prometheus_rule.text),
    Whole("k8s/chart/values.schema.json", chart_schema.text),
    Whole("docs/schemas/status.schema.json", json_schemas.status),
    Whole("docs/schemas/statement.schema.json", json_schemas.statement),
    Region("SECURITY.md", "redaction", lambda: "\n".join(rules.table())),
)


if __name__ == "__main__":
    for part in PARTS:
        part.write()
