"""Makes the monthly partitions of the history ahead of time and drops those past retention."""

from __future__ import annotations

import datetime as dt

from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.errors import FOREIGN, translate
from clusterinfo.postgres.sql import local_search_path, statements

MONTHS_AHEAD = 2
LOCK_KEY = 0x68697374  # "hist"
LOCK_TIMEOUT = "10s"
"""Waiting for a long query, in order to make or drop a partition, holds up everybody who writes to the history."""


def month_of(day: dt.date) -> dt.date:
    """The first day of `day`'s month."""
    return day.replace(day=1)


def next_month(month: dt.date) -> dt.date:
    """The first day of the month after the one `month` begins."""
    return (month + dt.timedelta(days=32)).replace(day=1)


def partition_name(month: dt.date) -> str:
    """`resource_history_2026_11`."""
    return f"resource_history_{month:%Y_%m}"


def partition_month(name: str) -> dt.date | None:
    """The month a partition is for, or None for the default partition."""
    try:
        return dt.datetime.strptime(name, "resource_history_%Y_%m").replace(tzinfo=dt.UTC).date()
    except ValueError:
        return None


async def maintain_history(connection: Connection, schema: str, today: dt.date, retention_s: float) -> None:
    """Make this and the next months' partitions, drop expired ones, and delete expired rows of the default one.

    Bookkeeping of abandoned lists goes after a day, that of dropped dead letters with the history. A month whose rows
    already are in the default partition is left there. One process at a time; others return at once. Needs no right to
    create tables: see schema/0005_roles.sql.
    Where the server's date is earlier than `today`, it counts: by a clock that is ahead all history would be dropped.
    """
    try:
        async with connection.transaction():
            await connection.execute(
                f"{local_search_path(schema)}; set local lock_timeout = '{LOCK_TIMEOUT}'; "
                "set local client_min_messages = warning"
            )
            if await connection.fetchval("select pg_try_advisory_xact_lock($1)", LOCK_KEY):
                today = min(today, await connection.fetchval("select (now() at time zone 'UTC')::date"))
                await _make_partitions(connection, today)
                oldest_day = today - dt.timedelta(seconds=retention_s)
                await _drop_expired(connection, oldest_day)
                await connection.execute(statements()["drop_stale_progress"])
                await connection.execute(statements()["drop_list_positions"])
                await connection.execute(statements()["drop_expired_coverage"], _midnight(oldest_day))
                await connection.execute(statements()["drop_silent_sessions"])
                await connection.execute(statements()["drop_ended_sessions"])
    except FOREIGN as error:
        raise translate(error, "maintaining the history") from error


async def _partitions(connection: Connection) -> list[str]:
    rows = await connection.fetch(statements()["list_history_partitions"])
    return [row["relname"] for row in rows]


async def _make_partitions(connection: Connection, today: dt.date) -> None:
    present = await _partitions(connection)
    month = month_of(today)
    for _ in range(MONTHS_AHEAD + 1):
        following = next_month(month)
        if partition_name(month) not in present and not await connection.fetchval(
            statements()["is_month_in_default"], _midnight(month), _midnight(following)
        ):
            await connection.execute(statements()["make_history_partition"], month)
        month = following


async def _drop_expired(connection: Connection, oldest_day: dt.date) -> None:
    for name in await _partitions(connection):
        month = partition_month(name)
        if month is not None and next_month(month) <= oldest_day:
            await connection.execute(statements()["drop_history_partition"], month)
    await connection.execute(statements()["delete_expired_history"], _midnight(oldest_day))
    await connection.execute(statements()["forget_dropped_letters"], _midnight(oldest_day))


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time.min, tzinfo=dt.UTC)
