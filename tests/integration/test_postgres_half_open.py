"""Connections to PostgreSQL that were cut in silence: nothing that is sent arrives, and neither side notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from clusterinfo.errors import TransientError
from clusterinfo.observations import unobserved
from clusterinfo.postgres import pool as connecting
from clusterinfo.postgres import transactions
from clusterinfo.postgres.errors import RETRIED
from clusterinfo.postgres.sink import PostgresSink
from tests.conftest import Database
from tests.support.proxy import Proxy
from tests.support.records import LANE, Feed, Listing

SHORT_S = 2.0
"""What is not cut takes milliseconds."""
DEADLINE_S = 60.0


@pytest.fixture
async def proxy(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    """Between sink and server; the program's deadlines are short."""
    monkeypatch.setattr(connecting, "COMMAND_TIMEOUT_S", SHORT_S)
    monkeypatch.setattr(connecting, "CANCEL_TIMEOUT_S", SHORT_S)
    monkeypatch.setattr(transactions, "BEGIN_TIMEOUT_S", SHORT_S)
    settings = database.settings()
    async with Proxy(settings.db_host, settings.db_port) as proxy:
        yield proxy


@pytest.fixture
async def sink(database: Database, proxy: Proxy) -> AsyncIterator[PostgresSink]:
    settings = database.settings().model_copy(update={"db_port": proxy.port})
    async with PostgresSink.connect(settings, unobserved) as sink:
        assert await sink.open(LANE) is None
        yield sink


async def test_a_connection_that_died_at_rest_is_replaced(
    sink: PostgresSink, proxy: Proxy, connection: asyncpg.Connection
) -> None:
    listing, feed = Listing("100"), Feed()
    batch = feed.batch(listing.item("a", "1"), listing.completed())
    proxy.go_silent()
    await proxy.restore()
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(TransientError):
            await sink.write(batch)
        await sink.write(batch)
    assert await connection.fetchval("select name from resource") == "a"


async def test_one_that_dies_in_a_transaction_is_given_up_and_with_it_all_the_others(
    sink: PostgresSink, proxy: Proxy
) -> None:
    async with asyncio.timeout(DEADLINE_S):
        async with sink.transaction(), sink.transaction():
            pass  # two connections now
        with pytest.raises(RETRIED):
            await _cut_in_the_middle(sink, proxy)
        async with sink.transaction() as one, sink.transaction() as other:
            assert [await one.fetchval("select 1"), await other.fetchval("select 2")] == [1, 2]


async def _cut_in_the_middle(sink: PostgresSink, proxy: Proxy) -> None:
    async with sink.transaction() as connection:
        proxy.go_silent()
        await proxy.restore()
        async with transactions.savepoint(connection):  # a savepoint, which is rolled back first
            await connection.execute("select 1")
