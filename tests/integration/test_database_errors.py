"""Errors that a real PostgreSQL raises while a batch is stored, code by code; logins that are refused for a while."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import pytest

from clusterinfo.errors import FatalError, TransientError
from clusterinfo.model import Batch
from clusterinfo.observations import unobserved
from clusterinfo.postgres import pool as module
from clusterinfo.postgres.sink import PostgresSink
from clusterinfo.settings import Settings, load
from tests.conftest import Database
from tests.support.records import LANE, Feed, Listing

AGAIN = ["08006", "25006", "25P03", "25P04", "40001", "40003", "40P01", "53100", "53200", "53300", "55006", "55P03"]
AGAIN += ["57014", "57P01", "57P02", "57P03", "57P05", "58030"]
HALTS = ["0A000", "21000", "23502", "23505", "23514", "26000", "28000", "3D000", "3F000", "42501", "42703", "42P01"]
HALTS += ["25P02", "57P04", "P0001", "XX000"]  # and what no entry covers
THE_RECORDS = ["22001", "22003", "22021", "22P02", "22P05", "54000", "54001"]


@asynccontextmanager
async def raising(owner: asyncpg.Connection, state: str) -> AsyncIterator[None]:
    """In the block, storing an object of the name `bad` raises the error `state`."""
    await owner.execute(
        f"""
        create function refuse() returns trigger language plpgsql as $$ begin
            raise exception 'injected' using errcode = '{state}';
        end $$;
        create trigger refuse before insert on resource for each row when (new.name = 'bad') execute function refuse();
        """
    )
    yield
    await owner.execute("drop trigger refuse on resource; drop function refuse")


def a_batch() -> Batch:
    listing = Listing("100")
    return Feed().batch(*[listing.item(name, "1") for name in ("good", "bad", "better")], listing.completed())


async def names(owner: asyncpg.Connection) -> list[str]:
    return [row["name"] for row in await owner.fetch("select name from resource where fidelity > 0 order by name")]


@pytest.mark.parametrize("state", AGAIN)
async def test_what_may_pass_is_tried_again_and_then_stored(
    state: str, database: Database, connection: asyncpg.Connection
) -> None:
    batch = a_batch()
    async with PostgresSink.connect(database.settings(), unobserved) as sink:
        await sink.open(LANE)
        async with raising(connection, state):
            with pytest.raises(TransientError, match="injected"):
                await sink.write(batch)
            assert "bad" not in await names(connection)
        if state == "57014":  # stored in halves: the first of them is
            assert await connection.fetchval("select next_offset from kafka_offset") == 1
            batch = Batch(lane=LANE, start=1, end=batch.end, records=batch.records[1:])
        else:
            assert await names(connection) == []
        await sink.write(batch)
    assert await names(connection) == ["bad", "better", "good"]


@pytest.mark.parametrize("state", HALTS)
async def test_what_is_our_fault_or_the_operators_halts(
    state: str, database: Database, connection: asyncpg.Connection
) -> None:
    async with PostgresSink.connect(database.settings(), unobserved) as sink, raising(connection, state):
        await sink.open(LANE)
        with pytest.raises(FatalError, match=f"injected.*SQLSTATE {state}"):
            await sink.write(a_batch())
    assert await names(connection) == []


@pytest.mark.parametrize("state", THE_RECORDS)
async def test_what_is_the_records_fault_sets_that_record_aside(
    state: str, database: Database, connection: asyncpg.Connection
) -> None:
    async with PostgresSink.connect(database.settings(), unobserved) as sink, raising(connection, state):
        await sink.open(LANE)
        receipt = await sink.write(a_batch())
    assert receipt.position == 4
    assert await names(connection) == ["better", "good"]
    [letter] = await connection.fetch("select record_offset, reason from dead_letter")
    assert (letter["record_offset"], "injected" in letter["reason"]) == (1, True)


# --- logins ----------------------------------------------------------------------------------------------------------


class Login:
    """A user of the test's own, whose password stands in a file and can be changed."""

    def __init__(self, owner: asyncpg.Connection, database: Database, file: Path) -> None:
        self.owner, self.database, self.file = owner, database, file
        self.user = f"user_{database.name}"

    def settings(self) -> Settings:
        env = {name: value for name, value in self.database.env.items() if name != "DB_PASSWORD"}
        return load(env | {"DB_USER": self.user, "DB_PASSWORD_FILE": str(self.file)})

    async def change(self, password: str) -> None:
        """The server wants another password, and ends the sessions that came with the old one."""
        await self.owner.execute(f"alter role {self.user} password '{password}'")
        await self.owner.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = $1", self.user
        )


@pytest.fixture
async def login(connection: asyncpg.Connection, database: Database, tmp_path: Path) -> AsyncIterator[Login]:
    login = Login(connection, database, tmp_path / "password")
    login.file.write_text("first\n")
    await connection.execute(f"create role {login.user} login superuser password 'first'")
    yield login
    await login.change("gone")
    await connection.execute(f"drop role {login.user}")


async def test_a_changed_password_is_read_again_and_nothing_halts_meanwhile(login: Login) -> None:
    async with PostgresSink.connect(login.settings(), unobserved) as sink:
        await sink.open(LANE)
        await login.change("second")
        for _ in range(2):  # the first call may meet the session that was ended
            with pytest.raises(TransientError) as refused:
                await sink.write(a_batch())
        assert "refuses the login" in str(refused.value)
        assert not any(password in str(refused.value) for password in ("first", "second"))
        login.file.unlink()
        with pytest.raises(TransientError, match="refuses the login"):
            await sink.write(a_batch())
        login.file.write_text("second\n")
        await sink.write(a_batch())
    assert await names(login.owner) == ["bad", "better", "good"]


async def test_a_login_refused_for_too_long_halts(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOGIN_RETRIED_S", 0.0)
    async with PostgresSink.connect(login.settings(), unobserved) as sink:
        await sink.open(LANE)
        await login.change("second")
        with pytest.raises((TransientError, FatalError)):
            await sink.write(a_batch())  # the session that was ended, unless its end was noticed already
        with pytest.raises(FatalError, match="DB_PASSWORD"):
            await sink.write(a_batch())


async def test_a_login_that_works_begins_the_time_anew(login: Login) -> None:
    at = SimpleNamespace(now_s=0.0)
    logins, arguments = module._Logins(lambda: at.now_s), module.connection_arguments(login.settings())
    await (await logins.connect(**arguments)).close()
    login.file.write_text("wrong")
    for at.now_s, refusal in ((1.0, TransientError), (300.0, TransientError), (301.0, asyncpg.InvalidPasswordError)):
        with pytest.raises(refusal):
            await logins.connect(**arguments)
    login.file.write_text("first")
    await (await logins.connect(**arguments)).close()
    login.file.write_text("wrong")
    for at.now_s, refusal in ((400.0, TransientError), (699.0, TransientError), (700.0, asyncpg.InvalidPasswordError)):
        with pytest.raises(refusal):
            await logins.connect(**arguments)


async def test_a_login_that_never_worked_is_not_tried_again(login: Login) -> None:
    login.file.write_text("wrong")
    with pytest.raises(FatalError, match="DB_PASSWORD"):
        async with PostgresSink.connect(login.settings(), unobserved):
            raise AssertionError("it connected")
