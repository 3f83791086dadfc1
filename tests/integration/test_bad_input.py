"""What a user can get wrong: one clear line, the documented exit code, no traceback, and soon. And being stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest

from clusterinfo.sandbox.postgres import EmbeddedPostgres
from clusterinfo.sandbox.processes import free_port, give, unprivileged_account
from tests.conftest import TEMPLATE, Database
from tests.integration.brokers import Broker
from tests.integration.test_draining import someone_waits
from tests.support.programs import QUIET, Api, Ended, Program, run, running, simulated_api, started

pytestmark = pytest.mark.embedded_only

WITHIN_S = 120.0
AT_ONCE, STARTING_S = 2, 2.0
"""So many programs start side by side; one that still runs after so many seconds waits for something, 20 s perhaps."""

NOBODY = "127.0.0.1:9"  # the discard port: nobody listens


@dataclass(frozen=True, slots=True)
class Case:
    """A wrong command line or environment, and how it has to end. `says`: what the one error line must contain.

    `env` is laid over one that works; an empty value removes a variable.
    """

    args: tuple[str, ...]
    code: int
    says: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


COLLECT, CONSUME, LEGACY = ("collect", "--once"), ("consume", "--until-idle", "1s"), ("legacy", "--once")

CASES = {
    # settings and arguments: 2
    "a partition that is no number": Case(COLLECT, 2, ("KAFKA_PARTITION", "'x'", "auto"), {"KAFKA_PARTITION": "x"}),
    "a partition the topic lacks": Case(COLLECT, 2, ("KAFKA_PARTITION", "77", "0 to 5"), {"KAFKA_PARTITION": "77"}),
    "a misspelt flag": Case(("collect", "--onse"), 2, ("--onse",)),
    "a misspelt command": Case(("colect",), 2, ("colect",)),
    "an argument too many": Case((*COLLECT, "now"), 2, ("now",)),
    "a flag without its value": Case(("consume", "--batch-size"), 2, ("--batch-size",)),
    "a flag that is no number": Case(("consume", "--batch-size", "many"), 2, ("--batch-size", "'many'")),
    "a batch of nothing": Case(("consume", "--batch-size", "0"), 2, ("--batch-size", "0")),
    "an interval without unit": Case(("collect", "--interval", "5x"), 2, ("--interval", "'5x'", "30s")),
    "an idle time without unit": Case(("consume", "--until-idle", "x"), 2, ("--until-idle", "'x'", "30s")),
    "once and interval": Case(("collect", "--once", "--interval", "5m"), 2, ("--once", "--interval")),
    "a size without unit": Case(COLLECT, 2, ("PAGE_BYTES", "'16'", "16MiB"), {"PAGE_BYTES": "16"}),
    "a boolean that is none": Case(COLLECT, 2, ("KAFKA_ENABLED", "'maybe'"), {"KAFKA_ENABLED": "maybe"}),
    "a port that Kubernetes injected": Case(LEGACY, 2, ("DB_PORT", "tcp://"), {"DB_PORT": "tcp://10.0.0.1:5432"}),
    "a schema name that is none": Case(LEGACY, 2, ("DB_SCHEMA", "a-b"), {"DB_SCHEMA": "a-b"}),
    "an unknown SSL mode": Case(LEGACY, 2, ("DB_SSL_MODE", "'sure'"), {"DB_SSL_MODE": "sure"}),
    "a log level that is none": Case(LEGACY, 2, ("LOG_LEVEL", "'loud'"), {"LOG_LEVEL": "loud"}),
    "a password file that is not there": Case(
        LEGACY,
        2,
        ("DB_PASSWORD_FILE", "No such file or directory"),
        {"DB_PASSWORD_FILE": "/no/such/file", "DB_PASSWORD": ""},
    ),
    "a password given twice": Case(LEGACY, 2, ("DB_PASSWORD_FILE", "set one of them"), {"DB_PASSWORD_FILE": "/x"}),
    "a certificate that is not there": Case(
        LEGACY, 2, ("DB_SSL_ROOT_CERT", "/no/ca.pem"), {"DB_SSL_ROOT_CERT": "/no/ca.pem", "DB_SSL_MODE": "verify-full"}
    ),
    "brokers that are none": Case(COLLECT, 2, ("KAFKA_BROKERS", "a:b:c"), {"KAFKA_BROKERS": "a:b:c"}),
    "SASL without mechanism": Case(
        COLLECT, 2, ("KAFKA_SASL_MECHANISM",), {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}
    ),
    "dead letters that are not named": Case(("dead-letters", "replay"), 2, ("dead-letters list", "--all")),
    "dead letters named twice": Case(("dead-letters", "drop", "1", "--all"), 2, ("--all", "--replayed")),
    "a dead letter that is no number": Case(("dead-letters", "show", "first"), 2, ("ID", "integer")),
    "a dead letter that is not there": Case(("dead-letters", "show", "4711"), 2, ("4711", "dead-letters list")),
    "dead letters to replay that are not there": Case(("dead-letters", "replay", "4711", "12"), 2, ("12, 4711",)),
    "dead letters to drop that are not there": Case(("dead-letters", "drop", "4711"), 2, ("4711",)),
    "an output that is none": Case(("dead-letters", "list", "-o", "xml"), 2, ("xml", "table", "yaml")),
    "nothing to forget": Case(("forget",), 2, ("--cluster",)),
    "forgetting with nobody to ask": Case(("forget", "--cluster", "x"), 2, ("--yes",)),
    "forgetting a cluster that is not there": Case(("forget", "--cluster", "x", "--yes"), 2, ("'x'", "stored are")),
    "consume without Kafka": Case(CONSUME, 2, ("KAFKA_ENABLED",), {"KAFKA_ENABLED": "false"}),
    "no kubeconfig": Case(LEGACY, 2, ("KUBECONFIG",), {"KUBECONFIG": ""}),
    "no kubeconfig, through Kafka": Case(COLLECT, 2, ("KUBECONFIG",), {"KUBECONFIG": ""}),
    "a kubeconfig that is not there": Case(LEGACY, 2, ("KUBECONFIG", "/no/config"), {"KUBECONFIG": "/no/config"}),
    "a kubeconfig that is none": Case(LEGACY, 2, ("KUBECONFIG", "broken"), {"KUBECONFIG": "BROKEN"}),
    "an unknown context": Case(LEGACY, 2, ("KUBE_CONTEXT", "staging", "sandbox"), {"KUBE_CONTEXT": "staging"}),
    "a metrics address that is none": Case(
        ("consume",), 2, ("METRICS_ADDRESS", "'metrics'"), {"METRICS_ADDRESS": "metrics"}
    ),
    "a metrics address in use": Case(("consume",), 2, ("METRICS_ADDRESS", "in use"), {"METRICS_ADDRESS": "IN USE"}),
    # unreachable, refused, no rights: 1
    "an unknown broker": Case(COLLECT, 1, ("KAFKA_BROKERS", NOBODY), {"KAFKA_BROKERS": NOBODY}),
    "an unknown broker's name": Case(
        CONSUME, 1, ("KAFKA_BROKERS", "kafka.invalid"), {"KAFKA_BROKERS": "kafka.invalid:9092"}
    ),
    "an unreachable database": Case(CONSUME, 1, ("DB_HOST", "127.0.0.1:9"), {"DB_PORT": "9"}),
    "an unknown database host": Case(LEGACY, 1, ("DB_HOST", "db.invalid"), {"DB_HOST": "db.invalid"}),
    "a wrong password": Case(LEGACY, 1, ("DB_PASSWORD",), {"DB_PASSWORD": "wrong-but-secret"}),
    "a wrong password of a consumer": Case(CONSUME, 1, ("DB_PASSWORD",), {"DB_PASSWORD": "wrong-but-secret"}),
    "no password": Case(LEGACY, 1, ("DB_PASSWORD",), {"DB_PASSWORD": ""}),
    "an unknown database": Case(LEGACY, 1, ("DB_NAME", "nowhere"), {"DB_NAME": "nowhere"}),
    "a database without rights": Case(LEGACY, 1, ("grant",), {"DB_USER": "RIGHTLESS"}),
    "a database without rights, not migrating": Case(
        (*LEGACY, "--no-migrate"), 1, ("grant",), {"DB_USER": "RIGHTLESS"}
    ),
    "a database without rights, migrating": Case(("migrate",), 1, ("grant",), {"DB_USER": "RIGHTLESS"}),
    "a database without rights, resetting offsets": Case(("offsets", "reset"), 1, ("grant",), {"DB_USER": "RIGHTLESS"}),
    "a database without rights, forgetting": Case(
        ("forget", "--cluster", "x", "--yes"), 1, ("grant",), {"DB_USER": "RIGHTLESS"}
    ),
    "a database without rights, listing dead letters": Case(
        ("dead-letters", "list"), 1, ("grant",), {"DB_USER": "RIGHTLESS"}
    ),
    "dead letters of an unreachable database": Case(("dead-letters", "list"), 1, ("DB_HOST",), {"DB_PORT": "9"}),
    "dead letters of a database that was not migrated": Case(
        ("dead-letters", "replay", "--all"), 1, ("clusterinfo migrate",), {"DB_SCHEMA": "elsewhere"}
    ),
    "forgetting in a database that was not migrated": Case(
        ("forget", "--cluster", "x", "--yes"), 1, ("clusterinfo migrate",), {"DB_SCHEMA": "elsewhere"}
    ),
    "a database that was not migrated": Case(
        (*LEGACY, "--no-migrate"), 1, ("clusterinfo migrate",), {"DB_SCHEMA": "elsewhere"}
    ),
    "an unreachable API server": Case(LEGACY, 1, ("127.0.0.1:9",), {"KUBECONFIG": "UNREACHABLE"}),
    "an unreachable API server, through Kafka": Case(COLLECT, 1, ("127.0.0.1:9",), {"KUBECONFIG": "UNREACHABLE"}),
    "an API server that refuses us": Case(LEGACY, 1, ("401",), {"KUBECONFIG": "REFUSED"}),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything works, and what the cases need that does not. `words`: what capitals in a case stand for."""

    env: dict[str, str]
    words: dict[str, str]
    dsn: str


