"""Maintaining a database by its commands, as their users run them."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from clusterinfo.model import Rejected
from clusterinfo.postgres.sink import PostgresSink
from tests.conftest import Database
from tests.support.programs import EXECUTABLE, Ended, environment, run, running, simulated_api
from tests.support.records import LANE, Feed, Listing

pytestmark = pytest.mark.embedded_only

STRANGE = Rejected(
    offset=3,
    reason="ce_type is missing",
    key=b"\xff",
    headers=[("who", b"\x1b[31mme"), ("raw", b"\xfe")],
    value=b"a\x1b[0m\xff\n",
)


@pytest.fixture
async def filled(database: Database) -> Database:
    """Three objects, two of them without their bodies, and three dead letters."""
    async with PostgresSink.connect(database.settings(), lambda _: None) as sink:
        await sink.open(LANE)
        listing = Listing("100")
        bodies = {"a": b'{"n":hunter2}', "b": b"{"}
        records = [listing.item(name, "1", body=bodies.get(name)) for name in "abc"]
        await sink.write(Feed().batch(*records, listing.completed(), rejected=(STRANGE,)))
    return database


async def letters(database: Database, *args: str, code: int = 0) -> Ended:
    ended = await run("dead-letters", *args, env=database.env)
    return ended.expect(code)


async def listed(database: Database, *args: str) -> list[dict[str, Any]]:
    ended = await letters(database, "list", "-o", "json", *args)
    rows = orjson.loads(ended.stdout)
    assert isinstance(rows, list)
    return rows


async def test_dead_letters_are_listed_for_people_and_for_scripts(filled: Database) -> None:
    head, *lines = (await letters(filled, "list", "-o", "wide")).stdout.splitlines()
    assert re.split("  +", head) == ["ID", "AGE", "RECORD", "OBJECT", "SIZE", "SQLSTATE", "REPLAYED", "REASON"]
    assert [line.split()[0] for line in lines] == ["3", "2", "1"]
    assert re.split("  +", lines[2])[2:] == [
        "cluster-info/0/3",
        "<none>",
        "7",
        "<none>",
        "<none>",
        "ce_type is missing",
    ]
    assert "configmaps ns/a" in lines[1]
    rows = await listed(filled)
    assert [row["object"] for row in rows] == ["configmaps ns/b", "configmaps ns/a", ""]
    assert rows[2] | {"created_at": ""} == {
        "id": 1, "created_at": "", "topic": "cluster-info", "partition": 0, "offset": 3, "cluster": None, "object": "",
        "reason": "ce_type is missing", "sqlstate": None, "size_bytes": 7, "cut_off": False, "replayed_at": None,
    }  # fmt: skip
    assert [row["id"] for row in await listed(filled, "--reason", "POSTGRESQL REFUSED")] == [3, 2]
    assert (await letters(filled, "list", "-o", "name")).stdout == "3\n2\n1\n"
    one = await letters(filled, "list", "-o", "name", "--limit", "1")
    assert one.stdout == "3\n"
    assert [line["msg"] for line in one.lines()] == ["2 older dead letters are not shown"]


async def test_a_letter_is_shown_without_steering_the_terminal(filled: Database) -> None:
    shown = (await letters(filled, "show", "1")).stdout
    assert "\x1b" not in shown
    assert r"header who: \x1b[31mme" in shown
    assert "reason: ce_type is missing" in shown
    assert shown.endswith("\n\na\\x1b[0m\\xff\n\n")
    named = (await letters(filled, "show", "2")).stdout
    assert "header ce_subject: core/configmaps/ns/a" in named
    assert "sqlstate: 22P02" in named


async def test_scripts_read_a_letter_whole(filled: Database) -> None:
    letter = orjson.loads((await letters(filled, "show", "1", "-o", "json")).stdout)
    assert letter["key"] == {"base64": "/w=="}
    assert letter["headers"] == {"who": "\x1b[31mme", "raw": {"base64": "/g=="}}
    assert base64.b64decode(letter["value"]["base64"]) == STRANGE.value
    assert (letter["id"], letter["reason"]) == (1, "ce_type is missing")
    refused = await run("dead-letters", "show", "1", "--raw", "-o", "json", env=filled.env)
    assert refused.expect(2).errors() == ["--raw and --output contradict each other: give one of them"]


async def test_the_value_comes_out_byte_for_byte(filled: Database, tmp_path: Path) -> None:
    command = [str(EXECUTABLE), "dead-letters", "show", "1", "--raw"]
    env = environment(filled.env, tmp_path)
    assert await asyncio.to_thread(lambda: subprocess.check_output(command, env=env)) == STRANGE.value


async def test_replaying_says_of_each_what_came_of_it(filled: Database, connection: asyncpg.Connection) -> None:
    await connection.execute("update dead_letter set value = '{\"n\": 1}', size_bytes = 8 where id = 2")
    ended = await letters(filled, "replay", "--all", code=1)
    assert [re.split("  +", line.strip())[:3] for line in ended.stdout.splitlines()[:3]] == [
        ["ID", "RESULT", "REASON"],
        ["1", "refused", "no CloudEvent 1.0: ce_specversion is missing"],
        ["2", "stored"],
    ]
    assert re.match(r" 3   refused   PostgreSQL refused the body", ended.stdout.splitlines()[3])
    assert ended.errors() == ["2 of 3 dead letters were refused again, and stay"]
    assert await connection.fetchval("select fidelity from resource where name = 'a'") == 3
    assert [row["id"] for row in await listed(filled)] == [3, 1]
    assert [row["id"] for row in await listed(filled, "--all")] == [3, 2, 1]
    again = await letters(filled, "replay", "2")
    assert again.stdout.splitlines()[1] == " 2   unchanged   known already, or older"


async def test_dropping_prints_how_many(filled: Database, connection: asyncpg.Connection) -> None:
    assert (await letters(filled, "drop", "1", "1")).stdout == "dropped 1 dead letters\n"
    await connection.execute("update dead_letter set replayed_at = now() where id = 2")
    assert (await letters(filled, "drop", "--replayed")).stdout == "dropped 1 dead letters\n"
    assert [row["id"] for row in await listed(filled, "--all")] == [3]
    assert (await letters(filled, "drop", "--all", "-o", "name")).stdout == "3\n"
    assert (await letters(filled, "replay", "--all")).stdout == "(no dead letters)\n"
    assert (await letters(filled, "list")).stdout == "(no dead letters)\n"


async def test_a_cluster_is_forgotten(filled: Database, connection: asyncpg.Connection) -> None:
    unknown = await run("forget", "--cluster", "tset", "--yes", env=filled.env)
    assert "did you mean test?" in unknown.expect(2).errors()[0]
    ended = await run("forget", "--cluster", "test", "--resource", "configmaps", "--yes", env=filled.env)
    assert ended.expect().stdout == "forgot configmaps of cluster test: 1 kinds, 3 objects, 0 versions in history\n"
    ended = await run("forget", "--cluster", "test", "--yes", env=filled.env)
    assert ended.expect().stdout == "forgot cluster test: 0 kinds, 0 objects, 0 versions in history\n"
    assert await connection.fetchval("select count(*) from cluster") == 0


@pytest.mark.parametrize(("answer", "code", "left"), [("n", 1, 1), ("y", 0, 0)])
async def test_a_person_is_asked_first(
    filled: Database, connection: asyncpg.Connection, tmp_path: Path, answer: str, code: int, left: int
) -> None:
    ended, output = await asyncio.to_thread(_asked, environment(filled.env, tmp_path), answer)
    assert ended == code, output
    assert "all that is stored of cluster 'test', history included? [y/N]" in output
    assert await connection.fetchval("select count(*) from cluster") == left


def _asked(env: dict[str, str], answer: str) -> tuple[int, str]:
    """Exit code and stderr of a `forget` on a terminal where that answer is typed."""
    ours, theirs = os.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        command = [str(EXECUTABLE), "forget", "--cluster", "test"]
        done = subprocess.run(command, stdin=theirs, capture_output=True, text=True, env=env, check=False)
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stderr


# --- offsets reset, beside a consumer and a broker -------------------------------------------------------------------


async def test_a_consumer_that_runs_reads_all_of_it_again_and_changes_nothing(
    database: Database, connection: asyncpg.Connection, kafka_env: dict[str, str]
) -> None:
    env = database.env | kafka_env | {"METRICS_ADDRESS": ""}
    async with simulated_api(300) as api, running("consume", env=env) as consumer:
        await consumer.wait_for_output("Partition claimed")
        (await run("collect", "--once", env=api.env | env)).expect()
        await _until(connection, "select count(*) = 1 from snapshot where completed_at is not null")
        (await run("consume", "--until-idle", "1s", env=env)).expect()
        objects, ends = await _objects(connection), await _offsets(connection)
        forgot = (await run("offsets", "reset", env=env)).expect()
        assert forgot.stdout == f"forgot the offsets of 6 partitions of topic {env['KAFKA_TOPIC']}\n"
        assert await _offsets(connection) == {}
        (await run("collect", "--once", env=api.env | env)).expect()
        async with asyncio.timeout(60):
            while not await _is_past(connection, ends):
                await asyncio.sleep(0.1)
        (await run("consume", "--until-idle", "1s", env=env)).expect()
        consumer.signal(signal.SIGTERM)
        (await consumer.ended()).expect()
    assert await _objects(connection) == objects
    assert await connection.fetchval("select count(*) from resource_history") == 0
    counts = await connection.fetch("select units_completed, units_failed, objects from snapshot order by id")
    assert len(counts) == 2
    assert counts[0] == counts[1]
    assert counts[0]["objects"] == len(objects)


async def _offsets(connection: asyncpg.Connection) -> dict[int, int]:
    rows = await connection.fetch("select partition, next_offset from kafka_offset where next_offset is not null")
    return {row["partition"]: row["next_offset"] for row in rows}


async def _is_past(connection: asyncpg.Connection, ends: dict[int, int]) -> bool:
    now = await _offsets(connection)
    return all(now.get(partition, -1) > end for partition, end in ends.items())


async def _objects(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    """Everything about the rows but when they were last seen."""
    return list(
        await connection.fetch(
            "select unit_id, namespace, name, uid, resource_version, deleted, fidelity, content_hash, created, "
            "valid_from, first_observed_at, body from resource order by unit_id, namespace, name"
        )
    )


async def _until(connection: asyncpg.Connection, question: str) -> None:
    async with asyncio.timeout(60):
        while not await connection.fetchval(question):
            await asyncio.sleep(0.1)


async def test_another_topic_than_the_stored_one_is_reported(filled: Database) -> None:
    ended = (await run("offsets", "reset", env=filled.env | {"KAFKA_TOPIC": "clusterinfo"})).expect()
    (warning,) = ended.logged("no offsets of topic clusterinfo are stored, but of cluster-info")
    assert "KAFKA_TOPIC" in warning["remedy"]
    ended = (await run("offsets", "reset", "-o", "json", env=filled.env)).expect()
    assert orjson.loads(ended.stdout) == [{"topic": "cluster-info", "partitions": 1}]


async def test_a_second_group_on_one_database_is_refused_in_one_line(
    filled: Database, kafka_env: dict[str, str]
) -> None:
    ended = await run("consume", "--until-idle", "1s", env=filled.env | kafka_env)
    (error,) = ended.expect(2).errors()
    assert f"KAFKA_GROUP_ID is '{kafka_env['KAFKA_GROUP_ID']}'" in error
    assert "group 'cluster-info-consumer' (topic 'cluster-info')" in error
    assert "clusterinfo offsets reset" in error


async def test_a_topic_that_was_created_anew_is_named_with_the_remedy(
    database: Database, connection: asyncpg.Connection, kafka_env: dict[str, str]
) -> None:
    env = database.env | kafka_env
    async with simulated_api(100) as api:
        (await run("collect", "--once", env=api.env | env)).expect()
        (await run("consume", "--until-idle", "1s", env=env)).expect()
        rows = await connection.fetchval("select count(*) from resource")
        new = env | {"KAFKA_TOPIC": f"{env['KAFKA_TOPIC']}-new"}
        # The broker cannot delete a topic: the stored offsets are given to one that holds less.
        await connection.execute("update kafka_offset set topic = $1, next_offset = 100000", new["KAFKA_TOPIC"])
        (await run("collect", "--once", env=api.env | new)).expect()
        (error,) = (await run("consume", "--until-idle", "1s", env=new)).expect(1).errors()
        assert new["KAFKA_TOPIC"] in error
        assert "created again; run `clusterinfo offsets reset`" in error
        (await run("offsets", "reset", env=new)).expect()
        (await run("consume", "--until-idle", "1s", env=new)).expect()
    assert await connection.fetchval("select count(*) from resource") == rows
    assert await connection.fetchval("select count(*) from freshness where state not in ('verified', 'excluded')") == 0
