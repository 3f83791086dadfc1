"""What each setting does to speed and memory, beside its default, all in one run: `python -m tests.tuning`.

The settings of docs/TUNING.md. Medians of ratios: each run of a value has one of the default beside it, before it or
after it alternately, so that a busy moment of the machine falls on both.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
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
TOPIC = "knobs"
"""What consumers read."""
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


Measured = Callable[[Servers, tuple[str, str]], Awaitable[Run]]
"""A run of a command with a setting at a value."""


def variants(knobs: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """Each setting with each of its values."""
    for name, values in knobs.items():
        for value in values:
            yield name, value


def setting(knob: tuple[str, str]) -> dict[str, str]:
    return {} if knob == DEFAULT else {knob[0]: knob[1]}


async def collected(bench: Servers, knob: tuple[str, str]) -> Run:
    env = bench.env(f"collect-{uuid.uuid4().hex[:8]}", "postgres") | setting(knob)
    ended = (await run("collect", "--once", env=env, timeout_s=TIMEOUT_S)).expect(0)
    line = ended.logged("Snapshot ended")[0]
    return Run(line["objects"] / line["seconds"], ended.peak_mib)


async def consumed(bench: Servers, knob: tuple[str, str]) -> Run:
    env = bench.env(TOPIC, await bench.fresh()) | WAIT | setting(knob)
    ended = (await run("consume", "--until-idle", "2s", env=env, timeout_s=TIMEOUT_S)).expect(0)
    return Run(stored(ended).rate, ended.peak_mib)


async def measure(objects: int, rounds: int) -> None:
    """A line of the table for each value, as soon as it is known."""
    async with servers(objects) as bench:
        await compare("collect", collected, bench, COLLECT, rounds)
        (await run("collect", "--once", env=bench.env(TOPIC, "postgres"), timeout_s=TIMEOUT_S)).expect(0)
        await compare("consume", consumed, bench, CONSUME, rounds)


async def compare(
    command: str, of: Measured, bench: Servers, knobs: Mapping[str, tuple[str, ...]], rounds: int
) -> None:
    peaks: list[float] = []
    for knob in variants(knobs):
        pairs = [as_pair([await of(bench, one) for one in in_turns(knob, n)], n) for n in range(rounds)]
        peaks += [default.peak_mib for default, _ in pairs]
        show(command, knob, pairs)
    print(f"| `{command}` | {BASELINE[command]} | 1.00 | {statistics.median(peaks):.0f} |", flush=True)


def in_turns(knob: tuple[str, str], n: int) -> tuple[tuple[str, str], tuple[str, str]]:
    return (knob, DEFAULT) if n % 2 else (DEFAULT, knob)


def as_pair(both: list[Run], n: int) -> tuple[Run, Run]:
    """(default, value)."""
    return (both[1], both[0]) if n % 2 else (both[0], both[1])


def show(command: str, knob: tuple[str, str], pairs: Sequence[tuple[Run, Run]]) -> None:
    rate = statistics.median(with_it.rate / default.rate for default, with_it in pairs)
    peak = statistics.median(with_it.peak_mib for _, with_it in pairs)
    print(f"| `{command}` | `{knob[0]}={knob[1]}` | {rate:.2f} | {peak:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.tuning", description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000, help="objects of the simulated cluster (default 10,000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each value is measured (default 3)")
    options = parser.parse_args()
    asyncio.run(measure(options.objects, options.rounds))


if __name__ == "__main__":
    main()
