"""Every command on a terminal: a result stands alone, a progress display moves and is gone at the end."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
import typer
from aiokafka import AIOKafkaProducer

from clusterinfo.cli import app
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from tests.conftest import fresh_database
from tests.integration.brokers import Broker
from tests.support.programs import QUIET, run, simulated_api
from tests.support.terminal import on_terminal

pytestmark = pytest.mark.embedded_only

CLUSTER = "sandbox"
TOPIC = "on-a-terminal"


@dataclass(frozen=True, slots=True)
class Case:
    """A command line, how its result on stdout begins ("": it has none), its exit code, what is answered to it.

    `form`: what makes scripts read it as JSON.
    """

    args: str
    result: str
    code: int = 0
    typed: str = ""
    env: dict[str, str] = field(default_factory=dict)
    form: str = "-o json"

    @property
    def argv(self) -> list[str]:
        return self.args.split()


RESULTS = [
    Case("--version", r"clusterinfo \d", form=""),
    Case("migrate", "", form=""),
    Case("migrate --print-grants", "-- ", form=""),
    Case("completion bash", "_clusterinfo_completion", form=""),
    Case(
        "status", r"needs attention\n(  .+\n)+\nCLUSTER +AGE +KINDS +FOLLOWED +OBJECTS +LAST RUN( +WORST)?( +WHY)?\n", 3
    ),
    Case("status --kinds -o wide", r"needs attention\n(  .+\n)+\nCLUSTER +VERSION +AGE +KINDS +STATES ", 3),
    Case("doctor consume", r"\d of \d+ checks failed\n", 1, env={"DB_PORT": "1"}),  # whatever else is late
    Case("offsets reset", r"(no offsets (.*\n)+)?forgot the offsets of 0 partitions", env={"KAFKA_TOPIC": "another"}),
    Case("dead-letters list", r"ID +AGE +OBJECT +REASON\n *1 "),
    Case("dead-letters show 1", "id: 1"),
    Case("dead-letters show 1 --raw", r'\{"hello": "world"\}', form=""),
    Case("dead-letters replay 1", r"ID +RESULT +REASON\n *1 +refused +[a-z]", 1),
    Case("dead-letters drop --replayed", "dropped 0 dead letters"),
    Case("clusters list", r"CLUSTER +TOPIC +VERSION +OBJECTS +LAST SEEN\nsandbox +on-a-terminal "),
    Case(f"clusters move {CLUSTER} --topic {TOPIC}", f"cluster {CLUSTER} belongs to topic {TOPIC} now"),
    Case(f"clusters rename {CLUSTER} {CLUSTER}", f"cluster {CLUSTER} is shown as {CLUSTER} now"),
    Case(f"forget --cluster {CLUSTER} --resource services --yes", "forgot services of cluster sandbox: 1 kinds"),
    Case("rbac", "# What the collector may do: read"),
    Case("rbac --discover -o table", r"KIND +NAMESPACE +NAME +RESOURCES\nClusterRole +<none> +\w", form=""),
]
PROGRESS = [
    Case("collect --once", ""),
    Case("consume --until-idle 1s", ""),
    Case("legacy --once", "", env={"KAFKA_ENABLED": "false"}),
]
"""Commands that take their time, and show how far they are."""
ELSEWHERE = "demo"
"""The command that test_demo looks at on a terminal."""
FAR = {"collect": r"listing sandbox: \d+/\d+ kinds, ", "consume": r"\d+ partitions?, lag [\d,]+, [\d,]+/s"}
"""What is said of it."""
ASKING = Case(f"forget --cluster {CLUSTER} --resource secrets", "", typed="y\n")


def named(case: Case) -> str:
    return case.args


TRIES = [(case, pipe) for case in PROGRESS for pipe in (False, True)]
"""Each command that shows progress, and whether its stdout is a pipe."""


def commands(group: Any, *path: str) -> Iterator[str]:
    """The commands of the typer app, as one types them."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield " ".join((*path, name))


