"""A database whose address answers as a read-only standby: for those who write it is away, until it is promoted.

And the failover of which that is the middle: a primary that dies, an address that moves to its replica.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from clusterinfo.errors import ClusterinfoError, TransientError
from clusterinfo.observations import unobserved
from clusterinfo.postgres import pool as connecting
from clusterinfo.postgres.migrations import migrate
from clusterinfo.postgres.pool import open_pool, ping
from clusterinfo.postgres.sink import PostgresSink
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from clusterinfo.sandbox.processes import Process, give, unprivileged_account
from clusterinfo.settings import Settings
from tests.conftest import Database
from tests.support import checker
from tests.support.programs import QUIET, Api, run, run_all, running, simulated_api, tuned
from tests.support.proxy import Proxy
from tests.support.records import LANE, Feed, Listing

READ_ONLY = "the server is read-only: a standby, or default_transaction_read_only is on"
COMMANDS = [
    ("migrate",),
    ("status",),
    ("dead-letters", "list"),
    ("offsets", "reset"),
    ("forget", "--cluster", "blue", "--yes"),
    ("consume",),
    ("legacy", "--once"),
]


class Replica(EmbeddedPostgres):
    """A server with a migrated database that takes the part of a standby, and back, at one address."""

    async def demote(self) -> None:
        """Go away, and come back as a hot standby."""
        await self.stop("fast")
        signal = self.data / "standby.signal"
        signal.touch()
        give(signal, unprivileged_account())
        await self.start()

    async def promote(self) -> None:
        connection = await asyncpg.connect(self.dsn(), timeout=60)
        try:
            assert await connection.fetchval("select pg_promote()")
        finally:
            await connection.close()

    async def set_read_only(self, value: str) -> None:
        """Whether transactions are by default, in sessions that run, too; returns when that is so."""
        connection = await asyncpg.connect(self.dsn(), timeout=60)
        try:
            await connection.execute(f"alter system set default_transaction_read_only = {value}")
            await connection.execute("select pg_reload_conf()")
            async with asyncio.timeout(60):
                while await connection.fetchval("show default_transaction_read_only") != value:
                    await asyncio.sleep(0.02)
        finally:
            await connection.close()


class Follower(EmbeddedPostgres):
    """A standby of its own, which streams from `primary` as it runs."""

    def __init__(self, primary: EmbeddedPostgres) -> None:
        super().__init__(primary.settings)
        self._primary = primary
        self.password = primary.password

    async def _initialize(self) -> None:
        argv: list[str | Path] = [self._binaries / "pg_basebackup", "-D", self.data, "-R", "-d", self._primary.dsn()]
        copying = Process.start("pg_basebackup", argv, log=self.log, cwd=self.directory, account=self._account)
        await copying.finish(60)

    async def promote(self) -> None:
        connection = await asyncpg.connect(self.dsn(), timeout=60)
        try:
            assert await connection.fetchval("select pg_promote()")
        finally:
            await connection.close()


pytestmark = pytest.mark.timeout(300)  # several programs, and pauses between attempts that grow to 30 s


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Replica]:
    async with Replica({"wal_level": "replica"}) as started:
        yield started


@pytest.fixture
async def replica(server: Replica) -> AsyncIterator[Replica]:
    """A primary, and one again when the test ends."""
    yield server
    if await _ask(server.dsn(), "select pg_is_in_recovery()"):
        await server.promote()


@pytest.fixture
async def standing(replica: Replica) -> Database:
    """A migrated database of the test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    await _ask(replica.dsn(), f"create database {name}")
    connection = await asyncpg.connect(replica.dsn(name), timeout=60)
    await migrate(connection, "clusterinfo")
    await connection.close()
    return Database(name, replica.env(name), replica.dsn(name))


async def _ask(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn, timeout=60)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with simulated_api(200, 8) as served:
        yield served


async def test_a_batch_waits_while_the_database_is_a_standby(replica: Replica, standing: Database) -> None:
    listing, feed = Listing("100"), Feed()
    batch = feed.batch(listing.item("a", "1"), listing.completed())
    async with PostgresSink.connect(standing.settings(), unobserved) as sink:
        await sink.open(LANE)
        await replica.demote()
        with pytest.raises(TransientError):  # the connection that was lost
            await sink.write(batch)
        for _ in range(2):
            with pytest.raises(TransientError, match=READ_ONLY):
                await sink.write(batch)
        await replica.promote()
        await sink.write(batch)
        connection = await standing.connect()
        assert await connection.fetchval("select name from resource") == "a"
        await connection.close()


async def test_whoever_asks_whether_the_database_answers_learns_that_it_is_a_standby(
    replica: Replica, standing: Database
) -> None:
    async with open_pool(standing.settings()) as pool:
        await replica.demote()
        with pytest.raises(TransientError):
            await ping(pool)
        with pytest.raises(TransientError, match=READ_ONLY):
            await ping(pool)
        await replica.promote()
        await ping(pool)


