"""Fork server: programs that start in milliseconds, because a process that has imported everything forks them.

A start of the executable costs a second of processor time, nearly all of it imports; hundreds of starts would be mostly
that. A forked program is a process like any other, with a pid, sockets, an environment and output of its own, and an
interpreter that ends as always, but for not taking apart what the server has imported. Only its memory is not its own:
what that has imported counts. A release in a wheel, which PYTHONPATH names, has a server of its own.

`python -m tests.support.forkserver` is that server: it takes a request as a line of JSON on stdin, and answers with the
pid. Only a parent can wait for a process, so between the two stands a keeper that does, and writes into a file how the
program ended. Everything dies with whoever asked: the server at the end of its stdin, keepers and programs with it.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn, Self

from tests.support.programs import EXECUTABLE, Launching, Program, environment, read_by

ROOT = Path(__file__).parents[2]
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
MODULES = ("clusterinfo", "clusterinfo.sandbox.kubernetes", "tests.faults.program")
"""What is forked as `python -m MODULE`, beside the executable."""
BESIDE = (
    "_strptime", "aiohttp.web", "importlib.readers", "pydantic.type_adapter", "yaml",
)  # fmt: skip
"""What programs import of others only when they need it."""
ENDED = "ended"
"""The file in a program's directory that holds its exit code once it has ended."""
TUNED = "TESTS_TUNED"
"""Variable of a program's environment: JSON, constants of the product by their full names, and what they are to be."""
POLL_S = 0.01
END_S = 60.0


class Forked:
    """What a `Program` needs of `subprocess.Popen`, of a process whose keeper waits for it."""

    def __init__(self, pid: int, ended: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended

    def poll(self) -> int | None:
        if self.returncode is None and self._ended.exists():
            self.returncode = int(self._ended.read_text())
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                self.wait(END_S)  # it has ended, and its keeper is about to say so

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} still runs after {timeout} s")
            time.sleep(POLL_S)
        return code


class ForkedProgram(Program):
    """A program whose process is there already."""

    def __init__(self, pid: int, argv: tuple[str, ...], directory: Path) -> None:
        self.argv = argv
        self._out, self._err = directory / "stdout", directory / "stderr"
        self._began = time.monotonic()
        self._peak_kib = 0
        self._child: Any = Forked(pid, directory / ENDED)


class ForkServer:
    """`with ForkServer() as server: server.launch(argv, env, directory)`. It starts with the first launch."""

    def __init__(self) -> None:
        self._servers: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for server in self._servers.values():
            self._pipe(server.stdin).close()
            server.wait(END_S)
            self._pipe(server.stdout).close()

    def launch(self, argv: tuple[str, ...], env: Mapping[str, str], directory: Path) -> Program:
        """Fork what can be forked; start the rest, and what brings modules of its own, as it is."""
        path = env.get("PYTHONPATH", str(ROOT))
        if not is_forkable(argv) or not (path == str(ROOT) or path.endswith(".whl")):
            return Program(argv, env, directory)
        if path not in self._servers:
            self._servers[path] = self._start(path)
        server = self._servers[path]
        for name in ("stdout", "stderr"):  # they may be read before the program has come to open them
            (directory / name).touch()
        request = {"argv": argv, "env": environment(env, directory), "directory": str(directory)}
        into = self._pipe(server.stdin)
        into.write(json.dumps(request).encode() + b"\n")
        into.flush()
        return ForkedProgram(int(self._pipe(server.stdout).readline()), argv, directory)

    def _start(self, path: str) -> subprocess.Popen[bytes]:
        # safe: what is imported is not looked for in the working directory first, where today's program lies
        env = environment({"PYTHONPATH": f"{path}{os.pathsep}{ROOT}", "PYTHONSAFEPATH": "1"}, Path("/"))
        argv = [sys.executable, "-m", __name__]
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=env)

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe


@contextlib.contextmanager
def forking() -> Iterator[ForkServer]:
    """Programs are forked, whatever does not say `launch=Program`, until the block ends."""
    with ForkServer() as server:
        Launching.launch = server.launch
        try:
            yield server
        finally:
            Launching.launch = Program


def is_forkable(argv: tuple[str, ...]) -> bool:
    """True for the executable, and for `python -m` one of MODULES."""
    return argv[0] == str(EXECUTABLE) or (argv[:2] == (sys.executable, "-m") and argv[2] in MODULES)


# --- the server ------------------------------------------------------------------------------------------------------


def serve() -> Any:
    """Fork a program for every line on stdin. Returns the request, in the program alone."""
    import_everything()
    gc.freeze()
    keepers = 0
    for line in sys.stdin.buffer:
        keepers += 1
        if os.fork() == 0:
            request = json.loads(line)
            die_with_parent()
            if program := os.fork():
                _keep(program, Path(request["directory"]))
            die_with_parent()
            return request
        while keepers and os.waitpid(-1, os.WNOHANG)[0]:
            keepers -= 1
    sys.exit()


def import_everything() -> None:
    """All modules of the release that PYTHONPATH names, and what they would import later."""
    release = importlib.import_module("clusterinfo")
    found = [name for _, name, _ in pkgutil.walk_packages(release.__path__, "clusterinfo.") if "__main__" not in name]
    for name in (*found, *BESIDE):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            if ".whl" not in os.environ["PYTHONPATH"]:  # else it needs the sandbox, which is left out of that wheel
                raise


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _keep(program: int, directory: Path) -> None:
    """Wait for the program's end and write it down. Never returns."""
    print(program, flush=True)
    _, status = os.waitpid(program, 0)
    written = directory / f"{ENDED}.new"
    written.write_text(str(os.waitstatus_to_exitcode(status)))
    written.rename(directory / ENDED)
    os._exit(0)


def become(request: Mapping[str, Any]) -> None:
    """Be the program that was asked for, from its first line to its last."""
    directory, argv = Path(request["directory"]), request["argv"]
    for number, path, flags in (
        (0, read_by(directory), os.O_RDONLY),
        (1, directory / "stdout", os.O_WRONLY),
        (2, directory / "stderr", os.O_WRONLY),
    ):
        os.dup2(os.open(path, flags | os.O_NOCTTY), number)
    os.environ.clear()
    os.environ.update(request["env"])
    _tune(json.loads(os.environ.pop(TUNED, "{}")))
    os.chdir(directory)
    try:
        if argv[0] == str(EXECUTABLE):
            sys.argv = argv
            runpy.run_path(argv[0], run_name="__main__")
        else:
            sys.argv = argv[2:]
            runpy.run_module(argv[2], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        _end(end)
    _end(SystemExit())


def _tune(constants: Mapping[str, Any]) -> None:
    for name, value in constants.items():
        module, _, constant = name.rpartition(".")
        getattr(sys.modules[module], constant)  # one that is there no more would tune nothing
        setattr(sys.modules[module], constant, value)


def _end(end: SystemExit) -> NoReturn:
    """End as the interpreter does, warnings of what was left open included, but leave to the kernel what was imported
    before the fork: to take it apart costs as much as all the rest of a short program."""
    if end.code is not None and not isinstance(end.code, int):
        raise end
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((end.code or 0) & 0xFF)


if __name__ == "__main__":
    become(serve())
