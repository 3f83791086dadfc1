"""No secret text leaves the cluster, planted or recorded: in no message, row, line of log or error."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.conftest import Database
from tests.support import checker
from tests.support.programs import Api, run, simulated_api

pytestmark = pytest.mark.embedded_only

OBJECTS = 300
RECORDED = json.loads(json.loads((Path(__file__).parents[1] / "recorded" / "list-secrets.json").read_text())["body"])[
    "items"
]
KEY = {"REDACTION_KEY": "a key that must not be seen either"}


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """A simulated cluster with the recorded Secrets in it."""
    async with simulated_api(OBJECTS) as running:
        for item in RECORDED:
            metadata = item["metadata"] | {"name": f"recorded-{item['metadata']['name']}"}
            await running.control("create", resource="secrets", body=item | {"metadata": metadata})
        yield running


async def secret_texts(api: Api) -> list[str]:
    """What must be nowhere: all that was planted but what stands in ConfigMaps, and the values that were recorded."""
    recorded = {value for item in RECORDED for value in item["data"].values()}
    recorded |= {base64.b64decode(value).decode() for value in recorded}
    return await checker.secrets(api.url, api.token, [*await api.canaries(), *recorded])


async def messages(kafka_env: dict[str, str]) -> list[bytes]:
    """All that stands in the topic, as it is there: key, value and headers of each message, joined."""
    found: list[bytes] = []
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka_env["KAFKA_BROKERS"])
    await consumer.start()
    try:
        partitions = [TopicPartition(kafka_env["KAFKA_TOPIC"], number) for number in range(6)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                found += [b"\n".join([m.key or b"", m.value, *(value for _, value in m.headers)]) for m in batch]
    finally:
        await consumer.stop()
    return found


@pytest.mark.parametrize("settings", [{}, KEY], ids=["no key", "key"])
async def test_no_secret_text_leaves_the_cluster(
    api: Api, database: Database, connection: asyncpg.Connection, kafka_env: dict[str, str], settings: dict[str, str]
) -> None:
    planted = await secret_texts(api)
    secrets = checker.Secrets([*planted, *KEY.values(), database.env["DB_PASSWORD"], api.token])
    assert len(planted) > 4 * OBJECTS * 0.08, "two values in each Secret, plain and in base64"
    env = api.env | database.env | kafka_env | settings | {"LOG_LEVEL": "debug"}
    await api.control("fail", resource="services")
    ended = list(await asyncio.gather(run("collect", "--once", env=env), run("legacy", "--once", env=env)))
    ended += [await run("consume", "--until-idle", "1s", env=env)]
    assert [one.code for one in ended] == [3, 3, 0]

    sent = await messages(kafka_env)
    assert len(sent) > OBJECTS / 2
    assert [leak for message in sent for leak in secrets.within(message)] == []
    assert await checker.leaks(connection, planted) == []
    for one in ended:
        assert secrets.within(one.stderr + one.stdout) == []
        assert any(line["level"] == "debug" for line in one.lines()), "debug lines were looked at too"


async def test_errors_quote_no_secret(api: Api, database: Database, kafka_env: dict[str, str]) -> None:
    """A body that is cut off, a page of another list: what is reported of them is not their text."""
    secrets = checker.Secrets(await secret_texts(api))
    await api.control("cut_body", resource="secrets", times=None)
    await api.control("wrong_resource_version", resource="configmaps", page=2)
    env = api.env | database.env | kafka_env | {"LOG_LEVEL": "debug", "PAGE_SIZE": "10"}
    ended = await run("legacy", "--once", env=env)
    ended.expect(3)
    assert secrets.within(ended.stderr) == []


@pytest.mark.parametrize("settings", [{}, KEY], ids=["no key", "key"])
async def test_a_rotation_is_visible_and_a_value_is_not(
    api: Api, database: Database, connection: asyncpg.Connection, settings: dict[str, str]
) -> None:
    items = (await api.get("/api/v1/secrets"))["items"]
    rotated, touched = [item["metadata"] for item in items if item["metadata"]["name"] in ("sec-0", "sec-1")]
    env = api.env | database.env | settings
    (await run("legacy", "--once", env=env)).expect(0)
    before = await _password(connection, rotated)
    # As long as the one before: only a fingerprint tells them apart.
    value = base64.b64encode(b"canary-" + b"5" * 20).decode()
    await _update(api, rotated, {"data": {"password": value}})
    await _update(api, touched, {"metadata": {"managedFields": []}})  # a new version with nothing new in it
    (await run("legacy", "--once", env=env)).expect(0)

    after = await _password(connection, rotated)
    history = await connection.fetch("select namespace, name from resource_history")
    ended = [(row["namespace"], row["name"]) for row in history]
    if settings:
        assert after != before
        assert after.startswith("hmac-sha256:")
        assert ended == [(rotated["namespace"], rotated["name"])]
    else:
        assert after == before == "redacted:len<=32", "without a key only the length class is known"
        assert ended == []
    assert await checker.leaks(connection, [value, *(await api.canaries())[:100]]) == []


async def _password(connection: asyncpg.Connection, metadata: checker.JSON) -> str:
    found = await connection.fetchval(
        "select object #>> '{data,password}' from resources "
        "where resource = 'secrets' and namespace = $1 and name = $2",
        metadata["namespace"],
        metadata["name"],
    )
    return str(found)


async def _update(api: Api, metadata: checker.JSON, patch: checker.JSON) -> None:
    await api.control("update", resource="secrets", namespace=metadata["namespace"], name=metadata["name"], patch=patch)
