"""Settings -> a pool of connections. Every wait has a deadline.

Every new connection logs in with the credentials of that moment: a password's file is read again, and so are
certificates. A login that is refused although an earlier one was not is tried again for five minutes: whoever changes a
password cannot change it everywhere at once.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import asyncpg

from clusterinfo.errors import ClusterinfoError, ConfigError, FatalError, TransientError, one_line, quoted_path
from clusterinfo.postgres import timestamps
from clusterinfo.postgres.connection import Connection, Pool
from clusterinfo.postgres.errors import FOREIGN, READ_ONLY, Next, next_after, server_message, translate
from clusterinfo.settings import Settings
from clusterinfo.waiting import retried_within

FIRST_CONNECTION_S = 20.0
CONNECT_TIMEOUT_S = 10.0
ACQUIRE_FIRST_S = 20.0
"""Of a pool that was just opened, or that one command has to itself."""
LOGIN_RETRIED_S = 300.0
_REFUSED_TLS = "rejected SSL upgrade"  # asyncpg's message when the server answers N to SSLRequest; it has no class
COMMAND_TIMEOUT_S = 90.0
"""Longer than the server's own statement timeout, which gives the better message."""
MOST_QUERIES = 1_000_000
"""Of a connection before it is replaced, which takes as long as many small batches; hours of them."""
CANCEL_TIMEOUT_S = 10.0
"""Between cancelling a command and closing its connection, unless the server answers."""


def connection_arguments(settings: Settings) -> dict[str, object]:
    """`asyncpg.connect` arguments; a certificate file that cannot be read is a ConfigError."""
    files = {
        "sslrootcert": ("DB_SSL_ROOT_CERT", settings.db_ssl_root_cert),
        "sslcert": ("DB_SSL_CERT", settings.db_ssl_cert),
        "sslkey": ("DB_SSL_KEY", settings.db_ssl_key),
    }
    query: dict[str, str] = {"sslmode": settings.db_ssl_mode}
    for option, (variable, path) in files.items():
        if path is not None:
            if not _is_file(path):
                found = "a file that is not there" if option == "sslkey" else f"{quoted_path(path)}, which is no file"
                raise ConfigError(f"{variable} names {found}: expected a PEM file")
            query[option] = str(path)
    _check_certificates(settings)
    return {
        "dsn": f"postgresql:///?{urlencode(query)}",
        "host": settings.db_host,
        "port": settings.db_port,
        "user": settings.db_user,
        "password": partial(settings.secret, "db_password") if settings.db_password else None,
        "database": settings.db_name,
        "timeout": CONNECT_TIMEOUT_S,
        "command_timeout": COMMAND_TIMEOUT_S,
        "statement_cache_size": settings.db_statement_cache,
        "max_cached_statement_lifetime": 0,  # for ever: what is prepared stays the same, and its plan
        "target_session_attrs": "read-write",
        "server_settings": {"application_name": "clusterinfo"},
    }


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name: what belongs into the file, most likely
        return False


def _check_certificates(settings: Settings) -> None:
    """Try the files as asyncpg will: it would not name the one that is wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if (root := settings.db_ssl_root_cert) is not None:
        with _naming("DB_SSL_ROOT_CERT", root):
            context.load_verify_locations(root)
    if (certificate := settings.db_ssl_cert) is not None:
        with _naming("DB_SSL_CERT (with DB_SSL_KEY)", certificate):
            context.load_cert_chain(certificate, settings.db_ssl_key)
    elif settings.db_ssl_key is not None:
        raise ConfigError("DB_SSL_KEY is set, but DB_SSL_CERT is not: a key needs its certificate")


@contextmanager
def _naming(variable: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"{variable} names {quoted_path(path)}, which cannot be used: {one_line(error)}") from error


class _Logins:
    """Connects for a pool, and knows for how long the login has been refused."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._has_succeeded = False
        self._refused_since_s: float | None = None

    async def connect(self, *arguments: object, **named: object) -> asyncpg.Connection:
        """`asyncpg.connect`, but TransientError for a refusal that may pass. Raises what asyncpg raises otherwise."""
        try:
            connection = await asyncpg.connect(*arguments, **named)
        except FOREIGN as error:
            if next_after(error) is Next.LOG_IN_AGAIN and self._may_pass():
                raise TransientError(
                    f"PostgreSQL refuses the login ({server_message(error)}); the credentials are read again for "
                    f"{LOGIN_RETRIED_S:g} s; check DB_USER and DB_PASSWORD or its file"
                ) from error
            raise
        self._has_succeeded, self._refused_since_s = True, None
        return connection

    def _may_pass(self) -> bool:
        now_s = self._clock()
        if self._refused_since_s is None:
            self._refused_since_s = now_s
        return self._has_succeeded and now_s - self._refused_since_s < LOGIN_RETRIED_S


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg is untyped
    """A connection that is closed if the server does not even answer that a command was cancelled.

    asyncpg waits for that answer as long as for the command itself, and lets nothing else, such as a rollback, pass
    before: on a connection that is half-open, that is another 90 s.
    """

    def _cancel_current_command(self, waiter: asyncio.Future[None], cancel_waiter: asyncio.Future[None]) -> None:
        super()._cancel_current_command(waiter, cancel_waiter)
        self._loop.call_later(CANCEL_TIMEOUT_S, self._close_unless, cancel_waiter)

    async def close(self, *, timeout: float | None = None) -> None:
        """asyncpg's own, which aborts the connection of a server that does not answer in time: there is nothing to do
        about that, and the pool, which closes what has expired in a task that it forgets, would have it logged."""
        with suppress(TimeoutError):
            await super().close(timeout=timeout)

    def _close_unless(self, answered: asyncio.Future[None]) -> None:
        if not answered.done() and not self.is_closed():
            self.terminate()


