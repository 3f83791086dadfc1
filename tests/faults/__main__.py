"""`make faults`: the small version of all that is broken on purpose, in minutes, and a table of what came of it.

Each part is a program of its own that prints its figures and ends with 1 if anything is wrong; all of them run,
whatever an earlier one found. The checker judges every round of kills and matrix. Large figures: docs/FAULTS.md.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TABLE = Path("faults.txt")


@dataclass(frozen=True, slots=True)
class Part:
    """A program, and its arguments in the small version."""

    name: str
    argv: tuple[str, ...]


def parts(directory: Path) -> tuple[Part, ...]:
    """`directory`: for figures that are not kept."""
    return (
        Part("model", ("tests.model", "--histories", "100")),
        Part("kills", ("tests.faults.kills", "--hits", "2", "--stops", "1", "--minutes", "3",
                       "--counts", str(directory / "kills.json"))),
        Part("matrix", ("tests.faults.matrix", "--rounds", "1", "--small")),
        Part("fuzz", ("tests.fuzz",)),
    )  # fmt: skip


def run(part: Part) -> str:
    """Run it, its output shown; its line of the table."""
    print(f"\n== {part.name}: python -m {' '.join(part.argv)}\n", flush=True)
    began = time.monotonic()
    code = subprocess.run([sys.executable, "-m", *part.argv], check=False).returncode
    came_of_it = "nothing wrong" if code == 0 else f"WRONG (exit code {code})"
    return f"{part.name:10}{time.monotonic() - began:8.0f} s   {came_of_it}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    names = [part.name for part in parts(Path())]
    parser.add_argument("--only", nargs="+", choices=names, metavar="PART", help=f"of {', '.join(names)}")
    wanted = parser.parse_args().only or names
    if missing := [program for program in ("java", "mvn") if shutil.which(program) is None]:
        sys.exit(
            f"make faults runs Apache Kafka and does not find {' and '.join(missing)}: install Java 17 and Maven "
            "(Debian and Ubuntu: apt-get install openjdk-17-jre-headless maven)"
        )
    with tempfile.TemporaryDirectory(prefix="clusterinfo-faults-") as directory:
        lines = [run(part) for part in parts(Path(directory)) if part.name in wanted]
    table = "\n".join(lines)
    TABLE.write_text(table + "\n")
    print(f"\n{table}\n\nThe table is in {TABLE}.")
    sys.exit("WRONG" in table)


if __name__ == "__main__":
    main()
