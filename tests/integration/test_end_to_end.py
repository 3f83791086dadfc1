"""A cluster in PostgreSQL, by the executable alone: through Kafka, and directly: the same rows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence

import pytest

from clusterinfo.sandbox.postgres import EmbeddedPostgres
from tests.conftest import Database, fresh_database
from tests.integration.brokers import IS_APACHE
from tests.support import checker
from tests.support.programs import Api, Ended, run, simulated_api

OBJECTS = int(os.environ.get("CLUSTERINFO_TEST_OBJECTS", "1000"))
"""20,000 take a minute and a half: for a closer look."""
PAGES = {"PAGE_SIZE": "100"}
"""Two kinds have more than one."""
KINDS = 12
PARTITIONS = 6  # as `kafka_env` says
CONSUMERS = 3 if IS_APACHE else 1
"""The embedded broker now and then loses its way when three members join at once: Apache Kafka is the judge of that."""


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with simulated_api(OBJECTS, KINDS) as running:
        yield running


@pytest.fixture
async def other(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """A second database."""
    async with fresh_database(postgres) as fresh:
        yield fresh


async def test_the_database_equals_the_api_by_either_way(
    api: Api, database: Database, other: Database, kafka_env: dict[str, str]
) -> None:
    env = api.env | kafka_env | database.env | PAGES
    collected = await run("collect", "--once", env=env)
    collected.expect(0)
    consuming = [run("consume", "--until-idle", "5s", env=env) for _ in range(CONSUMERS)]
    consumers = await asyncio.gather(*consuming)
    for consumer in consumers:
        consumer.expect(0)
    direct = await run("legacy", "--once", env=api.env | other.env | PAGES)
    direct.expect(0)

    truth = await checker.truth(api.url, api.token)
    assert await checker.problems(truth, database.dsn) == []
    assert await checker.problems(truth, other.dsn) == []
    await _holds_all_that_was_made(api, database)
    await _holds_no_secret(api, database, other)
    await _same_rows(database, other)
    await _nothing_is_left_in_kafka(database, kafka_env)
    _logs_tell_what_was_done(api, collected, consumers)
    assert all(database.env["DB_PASSWORD"] not in ended.stderr for ended in (collected, *consumers))
    shares = [one.logged("Partitions assigned")[-1]["partitions"] for one in consumers]
    print("partitions", shares)
    for ended in (collected, *consumers, direct):
        print(*ended.args, f"{ended.seconds:.1f} s")


def _logs_tell_what_was_done(api: Api, collected: Ended, consumers: Sequence[Ended]) -> None:
    """From the first line to the last, those of a cluster with its name and id; a first start is no error."""
    for ended in (collected, *consumers):
        lines = ended.lines()
        assert [lines[0]["msg"], lines[-1]["msg"]] == ["Started", "Stopped"]
        assert lines[-1]["reason"] == "all is done"
        assert ended.errors() == []
    lines = collected.lines()
    connected = next(number for number, line in enumerate(lines) if line["msg"] == "Connected")
    assert {(line["cluster"], line["cluster_id"]) for line in lines[connected:]} == {("sandbox", api.uid)}
    for consumer in consumers:
        (total,) = consumer.logged("All is stored")
        batches = consumer.logged("Batch stored")
        assert total["records"] == sum(batch["records"] for batch in batches)
        assert total["batches"] == len(batches)


async def _holds_all_that_was_made(api: Api, database: Database) -> None:
    """The simulation's own count agrees with what its lists had."""
    made = (await api.get("/_control"))["objects"]
    connection = await checker.connect(database.dsn)
    try:
        assert made > OBJECTS
        assert len(await checker.live(connection)) == made
    finally:
        await connection.close()


async def _holds_no_secret(api: Api, *databases: Database) -> None:
    canaries = await checker.secrets(api.url, api.token, await api.canaries())
    for database in databases:
        connection = await checker.connect(database.dsn)
        try:
            assert await checker.leaks(connection, canaries) == []
        finally:
            await connection.close()


async def _same_rows(database: Database, other: Database) -> None:
    first, second = await checker.connect(database.dsn), await checker.connect(other.dsn)
    try:
        assert await checker.rows(first) == await checker.rows(second)
    finally:
        await first.close()
        await second.close()


async def _nothing_is_left_in_kafka(database: Database, kafka_env: dict[str, str]) -> None:
    connection = await checker.connect(database.dsn)
    try:
        lag = await checker.lag(connection, kafka_env["KAFKA_BROKERS"], kafka_env["KAFKA_TOPIC"], PARTITIONS)
    finally:
        await connection.close()
    assert lag == dict.fromkeys(range(PARTITIONS), 0)


@pytest.mark.embedded_only
async def test_the_checker_sees_what_is_wrong(database: Database) -> None:
    async with simulated_api(100, KINDS) as api:
        (await run("legacy", "--once", env=api.env | database.env)).expect(0)
        truth = await checker.truth(api.url, api.token)
        assert await checker.problems(truth, database.dsn) == []
        secret = next(text for text in await api.canaries())
        connection = await checker.connect(database.dsn)
        try:
            for spoil, seen in SPOILT.items():
                transaction = connection.transaction()
                await transaction.start()
                await connection.execute(spoil.replace("SECRET", secret))
                found = str(checker.compare(truth, await checker.live(connection)))
                found += str(await checker.wrong_bodies(connection, truth))
                found += str(await checker.wrong_history(connection))
                found += str(await checker.leaks(connection, [secret]))
                await transaction.rollback()
                assert seen in found, spoil
        finally:
            await connection.close()


SPOILT = {
    "delete from resource where name = 'kube-system'": "1 missing",
    "update resource set deleted = true where name = 'kube-system'": "1 missing",
    "update resource set name = 'kube-sistem' where name = 'kube-system'": "1 missing: ",
    "insert into resource select r.unit_id, 'x', r.name, r.uid, r.resource_version, r.epoch, r.live_at, r.deleted, "
    "r.fidelity, r.normalization, r.content_hash, r.created, r.valid_from, r.first_observed_at, r.last_observed_at, "
    "r.body from resource r where r.name = 'kube-system'": "1 extra",
    "update resource set resource_version = '0' where name = 'kube-system'": "1 differing",
    "update resource set uid = '0' where name = 'kube-system'": "1 differing",
    "update resource set body = body #- '{metadata,labels}' where name = 'kube-system'": ".metadata.labels",
    "update resource set body = jsonb_set(body, '{metadata,labels,x}', '1') where name = 'kube-system'": ".labels.x",
    "insert into resource_history select r.unit_id, r.namespace, r.name, r.uid, '0', r.epoch, 0, 3::smallint, "
    "r.normalization, r.content_hash, true, false, r.valid_from - interval '1 hour', r.valid_from + interval '1 hour', "
    "r.first_observed_at, r.body from resource r where r.name = 'kube-system'": "overlapping",
    "update resource set body = jsonb_set(body, '{x}', to_jsonb('aSECRETb'::text)) where name = 'kube-system'": (
        "resource.body: "
    ),
    "update resource set original = convert_to(jsonb_set(body, '{x}', to_jsonb('aSECRETb'::text))::text, 'UTF8') "
    "where name = 'kube-system'": "resource.original: ",
    "update resource set body = jsonb_set(body, '{metadata,managedFields}', '[]') where name = 'kube-system'": (
        ".metadata.managedFields"
    ),
    "update unit_floor set last_error = 'SECRET'": "unit_floor.last_error: ",
}
"""What is done to the database, and what the checker must say of it."""
