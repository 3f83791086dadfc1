"""asyncpg's exceptions as ours: the table of what each SQLSTATE means for the caller.

Source of the classes: PostgreSQL manual, appendix A, "PostgreSQL Error Codes".
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import asyncpg

from clusterinfo.errors import ClusterinfoError, FatalError, TransientError, one_line


class Next(Enum):
    """What to do after an error."""

    RETRY = "do the same again, after a pause"
    BISECT = "do the same again, with half of the batch"
    DEAD_LETTER = "the data was refused, not the statement: find the record by bisection and dead-letter it"
    LOG_IN_AGAIN = "read the credentials again; after the first connection for five minutes, before it not at all"
    HALT = "nothing the program can do will help: stop with one line"


SQLSTATES: Final = {
    "08": Next.RETRY,  # connection exception
    "22": Next.DEAD_LETTER,  # data exception
    "25006": Next.RETRY,  # read-only: a standby, until the primary is found
    "25P03": Next.RETRY,  # idle in transaction for too long
    "25P04": Next.RETRY,  # the transaction took too long
    "28": Next.LOG_IN_AGAIN,  # refused login
    "40001": Next.RETRY,  # serialization failure
    "40003": Next.RETRY,  # statement completion unknown
    "40P01": Next.RETRY,  # deadlock
    "53": Next.RETRY,  # out of disk, memory, connections
    "54": Next.DEAD_LETTER,  # program limit exceeded: too deep, too large
    "55006": Next.RETRY,  # object in use
    "55P03": Next.RETRY,  # lock not available in time
    "57014": Next.BISECT,  # the statement took too long
    "57P01": Next.RETRY,  # the server is shut down
    "57P02": Next.RETRY,  # it crashed
    "57P03": Next.RETRY,  # it starts up or recovers
    "57P05": Next.RETRY,  # idle for too long
    "58": Next.RETRY,  # I/O error of the server's system
    # What halts is named too where it is expected: our tables, our statements, a database that is not the one.
    "0A": Next.HALT,  # feature not supported
    "21000": Next.HALT,  # one row named twice in an upsert
    "23": Next.HALT,  # a constraint of our own tables
    "26": Next.HALT,  # no such prepared statement: a pooler between
    "3D": Next.HALT,  # no such database
    "3F": Next.HALT,  # no such schema
    "42": Next.HALT,  # no rights, no such table or column
}
"""SQLSTATE, or what it begins with -> what to do; the longest entry that fits decides."""

OTHERWISE: Final = Next.HALT
"""For a SQLSTATE without an entry: it is our bug, or the server's; to stop with a message is better than to spin."""

RETRIED = (
    *(OSError, TimeoutError, asyncpg.PostgresConnectionError),
    asyncpg.InterfaceError,  # asyncpg issue 956
    asyncpg.InternalClientError,  # bytes that make no sense, and a server that does not let us write
    asyncpg.ReadOnlySQLTransactionError,  # after a failover: the primary is found by connecting again
)
"""What calls for a new connection: this one is lost, fails, or leads to the wrong server."""

READ_ONLY = asyncpg.TargetServerAttributeNotMatched
"""What asyncpg raises, with the name of a constant, when it connects to a server that takes no writes."""

FOREIGN = (asyncpg.PostgresError, *RETRIED)
"""Everything asyncpg may raise that `translate` takes."""

POOLER = "behind a pooler in transaction mode set DB_STATEMENT_CACHE=0, or use PgBouncer 1.21 or later"

REMEDIES = {
    "26": POOLER,
    "42P05": POOLER,
    "28000": "check DB_USER, DB_SSL_MODE and DB_SSL_CERT against pg_hba.conf on the server",
    "28": "check DB_USER and DB_PASSWORD, and pg_hba.conf on the server",
    "3D": "check DB_NAME, or create the database",
    "42501": "grant the rights, or let the owner run `clusterinfo migrate`",
    "3F": "check DB_SCHEMA, or run `clusterinfo migrate`",
    "42P01": "run `clusterinfo migrate`",
    "42703": "run `clusterinfo migrate`",
    "42883": "run `clusterinfo migrate`",
}


def next_step(sqlstate: str) -> Next:
    """What to do after an error with this SQLSTATE (5 characters)."""
    fitting = (SQLSTATES[sqlstate[:length]] for length in (5, 2) if sqlstate[:length] in SQLSTATES)
    return next(fitting, OTHERWISE)


def next_after(error: BaseException) -> Next:
    """What to do after an exception of asyncpg or of the network; one without SQLSTATE is a lost connection."""
    if state := getattr(error, "sqlstate", None):
        return next_step(state)
    return Next.RETRY if isinstance(error, RETRIED) else OTHERWISE


def is_of_the_record(error: BaseException) -> bool:
    """True if PostgreSQL refused the data it was given, not the statement."""
    return isinstance(error, asyncpg.PostgresError) and next_after(error) is Next.DEAD_LETTER


def is_timeout(error: BaseException) -> bool:
    """True if a statement met the server's statement timeout."""
    return next_after(error) is Next.BISECT


def server_message(error: BaseException) -> str:
    """The server's message, or what the network reports, in one line; never DETAIL, which quotes the data."""
    if isinstance(error, READ_ONLY):
        return "the server is read-only: a standby, or default_transaction_read_only is on"
    if isinstance(error, asyncpg.PostgresError):
        return one_line(getattr(error, "message", None) or type(error).__name__)  # its text has DETAIL in it
    return one_line(error)


def translate(error: BaseException, doing: str) -> ClusterinfoError:
    """`error` as ours, for one line: what was being done, PostgreSQL's message, what to do.

    What the caller does not bisect (`Next.BISECT`) is retried; a refused login, or data that cannot be dead-lettered,
    halts.
    """
    message = f"PostgreSQL, {doing}: {server_message(error)}"
    if next_after(error) in (Next.RETRY, Next.BISECT):
        return TransientError(message)
    state = getattr(error, "sqlstate", None) or "none"
    remedy = next((text for prefix, text in REMEDIES.items() if state.startswith(prefix)), "")
    return FatalError(f"{message} (SQLSTATE {state})" + (f"; {remedy}" if remedy else ""))
