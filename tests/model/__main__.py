"""`python -m tests.model --histories N --seed S --processes P`: the large run, with a table each minute and at the end.

History n of a seed is always drawn alike: `--first n --histories 1` runs it alone. `--record` adds what the run came to
to `model.json` (or another file), unless that seed's histories are in it or one of them fails. `--guard "STATEMENT:
GUARD"` takes one guard out first, to see it missed by its scene. Exits 1 if a history fails, after printing the rules
that led to it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.model.bench import SORTS, Violation
from tests.model.hunting import USUAL, Bias, numbered, on_a_server, play
from tests.model.mutations import mutations, without

RECORD = Path(__file__).with_name("model.json")
TABLE_EVERY_S = 60.0
WRITE_EVERY_S = 5.0


def main() -> int:
    """Run the histories, in as many processes as asked for."""
    arguments = _arguments()
    if arguments.counts:
        return _run_share(arguments)
    wanted = range(arguments.first, arguments.first + arguments.histories)
    if arguments.record:
        known = _known(arguments.record)
        runs = known["runs"] + known["uncounted"]
        if any(seed == arguments.seed and set(wanted) & {*range(a, b)} for seed, a, b in runs):
            print(f"{arguments.record} has histories {wanted.start} to {wanted.stop} of seed {arguments.seed} already")
            return 2
    counts, failed = _in_processes(arguments)
    if failed:
        return 1
    if arguments.record:
        _record(arguments.record, counts, [arguments.seed, wanted.start, wanted.stop])
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--guard", choices=[one.guard.name for one in mutations() if one.is_missed_by_a_scene])
    parser.add_argument("--record", type=Path, nargs="?", const=RECORD, metavar="FILE")
    parser.add_argument("--counts", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--share", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_processes(arguments: argparse.Namespace) -> tuple[Counter[str], bool]:
    began = shown = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{share}.json" for share in range(arguments.processes)]
        program = [sys.executable, "-m", "tests.model", *sys.argv[1:]]
        children = [
            subprocess.Popen([*program, "--counts", file, "--share", str(share)])
            for share, file in enumerate(files)
        ]  # fmt: skip
        try:
            while any(child.poll() is None for child in children):
                time.sleep(0.2)
                if time.monotonic() - shown > TABLE_EVERY_S:
                    shown = time.monotonic()
                    _tell(_sum(files), shown - began)
        finally:
            for child in children:
                child.terminate()
                child.wait()
        counts = _sum(files)
    _tell(counts, time.monotonic() - began)
    return counts, any(child.returncode for child in children)


def _sum(files: list[Path]) -> Counter[str]:
    counts: Counter[str] = Counter(dict.fromkeys(SORTS, 0))
    for file in files:
        if file.exists():
            counts.update(json.loads(file.read_text()))
    return counts


def _tell(counts: Counter[str], took_s: float) -> None:
    table = Table(title=f"{took_s:.0f} s, {counts['histories'] / took_s:.1f} histories/s", show_header=False)
    for name, count in sorted(counts.items()):
        if name not in SORTS:
            table.add_row(name, str(count))
    table.add_section()
    for sort in SORTS:
        table.add_row(sort, str(counts[sort]))
    Console(width=100).print(table)


def _known(record: Path) -> dict[str, Any]:
    return json.loads(record.read_text()) if record.exists() else {"runs": [], "uncounted": [], "counts": {}}


def _record(record: Path, counts: Counter[str], run: list[int]) -> None:
    known = _known(record)
    known["runs"].append(run)
    known["counts"] = dict(sorted((Counter(known["counts"]) + counts).items())) | {
        sort: known["counts"].get(sort, 0) + counts[sort] for sort in SORTS
    }
    record.write_text(json.dumps(known, indent=1) + "\n")


def _run_share(arguments: argparse.Namespace) -> int:
    """This process' part: every so manieth history."""
    numbers = range(arguments.first + arguments.share, arguments.first + arguments.histories, arguments.processes)
    written = 0.0
    with on_a_server() as bench, ExitStack() as stack:
        bias = USUAL
        if arguments.guard:
            mutation = next(one for one in mutations() if one.guard.name == arguments.guard)
            stack.enter_context(without(mutation.guard))
            bias = Bias((mutation.missed_by,), steps=1)
        try:
            for number in numbers:
                play(bench, numbered(arguments.seed, number), bias)
                if time.monotonic() - written > WRITE_EVERY_S:
                    written = time.monotonic()
                    arguments.counts.write_text(json.dumps(bench.counts))
        except Violation as error:
            bench.counts[error.sort] += 1
            notes = "\n".join(getattr(error, "__notes__", []))
            print(f"FAILED: --seed {arguments.seed} --first {number}: {error}\n{notes}", flush=True)
            return 1
        finally:
            arguments.counts.write_text(json.dumps(bench.counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