@pytest.fixture(scope="module")
async def place(
    postgres: EmbeddedPostgres, broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Place]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(postgres.dsn(), timeout=60)
    await admin.execute(f"create database {name} template {TEMPLATE}")
    await admin.execute(f"create role {name} login password '{postgres.password}'")
    await admin.execute(f"revoke all on database {name} from public; grant connect on database {name} to {name}")
    taken = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    async with simulated_api(100) as api:
        files = _kubeconfigs(api, tmp_path_factory.mktemp("kubeconfigs"))
        kafka = {"KAFKA_ENABLED": "true", "KAFKA_BROKERS": broker.bootstrap, "KAFKA_TOPIC_PARTITIONS": "6"}
        kafka |= {"KAFKA_TOPIC": name, "KAFKA_GROUP_ID": name}
        words = {**files, "IN USE": f"127.0.0.1:{port}", "RIGHTLESS": name}
        yield Place(api.env | postgres.env(name) | kafka, words, postgres.dsn(name))
    taken.close()
    await taken.wait_closed()
    await admin.execute(f"drop database {name} with (force)")
    await admin.execute(f"drop role {name}")
    await admin.close()


def _kubeconfigs(api: Api, directory: Path) -> dict[str, str]:
    """Kubeconfigs that do not work, by the word that stands for them."""
    whole = Path(api.kubeconfig).read_text()
    texts = {
        "BROKEN": "{broken",
        "UNREACHABLE": whole.replace(api.url, f"http://{NOBODY}"),
        "REFUSED": whole.replace(api.token, "no-token-of-yours"),
    }
    for name, text in texts.items():
        (directory / name.lower()).write_text(text)
    return {name: str(directory / name.lower()) for name in texts}


