"""Nursery: programs that start in milliseconds, because a process that has imported everything forks them.

A start of the executable costs a second of processor time, nearly all of it imports; hundreds of kills would be mostly
that. A program out of the nursery is a process like any other: its own pid, sockets, event loop, environment, output.

`python -m tests.faults.forkserver` is that process: it takes a request as a line of JSON on stdin and answers with the
pid. Between the two stands a process that ends at once, so that the program becomes a child of whoever asked (prctl(2),
PR_SET_CHILD_SUBREAPER), who alone can wait for it.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn, Self

from tests.support.programs import Program, environment

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
IMPORTED = (
    "tests.faults.program", "clusterinfo.commands.pipelines", "clusterinfo.kafka.consumer.group",
    "clusterinfo.kafka.producer",
    "clusterinfo.telemetry.logs", "kubernetes_asyncio.client", "kubernetes_asyncio.config", "aiohttp.web",
)  # fmt: skip
POLL_S = 0.01
END_S = 5.0


class Forked:
    """What a `Program` needs of `subprocess.Popen`, of a child that was forked elsewhere."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} still runs after {timeout} s")
            time.sleep(POLL_S)
        return code


class _Born(Program):
    """A program whose process is there already."""

    def __init__(self, pid: int, argv: tuple[str, ...], directory: Path) -> None:
        self.argv = argv
        self._out, self._err = directory / "stdout", directory / "stderr"
        self._began = time.monotonic()
        self._peak_kib = 0
        self._child: Any = Forked(pid)


class Nursery:
    """`with Nursery() as nursery: program = nursery.launch(argv, env, directory)`: of `tests.faults.program` alone."""

    def __enter__(self) -> Self:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._mother = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pipe(self._mother.stdin).close()
        self._mother.wait(END_S)
        self._pipe(self._mother.stdout).close()

    def launch(self, argv: tuple[str, ...], env: Mapping[str, str], directory: Path) -> Program:
        """`python -m tests.faults.program` with what follows that in `argv`, in `directory`."""
        arguments = argv[argv.index("tests.faults.program") + 1 :]
        request = {"arguments": arguments, "env": environment(env, directory), "directory": str(directory)}
        into = self._pipe(self._mother.stdin)
        into.write(json.dumps(request).encode() + b"\n")
        into.flush()
        pid = int(self._pipe(self._mother.stdout).readline())
        return _Born(pid, argv, directory)

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe


def _serve() -> None:
    """Fork a program for every line on stdin."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    asked_by = os.getppid()
    for line in sys.stdin.buffer:
        told, tell = os.pipe()
        if os.fork() == 0:
            if child := os.fork():
                os.write(tell, b"%d" % child)
                os._exit(0)
            _grow(json.loads(line), asked_by)
        os.wait()
        print(os.read(told, 20).decode(), flush=True)
        os.close(told)
        os.close(tell)


def _grow(request: Mapping[str, Any], asked_by: int) -> NoReturn:
    """Become the program. Never returns to the loop of the nursery."""
    code = 1
    try:
        directory = Path(request["directory"])
        for number, path, flags in (
            (0, Path(os.devnull), os.O_RDONLY),
            (1, directory / "stdout", os.O_WRONLY | os.O_CREAT),
            (2, directory / "stderr", os.O_WRONLY | os.O_CREAT),
        ):
            os.dup2(os.open(path, flags, 0o644), number)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(directory)
        sys.argv = ["clusterinfo", *request["arguments"]]
        while os.getppid() != asked_by:  # else it would die with the process between (PR_SET_PDEATHSIG)
            time.sleep(0.001)
        from tests.faults import program

        program.main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - what the interpreter does with it in a program of its own
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
