"""Programs as their users run them: `clusterinfo` and the simulated API as processes of their own.

A program gets only the environment it is given (no HOME of ours, no in-cluster variables), writes to files, so that no
pipe can fill up (or to what these are links to: see `tests.support.terminal`), and is ended by its id when its block
ends. Its peak memory is VmHWM, read while it runs: what `getrusage` says of a child counts what its parent held at the
fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

JSON = dict[str, Any]

EXECUTABLE = Path(sysconfig.get_path("scripts")) / "clusterinfo"
POLL_S = 0.02
QUIET = {"METRICS_ADDRESS": ""}
NO_AUTHORITIES = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
"""What makes OpenSSL trust nobody by default. No test trusts the authorities that a machine comes with, and to read
them costs tens of milliseconds of processor time: each client of Kubernetes does, and aiohttp as it is imported."""
PATIENCE_S = 150.0
"""What hangs is waited for so long; what merely shares its cores with ten others takes a minute for what is seconds."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: exit code (negative: a signal), output, seconds, peak resident memory in MiB."""

    args: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    seconds: float
    peak_mib: float

    def lines(self) -> list[JSON]:
        """The log lines, each JSON. Raises for anything else on stderr."""
        return [orjson.loads(line) for line in self.stderr.splitlines()]

    def logged(self, message: str) -> list[JSON]:
        """The log lines whose `msg` is or begins with `message`."""
        return [line for line in self.lines() if line["msg"].startswith(message)]

    def errors(self) -> list[str]:
        """The messages of level error or worse."""
        return [line["msg"] for line in self.lines() if line["level"] in ("error", "critical")]

    def expect(self, code: int = 0) -> Ended:
        """Itself, if it ended with `code`; else fails with what it printed."""
        assert self.code == code, f"{self.args} ended with {self.code}, not {code}:\n{self.stderr[-4000:]}"
        return self