@pytest.fixture(scope="module")
async def endings(place: Place) -> AsyncIterator[Callable[[str], Awaitable[Ended]]]:
    """How a case ended. All of them are started by the first who asks, because some take 20 s."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def play(case: Case) -> Ended:
        given = place.env | {name: place.words.get(value, value) for name, value in case.env.items()}
        env = {name: value for name, value in given.items() if value}
        async with AsyncExitStack() as stack:
            async with turns:
                program = await stack.enter_async_context(running(*case.args, env=env))
                with suppress(TimeoutError):
                    return await program.ended(STARTING_S)
            return await program.ended(WITHIN_S)

    tasks: dict[str, asyncio.Task[Ended]] = {}

    async def ending(name: str) -> Ended:
        if not tasks:
            slow_first = sorted(CASES, key=lambda name: CASES[name].code)
            tasks.update((name, asyncio.create_task(play(CASES[name]))) for name in slow_first)
        return await tasks[name]

    yield ending
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("name", CASES)
async def test_one_line_and_the_documented_exit_code(
    name: str, endings: Callable[[str], Awaitable[Ended]], place: Place
) -> None:
    case, ended = CASES[name], await endings(name)
    assert "Traceback" not in ended.stderr + ended.stdout, ended.stderr
    errors = ended.errors()
    assert (ended.code, len(errors)) == (case.code, 1), ended.stderr
    assert ended.stdout == ""
    assert ended.lines()[-1]["msg"] == errors[0], "the error is the last word"
    for text in case.says:
        assert text.lower() in errors[0].lower(), errors[0]
    assert place.env["DB_PASSWORD"] not in ended.stderr
    assert "secret" not in ended.stderr
    assert ended.seconds < WITHIN_S


async def test_a_person_reads_a_line_without_json(place: Place) -> None:
    ended = await run("consume", env=place.env | {"LOG_FORMAT": "console", "KAFKA_ENABLED": "false"})
    assert ended.code == 2
    started, said = ended.stderr.splitlines()
    assert "Started" in started
    assert said.startswith("clusterinfo: KAFKA_ENABLED is false")


# --- a kubeconfig that another user may read --------------------------------------------------------------------------

WITHOUT_PRIVILEGES = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""What takes from root the right to read whatever there is, as `cap_drop` does in a container."""


