"""Fixtures that every test may use: a PostgreSQL server for the session, a database of its own for each test."""

from __future__ import annotations

import gc
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import hypothesis
import pytest

from clusterinfo.postgres.migrations import migrate
from clusterinfo.postgres.pool import prepare_connection
from clusterinfo.sandbox import processes
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from clusterinfo.settings import Settings, load
from tests.support.forkserver import ForkServer, forking
from tests.support.scheduling import Scheduling, longest_first
from tests.support.scram import verifier
from tests.support.scratch import use_memory

TEMPLATE = "clusterinfo_template"

# How long an example takes says how busy the machine is, and nothing of the program.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")


def pytest_configure() -> None:
    """Workers side by side (pytest-xdist) look for free ports in places of their own: no port is found free twice.

    Programs that tests start heed every signal, even where nohup or a shell's `&` has us ignore some: what is ignored
    is inherited, what is handled is not.
    """
    for number in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    use_memory()
    gc.disable()  # while tests are collected: nothing of them is garbage
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    processes.PORTS = processes.PORTS[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers side by side begin with what takes longest."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items[:] = longest_first(items)


def pytest_collection_finish() -> None:
    """What is there once all tests are collected, half a million objects, stays to the end: each full garbage
    collection, as those that tests of the contract ask for, would go through it again."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Who runs what, among workers side by side: see `Scheduling`."""
    return Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> Iterator[ForkServer]:
    """Programs are forked, whatever does not say `launch=Program`; the server starts with the first of them."""
    with forking() as server:
        yield server


@dataclass(frozen=True, slots=True)
class Database:
    """A migrated database for one test."""

    name: str
    env: dict[str, str]
    dsn: str

    def settings(self, **flags: object) -> Settings:
        """Settings that use this database."""
        return load({}, **{name.lower(): value for name, value in self.env.items()}, **flags)

    async def connect(self) -> asyncpg.Connection:
        """A connection with search_path set to the schema; close it yourself."""
        connection = await asyncpg.connect(self.dsn, server_settings={"search_path": "clusterinfo"}, timeout=60)
        await prepare_connection(connection)
        return connection


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[EmbeddedPostgres]:
    """A PostgreSQL server with a migrated template database."""
    async with EmbeddedPostgres() as server:
        admin = await asyncpg.connect(server.dsn(), timeout=60)
        await admin.execute(f"alter role {server.user} password '{verifier(server.password)}'")
        await admin.execute(f"create database {TEMPLATE}")
        template = await asyncpg.connect(server.dsn(TEMPLATE), timeout=60)
        await migrate(template, "clusterinfo")
        await template.close()
        await admin.close()
        yield server


@asynccontextmanager
async def fresh_database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """A migrated database, dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(postgres.dsn(), timeout=60)
    await admin.execute(f"create database {name} template {TEMPLATE} strategy file_copy")
    yield Database(name, postgres.env(name), postgres.dsn(name))
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """A fresh migrated database, dropped afterwards."""
    async with fresh_database(postgres) as fresh:
        yield fresh


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the test's database, search_path set to the schema."""
    opened = await database.connect()
    yield opened
    await opened.close()


def unsorted(settings: str) -> str:
    """A batch's settings, but that tables may be read as they lie: in no order unless somebody asks for it."""
    assert "enable_seqscan = off" in settings
    return settings.replace("enable_seqscan = off", "enable_seqscan = on")
