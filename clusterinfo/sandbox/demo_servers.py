"""What the demo runs on: PostgreSQL, a broker, and the simulated Kubernetes API as a process of its own.

Knows how to start them, what the executable needs in its environment to reach them, and how to request
operations, and the truth, from the simulated API.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import orjson

from clusterinfo.sandbox.broker import EmbeddedBroker
from clusterinfo.sandbox.postgres import EmbeddedPostgres, find_binaries
from clusterinfo.sandbox.processes import PrivateDirectory, Process, SandboxError
from clusterinfo.settings import Settings

SCHEMA = "clusterinfo"
API_TIMEOUT_S = 120.0  # 500,000 objects take about a minute to make
CONTROL_TIMEOUT_S = 30.0
QUERY_TIMEOUT_S = 60.0
CHECKS, CHECK_S = 10, 0.1

_NONE = (None, Path())

ObjectKey = tuple[str, str, str, str, str, str]
"""(group, resource, namespace, name, uid, resourceVersion)"""
Control = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Has the simulated API perform an operation. Raises SandboxError if it does not."""


@dataclass(frozen=True, slots=True)
class SimulatedApi:
    """The simulated Kubernetes API. `authority`: the CA certificate to trust (PEM). `count`: objects it held at its
    start."""

    process: Process
    kubeconfig: Path
    url: str
    token: str
    authority: str
    count: int

    async def objects(self) -> set[ObjectKey]:
        """What it holds now."""
        async with self._session() as session:
            text = await self._control(session, "GET", "/objects")
        return {tuple(orjson.loads(line)) for line in text.splitlines()}

    @asynccontextmanager
    async def control(self) -> AsyncIterator[Control]:
        """What has it do something: operations by name, see `kubernetes/control.py`. On one connection."""
        async with self._session() as session:

            async def perform(command: Mapping[str, Any]) -> None:
                await self._control(session, "POST", "", orjson.dumps(command))

            yield perform

    def _session(self) -> aiohttp.ClientSession:
        headers = {"Authorization": f"Bearer {self.token}"}
        timeout = aiohttp.ClientTimeout(total=CONTROL_TIMEOUT_S)
        trusting = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=self.authority))
        return aiohttp.ClientSession(headers=headers, timeout=timeout, raise_for_status=True, connector=trusting)

    async def _control(
        self, session: aiohttp.ClientSession, method: str, path: str, body: bytes | None = None
    ) -> bytes:
        try:
            async with session.request(method, f"{self.url}/_control{path}", data=body) as response:
                return await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise SandboxError(f"the simulated Kubernetes API did not carry out a request: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Servers:
    """Everything that runs. `environment`: what makes `clusterinfo` use it, of which `ours` are not the user's.
    `directory`: for logs, gone afterwards."""

    postgres: EmbeddedPostgres
    broker: EmbeddedBroker
    api: SimulatedApi | None
    directory: Path
    environment: Mapping[str, str]
    ours: frozenset[str]

    def write_environment(self) -> Path:
        """A file for a shell to `source`: then clusterinfo, psql and kubectl reach what runs here.

        It holds passwords, and lies in a directory that only we can enter.
        """
        postgres = self.postgres
        variables = {
            "PGHOST": postgres.host,
            "PGPORT": str(postgres.port),
            "PGDATABASE": postgres.database,
            "PGUSER": postgres.user,
            "PGPASSWORD": postgres.password,
            "PGOPTIONS": f"-c search_path={SCHEMA}",
        }
        variables |= {name: value for name, value in self.environment.items() if name in self.ours}
        lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())]
        # Those of the user come before the server's psql, and after the program that runs here.
        here, tools = shlex.quote(str(Path(sys.executable).parent)), shlex.quote(str(find_binaries()))
        lines.append(f'export PATH={here}:"$PATH":{tools}')
        path = self.directory / "env"
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n")
        return path

    def check(self) -> None:
        """Raises SandboxError, with the end of its log, if one of them has ended."""
        for name, pid, log in (
            ("PostgreSQL", self.postgres.pid, self.postgres.log),
            ("the broker", self.broker.pid, self.broker.log),
            ("the simulated Kubernetes API", *((self.api.process.pid, self.api.process.log) if self.api else _NONE)),
        ):
            if pid is not None and _has_ended(pid):
                raise SandboxError(f"{name} has ended; its log ends: {last_lines(log)}")

    async def _check_until_gone(self) -> None:
        """`check`, with time for a server to be gone: whoever is connected to it may know first."""
        for _ in range(CHECKS):
            self.check()
            await asyncio.sleep(CHECK_S)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection that finds the views. Raises SandboxError for whatever fails on it inside the block."""
        try:
            connection = await asyncpg.connect(
                self.postgres.dsn(),
                ssl=False,
                timeout=10,
                command_timeout=QUERY_TIMEOUT_S,
                server_settings={"search_path": SCHEMA, "timezone": "UTC"},
            )
            try:
                yield connection
            finally:
                connection.terminate()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:  # TimeoutError is an OSError
            await self._check_until_gone()
            raise SandboxError(f"PostgreSQL did not answer the demo: {error!r}") from error


@asynccontextmanager
async def start_servers(objects: int, context: str | None, environment: Mapping[str, str]) -> AsyncIterator[Servers]:
    """Start them all and end them when the block ends. With `context` there is no simulated API.

    `environment`: the user's. Raises SandboxError if one does not start.
    """
    async with AsyncExitStack() as stack:
        directory = PrivateDirectory("demo", None)
        stack.callback(directory.remove)
        making = None if context is not None else _start_api(objects, directory.path)
        if making:
            stack.push_async_callback(making.stop)
        postgres = await stack.enter_async_context(EmbeddedPostgres())
        broker = await stack.enter_async_context(EmbeddedBroker())
        api = await _announced(making, directory.path) if making else None
        kubernetes = _simulated_environment(api) if api else {"KUBE_CONTEXT": context or ""}
        # A child that is killed leaves its temporary files: the kubeconfig's CA certificate is one.
        temporary = {"TMPDIR": str(directory.path)}
        ours = {**postgres.env(), **broker.env(), **kubernetes}
        children = child_environment(environment, {**ours, **temporary}, simulated=bool(api))
        yield Servers(postgres, broker, api, directory.path, children, frozenset(_FOR_OTHERS | {*ours}))


_ALWAYS = {
    "KAFKA_ENABLED": "true",
    "KAFKA_PARTITION": "auto",
    "KAFKA_TOPIC_PARTITIONS": "6",
    "METRICS_ADDRESS": "",
    "LOG_LEVEL": "warning",
    "LOG_FORMAT": "console",
    "SHUTDOWN_GRACE_S": "5",
}
_FOR_OTHERS = frozenset(_ALWAYS) - {"LOG_LEVEL", "SHUTDOWN_GRACE_S"} | {"REDACTION_KEY"}
"""What somebody beside the demo's own processes needs as well."""