@pytest.mark.parametrize("hidden", ["file", "folder"])
async def test_a_kubeconfig_of_another_user_is_named_and_the_remedy(hidden: str) -> None:
    account = unprivileged_account()  # None unless we are root
    with tempfile.TemporaryDirectory(prefix="clusterinfo-test-") as directory:
        kubeconfig = Path(directory) / "folder/config"
        kubeconfig.parent.mkdir()
        kubeconfig.write_text("{}")
        unreadable = kubeconfig if hidden == "file" else kubeconfig.parent
        give(unreadable, account)
        unreadable.chmod(0)
        argv = (*(WITHOUT_PRIVILEGES if account else ()), sys.executable, "-m", "clusterinfo", "legacy", "--once")
        async with started(argv, {"KUBECONFIG": str(kubeconfig), "METRICS_ADDRESS": ""}) as program:
            ended = await program.ended()
        unreadable.chmod(0o700)
    (error,) = ended.expect(2).errors()
    assert f"{kubeconfig} is not readable by uid {os.geteuid()};" in error
    assert "Docker Compose: COLLECTOR_UID=$(id -u) docker compose up -d" in error
    assert "Traceback" not in ended.stderr


# --- the metrics address ---------------------------------------------------------------------------------------------


async def test_two_consumers_on_one_machine_do_not_quarrel(database: Database, kafka_env: dict[str, str]) -> None:
    env = database.env | kafka_env | PATIENT
    async with running("consume", env=env) as one, running("consume", env=env) as other:
        await asyncio.gather(one.wait_for_output("Partition claimed"), other.wait_for_output("Partition claimed"))
        ends = [await _stopped(program) for program in (one, other)]
    for ended in ends:
        ended.expect(0)
        # Not "no errors": the embedded broker now and then assigns a member nothing, which aiokafka logs as one.
        assert not [error for error in ended.errors() if "METRICS_ADDRESS" in error]
    warnings = [line for ended in ends for line in ended.logged("METRICS_ADDRESS is ':8080'")]
    assert warnings
    assert {line["level"] for line in warnings} == {"warning"}
    assert all("METRICS_ADDRESS" in line["remedy"] for line in warnings)


