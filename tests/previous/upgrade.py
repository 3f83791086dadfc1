"""A rolling upgrade to write through, and what must hold after every step of it.

The previous release has made and filled the schema; today's `migrate` runs beside it, then both write for a while. So
that this proves something as long as no file of the schema is newer than that release, every table gets what a newer
one may bring: a column that neither program knows. After every step the rows equal the API, and history holds exactly
what the API no longer says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import asyncpg
import pytest

from clusterinfo.postgres.migrations import migrations
from tests import previous
from tests.conftest import Database
from tests.support import checker
from tests.support.checker import JSON, Identity
from tests.support.programs import QUIET, Api, Program, run, simulated_api

OBJECTS, KINDS, CHANGES = 100, 12, 40
QUICK = QUIET | {"BATCH_WAIT": "100ms", "PAGE_SIZE": "50"}
STORED_S = 150.0

HISTORY = """
    select c.uid, u.api_group, u.resource, h.namespace, h.name, h.uid, h.resource_version
    from resource_history h join unit u on u.id = h.unit_id join cluster c on c.id = u.cluster_id
"""


NEWER = """
    do $$
    declare
        name text;
    begin
        for name in select tablename from pg_tables where schemaname = 'clusterinfo' and not exists (
            select from pg_inherits where inhrelid = format('clusterinfo.%I', tablename)::regclass)
        loop
            begin
                execute format('alter table clusterinfo.%I add column newer text default ''newer''', name);
            exception when feature_not_supported then  -- PostgreSQL 15, where a function takes the table's rows
                execute format('alter table clusterinfo.%I add column newer text', name);
                execute format('alter table clusterinfo.%I alter column newer set default ''newer''', name);
            end;
        end loop;
    end
    $$
"""
"""What a file of a later release may do at most, to every table."""


@dataclass
class Upgrade:
    """A cluster, its database, and all that was ever true of the cluster when it was listed."""

    api: Api
    database: Database
    connection: asyncpg.Connection
    truth: dict[Identity, JSON] = field(default_factory=dict)
    past: list[Identity] = field(default_factory=list)
    seed: int = 0

    @property
    def env(self) -> dict[str, str]:
        return self.api.env | self.database.env | QUICK

    async def change(self) -> None:
        """Something is created, updated, deleted and recreated: what no longer is as it was belongs to history."""
        self.seed += 1
        done = await self.api.control("churn", changes=CHANGES, seed=self.seed)
        assert all(done.values()), done
        before, self.truth = self.truth, await checker.truth(self.api.url, self.api.token)
        self.past += before.keys() - self.truth.keys()

    async def check(self) -> None:
        """Every object is there once, every version before it is in history once, every kind is proven."""
        assert await checker.problems(self.truth, self.database.dsn) == []
        assert await self.connection.fetchval("select count(*) from resources") == len(self.truth)
        history = [Identity(*row) for row in await self.connection.fetch(HISTORY)]
        assert sorted(history) == sorted(self.past)
        states = await self.connection.fetch("select distinct state from freshness where state <> 'excluded'")
        assert [row["state"] for row in states] == ["verified"]

    async def stored(self, kafka: dict[str, str], *consumers: Program) -> None:
        """Wait until running consumers have stored all that Kafka holds. Fails with what they printed."""
        deadline = time.monotonic() + STORED_S
        topic, partitions = kafka["KAFKA_TOPIC"], int(kafka["KAFKA_TOPIC_PARTITIONS"])
        while any((await checker.lag(self.connection, kafka["KAFKA_BROKERS"], topic, partitions)).values()):
            for consumer in consumers:
                assert consumer.is_running, consumer.stderr()[-4000:]
                assert time.monotonic() < deadline, consumer.stderr()[-4000:]
            await asyncio.sleep(0.1)

    async def applied(self) -> list[str]:
        rows = await self.connection.fetch("select name from schema_migration order by version")
        return [row["name"] for row in rows]

    async def migrate(self) -> None:
        """Today's `migrate`, as its own step before anything else of today's, and a column in every table."""
        (await run("migrate", env=self.env)).expect(0)
        assert await self.applied() == [migration.name for migration in migrations()]
        await self.connection.execute(NEWER)
        assert await self.connection.fetchval("select count(newer) from resource") == len(self.truth)


@pytest.fixture
async def upgrade(database: Database) -> AsyncIterator[Upgrade]:
    """A schema that the previous release has made and filled."""
    connection = await database.connect()
    await connection.execute("drop schema clusterinfo cascade")
    async with simulated_api(OBJECTS, KINDS) as api:
        begun = Upgrade(api, database, connection, await checker.truth(api.url, api.token))
        (await previous.run("legacy", "--once", env=begun.env)).expect(0)
        assert await begun.applied() == previous.migrations()
        await begun.check()
        yield begun
    await connection.close()
