"""asyncpg's exceptions as ours: the table of what each SQLSTATE means for the caller.

Source of the classes: PostgreSQL manual, appendix A, "PostgreSQL Error Codes".
"""

from __future__ import annotations

import asyncpg

from clusterinfo.errors import ClusterinfoError, FatalError, TransientError

TRANSIENT = (
    "08",
    "53",
    "57P01",
    "57P02",
    "57P03",
    "57P05",
    "57014",
    "25006",
    "25P03",
    "25P04",
    "40",
    "55P03",
    "55006",
    "58",
)
"""SQLSTATEs (or their first characters) after which the same step may succeed."""

OF_THE_RECORD = ("22", "54")
"""Classes of errors of the data: the record is set aside."""

RETRIED = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError)
"""What a lost or failing connection shows as; InterfaceError: asyncpg issue 956."""

FOREIGN = (asyncpg.PostgresError, *RETRIED)
"""Everything asyncpg may raise that `translate` takes."""

REMEDIES = {
    "28": "check DB_USER and DB_PASSWORD, and pg_hba.conf on the server",
    "3D": "check DB_NAME, or create the database",
    "42501": "grant the rights, or let the owner run `clusterinfo migrate`",
    "3F": "check DB_SCHEMA, or run `clusterinfo migrate`",
    "42P01": "run `clusterinfo migrate`",
    "42703": "run `clusterinfo migrate`",
    "42883": "run `clusterinfo migrate`",
}


def is_of_the_record(error: BaseException) -> bool:
    """True if PostgreSQL refused the data it was given, not the statement."""
    state = getattr(error, "sqlstate", None) or ""
    return isinstance(error, asyncpg.PostgresError) and state.startswith(OF_THE_RECORD)


def is_timeout(error: BaseException) -> bool:
    """True if a statement met the server's statement timeout."""
    return isinstance(error, asyncpg.QueryCanceledError)


def said(error: BaseException) -> str:
    """What PostgreSQL (or the network) says, in one bounded line; without DETAIL, which quotes the data."""
    text = getattr(error, "message", None) or (str(error) if not isinstance(error, asyncpg.PostgresError) else "")
    return " ".join(str(text).split())[:300] or type(error).__name__


def translate(error: BaseException, doing: str) -> ClusterinfoError:
    """`error` as ours, for one line: what was being done, what PostgreSQL said, what to do."""
    state = getattr(error, "sqlstate", None) or ""
    message = f"PostgreSQL, {doing}: {said(error)}"
    if state.startswith(TRANSIENT) or (not state and isinstance(error, RETRIED)):
        return TransientError(message)
    remedy = next((text for prefix, text in REMEDIES.items() if state.startswith(prefix)), "")
    return FatalError(f"{message} (SQLSTATE {state})" + (f"; {remedy}" if remedy else ""))