async def test_metrics_are_served_where_the_user_says(database: Database, kafka_env: dict[str, str]) -> None:
    port = free_port()
    env = database.env | kafka_env | PATIENT | {"METRICS_ADDRESS": f"127.0.0.1:{port}"}
    async with running("consume", env=env) as program:
        await program.wait_for_output("Partition claimed")
        answers = [await _get(port, path) for path in ("metrics", "livez", "readyz")]
        (await _stopped(program)).expect(0)
    assert all("200 OK" in answer for answer in answers), answers
    assert "clusterinfo_batches_total" in answers[0]


async def _get(port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /{path} HTTP/1.0\r\n\r\n".encode())
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode()


# --- being stopped ---------------------------------------------------------------------------------------------------

SOON_S = 60.0
PATIENT = {"SHUTDOWN_GRACE_S": "100"}
"""Far above SOON_S, which is far above what a busy machine needs."""


async def _stopped(program: Program, number: signal.Signals = signal.SIGTERM) -> Ended:
    began = time.monotonic()
    program.signal(number)
    ended = await program.ended(WITHIN_S)
    assert time.monotonic() - began < SOON_S, f"took {time.monotonic() - began:.1f} s to stop"
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_asked_to_stop_they_drain_and_stop(
    number: signal.Signals, code: int, database: Database, kafka_env: dict[str, str]
) -> None:
    async with simulated_api(100) as api:
        env = api.env | database.env | kafka_env | PATIENT | QUIET

        async def stop(command: str, working: str) -> Ended:
            async with running(command, env=env) as program:
                await program.wait_for_output(working)
                return await _stopped(program, number)

        commands = {"collect": "Snapshot ended", "legacy": "Snapshot ended", "consume": "Partition claimed"}
        for ended in await asyncio.gather(*(stop(*command) for command in commands.items())):
            ended.expect(code)
            assert ended.errors() == []


@pytest.mark.parametrize(("once", "code"), [(("--once",), 1), ((), 0)])
async def test_asked_to_stop_while_nothing_answers_yet_they_do(
    once: tuple[str, ...], code: int, database: Database
) -> None:
    async with simulated_api(24) as api:
        env = api.env | database.env | PATIENT | QUIET | {"DB_PORT": str(free_port())}
        async with running("legacy", *once, env=env) as program:
            await program.wait_for_output("deprecated")
            (await _stopped(program)).expect(code)


@pytest.mark.parametrize(("once", "code"), [(("--once",), 1), ((), 0)])
async def test_stopped_within_a_list_it_proves_nothing(
    once: tuple[str, ...], code: int, database: Database, kafka_env: dict[str, str]
) -> None:
    async with simulated_api(200) as api:
        await api.control("stall", resource="pods", seconds=60, times=None)
        env = api.env | database.env | kafka_env | PATIENT | QUIET

        async def stop(command: str) -> Ended:
            async with running(command, *once, env=env) as program:
                await program.wait_for_output('"List ended"')
                return await _stopped(program)

        for ended in await asyncio.gather(stop("collect"), stop("legacy")):
            ended.expect(code)
    async with _connected(database) as connection:
        rows = await connection.fetch("select resource from freshness where state = 'verified'")
        verified = {row["resource"] for row in rows}
        assert verified, "at least the list whose end was waited for"
        assert "pods" not in verified


async def test_a_second_signal_ends_it_now(database: Database, kafka_env: dict[str, str]) -> None:
    async with simulated_api(200) as api, _connected(database) as blocker:
        env = api.env | database.env | kafka_env | PATIENT | QUIET
        (await run("collect", "--once", env=env)).expect(0)
        async with blocker.transaction():
            await blocker.execute("lock table resource in access exclusive mode")
            async with running("consume", env=env) as program:
                await program.wait_for_output("Partition claimed")
                await someone_waits(blocker)
                program.signal(signal.SIGTERM)
                await asyncio.sleep(1)
                assert program.is_running, "it drains"
                ended = await _stopped(program)
    assert ended.code == 1


@asynccontextmanager
async def _connected(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await database.connect()
    yield connection
    await connection.close()
