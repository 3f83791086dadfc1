"""`python -m tests.faults.matrix`: every fault injected into a pipeline under churn, again and again, and what it cost.

A round: churn, inject, undo, end the churn, wait until the database equals the API and every kind is verified. Then
nothing may be lost, extra, wrong, or there twice; no row may have gone while its kind could not be listed; the programs
run. Figures are added to `matrix.json`, over as many runs as it takes. Apache Kafka is the broker: Java and Maven.

    python -m tests.faults.matrix --rounds 20 [--only NAME ...] [--small] [--output FILE]

FAULTS_ROUNDS is the default of --rounds (1). `--small` shortens what lasts long (rebalances, held locks) and resets
half-open connections in the end. Ends with 1 if a round found anything wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import math
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults import matrix_away, matrix_kafka, matrix_kubernetes, matrix_postgres
from tests.faults.matrix_rig import Ends, Log, Rig, ends, judged, peak_mib, recovered, rig
from tests.faults.pipeline import PARTITIONS

RESULTS = Path(__file__).with_name("matrix.json")
WARM_UP_S = 1.0
"""Of churn before a fault: a run of lists is then under way."""
ROUND_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the matrix. `traces`: costs of which a round shows one at least, or the fault did nothing."""

    name: str
    system: str
    inject: Callable[[Rig], Awaitable[None]]
    traces: tuple[str, ...]
    partitions: int = PARTITIONS

    @property
    def injected(self) -> str:
        """What is done, in a line."""
        return (self.inject.__doc__ or "").partition("\n")[0].removesuffix(".")

    @property
    def needs_new_topic(self) -> bool:
        """Each time: partitions cannot be taken away again."""
        return self.partitions != PARTITIONS


async def nothing(rig: Rig) -> None:
    """Nothing: what a round takes anyway."""
    rig.is_over()


TROUBLE = ("retries", "lanes begun again", "lists begun again", "consumers rebuilt", "runs begun again")
CONNECTIONS = "connections"
RECONNECTED = (CONNECTIONS,)
"""aiokafka makes good most of what Kafka does without a word. Not shown as a cost: the judge's own are among them."""
LISTS = ("lists failed", "lists begun again", "retries")

FAULTS: tuple[Fault, ...] = (
    Fault("nothing", "none", nothing, ()),
    Fault("kafka restart clean", "Kafka", matrix_kafka.restart_clean, RECONNECTED),
    Fault("kafka restart hard", "Kafka", matrix_kafka.restart_hard, RECONNECTED),
    Fault("kafka half-open", "Kafka", matrix_kafka.half_open, RECONNECTED),
    Fault("rebalances", "Kafka", matrix_kafka.rebalances, ("assignments",)),
    Fault("corrupt batch", "Kafka", matrix_kafka.corrupt_batch, ("dead letters",)),
    Fault("offset out of range", "Kafka", matrix_kafka.out_of_range, ("gaps",)),
    Fault("more partitions", "Kafka", matrix_kafka.more_partitions, ("assignments",), matrix_kafka.FEW_PARTITIONS),
    Fault("postgres restart", "PostgreSQL", matrix_postgres.restart, TROUBLE),
    Fault("lock held", "PostgreSQL", matrix_postgres.lock_held, ()),
    Fault("disk full", "PostgreSQL", matrix_postgres.disk_full, TROUBLE),
    Fault("slow database", "PostgreSQL", matrix_postgres.slow, ()),
    Fault("postgres half-open", "PostgreSQL", matrix_postgres.half_open, TROUBLE),
    Fault("both away", "PostgreSQL", matrix_away.both_away, TROUBLE),
    Fault("postgres away for minutes", "PostgreSQL", matrix_away.postgres_away_for_minutes, TROUBLE),
    Fault("kafka away for minutes", "Kafka", matrix_away.kafka_away_for_minutes, TROUBLE),
    Fault("both away for minutes", "PostgreSQL", matrix_away.both_away_for_minutes, TROUBLE),
    Fault("429", "Kubernetes", matrix_kubernetes.too_many_requests, LISTS),
    Fault("500", "Kubernetes", matrix_kubernetes.status_500, LISTS),
    Fault("503", "Kubernetes", matrix_kubernetes.status_503, LISTS),
    Fault("504", "Kubernetes", matrix_kubernetes.status_504, LISTS),
    Fault("410", "Kubernetes", matrix_kubernetes.expired_token, LISTS),
    Fault("cut body", "Kubernetes", matrix_kubernetes.cut_body, LISTS),
    Fault("wrong continue resourceVersion", "Kubernetes", matrix_kubernetes.wrong_version, LISTS),
    Fault("stale discovery", "Kubernetes", matrix_kubernetes.stale_discovery, ()),
    Fault("403 that comes and goes", "Kubernetes", matrix_kubernetes.forbidden_now_and_then, LISTS),
)


@dataclass(slots=True)
class Round:
    """What came of one."""

    recovery_s: float = math.nan
    costs: Counter[str] = field(default_factory=Counter)
    peak_mib: float = 0.0
    problems: list[str] = field(default_factory=list)


