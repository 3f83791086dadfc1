"""`python -m tests.model.survey [STATEMENT ...]`: who misses guards that `mutations.py` does not speak of yet.

Prints for each of them the scenes that notice within a few histories that it is gone, quickest first; for one that no
scene misses, with `--tests`, the tests of the merge that do. With `--all` also guards that are spoken of.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from tests.model.bench import Bench
from tests.model.gate import ROOT
from tests.model.guards import Guard
from tests.model.hunting import find, on_a_server
from tests.model.mutations import all_guards, listed
from tests.model.scenarios import SCENES

HISTORIES = 3
TESTS = ("tests/integration", "-k", "postgres or refused or dead_letters or forget or moving")


def main() -> None:
    """Survey the statements asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("statements", nargs="*", metavar="STATEMENT")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--tests", action="store_true")
    arguments = parser.parse_args()
    known = set() if arguments.all else set(listed())
    with on_a_server() as bench:
        for guard in all_guards().values():
            if guard.name not in known and (not arguments.statements or guard.statement in arguments.statements):
                missed_by = _scenes(bench, guard)
                if arguments.tests and not missed_by:
                    missed_by = _tests(guard)
                print(f"{guard.name!r}: {missed_by}", flush=True)


def _scenes(bench: Bench, guard: Guard) -> list[str]:
    """Scenes that miss it in as few histories as any does, with the milliseconds it takes."""
    for number in range(HISTORIES):
        found = {scene: took_ms for scene in SCENES if (took_ms := _took_ms(bench, guard, scene, number))}
        if found:
            return [f"{scene} ({number + 1}, {found[scene]} ms)" for scene in sorted(found, key=lambda one: found[one])]
    return []


def _took_ms(bench: Bench, guard: Guard, scene: str, number: int) -> int:
    began = time.monotonic()
    histories = find(bench, guard, scene, [number])
    return round((time.monotonic() - began) * 1000) if histories else 0


def _tests(guard: Guard) -> list[str]:
    program = [sys.executable, "-m", "pytest", "-p", "tests.model.gate", "--without", guard.name, "-q", *TESTS]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    return [line.split()[1] for line in done.stdout.splitlines() if line.startswith("FAILED")]


if __name__ == "__main__":
    main()
