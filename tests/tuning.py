"""What each setting does to speed and memory, beside its default, all in one run: `python -m tests.tuning`.

The settings of docs/TUNING.md. Medians of ratios: each run of a value has one of the default beside it, before it or
after it alternately, so that a busy moment of the machine falls on both.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.bench import TIMEOUT_S, WAIT, Servers, servers, stored
from tests.support.programs import run

COLLECT = {
    "PAGE_SIZE": ("100", "2000"),
    "COLLECT_CONCURRENCY": ("1", "16"),
}
CONSUME = {
    "BATCH_SIZE": ("200", "20000"),
    "BATCH_BYTES": ("1MiB", "64MiB"),
    "BATCH_WAIT": ("10ms", "1s"),
    "DB_POOL_SIZE": ("1", "12"),
}
"""Setting -> values held against its default (BATCH_WAIT: 100ms, since the topic ends here)."""

DEFAULT = ("default", "")
BASELINE = {
    "collect": "defaults, with `KAFKA_PARTITION=auto` (0)",
    "consume": "defaults, with `BATCH_WAIT=100ms` (20ms)",
}
"""What the values are held against, as docs/TUNING.md says it: the bench's topic has several partitions, and an end."""


@dataclass(frozen=True, slots=True)
class Run:
    """Objects a second, and peak memory in MiB."""

    rate: float
    peak_mib: float


def variants(knobs: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """Each setting with each of its values."""
    for name, values in knobs.items():
        for value in values:
            yield name, value


def setting(knob: tuple[str, str]) -> dict[str, str]:
    return {} if knob == DEFAULT else {knob[0]: knob[1]}


async def collected(bench: Servers, knob: tuple[str, str], topic: str) -> Run:
    env = bench.env(topic, "postgres") | setting(knob)
    ended = (await run("collect", "--once", env=env, timeout_s=TIMEOUT_S)).expect(0)
    line = ended.logged("Snapshot ended")[0]
    return Run(line["objects"] / line["seconds"], ended.peak_mib)


async def consumed(bench: Servers, knob: tuple[str, str], topic: str) -> Run:
    env = bench.env(topic, await bench.fresh()) | WAIT | setting(knob)
    ended = (await run("consume", "--until-idle", "2s", env=env, timeout_s=TIMEOUT_S)).expect(0)
    return Run(stored(ended).rate, ended.peak_mib)


async def measure(objects: int, rounds: int) -> None:
    found: dict[str, dict[tuple[str, str], list[tuple[Run, Run]]]] = {
        "collect": defaultdict(list),
        "consume": defaultdict(list),
    }
    async with servers(objects) as bench:
        await collected(bench, DEFAULT, "knobs")
        for n in range(rounds):
            for i, knob in enumerate(variants(COLLECT)):
                both = [await collected(bench, one, f"collect-{n}-{i}-{one[0]}") for one in in_turns(knob, n)]
                found["collect"][knob].append(as_pair(both, n))
            for knob in variants(CONSUME):
                both = [await consumed(bench, one, "knobs") for one in in_turns(knob, n)]
                found["consume"][knob].append(as_pair(both, n))
    for command, pairs in found.items():
        show(command, pairs)


def in_turns(knob: tuple[str, str], n: int) -> tuple[tuple[str, str], tuple[str, str]]:
    return (knob, DEFAULT) if n % 2 else (DEFAULT, knob)


def as_pair(both: list[Run], n: int) -> tuple[Run, Run]:
    """(default, value)."""
    return (both[1], both[0]) if n % 2 else (both[0], both[1])


def show(command: str, runs: Mapping[tuple[str, str], list[tuple[Run, Run]]]) -> None:
    defaults = [default.peak_mib for pairs in runs.values() for default, _ in pairs]
    print(f"| `{command}` | {BASELINE[command]} | 1.00 | {statistics.median(defaults):.0f} |", flush=True)
    for (name, value), pairs in runs.items():
        rate = statistics.median(with_it.rate / default.rate for default, with_it in pairs)
        peak = statistics.median(with_it.peak_mib for _, with_it in pairs)
        print(f"| `{command}` | `{name}={value}` | {rate:.2f} | {peak:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.tuning", description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000, help="objects of the simulated cluster (default 10,000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each value is measured (default 3)")
    options = parser.parse_args()
    asyncio.run(measure(options.objects, options.rounds))


if __name__ == "__main__":
    main()
