"""`python -m tests.model --histories N --seed S --processes P`: the large run, with counts as it goes.

Exits 1 if a history fails, after printing it and the seed. `--guard NAME` takes one guard out first, to see it found.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from contextlib import ExitStack

from tests.model.bench import SORTS, Violation
from tests.model.hunting import Hunt, on_a_server
from tests.model.mutations import MUTATIONS


def main() -> int:
    """Run the histories, in as many processes as asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--shrink", action="store_true", help="make the history that fails as short as can be")
    parser.add_argument("--guard", choices=[mutation.guard for mutation in MUTATIONS])
    arguments = parser.parse_args()
    if arguments.processes > 1:
        return _in_processes(arguments)
    return _here(arguments)


def _in_processes(arguments: argparse.Namespace) -> int:
    shares = [arguments.histories // arguments.processes] * arguments.processes
    shares[0] += arguments.histories - sum(shares)
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.model", "--histories", str(share), "--seed", str(arguments.seed + number)]
            + ["--shrink"] * arguments.shrink
        )
        for number, share in enumerate(shares)
    ]
    try:
        return max(child.wait() for child in children)
    finally:
        for child in children:
            child.terminate()


def _here(arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    failure: Violation | None = None
    with on_a_server() as bench, ExitStack() as stack:
        if arguments.guard:
            stack.enter_context(next(m for m in MUTATIONS if m.guard == arguments.guard).applied())
        bench.tell_every_s = 60.0
        try:
            Hunt(bench).run(arguments.histories, seed=arguments.seed, shrink=arguments.shrink)
        except Violation as error:
            failure = error
    took_s = time.monotonic() - began
    print(bench.figures(), flush=True)
    print(f"{took_s:.0f} s, {bench.counts['histories'] / took_s:.1f} histories/s; seed {arguments.seed}")
    print(", ".join(f"{sort} {int(bool(failure and failure.sort == sort))}" for sort in SORTS))
    if failure:
        print(f"FAILED with seed {arguments.seed}: {failure}", *getattr(failure, "__notes__", []), sep="\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