@pytest.fixture(scope="module")
async def env(postgres: EmbeddedPostgres, broker: Broker) -> AsyncIterator[dict[str, str]]:
    """A cluster that is stored by way of Kafka, and a stranger's message as dead letter 1."""
    kafka = {
        "KAFKA_ENABLED": "true",
        "KAFKA_BROKERS": broker.bootstrap,
        "KAFKA_TOPIC": TOPIC,
        "KAFKA_PARTITION": "auto",
    }
    async with simulated_api(60, 12) as api, fresh_database(postgres) as database:
        env = api.env | database.env | kafka | QUIET | {"KAFKA_GROUP_ID": TOPIC, "BATCH_WAIT": "100ms"}
        (await run("collect", "--once", env=env)).expect(0)
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
            await producer.send_and_wait(TOPIC, b'{"hello": "world"}')
        (await run("consume", "--until-idle", "1s", env=env)).expect(0)
        yield env


def test_every_command_is_tried() -> None:
    """A new one has to be given a case above."""
    known = {ELSEWHERE, *(case.args for case in (*RESULTS, *PROGRESS))}
    lacking = [
        command
        for command in commands(typer.main.get_command(app))
        if not any(args == command or args.startswith(f"{command} ") for args in known)
    ]
    assert lacking == []


@pytest.mark.parametrize("case", RESULTS, ids=named)
async def test_a_result_stands_alone(case: Case, env: dict[str, str]) -> None:
    shown = await on_terminal(*case.argv, env=env | case.env)
    assert shown.code == case.code, shown.terminal
    assert shown.moves == [], shown.terminal
    assert re.match(case.result, "\n".join(shown.screen())), shown.terminal


@pytest.mark.parametrize("case", RESULTS, ids=named)
async def test_a_result_goes_to_a_pipe_whole(case: Case, env: dict[str, str]) -> None:
    """With stderr on the terminal still, as in `clusterinfo status -o json | jq`."""
    argv = f"{case.args} {case.form}".replace("services", "configmaps").split()  # nothing is forgotten twice
    shown = await on_terminal(*argv, env=env | case.env, pipe=True)
    assert shown.code == case.code, shown.terminal
    assert shown.moves == [], shown.terminal
    assert bool(shown.piped) is bool(case.result)
    if case.form:
        assert isinstance(orjson.loads(shown.piped), dict | list)
    else:
        assert re.match(case.result, shown.piped), shown.piped


async def test_a_question_is_asked_and_answered(env: dict[str, str]) -> None:
    shown = await on_terminal(*ASKING.argv, env=env, typed=ASKING.typed)
    assert shown.code == 0, shown.terminal
    assert shown.moves == [], shown.terminal
    question, answer, *_ = shown.screen()
    assert question == "Delete secrets of cluster 'sandbox', history included? [y/N]: y"
    assert answer.startswith("forgot secrets of cluster sandbox: 1 kinds"), shown.terminal


async def test_log_lines_are_to_be_had_on_a_terminal(env: dict[str, str]) -> None:
    shown = await on_terminal("collect", "--once", env=env | {"LOG_FORMAT": "json"})
    assert (shown.code, shown.moves) == (0, []), shown.terminal
    lines = [orjson.loads(line) for line in shown.terminal.splitlines()]
    assert "Snapshot ended" in {line["msg"] for line in lines}
    failed = await on_terminal("dead-letters", "show", "4711", env=env | {"LOG_FORMAT": "json"})
    assert orjson.loads(failed.terminal)["level"] == "error"


@pytest.mark.parametrize(("case", "pipe"), TRIES, ids=[named(case) + " > pipe" * pipe for case, pipe in TRIES])
async def test_progress_is_shown_and_gone_at_the_end(case: Case, pipe: bool, env: dict[str, str]) -> None:
    shown = await on_terminal(*case.argv, env=env | case.env, pipe=pipe, timeout_s=120)
    assert shown.code == case.code, shown.terminal
    assert shown.passing_progress, shown.terminal
    assert re.search(FAR.get(case.argv[0], ""), shown.terminal), shown.terminal
    assert shown.piped == ""
