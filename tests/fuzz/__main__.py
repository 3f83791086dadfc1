"""`python -m tests.fuzz`: many executions over all targets, in several processes; prints shares, exits 1 on a failure.

Executions go in chunks; a chunk's inputs follow from the run's seed, the target and the chunk's number, so that
`--seed S --target T --chunk N` makes them again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from clusterinfo.sandbox.postgres import EmbeddedPostgres
from tests.fuzz.chunks import CHUNK, SHARES, Chunk, run_alone, run_chunk
from tests.fuzz.outcome import Outcome

REPORT = Path(__file__).with_name("fuzz.json")
SHOWN = 10
"""Failures that are printed."""


def main() -> int:
    """Run it; 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--executions", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--target", choices=sorted(SHARES))
    parser.add_argument("--chunk", type=int, help="only this chunk of --target")
    parser.add_argument("--report", action="store_true", help=f"write the figures to {REPORT.name}")
    arguments = parser.parse_args()
    chunks = sorted(planned(arguments.executions, arguments.seed, arguments.target), key=lambda chunk: chunk.number)
    if arguments.chunk is not None:
        chunks = [Chunk(arguments.target, arguments.seed, arguments.chunk, CHUNK)]
    began = time.monotonic()
    outcomes = asyncio.run(run(chunks, arguments.processes))
    figures = shown(outcomes, chunks, arguments.seed, time.monotonic() - began)
    print(json.dumps(figures, indent=2, ensure_ascii=False))
    if arguments.report:
        REPORT.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    failures = [failure for outcome in outcomes.values() for failure in outcome.failures]
    for failure in failures[:SHOWN]:
        again = f"--seed {arguments.seed} --target {failure.target} --chunk {failure.chunk}"
        print(
            f"FAILED {failure.target}: {failure.reason[:2000]}\n  input: {failure.save()}; again: {again}",
            file=sys.stderr,
        )
    return 1 if failures else 0


def planned(executions: int, seed: int, target: str | None = None) -> Iterator[Chunk]:
    """The chunks of a run: `executions` in all, shared among the targets."""
    shares = {target: 1.0} if target else SHARES
    for name, share in shares.items():
        left, number = round(executions * share), 0
        while left > 0:
            yield Chunk(name, seed, number, min(CHUNK, left))
            left, number = left - CHUNK, number + 1


async def run(chunks: list[Chunk], processes: int) -> dict[str, Outcome]:
    """All chunks, on one PostgreSQL: target -> outcome."""
    outcomes = {chunk.target: Outcome() for chunk in chunks}
    async with EmbeddedPostgres() as postgres:
        dsn = postgres.dsn()
        if processes == 1:
            for chunk in chunks:
                outcomes[chunk.target].add(await run_chunk(chunk, dsn))
            return outcomes
        await asyncio.to_thread(_in_processes, chunks, processes, dsn, outcomes)
    return outcomes


def _in_processes(chunks: list[Chunk], processes: int, dsn: str, outcomes: dict[str, Outcome]) -> None:
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures: dict[Future[Outcome], Chunk] = {pool.submit(run_alone, chunk, dsn): chunk for chunk in chunks}
        for number, future in enumerate(as_completed(futures), start=1):
            outcomes[futures[future].target].add(future.result())
            if number % 50 == 0:
                failures = sum(len(outcome.failures) for outcome in outcomes.values())
                print(f"{number} of {len(chunks)} chunks, {failures} failures", file=sys.stderr, flush=True)


def shown(outcomes: dict[str, Outcome], chunks: list[Chunk], seed: int, seconds: float) -> dict[str, object]:
    """The figures: what was tried, and what became of it."""
    sizes: Counter[str] = Counter()
    for chunk in chunks:
        sizes[chunk.target] += chunk.size
    return {
        "executions": sizes.total(),
        "seed": seed,
        "seconds": round(seconds),
        "failures": sum(len(outcome.failures) for outcome in outcomes.values()),
        "postgresql_round_trips": sum(outcome.counts["PostgreSQL round trips"] for outcome in outcomes.values()),
        "targets": {
            target: {
                "executions": sizes[target],
                "failures": len(outcome.failures),
                "accepted_share": round(accepted(target, outcome) / sizes[target], 3),
                **{name: count for name, count in sorted(outcome.counts.items()) if not name.startswith("Postgre")},
            }
            for target, outcome in outcomes.items()
        },
    }


def accepted(target: str, outcome: Outcome) -> int:
    """How many inputs were taken for what they should be."""
    wanted = {
        "messages": "messages accepted",
        "batches": "batches read to the end",
        "pages": "pages split",
        "bodies": "bodies stored",
    }[target]
    return sum(count for name, count in outcome.counts.items() if name.startswith(wanted))


if __name__ == "__main__":
    sys.exit(main())
