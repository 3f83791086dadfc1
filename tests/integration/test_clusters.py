"""`clusterinfo clusters`: whose clusters are, and what they are called."""

from __future__ import annotations

import orjson
import pytest

from tests.conftest import Database
from tests.support import checker
from tests.support.programs import run, simulated_api

QUICK = {"BATCH_WAIT": "100ms"}


@pytest.mark.embedded_only  # what these commands ask of PostgreSQL is asked below too, and nothing of Kafka
async def test_a_cluster_is_listed_moved_and_renamed(database: Database, kafka_env: dict[str, str]) -> None:
    env = database.env | kafka_env | QUICK
    other = env | {"KAFKA_TOPIC": env["KAFKA_TOPIC"] + "-other"}
    both = env | {"KAFKA_TOPIC": env["KAFKA_TOPIC"] + "*"}
    connection = await checker.connect(database.dsn)
    try:
        async with simulated_api(100, 12) as api:
            for topic in (env, other):
                (await run("collect", "--once", env=topic | api.env)).expect(0)
                (await run("consume", "--until-idle", "1s", env=both)).expect(0)
            (cluster,) = orjson.loads((await run("clusters", "list", "-o", "json", env=env)).expect(0).stdout)
            assert (cluster["cluster"], cluster["uid"], cluster["topic"]) == ("sandbox", api.uid, env["KAFKA_TOPIC"])
            assert cluster["objects"] == await connection.fetchval("select count(*) from resources")
            letters = await connection.fetchval("select count(*) from dead_letter")
            assert letters > 100

            moved = await run("clusters", "move", "sandbox", "--topic", other["KAFKA_TOPIC"], env=env)
            assert (
                f"belongs to topic {other['KAFKA_TOPIC']} now, before to topic {env['KAFKA_TOPIC']}"
                in moved.expect(0).stdout
            )
            assert f"{letters} dead letters of topic {other['KAFKA_TOPIC']} wait" in moved.stderr
            (await run("dead-letters", "replay", "--all", env=env)).expect(0)
            (await run("collect", "--once", env=other | api.env)).expect(0)
            (await run("consume", "--until-idle", "1s", env=both)).expect(0)
            assert await connection.fetchval("select count(*) from dead_letter where replayed_at is null") == 0

            (await run("clusters", "rename", "sandbox", "prod", env=env)).expect(0)
            assert {row["cluster"] for row in await connection.fetch("select distinct cluster from pods")} == {"prod"}
            (await run("collect", "--once", env=other | api.env)).expect(0)
            (await run("consume", "--until-idle", "1s", env=both)).expect(0)
            table = (await run("clusters", "list", env=env)).expect(0).stdout
            assert "prod" in table
            assert "its collector calls it sandbox" in table
            assert other["KAFKA_TOPIC"] in table
            (await run("collect", "--once", env=other | api.env | {"CLUSTER_NAME": "stage"})).expect(0)
            (await run("consume", "--until-idle", "1s", env=both)).expect(0)
            assert await connection.fetchval("select label from cluster") == "stage", "its collector has the last word"
    finally:
        await connection.close()


async def test_what_cannot_be_is_refused_in_one_line(database: Database) -> None:
    env = database.env
    for uid in "ab":
        await _make(database, uid, f"cluster-{uid}")
    for words, said in (
        (("move", "nobody", "--topic", "t"), "there is no such cluster; stored are: cluster-a, cluster-b"),
        (("move", "cluster-a", "--topic", "t*"), "--topic is 't*': allowed is the name of one topic"),
        (("rename", "cluster-a", "cluster-b"), "which is how the cluster with uid b is shown"),
        (("rename", "cluster-a", " "), "allowed are 1 to 253 printable characters"),
    ):
        ended = (await run("clusters", *words, env=env)).expect(2)
        (error,) = ended.errors()
        assert said in error
    (await run("clusters", "rename", "cluster-a", "cluster-a", env=env)).expect(0)
    (await run("clusters", "move", "a", "--topic", "", env=env)).expect(0)
    assert "<none>" in (await run("clusters", "list", env=env)).expect(0).stdout


async def test_a_collector_refuses_several_topics_before_it_connects(kafka_env: dict[str, str]) -> None:
    for topic in ("a,b", "a*"):
        env = kafka_env | {"KAFKA_TOPIC": topic, "KUBECONFIG": "/nowhere"}
        (error,) = (await run("collect", "--once", env=env)).expect(2).errors()
        assert f"KAFKA_TOPIC is '{topic}': a collector sends to one topic" in error


async def _make(database: Database, uid: str, label: str) -> None:
    connection = await database.connect()
    await connection.execute(
        "insert into cluster (uid, name, label, topic, first_seen, last_seen) values ($1, $2, $2, 't', now(), now())",
        uid,
        label,
    )
    await connection.close()