class Program:
    """One running process. Use `async with running(...)`, or `run` for one that ends by itself."""

    def __init__(self, argv: tuple[str, ...], env: Mapping[str, str], directory: Path) -> None:
        self.argv = argv
        self._out, self._err = directory / "stdout", directory / "stderr"
        self._began = time.monotonic()
        self._peak_kib = 0
        with read_by(directory).open("rb") as into, self._out.open("wb") as out, self._err.open("wb") as err:
            self._child = subprocess.Popen(
                argv, stdin=into, stdout=out, stderr=err, cwd=directory, env=environment(env, directory)
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child.poll() is None

    def stdout(self) -> str:
        return self._out.read_text()

    def stderr(self) -> str:
        return self._err.read_text()

    def signal(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    async def ended(self, timeout_s: float = PATIENCE_S) -> Ended:
        """Wait until it ends. Raises TimeoutError, with the end of its output."""
        await self._until(lambda: self._child.poll() is not None, timeout_s, "end")
        seconds = time.monotonic() - self._began
        args = self.argv[1:]
        return Ended(args, self._child.returncode, self.stdout(), self.stderr(), seconds, self._peak_kib / 1024)

    async def wait_for_output(self, text: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until `text` stands on stderr. Raises TimeoutError, AssertionError if it ends before."""

        def is_printed() -> bool:
            if text in self.stderr():
                return True
            assert self._child.poll() is None, f"{self.argv[1:]} ended without saying {text!r}:\n{self.stderr()}"
            return False

        await self._until(is_printed, timeout_s, f"say {text!r}")

    async def prints(self, timeout_s: float = PATIENCE_S) -> str:
        """Wait for the first line on stdout."""

        def printed() -> bool:
            assert self._child.poll() is None, f"{self.argv[1:]} ended with nothing on stdout:\n{self.stderr()}"
            return "\n" in self.stdout()

        await self._until(printed, timeout_s, "print")
        return self.stdout().splitlines()[0]

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Block until it ends; the exit code. Raises TimeoutError."""
        try:
            return int(self._child.wait(timeout_s))
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(str(error)) from error

    def kill(self) -> None:
        """End it now, if it still runs."""
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait(60)

    async def _until(self, reached: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not reached():
            self._look_at_memory()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.argv[1:]} did not {what} within {timeout_s} s:\n{self.stderr()[-4000:]}")
            await asyncio.sleep(POLL_S)

    def _look_at_memory(self) -> None:
        with contextlib.suppress(OSError, StopIteration, IndexError):
            status = Path(f"/proc/{self.pid}/status").read_text()
            line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
            self._peak_kib = max(self._peak_kib, int(line.split()[1]))


def read_by(directory: Path) -> Path:
    """What a program in that directory has as stdin: nothing, unless a file `stdin` is there."""
    return path if (path := directory / "stdin").exists() else Path(os.devnull)


def environment(env: Mapping[str, str], home: Path) -> dict[str, str]:
    """A plain environment: nothing of ours but what finds programs and tells them how to write."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "LANG", "PYTHONPATH") if name in os.environ}
    return kept | NO_AUTHORITIES | {"HOME": str(home), "PYTHONUNBUFFERED": "1"} | dict(env)


def tuned(constants: Mapping[str, float]) -> dict[str, str]:
    """Environment of a program with other constants, by their full names; the fork server sees to it."""
    return {"TESTS_TUNED": orjson.dumps(dict(constants)).decode()}


NO_KAFKA = tuned({"clusterinfo.kafka.probe.CONNECT_TIMEOUT_S": 3})
"""A Kafka that is not there is not waited for, as long as 20 s."""


Launch = Callable[[tuple[str, ...], Mapping[str, str], Path], Program]


class Launching:
    """How programs are started unless a caller says otherwise: each by itself, or by `tests.support.forkserver`."""

    launch: Launch = staticmethod(Program)


@contextlib.asynccontextmanager
async def started(
    argv: tuple[str, ...], env: Mapping[str, str], launch: Launch | None = None
) -> AsyncIterator[Program]:
    """Any program, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="clusterinfo-test-") as directory:
        program = (launch or Launching.launch)(argv, env, Path(directory))
        try:
            yield program
        finally:
            program.kill()


@contextlib.asynccontextmanager
async def running(*args: str, env: Mapping[str, str], launch: Launch | None = None) -> AsyncIterator[Program]:
    """`clusterinfo ARGS`, until the block ends."""
    async with started((str(EXECUTABLE), *args), env, launch) as program:
        yield program


async def run(*args: str, env: Mapping[str, str], timeout_s: float = PATIENCE_S, launch: Launch | None = None) -> Ended:
    """`clusterinfo ARGS` until it ends by itself. `launch=Program`: started as its users start it, never forked."""
    async with running(*args, env=env, launch=launch) as program:
        return await program.ended(timeout_s)


async def run_all(*commands: tuple[str, ...], env: Mapping[str, str], timeout_s: float = PATIENCE_S) -> list[Ended]:
    """Several at once."""
    return list(await asyncio.gather(*(run(*args, env=env, timeout_s=timeout_s) for args in commands)))


@dataclass(frozen=True, slots=True)
class Api:
    """A simulated Kubernetes API in a process of its own."""

    url: str
    token: str
    kubeconfig: str
    uid: str
    program: Program

    @property
    def env(self) -> dict[str, str]:
        """What makes `clusterinfo` list it."""
        return {"KUBECONFIG": self.kubeconfig}

    async def control(self, op: str, **arguments: object) -> Any:
        """Ask for a change or a fault; see `clusterinfo/sandbox/kubernetes/control.py`."""
        body = orjson.dumps({"op": op, **arguments})
        async with self._session() as session, session.post(f"{self.url}/_control", data=body) as response:
            answer = await response.json()
            assert response.status == 200, answer
            return answer["result"]

    async def canaries(self) -> list[str]:
        """Every secret text planted."""
        found = await self._get("/_control/canaries")
        assert isinstance(found, list)
        return found

    async def revision(self) -> int:
        return int((await self._get("/_control"))["revision"])

    async def get(self, path: str) -> Any:
        """An ordinary answer of the API."""
        return await self._get(path)

    async def _get(self, path: str) -> Any:
        async with self._session() as session, session.get(self.url + path) as response:
            assert response.status == 200, await response.text()
            return orjson.loads(await response.read())

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self.token}"}, timeout=aiohttp.ClientTimeout(total=60)
        )


EMPTY = (
    "events", "events.events.k8s.io", "componentstatuses", "leases.coordination.k8s.io",  # left out on purpose
    "jobs.batch", "controllerrevisions.apps", "endpoints", "limitranges", "networkpolicies.networking.k8s.io",
    "roles.rbac.authorization.k8s.io",
)  # fmt: skip
"""Kinds that the simulated API serves whether or not there are any. Every list of an empty kind is like the next, and a
cluster has forty of them: three quarters of what a run of lists over a few dozen objects would cost."""


@contextlib.asynccontextmanager
async def simulated_api(objects: int, kinds: int | None = None, *args: str) -> AsyncIterator[Api]:
    """`python -m clusterinfo.sandbox.kubernetes` with that many objects, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="clusterinfo-test-api-") as directory:
        kubeconfig = f"{directory}/kubeconfig"
        argv = [sys.executable, "-m", "clusterinfo.sandbox.kubernetes", "--objects", str(objects)]
        argv += ["--kubeconfig", kubeconfig, "--empty", ",".join(EMPTY)]
        argv += [*(["--kinds", str(kinds)] if kinds else []), *args]
        async with started(tuple(argv), {}) as program:
            ready = orjson.loads(await program.prints(timeout_s=PATIENCE_S + objects / 500))
            yield Api(ready["url"], ready["token"], kubeconfig, ready["uid"], program)
