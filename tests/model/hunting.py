"""Running histories on a bench, drawn by a plain generator, which is fast, or by hypothesis, which shrinks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

import asyncpg
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from clusterinfo.postgres.migrations import migrate
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from clusterinfo.settings import load
from tests.model.bench import Bench
from tests.model.draws import drawn, strategies
from tests.model.guards import Guard
from tests.model.machine import History
from tests.model.mutations import without
from tests.model.rules import OPENING, RULES, Rule

STEPS = 6
"""Rules a history: with the final lists some 10 to 15 batches."""

SERVER = {
    "deadlock_timeout": "100ms", "autovacuum": "off", "synchronous_commit": "off", "jit": "off",
    "max_parallel_workers_per_gather": "0", "shared_buffers": "32MB", "bgwriter_lru_maxpages": "0",
}  # fmt: skip
"""Nothing here is to outlive the server, and tables are small."""


@dataclass(frozen=True)
class Bias:
    """Other than usual: the scenes each history opens with, how many rules follow."""

    scenes: tuple[str, ...] = ()
    steps: int = STEPS
    opening: Mapping[str, Any] = field(default_factory=dict)


USUAL = Bias()


def play(bench: Bench, random: Random, bias: Bias = USUAL) -> None:
    """One history, drawn from `random`. What fails tells which rules led to it."""
    history = History(bench)
    steps: list[str] = []

    def happen(name: str, given: Mapping[str, Any]) -> None:
        steps.append(f"history.{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})")
        getattr(history, name)(**given)

    try:
        happen("begin", {**drawn(OPENING, random), **bias.opening})
        for scene in bias.scenes:
            happen("scene", {"name": scene, "seed": random.randrange(1 << 16)})
        for _ in range(bias.steps):
            possible = [name for name, rule in RULES.items() if rule.possible(history)]
            name = random.choices(possible, [RULES[name].weight for name in possible])[0]
            happen(name, drawn(RULES[name].draws, random))
        history.end()
    except BaseException as error:
        for line in steps:
            error.add_note(line)
        raise


def numbered(seed: int, number: int) -> Random:
    """What history `number` of a run with that seed is drawn from."""
    return Random(f"{seed}/{number}")


def find(bench: Bench, guard: Guard, scene: str, numbers: Iterable[int], seed: int = 0) -> int:
    """How many of these histories with that scene it takes to notice that the guard is gone; 0: all pass."""
    with without(guard):
        for tried, number in enumerate(numbers, start=1):
            try:
                play(bench, numbered(seed, number), Bias((scene,), steps=1))
            except Exception:  # noqa: BLE001 - what a merge without it comes to may be an error as well
                return tried
            finally:
                bench.finish()
    return 0


def run_drawn(bench: Bench, histories: int, *, seed: int | None = None, shrinks: bool = True) -> None:
    """So many histories drawn by hypothesis; without a seed the same ones each time. Raises Violation."""
    machine = _machine(bench)
    if seed is not None:
        seeded(seed)(machine)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=histories,
            stateful_step_count=STEPS,
            derandomize=seed is None,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink] if shrinks else [Phase.generate],
        ),
    )


class _Machine(RuleBasedStateMachine):
    """A history as hypothesis wants it; `_machine` adds the rules."""

    bench: Bench

    def __init__(self) -> None:
        super().__init__()
        self.history = History(self.bench)
        self.begun = False

    def teardown(self) -> None:
        """The end, unless something failed before."""
        if self.begun and not sys.exc_info()[0]:
            self.history.end()


def _machine(bench: Bench) -> type[_Machine]:
    def begin(self: _Machine, **given: Any) -> None:
        self.history.begin(**given)
        self.begun = True

    rules = {name: _rule(name, rule) for name, rule in RULES.items()}
    initialized: Any = initialize(**cast(Any, strategies(OPENING)))
    opening = initialized(begin)
    return type("Machine", (_Machine,), {"bench": bench, "begin": opening, **rules})


def _rule(name: str, what: Rule) -> Callable[..., None]:
    def happen(self: _Machine, **given: Any) -> None:
        getattr(self.history, name)(**given)

    happen.__name__ = name
    possible = precondition(lambda self: self.begun and bool(what.possible(self.history)))
    drawn_for: Any = rule(**cast(Any, strategies(what.draws)))
    return cast(Callable[..., None], possible(drawn_for(happen)))


@contextmanager
def on_a_server() -> Iterator[Bench]:
    """A bench on a PostgreSQL of its own."""
    loop = asyncio.new_event_loop()
    server = EmbeddedPostgres(SERVER)
    loop.run_until_complete(server.__aenter__())
    try:
        loop.run_until_complete(_migrate(server.dsn()))
        flags = {name.lower(): value for name, value in server.env().items()}
        bench = Bench(server.dsn(), load({}, **flags))
        bench.run(bench.open())
        try:
            yield bench
        finally:
            bench.shut()
    finally:
        loop.run_until_complete(server.__aexit__(None, None, None))
        loop.close()


async def _migrate(dsn: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=60)
    try:
        await migrate(connection, "clusterinfo")
    finally:
        await connection.close()
