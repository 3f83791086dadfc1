"""What every SQLSTATE means for the caller: the table of the design, copied by hand, against the one in the code."""

from __future__ import annotations

import asyncpg
import pytest

from clusterinfo.errors import FatalError, TransientError
from clusterinfo.postgres.errors import (
    SQLSTATES,
    Next,
    is_of_the_record,
    is_timeout,
    next_after,
    next_step,
    server_message,
    translate,
)

RETRY = "08 53 57P01 57P02 57P03 57P05 25006 25P03 25P04 40001 40P01 40003 55P03 55006 58"
BISECT = "57014"
RECORD = "22 54"
LOGIN = "28"
HALT = "23 42 3F 3D 0A 26 21000"
EXPECTED = {
    **dict.fromkeys(RETRY.split(), Next.RETRY),
    **dict.fromkeys(BISECT.split(), Next.BISECT),
    **dict.fromkeys(RECORD.split(), Next.DEAD_LETTER),
    **dict.fromkeys(LOGIN.split(), Next.LOG_IN_AGAIN),
    **dict.fromkeys(HALT.split(), Next.HALT),
}
UNKNOWN = ("00000", "25001", "25P02", "40000", "40002", "55000", "57000", "57P04", "P0001", "XX000", "ZZZZZ")
"""Codes that no entry covers, some of them neighbours of codes that one does."""


def error_of(state: str) -> asyncpg.PostgresError:
    """The exception that asyncpg makes of an answer with this code."""
    error = asyncpg.PostgresError.new({"C": state, "M": "no such luck", "S": "ERROR"})
    assert isinstance(error, asyncpg.PostgresError)
    assert error.sqlstate == state
    return error


def test_the_table_has_these_entries_and_no_others() -> None:
    assert SQLSTATES == EXPECTED


@pytest.mark.parametrize(("entry", "step"), EXPECTED.items())
def test_a_code_of_every_entry_leads_where_it_should(entry: str, step: Next) -> None:
    for state in {entry.ljust(5, "0"), entry.ljust(5, "1")}:
        error = error_of(state)
        translated = translate(error, "storing")
        assert next_after(error) is step
        assert is_of_the_record(error) is (step is Next.DEAD_LETTER)
        assert is_timeout(error) is (step is Next.BISECT)
        assert type(translated) is (TransientError if step in (Next.RETRY, Next.BISECT) else FatalError)
        assert "no such luck" in str(translated)
        assert (state in str(translated)) is isinstance(translated, FatalError)


@pytest.mark.parametrize("state", UNKNOWN)
def test_what_no_entry_covers_halts(state: str) -> None:
    assert next_step(state) is Next.HALT
    assert type(translate(error_of(state), "storing")) is FatalError


@pytest.mark.parametrize(
    "error",
    [
        OSError("no route to host"),
        ConnectionResetError("reset"),
        TimeoutError(),
        asyncpg.InterfaceError("cannot call Transaction.__aexit__(): the underlying connection is closed"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lost_connection_is_tried_again(error: Exception) -> None:
    assert type(translate(error, "storing")) is TransientError
    assert not is_of_the_record(error)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("23505", "23505"),
        ("26000", "pooler"),
        ("28P01", "DB_PASSWORD"),
        ("3D000", "DB_NAME"),
        ("3F000", "DB_SCHEMA"),
        ("42501", "grant the rights"),
        ("42703", "clusterinfo migrate"),
        ("42883", "clusterinfo migrate"),
        ("42P01", "clusterinfo migrate"),
    ],
)
def test_what_halts_says_what_to_do(state: str, says: str) -> None:
    assert says in str(translate(error_of(state), "storing"))


def test_a_detail_is_never_quoted() -> None:
    """It holds the data: `Key (name)=(...) already exists`."""
    fields = {"C": "23505", "M": "duplicate key\nof https://me:hunter2@h", "D": "Key (token)=(hunter2)", "S": "ERROR"}
    assert server_message(asyncpg.PostgresError.new(fields)) == "duplicate key of https://h"
    assert server_message(asyncpg.PostgresError.new({"C": "23505", "D": "hunter2"})) == "UniqueViolationError"