def child_environment(user: Mapping[str, str], ours: Mapping[str, str], *, simulated: bool) -> dict[str, str]:
    """The user's variables but for those that would lead elsewhere, and ours.

    What the user sets for Kubernetes and for collecting applies to a cluster of their own, not to a simulated one.
    Without a REDACTION_KEY of theirs a random one: a changed Secret is then seen to have changed.
    """
    settings = {*_ALWAYS, *ours, *((name.upper() for name in Settings.model_fields) if simulated else ())}
    theirs = {
        name: value
        for name, value in user.items()
        if not name.startswith(("KAFKA_", "DB_")) and name.removesuffix("_FILE") not in settings
    }
    key = {} if {"REDACTION_KEY", "REDACTION_KEY_FILE"} & set(theirs) else {"REDACTION_KEY": secrets.token_hex(16)}
    return {**theirs, **key, **_ALWAYS, **ours}


def _simulated_environment(api: SimulatedApi) -> dict[str, str]:
    """What leads to the simulated API; no proxy of the user's stands in between, as none does for kubectl."""
    return {"KUBECONFIG": str(api.kubeconfig), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def last_lines(log: Path, count: int = 3) -> str:
    """The last lines of a log, as one."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return " | ".join(line.removeprefix("clusterinfo: ").strip() for line in lines[-count:]) or "(nothing)"


def _start_api(objects: int, directory: Path) -> Process:
    argv: list[str | Path] = [sys.executable, "-m", "clusterinfo.sandbox.kubernetes", "--objects", str(objects)]
    argv += ["--tls", "--context", "demo", "--kubeconfig", directory / "kubeconfig"]
    return Process.start("the simulated Kubernetes API", argv, log=directory / "api.log", cwd=Path.cwd())


async def _announced(process: Process, directory: Path) -> SimulatedApi:
    """The API once it has printed that it serves."""

    async def announced() -> bool:
        return process.log.read_bytes().endswith(b"}\n")

    await process.wait_ready(announced, API_TIMEOUT_S)
    ready = orjson.loads(process.log.read_bytes().splitlines()[-1])
    return SimulatedApi(
        process, directory / "kubeconfig", ready["url"], ready["token"], ready["authority"], ready["objects"]
    )


def _has_ended(pid: int) -> bool:
    """Whether a child of ours has exited; leaves it to its owner to be awaited."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
