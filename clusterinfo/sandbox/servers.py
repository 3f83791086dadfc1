"""What the sandbox's servers have in common: a private directory, a process in it, a port, a beginning and an end."""

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from clusterinfo.sandbox.processes import Account, PrivateDirectory, Process, SandboxError, free_port

START_ATTEMPTS = 3  # another process may take the port between finding and using it


class Server:
    """`async with` runs the server on 127.0.0.1 until the block ends; nothing of it is left afterwards.

    Attributes: `host`, `port`. A kind of server sets the class variables and implements `_choose_account`, `_prepare`,
    `_command` and `_is_ready`.
    """

    label: ClassVar[str]
    """Its name in messages."""
    program: ClassVar[str]
    """Name of its process and of its directory."""
    port_taken: ClassVar[str]
    """What its log contains when another process has its port."""
    start_timeout_s: ClassVar[float]
    kill_signal: ClassVar[signal.Signals] = signal.SIGKILL
    """Ends it at once."""
    death_signal: ClassVar[signal.Signals] = signal.SIGTERM
    """What it gets when its parent dies."""

    def __init__(self) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self._account: Account | None = None
        self._directory: PrivateDirectory | None = None
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        self._account = self._choose_account()
        self._directory = PrivateDirectory(self.program, self._account)
        try:
            await self._prepare()
            await self._first_start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    @property
    def directory(self) -> Path:
        """Everything of this server on disk. Raises SandboxError outside the `async with` block."""
        if self._directory is None:
            raise SandboxError(f"this {self.label} is not running: use it inside `async with`")
        return self._directory.path

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def pid(self) -> int | None:
        """The server's process id; None while stopped."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start again after `stop`, on the same port and data; returns when it answers.

        Raises SandboxError with the end of its log if it does not in time.
        """
        if self._process is not None:
            raise SandboxError(f"this {self.label} (pid {self._process.pid}) runs already")
        self._process = Process.start(
            self.program,
            self._command(),
            log=self.log,
            cwd=self.directory,
            account=self._account,
            death_signal=self.death_signal,
        )
        try:
            await self._process.wait_ready(self._is_ready, self.start_timeout_s)
        except BaseException:
            await self._end(self.kill_signal)
            raise

    async def _end(self, number: signal.Signals, grace_s: float = 10) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.stop(number, grace_s=grace_s)

    async def _first_start(self) -> None:
        for attempt in range(1, START_ATTEMPTS + 1):
            self.port = free_port()
            try:
                return await self.start()
            except SandboxError as error:
                if attempt == START_ATTEMPTS or self.port_taken not in str(error):
                    raise
        return None

    async def _close(self) -> None:
        try:
            await self._end(self.kill_signal)
        finally:
            if self._directory is not None:
                self._directory.remove()
                self._directory = None

    def _choose_account(self) -> Account | None:
        """Whom it runs as; None: as we do."""
        raise NotImplementedError

    async def _prepare(self) -> None:
        """Make what it needs in its directory before the first start."""
        raise NotImplementedError

    def _command(self) -> Sequence[str | Path]:
        """The program and its arguments."""
        raise NotImplementedError

    async def _is_ready(self) -> bool:
        """True once it answers; polled until then."""
        raise NotImplementedError


async def accepts_connections(host: str, port: int) -> bool:
    """True if a TCP connection can be made within 5 s."""
    try:
        async with asyncio.timeout(5):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            await writer.wait_closed()
    except OSError:  # TimeoutError is one
        return False
    return True