async def _keep(connection: asyncpg.Connection) -> None:
    """Nothing is to be reset when a connection goes back to the pool: settings and locks are those of transactions."""


async def prepare_connection(connection: asyncpg.Connection) -> None:
    """Let jsonb pass as the bytes it is, in COPY too: a version byte and the text. Times are those of `timestamps`."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=lambda body: b"\x01" + body, decoder=lambda raw: raw[1:], format="binary"
    )
    await connection.set_type_codec(
        "timestamptz", schema="pg_catalog", encoder=timestamps.encode, decoder=timestamps.decode, format="binary"
    )


@asynccontextmanager
async def open_pool(settings: Settings, within_s: float | None = None) -> AsyncIterator[Pool]:
    """A pool of at most DB_POOL_SIZE connections.

    The first connection is tried for `within_s`, or FIRST_CONNECTION_S; then, or at once where trying again cannot
    help, FatalError in one line.
    """
    arguments = connection_arguments(settings)
    pool = await _first_connection(settings, arguments, within_s or FIRST_CONNECTION_S)
    try:
        yield pool
    finally:
        await _close(pool)


async def ping(pool: Pool) -> None:
    """Return if PostgreSQL answers, or is busy with all the pool's connections. Raises as `translate` does."""
    if pool.get_size() == pool.get_max_size() and not pool.get_idle_size():
        return  # those who borrowed them find out by themselves
    try:
        async with pool.acquire() as connection:
            await connection.fetchval("select 1")
    except FOREIGN as error:
        raise translate(error, "checking whether it answers") from error


async def present(connection: Connection) -> dt.datetime:
    """The database's clock, which its dates were made by. Raises as `translate` does."""
    try:
        now: dt.datetime = await connection.fetchval("select now()")
    except FOREIGN as error:
        raise translate(error, "asking for the time") from error
    return now


async def _first_connection(settings: Settings, arguments: dict[str, object], within_s: float) -> asyncpg.Pool:
    where, logins = f"at {settings.db_host}:{settings.db_port}", _Logins()

    async def connect() -> asyncpg.Pool:
        try:
            return await asyncpg.create_pool(
                min_size=0,  # nothing reconnects in the background: what fails is seen by its caller
                init_size=1,
                max_size=settings.db_pool_size,
                init=prepare_connection,
                reset=_keep,
                max_queries=MOST_QUERIES,
                connect=logins.connect,
                connection_class=_Connection,
                **arguments,
            )
        except FOREIGN as error:
            raise _first_failure(error, settings, where) from error

    try:
        return await retried_within(within_s, connect, pause_s=1)
    except TimeoutError as error:
        failure = error.__cause__  # the last attempt's, behind which is what asyncpg raised; None: no attempt ended
        last = failure.__cause__ if failure else None
        raise _unreachable(last, settings, where, within_s) from (last or error)


def _unreachable(error: BaseException | None, settings: Settings, where: str, within_s: float) -> FatalError:
    """What ends a first connection when its time is over."""
    if isinstance(error, READ_ONLY):
        return FatalError(
            f"PostgreSQL {where}: {server_message(error)}; name the primary in DB_HOST, or promote this server"
        )
    certificate = ", and that it accepts the certificate in DB_SSL_CERT" if settings.db_ssl_cert else ""
    return FatalError(
        f"PostgreSQL {where} cannot be reached: {str(error or '').strip() or f'no answer within {within_s:g} s'}; "
        f"check DB_HOST and DB_PORT, and that the server runs{certificate}"
    )


def _first_failure(error: BaseException, settings: Settings, where: str) -> ClusterinfoError:
    """What a failed first connection means: TransientError, or what trying again would not help against."""
    mode = f"DB_SSL_MODE is {settings.db_ssl_mode}"
    if isinstance(error, asyncpg.ClientConfigurationError):  # the one that our own checks leave to asyncpg
        return ConfigError(f"{mode}: {one_line(error)}; set DB_SSL_ROOT_CERT to the CA certificates (PEM)")
    if isinstance(error, ssl.SSLError):
        remedy = "check DB_HOST against the server's certificate, and DB_SSL_ROOT_CERT"
        return FatalError(f"PostgreSQL {where}: no TLS connection, and {mode}: {one_line(error)}; {remedy}")
    if isinstance(error, ConnectionError) and _REFUSED_TLS in str(error):
        return FatalError(f"PostgreSQL {where} has no TLS, but {mode}; switch it on there (`ssl = on`)")
    return translate(error, f"connecting {where}")


async def _close(pool: asyncpg.Pool) -> None:
    try:
        async with asyncio.timeout(5):
            await pool.close()
    except TimeoutError:
        pool.terminate()
