"""The whole pipeline on Apache Kafka, judged by Kafka's own tools."""

from __future__ import annotations

from clusterinfo.settings import Settings
from tests.conftest import Database
from tests.kafka.apache import ApacheKafka
from tests.support import checker
from tests.support.programs import run, simulated_api

GROUP = "cluster-info-consumer"
TOPIC = "pipeline"
PARTITIONS = 6
OBJECTS = 200


async def test_kafka_itself_says_that_the_group_has_stored_everything(broker: ApacheKafka, database: Database) -> None:
    kafka_env = {
        "KAFKA_ENABLED": "true",
        "KAFKA_BROKERS": broker.bootstrap,
        "KAFKA_TOPIC": TOPIC,
        "KAFKA_PARTITION": "auto",
        "KAFKA_TOPIC_PARTITIONS": str(PARTITIONS),
    }
    async with simulated_api(OBJECTS, 12) as api:
        env = api.env | kafka_env | database.env
        (await run("collect", "--once", env=env)).expect(0)
        (await run("consume", "--until-idle", "3s", env=env)).expect(0)
        assert await checker.problems(await checker.truth(api.url, api.token), database.dsn) == []

    assert Settings.model_fields["kafka_group_id"].default == GROUP
    shown = {
        int(partition): (committed, end, lag)
        for group, topic, partition, committed, end, lag in described(await broker.consumer_groups_describe(GROUP))
        if (group, topic) == (GROUP, TOPIC)
    }
    assert sorted(shown) == list(range(PARTITIONS))
    assert {lag for _, _, lag in shown.values()} == {"0"}
    assert all(committed == end for committed, end, _ in shown.values())
    assert sum(int(end) for _, end, _ in shown.values()) > OBJECTS


def described(printed: str) -> list[list[str]]:
    """GROUP, TOPIC, PARTITION, CURRENT-OFFSET, LOG-END-OFFSET and LAG of every line that has them."""
    lines = [line.split() for line in printed.splitlines()]
    return [words[:6] for words in lines if len(words) >= 6 and words[2].isdigit()]
