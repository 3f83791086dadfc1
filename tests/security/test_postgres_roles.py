"""Owner, writer and reader apart: each does its work with the rights that are printed for it, and nothing else."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from clusterinfo.postgres.admin.grants import READER, WRITER, grants
from clusterinfo.postgres.admin.history import maintain_history, partition_name
from clusterinfo.postgres.migrations import migrate
from clusterinfo.sandbox.postgres import EmbeddedPostgres
from tests.kafka.apache import ApacheKafka
from tests.support.programs import QUIET, run, simulated_api

PASSWORD = "canary-of-roles-24"
LONG_AGO = dt.date(2001, 2, 1)


@dataclass(frozen=True, slots=True)
class Apart:
    """A database of its own, migrated by an owner who is no superuser; user names by what they may do."""

    server: EmbeddedPostgres
    name: str
    users: Mapping[str, str]

    def env(self, role: str) -> dict[str, str]:
        return self.server.env(self.name) | {"DB_USER": self.users[role], "DB_PASSWORD": PASSWORD}

    async def connect(self, role: str) -> asyncpg.Connection:
        return await asyncpg.connect(
            host=self.server.host,
            port=self.server.port,
            user=self.users[role],
            password=PASSWORD,
            database=self.name,
            server_settings={"search_path": "clusterinfo"},
            timeout=60,
        )


@pytest.fixture
async def apart(postgres: EmbeddedPostgres) -> AsyncIterator[Apart]:
    unique = uuid.uuid4().hex[:8]
    users = {role: f"{role}_{unique}" for role in ("owner", "writer", "reader")}
    database = Apart(postgres, f"apart_{unique}", users)
    administrator = await asyncpg.connect(postgres.dsn(), timeout=60)
    for user in users.values():
        await administrator.execute(f"create role {user} login password '{PASSWORD}'")
    await administrator.execute(f"create database {database.name} owner {users['owner']}")
    # As in a new database of 15 and later; the right to make temporary tables is one that is printed.
    await administrator.execute(f"revoke temporary on database {database.name} from public")
    for role in (WRITER, READER):
        if not await administrator.fetchval("select exists (select from pg_roles where rolname = $1)", role):
            await administrator.execute(f"create role {role} nologin")
    owner = await database.connect("owner")
    await migrate(owner, "clusterinfo")
    printed = await run("migrate", "--print-grants", env={"DB_NAME": database.name})
    await owner.execute(printed.expect(0).stdout)
    await administrator.execute(f"grant {WRITER} to {users['writer']}; grant {READER} to {users['reader']}")
    yield database
    await owner.close()
    await administrator.execute(f"drop database {database.name} with (force)")
    await administrator.execute(f"drop role {', '.join(users.values())}")
    await administrator.close()


async def test_the_writer_stores_and_keeps_the_history(apart: Apart, kafka: ApacheKafka) -> None:
    """Directly and from Kafka, partitions of the history included, with the printed rights alone."""
    env = apart.env("writer") | QUIET | {"HISTORY_RETENTION": "90d"}
    through = {
        "KAFKA_ENABLED": "true",
        "KAFKA_BROKERS": kafka.bootstrap,
        "KAFKA_TOPIC": f"topic-{uuid.uuid4().hex[:8]}",
        "KAFKA_GROUP_ID": f"group-{uuid.uuid4().hex[:8]}",
        "KAFKA_TOPIC_PARTITIONS": "1",
    }
    owner = await apart.connect("owner")
    await owner.execute("select make_history_month($1)", LONG_AGO)
    async with simulated_api(50) as api:
        (await run("legacy", "--once", "--no-migrate", env=env | api.env)).expect(0)
        pod = (await api.get("/api/v1/pods"))["items"][0]["metadata"]
        await api.control("delete", resource="pods", namespace=pod["namespace"], name=pod["name"])
        (await run("clusters", "move", api.uid, "--topic", through["KAFKA_TOPIC"], env=env)).expect(0)
        (await run("collect", "--once", env=env | api.env | through)).expect(0)
        (await run("consume", "--until-idle", "1s", "--no-migrate", env=env | through)).expect(0)
    assert await owner.fetchval("select count(*) from resources") > 50
    assert await owner.fetchval("select count(*) from resource_history where name = $1", pod["name"]) == 1
    partitions = await owner.fetch(
        "select c.relname, r.rolname from pg_inherits i join pg_class c on c.oid = i.inhrelid "
        "join pg_roles r on r.oid = c.relowner where i.inhparent = 'resource_history'::regclass"
    )
    await owner.close()
    names = {row["relname"] for row in partitions}
    assert len(names) == 4, "the default one, this month's and the next two"
    assert partition_name(LONG_AGO) not in names, "what is past retention is dropped"
    assert {row["rolname"] for row in partitions} == {apart.users["owner"]}


async def test_the_writer_makes_and_alters_nothing_else(apart: Apart) -> None:
    writer = await apart.connect("writer")
    await maintain_history(writer, "clusterinfo", dt.date(2026, 11, 22), 90 * 86400.0)
    for forbidden in (
        "create table clusterinfo.mine ()",
        "create table public.mine ()",
        "create schema mine",
        "drop table resource",
        "alter table resource add column mine text",
        "truncate resource",
        "update schema_migration set checksum = ''",
        "delete from schema_migration",
        "insert into schema_migration values (9999, 'mine', '')",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await writer.execute(forbidden)
    await writer.execute("create temporary table resource_history (a int)")
    await writer.execute("select make_history_month('2001-01-01')")
    assert await writer.fetchval("select to_regclass('clusterinfo.resource_history_2001_01') is not null")
    await writer.close()


async def test_the_reader_only_reads(apart: Apart) -> None:
    reader = await apart.connect("reader")
    relations = await reader.fetch(
        "select relname, relkind from pg_class "
        "where relnamespace = 'clusterinfo'::regnamespace and relkind in ('r', 'v', 'p')"
    )
    parts = [name for name, _ in relations if name.startswith("resource_history_")]
    for relation, kind in relations:
        if relation in ("dead_letter", "dropped_letter", *parts):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await reader.execute(f"select from {relation} limit 1")
        else:
            await reader.execute(f"select from {relation} limit 1")
        if kind != b"v":
            for forbidden in (
                f"insert into {relation} default values",
                f"delete from {relation}",
                f"truncate {relation}",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await reader.execute(forbidden)
    await reader.execute("select * from resources_as_of(now()), resource_changes(now(), now())")
    for forbidden in (
        "select make_history_month('2001-01-01')",
        "select drop_history_month('2001-01-01')",
        "create table clusterinfo.mine ()",
        "create temporary table mine ()",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.execute(forbidden)
    await reader.close()
    assert len(relations) > 20
    assert parts


async def test_the_reader_sees_nothing_that_a_strangers_message_held(apart: Apart) -> None:
    """Not by the tables, nor by partitions that are made later, nor after the rights were given again."""
    owner, reader = await apart.connect("owner"), await apart.connect("reader")
    for again in (False, True):
        if again:
            await owner.execute(grants("clusterinfo", apart.name))
        await owner.execute("select make_history_month($1)", LONG_AGO.replace(month=2 + again))
        for hidden in (
            "select count(*) from dead_letter",
            "select reason from dead_letter",
            "select original from resource",
            "select original from resource_history",
            "select * from resource",
            f"select original from {partition_name(LONG_AGO)}",
            "select original from resource_history_default",
            "select r::text from resource r",
            "select grant_rights()",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await reader.execute(hidden)
        await reader.execute("select unit_id, name, body, content_hash from resource")
        await reader.execute("select unit_id, name, body, valid_to from resource_history")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await (writer := await apart.connect("writer")).execute("select grant_rights()")
    for connection in (owner, reader, writer):
        await connection.close()


async def test_the_migration_alone_gives_the_same_rights(apart: Apart) -> None:
    """Where the roles are there, or it may make them; what is printed besides is the right to temporary tables."""
    owner = await apart.connect("owner")
    query = (
        "select r.rolname, c.relname, array_agg(distinct a.attname::text order by a.attname::text) filter ("
        "  where has_column_privilege(r.oid, c.oid, a.attnum, 'select')) as columns,"
        " has_table_privilege(r.oid, c.oid, 'insert') as may_insert, has_table_privilege(r.oid, c.oid, 'delete')"
        " from pg_roles r, pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0"
        " where r.rolname in ('clusterinfo_writer', 'clusterinfo_reader')"
        "  and c.relnamespace = $1::regnamespace and c.relkind in ('r', 'v', 'p') and c.relname !~ '_20'"
        " group by r.rolname, r.oid, c.relname, c.oid order by 1, 2"
    )
    await migrate(owner, "fresh")
    migrated = [tuple(row) for row in await owner.fetch(query.replace("$1", "'fresh'"))]
    printed = [tuple(row) for row in await owner.fetch(query.replace("$1", "'clusterinfo'"))]
    await owner.close()
    assert migrated == printed
    assert len(migrated) > 40


async def test_grants_may_be_given_again(apart: Apart) -> None:
    owner = await apart.connect("owner")
    await owner.execute(grants("clusterinfo", apart.name))
    await owner.close()


async def test_a_database_prepared_as_documented_is_migrated_and_stored_in(kafka: ApacheKafka) -> None:
    """docs/DEPLOYMENT.md: the Job's command as the owner, then consumers as the login that may store."""
    text = (Path(__file__).parents[2] / "docs/DEPLOYMENT.md").read_text(encoding="utf-8")
    (prepare,) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    async with EmbeddedPostgres() as server, simulated_api(50) as api:
        administrator = await asyncpg.connect(server.dsn(), timeout=60)
        for statement in prepare.replace("'...'", f"'{PASSWORD}'").splitlines():
            await administrator.execute(statement)
        await administrator.close()
        env = server.env("clusterinfo") | {"DB_PASSWORD": PASSWORD} | QUIET
        consumer = env | {"DB_USER": "clusterinfo", "KAFKA_ENABLED": "true", "KAFKA_BROKERS": kafka.bootstrap}
        consumer |= {"KAFKA_TOPIC": f"topic-{uuid.uuid4().hex[:8]}", "KAFKA_GROUP_ID": f"group-{uuid.uuid4().hex[:8]}"}
        (await run("migrate", env=env | {"DB_USER": "clusterinfo-owner"})).expect(0)
        (await run("collect", "--once", env=consumer | api.env)).expect(0)
        (await run("consume", "--until-idle", "1s", "--no-migrate", env=consumer)).expect(0)
        (await run("status", env=consumer)).expect(0)


async def test_an_owner_who_may_create_no_role_is_told() -> None:
    async with EmbeddedPostgres() as server:
        administrator = await asyncpg.connect(server.dsn(), timeout=60)
        await administrator.execute(f"create role owner login password '{PASSWORD}'")
        await administrator.execute("create database apart owner owner")
        env = server.env("apart") | {"DB_USER": "owner", "DB_PASSWORD": PASSWORD}
        told = (await run("migrate", env=env)).expect(0).stderr
        await administrator.close()
    for role in (WRITER, READER):
        assert f"no right to create the role {role}: have it created" in told
