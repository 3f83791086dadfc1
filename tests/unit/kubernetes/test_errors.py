"""What every HTTP status means for the caller: the table of the design, copied by hand, against the one in the code."""

from __future__ import annotations

import asyncio
import datetime as dt

import aiohttp
import pytest
from yarl import URL

from clusterinfo.errors import FatalError, TransientError
from clusterinfo.kubernetes.errors import (
    STATUSES,
    ApiStatusError,
    ApiTransientError,
    Next,
    UnauthorizedError,
    next_after,
    status_error,
    translated,
)

NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
EXPECTED: dict[int, tuple[Next, type[Exception]]] = {
    **dict.fromkeys((408, 429, 500, 502, 503, 504), (Next.RETRY, ApiTransientError)),
    **dict.fromkeys((400, 403, 404, 405, 406), (Next.FAIL_KIND, ApiStatusError)),
    410: (Next.LIST_AGAIN, ApiStatusError),
    401: (Next.LOG_IN_AGAIN, UnauthorizedError),
}


def test_the_table_has_these_entries_and_no_others() -> None:
    assert {status: step for status, (step, _) in EXPECTED.items()} == STATUSES


@pytest.mark.parametrize("status", EXPECTED)
def test_a_status_of_every_entry_leads_where_it_should(status: int) -> None:
    step, ours = EXPECTED[status]
    error = status_error(status, b"said so", "3", NOW)
    assert next_after(status) is step
    assert type(error) is ours
    assert str(status) in str(error)
    assert getattr(error, "status", status) == status
    assert getattr(error, "retry_after_s", None) == (3 if step is Next.RETRY else None)


@pytest.mark.parametrize("status", [301, 402, 407, 409, 413, 415, 418, 422, 451])
def test_what_no_entry_covers_fails_its_kind(status: int) -> None:
    assert next_after(status) is Next.FAIL_KIND
    assert type(status_error(status, b"", None, NOW)) is ApiStatusError


@pytest.mark.parametrize("status", [501, 505, 507, 511, 520, 599])
def test_errors_of_a_server_are_tried_again(status: int) -> None:
    assert next_after(status) is Next.RETRY
    assert type(status_error(status, b"", None, NOW)) is ApiTransientError


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (TimeoutError(), TransientError),
        (aiohttp.ServerTimeoutError(), TransientError),
        (aiohttp.ServerDisconnectedError(), TransientError),
        (aiohttp.ClientPayloadError("cut"), TransientError),
        (aiohttp.ClientOSError(104, "reset"), TransientError),
        (ConnectionResetError(104, "reset"), TransientError),
        (aiohttp.InvalidURL(URL("http://x")), FatalError),
        (ValueError("no header"), FatalError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
async def test_what_comes_without_a_status(error: Exception, ours: type[Exception]) -> None:
    with pytest.raises(ours) as caught:
        async with translated():
            raise error
    assert type(caught.value) is ours
    assert caught.value.__cause__ is error


async def test_a_cancellation_is_nobodys_error() -> None:
    with pytest.raises(asyncio.CancelledError):
        async with translated():
            raise asyncio.CancelledError
