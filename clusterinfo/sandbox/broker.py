"""A Kafka-compatible broker of our own for `clusterinfo demo` and the tests: `noida-db`, its other services off.

For development only: it keeps its data in memory and writes all of it to one file every second and on SIGTERM (0.2.3,
measured), so that a kill loses what was confirmed since; and it never evicts a group member that died without a word.
The binary is run itself, since the package's Python wrapper forwards no signals.
"""

import asyncio
import importlib.util
import signal
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from clusterinfo.sandbox.processes import (
    Account,
    PrivateDirectory,
    Process,
    SandboxError,
    free_port,
    give,
    is_reachable,
    unprivileged_account,
)

START_TIMEOUT_S = 20.0
START_ATTEMPTS = 3  # another process may take the port between finding and using it

_STOP_SIGNALS = {"graceful": signal.SIGTERM, "kill": signal.SIGKILL}


def find_binary() -> Path:
    """The `noida-db` executable. Raises SandboxError if the package is not installed."""
    spec = importlib.util.find_spec("noida_db")
    if spec is None or spec.origin is None:
        raise SandboxError("no broker to start: install clusterinfo[sandbox]")
    return Path(spec.origin).with_name("noida-db")


class EmbeddedBroker:
    """`async with EmbeddedBroker() as broker:` runs a broker on 127.0.0.1 until the block ends.

    Attributes: `host`, `port`, `bootstrap` (`host:port`), `log` (a file).
    """

    def __init__(self) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self._account: Account | None = None
        self._directory: PrivateDirectory | None = None
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        account = unprivileged_account()
        # It does not insist on an ordinary user, so root serves where an ordinary user cannot reach the binary.
        self._account = account if account and is_reachable(find_binary(), account) else None
        self._directory = PrivateDirectory("broker", self._account)
        try:
            self.data.mkdir()
            give(self.data, self._account)
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
        """Everything of this broker on disk. Raises SandboxError outside the `async with` block."""
        if self._directory is None:
            raise SandboxError("this broker is not running: use it inside `async with`")
        return self._directory.path

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The broker's process id; None while stopped."""
        return self._process.pid if self._process else None

    def env(self) -> dict[str, str]:
        """The KAFKA_* variable that makes `clusterinfo` use this broker."""
        return {"KAFKA_BROKERS": self.bootstrap}

    async def start(self) -> None:
        """Start again after `stop`, on the same port and data; returns when it accepts connections.

        Raises SandboxError with the end of its log if it does not within 20 s.
        """
        if self._process is not None:
            raise SandboxError(f"the broker (pid {self._process.pid}) runs already")
        argv: list[str | Path] = [find_binary(), "start", "--data-dir", self.data, "--host", self.host]
        argv += ["--only", "kafka", "--kafka-port", str(self.port)]
        self._process = Process.start("noida-db", argv, log=self.log, cwd=self.directory, account=self._account)
        try:
            await self._process.wait_ready(self._accepts_connections, START_TIMEOUT_S)
        except BaseException:
            await self.stop("kill")
            raise

    async def stop(self, mode: Literal["graceful", "kill"] = "graceful") -> None:
        """Stop the broker. `graceful` saves its data; `kill` loses what was confirmed in the last second."""
        process, self._process = self._process, None
        if process is not None:
            await process.stop(_STOP_SIGNALS[mode])

    async def _close(self) -> None:
        try:
            await self.stop("kill")
        finally:
            if self._directory is not None:
                self._directory.remove()
                self._directory = None

    async def _first_start(self) -> None:
        for attempt in range(1, START_ATTEMPTS + 1):
            self.port = free_port()
            try:
                return await self.start()
            except SandboxError as error:
                if attempt == START_ATTEMPTS or "in use" not in str(error):
                    raise
        return None

    async def _accepts_connections(self) -> bool:
        try:
            async with asyncio.timeout(5):
                _, writer = await asyncio.open_connection(self.host, self.port)
                writer.close()
                await writer.wait_closed()
        except OSError:  # TimeoutError is one
            return False
        return True
