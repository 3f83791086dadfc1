"""`python -m tests.faults.report [--write]`: the tables of docs/FAULTS.md, made of the committed files of figures.

A table stands between the markers `<!-- begin NAME -->` and `<!-- end NAME -->`; NAME.json lies beside what wrote it.
One, of the guards of following, is made of their list in `tests/model/code_guards.py`.
Nothing in them is written by hand: a test holds the document against the files.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.matrix import FAULTS, percentile
from tests.model.bench import SORTS
from tests.model.code_guards import rows_of_guards

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "FAULTS.md"
Figures = dict[str, Any]


def matrix(figures: Figures) -> str:
    """A row for each fault: how often, what was wrong, how long recovery took, what a round cost."""
    rows = []
    for fault in FAULTS:
        if (found := figures.get(fault.name)) is None:
            continue
        rounds = found["rounds"]
        seconds = [f"{percentile(found['recovery_s'], percent):.1f}" for percent in (50, 99)]
        costs = ", ".join(f"{count / rounds:.1f} {what}" for what, count in found["costs"].items())
        rows.append([fault.name, fault.injected, str(rounds), str(found["problems"]), *seconds, costs or "-"])
    heading = ["fault", "what was injected", "rounds", "wrong", "recovery p50, s", "p99, s", "cost of a round"]
    total = sum(found["rounds"] for found in figures.values())
    wrong = sum(found["problems"] for found in figures.values())
    peak = max(found["peak_mib"] for found in figures.values())
    return (
        f"{table(heading, rows, right=(2, 3, 4, 5))}\n\n"
        f"{total:,} rounds, {wrong} of them wrong. No program ever took more than {peak} MiB."
    )


def kills(figures: Figures) -> str:
    """A row for each failpoint, then one for each thing that must not be found."""
    hits, found = figures["hits"], figures["found"]
    points = [[f"`{point}`", str(number)] for point, number in hits.items()]
    points.append(["in all", str(sum(hits.values()))])
    points.append(["SIGSTOP beyond the session", str(figures["stops"])])
    wrong = [[name.replace("_", " "), str(number)] for name, number in found.items()]
    settled = figures["settled_s"]
    return "\n\n".join(
        [
            table(["killed at", "times"], points, right=(1,)),
            table(["found wrong", "times"], wrong, right=(1,)),
            f"{figures['rounds']} rounds in {figures['minutes']:.0f} minutes. From the end of a round's kills until "
            f"the database equalled the API: p50 {percentile(settled, 50):.1f} s, p99 {percentile(settled, 99):.1f} s.",
        ]
    )


def model(figures: Figures) -> str:
    """What the histories had in them, then a row for each thing that must not be found."""
    counts = figures["counts"]
    histories = counts["histories"] + sum(stop - first for _, first, stop in figures["uncounted"])
    had = [[name, f"{count:,}"] for name, count in counts.items() if name not in SORTS and name != "histories"]
    wrong = [[sort, str(counts[sort])] for sort in SORTS]
    return "\n\n".join(
        [
            f"{histories:,} histories. Found wrong:",
            table(["found wrong", "times"], wrong, right=(1,)),
            f"What {counts['histories']:,} of them had in them:",
            table(["in all", "times"], had, right=(1,)),
        ]
    )


def fuzz(figures: Figures) -> str:
    """A row for each target: how often, and what came of it."""
    rows = []
    for name, target in figures["targets"].items():
        came = [f"{count:,} {what}" for what, count in target.items() if " " in what]
        rows.append([name, f"{target['executions']:,}", str(target["failures"]), "; ".join(came)])
    heading = ["target", "executions", "failures", "what came of it"]
    trips = figures["postgresql_round_trips"]
    return (
        f"{table(heading, rows, right=(1, 2))}\n\n{figures['executions']:,} executions in {figures['seconds']:,} s, "
        f"{figures['failures']} failures. What was accepted went to PostgreSQL and back in {trips:,} round trips."
    )


@dataclass(frozen=True, slots=True)
class Section:
    """A file of figures, and what makes its tables."""

    path: Path
    made: Callable[[Figures], str]


TESTS = HERE.parent
SECTIONS = {
    "model": Section(TESTS / "model" / "model.json", model),
    "kills": Section(HERE / "kills.json", kills),
    "kills_following": Section(HERE / "kills_following.json", kills),
    "matrix": Section(HERE / "matrix.json", matrix),
    "fuzz": Section(TESTS / "fuzz" / "fuzz.json", fuzz),
}


def table(heading: list[str], rows: Iterable[list[str]], right: tuple[int, ...] = ()) -> str:
    """Markdown; the columns `right` are numbers."""
    ruler = ["---:" if number in right else "---" for number in range(len(heading))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [heading, ruler, *rows])


def sections() -> dict[str, str]:
    """Name -> what stands between its markers, of every file that is there."""
    found = {name: one.made(json.loads(one.path.read_text())) for name, one in SECTIONS.items() if one.path.exists()}
    return found | {"guards": table(["what is followed", "kept so by", "missed by"], rows_of_guards())}


def between(name: str) -> re.Pattern[str]:
    """What stands between the markers of that name."""
    return re.compile(rf"(?<=<!-- begin {name} -->\n).*?(?=\n<!-- end {name} -->)", re.DOTALL)


def filled(document: str, tables: dict[str, str]) -> str:
    """`document` with every table as it is now. Raises ValueError if one has no place in it."""
    for name, text in tables.items():
        if (place := between(name).search(document)) is None:
            raise ValueError(f"no place for {name}: markers `<!-- begin {name} -->` and `<!-- end {name} -->`")
        document = document[: place.start()] + text + document[place.end() :]
    return document


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.report", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"put them into {DOCUMENT.name} instead of printing them")
    if parser.parse_args().write:
        DOCUMENT.write_text(filled(DOCUMENT.read_text(), sections()))
        return
    for name, text in sections().items():
        print(f"## {name}\n\n{text}\n")


if __name__ == "__main__":
    main()