async def play(fault: Fault, on: Rig) -> Round:
    """One round. What goes wrong in it is among its problems."""
    log, result, connections = Log(on.world), Round(), on.connections
    on.problems = []
    try:
        async with asyncio.timeout(ROUND_TIMEOUT_S):
            on.world.churn.start()
            await asyncio.sleep(WARM_UP_S)
            await fault.inject(on)
            result.recovery_s = await recovered(on)
            result.problems = await judged(on, log)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what this round found
        result.problems += [*on.problems, "".join(traceback.format_exception_only(error)).strip()]
    finally:
        on.kafka.bury()
        on.postgres.bury()
    result.costs, result.peak_mib = log.costs(), peak_mib(on.world)
    traces = result.costs | {CONNECTIONS: on.connections - connections}
    if fault.traces and not any(traces.get(trace) for trace in fault.traces):
        result.problems.append(f"the fault left no trace: none of {', '.join(fault.traces)}")
    return result


async def play_all(plan: Sequence[Fault], on: Ends, *, is_small: bool, done: Callable[[Fault, Round], None]) -> None:
    """Round after round, on one pipeline for as long as it is well."""
    left = list(reversed(plan))
    while left:
        partitions = left[-1].partitions
        async with rig(on, partitions=partitions, is_small=is_small) as built:
            while left and left[-1].partitions == partitions:
                fault = left.pop()
                result = await play(fault, built)
                done(fault, result)
                if result.problems or fault.needs_new_topic:
                    break


# --- the file --------------------------------------------------------------------------------------------------------


def add(path: Path, fault: Fault, result: Round) -> None:
    """Add a round to the file; several processes may do so at once."""
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        results: dict[str, Any] = json.loads(file.read() or "{}")
        row = results.setdefault(fault.name, {"rounds": 0, "problems": 0, "recovery_s": [], "costs": {}, "peak_mib": 0})
        row["rounds"] += 1
        row["problems"] += bool(result.problems)
        if not math.isnan(result.recovery_s):
            row["recovery_s"].append(round(result.recovery_s, 2))
        row["costs"] = dict(sorted((Counter(row["costs"]) + result.costs).items()))
        row["peak_mib"] = max(row["peak_mib"], round(result.peak_mib))
        in_order = {one.name: results[one.name] for one in FAULTS if one.name in results}
        file.seek(0)
        file.truncate()
        file.write(json.dumps(in_order, indent=1, sort_keys=False) + "\n")


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _say(fault: Fault, result: Round) -> None:
    costs = ", ".join(f"{count} {name}" for name, count in sorted(result.costs.items())) or "nothing"
    print(f"{time.strftime('%H:%M:%S')} {fault.name:32}{result.recovery_s:7.2f} s  cost {costs}", flush=True)
    for problem in result.problems:
        print(f"    WRONG: {problem}", flush=True)


async def run(chosen: Sequence[Fault], count: int, output: Path | None, *, is_small: bool) -> dict[str, list[Round]]:
    """Every chosen fault so often; fault -> its rounds."""
    results: dict[str, list[Round]] = {fault.name: [] for fault in chosen}

    def done(fault: Fault, result: Round) -> None:
        results[fault.name].append(result)
        _say(fault, result)
        if output is not None:
            add(output, fault, result)

    async with ends() as on:
        plan = sorted(chosen, key=lambda fault: fault.partitions) * count
        await play_all(plan, on, is_small=is_small, done=done)
    return results


def table(results: dict[str, list[Round]]) -> str:
    """Plain text: rounds, problems, recovery, costs."""
    lines = [f"{'fault':32}{'rounds':>7}{'wrong':>6}{'p50 s':>8}{'p99 s':>8}  cost"]
    for name, played in results.items():
        seconds = [one.recovery_s for one in played if not math.isnan(one.recovery_s)] or [math.nan]
        costs = sum((one.costs for one in played), Counter())
        cost = ", ".join(f"{count} {what}" for what, count in sorted(costs.items()))
        wrong = sum(bool(one.problems) for one in played)
        figures = f"{len(played):7}{wrong:6}{percentile(seconds, 50):8.2f}{percentile(seconds, 99):8.2f}"
        lines.append(f"{name:32}{figures}  {cost}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.matrix", description=__doc__.partition("\n")[0])
    default = int(os.environ.get("FAULTS_ROUNDS", "1"))
    names = [fault.name for fault in FAULTS]
    parser.add_argument("--rounds", type=int, default=default, help="of each fault (default FAULTS_ROUNDS, or 1)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help="these faults alone")
    parser.add_argument("--small", action="store_true", help="shorten what lasts long")
    parser.add_argument("--output", type=Path, default=None, help=f"add the figures to this file ({RESULTS.name})")
    options = parser.parse_args()
    chosen = [fault for fault in FAULTS if not options.only or fault.name in options.only]
    results = asyncio.run(run(chosen, options.rounds, options.output, is_small=options.small))
    print("\n" + table(results))
    sys.exit(any(one.problems for played in results.values() for one in played))


if __name__ == "__main__":
    main()
