"""`clusterinfo doctor`: asks every end the settings use whether it would do, side by side. A composition root.

Each examination is in the package of what it examines, and has a deadline of its own. All are over within 5 s.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from clusterinfo.commands.output import Column, Line, Output, Result, Table, show
from clusterinfo.errors import ClusterinfoError, ConfigError
from clusterinfo.exit_codes import EXIT_DONE, EXIT_STOPPED
from clusterinfo.findings import Finding, Findings, State
from clusterinfo.observations import Observe
from clusterinfo.settings import Settings, near_misses

CONNECT_S = 3.0
"""To reach an end: by then the reason why it is not reached is known."""
WITHIN_S = 4.5
"""For all that is asked of an end."""
END_S = 0.2
"""For what was cancelled to close its connections; twice, since that may wait for an answer itself."""

KUBERNETES, KAFKA, POSTGRESQL = "Kubernetes", "Kafka", "PostgreSQL"
USED = {"collect": (KUBERNETES, KAFKA), "consume": (KAFKA, POSTGRESQL), "legacy": (KUBERNETES, POSTGRESQL)}
"""Command -> the ends it needs."""

COLUMNS = (
    Column[Finding]("CHECK", lambda one: one.check),
    Column[Finding]("STATE", lambda one: one.state),
    Column[Finding]("FOUND", lambda one: one.found),
)


async def examine(settings: Settings, _: Observe, command: str | None, *, output: Output) -> int:
    """Print how every check came out; 1 if one failed. `command`: only what that one needs."""
    examined = [Findings(check=end) for end in ends(settings, command)]
    tasks = [asyncio.create_task(_examined(settings, command, findings)) for findings in examined]
    await asyncio.wait(tasks, timeout=WITHIN_S)
    for findings, task in zip(examined, tasks, strict=True):
        if not task.done():
            findings.fail(f"no answer within {WITHIN_S:g} s")
    await _end(tasks)
    lines = [*of_variables(os.environ), *(line for findings in examined for line in findings.lines)]
    show(result(lines), output)
    return EXIT_STOPPED if any(line.state is State.FAILED for line in lines) else EXIT_DONE


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel what still runs; raise what was no error of ours."""
    for _ in range(2):
        if late := [task for task in tasks if not task.done() and task.cancel()]:
            await asyncio.wait(late, timeout=END_S)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.result()


async def _examined(settings: Settings, command: str | None, findings: Findings) -> None:
    try:
        await _examination(settings, command, findings)
    except ClusterinfoError as error:
        findings.fail(error)


def _examination(settings: Settings, command: str | None, findings: Findings) -> Coroutine[Any, Any, None]:
    """Of the end that `findings` are about."""
    match findings.check:
        case "Kubernetes":
            from clusterinfo.kubernetes import diagnosis as kubernetes

            return kubernetes.examine(settings, findings, CONNECT_S)
        case "Kafka":
            from clusterinfo.kafka import diagnosis as kafka

            use = kafka.Use(sends=command != "consume", reads=command != "collect")
            return kafka.examine(settings, use, findings, CONNECT_S)
        case _:
            from clusterinfo.postgres.admin import diagnosis as postgres

            return postgres.examine(settings, findings, CONNECT_S)


def ends(settings: Settings, command: str | None) -> list[str]:
    """What `command` needs, or whatever the settings use. Raises ConfigError where they forbid the command."""
    if command == "consume":
        if settings.was_set("kafka_enabled") and not settings.kafka_enabled:
            raise ConfigError("KAFKA_ENABLED is false, and `clusterinfo consume` reads from Kafka: set it to true")
        return [*USED[command]]
    if not settings.kafka_enabled:
        return [*USED["legacy"]]
    return [*USED[command]] if command else [KUBERNETES, KAFKA, POSTGRESQL]


def of_variables(environment: Mapping[str, str]) -> list[Finding]:
    """A warning for each variable that is misspelt, most likely."""
    return [
        Finding("environment", State.WARNING, f"{name} is set, and nothing reads it", f"did you mean {meant}?")
        for name, meant in near_misses(environment).items()
    ]


def result(lines: Sequence[Finding]) -> Result:
    """The verdict, what is to be done, and all checks; one record each."""
    failed = [line for line in lines if line.state is State.FAILED]
    warned = [line for line in lines if line.state is State.WARNING]
    unknown = sum(line.state is State.UNKNOWN for line in lines)
    page: list[Line | Table[Finding]] = [_verdict(len(lines), len(failed), len(warned), unknown)]
    page += [Line(f"  {line.check}: {line.found}" + f"; {line.remedy}" * bool(line.remedy)) for line in failed + warned]
    page += [Line(""), Table(COLUMNS, lines, "no checks")]
    records = [dataclasses.asdict(line) for line in lines]
    return Result(page, records, records, [line.check for line in lines if line.state is State.FAILED])


def _verdict(checks: int, failed: int, warned: int, unknown: int) -> Line:
    if failed:
        return Line(f"{failed} of {checks} checks failed", "red")
    passed = f"{checks - unknown} of {checks}" if unknown else f"all {checks}"
    counted = f", {unknown} unknown" * bool(unknown) + f", {warned} with a warning" * bool(warned)
    return Line(f"{passed} checks passed{counted}", "yellow" if warned else "green")