async def test_a_session_that_became_read_only_is_replaced(replica: Replica, standing: Database) -> None:
    """As behind a pooler that was led to a standby: the connection lives, and what is written through it is refused."""
    listing, feed = Listing("100"), Feed()
    batch = feed.batch(listing.item("a", "1"), listing.completed())
    async with PostgresSink.connect(standing.settings(), unobserved) as sink:
        await sink.open(LANE)
        await replica.set_read_only("on")
        with pytest.raises(TransientError, match="in a read-only transaction"):
            await sink.write(batch)
        with pytest.raises(TransientError, match=READ_ONLY):  # what a new connection meets
            await sink.write(batch)
        await replica.set_read_only("off")
        await sink.write(batch)


@pytest.mark.embedded_only  # that Debian's says the same of itself, the others find
async def test_every_command_says_in_one_line_that_it_met_a_standby(
    replica: Replica, standing: Database, api: Api, kafka_env: dict[str, str]
) -> None:
    await replica.demote()
    env = api.env | standing.env | kafka_env | QUIET | tuned({"clusterinfo.postgres.pool.FIRST_CONNECTION_S": 8})
    for ended in await run_all(*COMMANDS, env=env):
        (error,) = ended.expect(1).errors()
        assert f"{READ_ONLY}; name the primary in DB_HOST, or promote this server" in error
        assert f"PostgreSQL at {replica.host}:{replica.port}" in error
        assert "Traceback" not in ended.stderr


async def test_whoever_starts_meanwhile_waits_for_the_promotion(
    replica: Replica, standing: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = asyncio.Event()
    judge = connecting._first_failure

    def noted(error: BaseException, settings: Settings, where: str) -> ClusterinfoError:
        met.set()
        return judge(error, settings, where)

    monkeypatch.setattr(connecting, "_first_failure", noted)
    monkeypatch.setattr(connecting, "FIRST_CONNECTION_S", 60.0)
    await replica.demote()

    async def answered() -> int:
        async with open_pool(standing.settings()) as pool, pool.acquire() as connection:
            return int(await connection.fetchval("select 1"))

    async with asyncio.timeout(150), asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(answered())
        await met.wait()
        await replica.promote()
    assert asked.result() == 1


async def test_a_consumer_waits_in_the_middle_and_stores_all(
    replica: Replica, standing: Database, api: Api, kafka_env: dict[str, str]
) -> None:
    env = api.env | standing.env | kafka_env | QUIET
    (await run("collect", "--once", env=env)).expect(0)
    async with running("consume", env=env) as consumer:
        await converged(api, standing)
        await replica.demote()
        await api.control("churn", changes=50)
        (await run("collect", "--once", env=env)).expect(0)
        await consumer.wait_for_output(READ_ONLY)
        await replica.promote()
        await converged(api, standing)
        assert consumer.is_running
        assert "Traceback" not in consumer.stderr()


async def test_legacy_waits_in_the_middle_of_a_run(replica: Replica, standing: Database, api: Api) -> None:
    async with running("legacy", "--interval", "1s", env=api.env | standing.env | QUIET) as program:
        await converged(api, standing)
        await replica.demote()
        await api.control("churn", changes=50)
        await program.wait_for_output(READ_ONLY)
        await replica.promote()
        await converged(api, standing)
        assert program.is_running
        assert "Traceback" not in program.stderr()


async def test_a_consumer_follows_an_address_that_moves_to_a_replica_and_finds_it_promoted(
    api: Api, kafka_env: dict[str, str]
) -> None:
    """What had not reached the replica yet is stored again: where to go on stands in the same database."""
    async with (
        Replica({"wal_level": "replica", "max_wal_senders": "4"}) as primary,
        Follower(primary) as follower,
        Proxy(primary.host, primary.port) as address,
    ):
        env = api.env | primary.env() | {"DB_HOST": address.host, "DB_PORT": str(address.port)} | kafka_env | QUIET
        (await run("migrate", env=env)).expect(0)
        (await run("collect", "--once", env=env)).expect(0)
        async with running("consume", env=env) as consumer:
            await converged(api, Database(primary.database, primary.env(), primary.dsn()))
            await primary.stop("immediate")
            address.refuse()
            await api.control("churn", changes=50)
            (await run("collect", "--once", env=env)).expect(0)
            address.lead_to(follower.host, follower.port)
            await address.restore()
            await consumer.wait_for_output(READ_ONLY)
            await follower.promote()
            await converged(api, Database(follower.database, follower.env(), follower.dsn()))
            assert consumer.is_running
            assert "Traceback" not in consumer.stderr()


async def converged(api: Api, database: Database) -> None:
    """Wait until the database holds what the API serves."""
    truth = await checker.truth(api.url, api.token)
    async with asyncio.timeout(150):
        while await checker.differs(truth, database.dsn) or await checker.problems(truth, database.dsn):
            await asyncio.sleep(0.2)
