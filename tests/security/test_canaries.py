"""A canary in every place where secrets hide, carried through the whole pipeline: none is found at its end.

Not in the topic, the tables, the dead letters, the logs (of level debug), the metrics. The credentials of the programs
themselves are looked for too, and what the API says in its errors.
"""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from aiokafka import AIOKafkaConsumer, TopicPartition

from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.sandbox.processes import free_port
from tests.conftest import Database
from tests.kafka.apache import ApacheKafka
from tests.security.brokers import PASSWORD, USER
from tests.security.canaries import CUSTOM, PLACES, REQUESTS, spellings, text_of
from tests.support import checker
from tests.support.programs import Program, running

KEY = "canary-of-the-redaction-key"
ERROR = "canary-of-an-error-text"
OPT_IN = ("configmap", "configmap in binary")
"""Stay as they are unless REDACT_CONFIGMAPS asks for them."""


class Talkative(SimulatedKubernetes):
    """Its list of jobs fails, with a URL and its password in the message: such a thing a webhook says."""

    async def _answer(self, request: web.Request, user: str) -> web.StreamResponse:
        if request.path == "/apis/batch/v1/jobs":
            message = f"conversion webhook failed: Post https://hook:{ERROR}@hooks.example/convert: EOF"
            body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": 500}
            return web.json_response(body | {"reason": "InternalError"}, status=500)
        return await super()._answer(request, user)


@pytest.fixture
async def api() -> AsyncIterator[SimulatedKubernetes]:
    """A cluster with a canary in every place."""
    cluster = SimulatedCluster(seed=24)
    for crd in (CUSTOM, REQUESTS):
        cluster.add_crd(*crd)
    for place, made in PLACES.items():
        cluster.create(*made(text_of(place)))
    async with Talkative(cluster, token="canary-of-the-bearer-token") as serving:
        yield serving


async def topic_of(env: dict[str, str], bootstrap: str) -> list[bytes]:
    """Every message, all of it: key, value, headers."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        partition = TopicPartition(env["KAFKA_TOPIC"], 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        found: list[bytes] = []
        while await consumer.position(partition) < end:
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                found += [b"\n".join([m.key or b"", m.value, *(value for _, value in m.headers)]) for m in batch]
        return found
    finally:
        await consumer.stop()


async def scraped(address: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics") as response:
        return await response.text()


async def stored(connection: asyncpg.Connection, programs: list[Program]) -> None:
    """Wait until a whole run of lists is stored."""
    async with asyncio.timeout(60):
        while not await connection.fetchval("select count(*) from snapshot where completed_at is not null"):
            for program in programs:
                assert program.is_running, program.stderr()
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("with_configmaps", [True, False], ids=["ConfigMaps too", "by default"])
async def test_no_canary_is_found(
    api: SimulatedKubernetes,
    database: Database,
    connection: asyncpg.Connection,
    kafka: ApacheKafka,
    tmp_path: Path,
    with_configmaps: bool,
) -> None:
    unique, addresses = uuid.uuid4().hex[:8], [f"127.0.0.1:{free_port()}" for _ in range(2)]
    env = database.env | {
        "KUBECONFIG": str(api.write_kubeconfig(tmp_path / "kubeconfig")),
        "KAFKA_ENABLED": "true",
        "KAFKA_BROKERS": kafka.bootstrap_of("LOGIN"),
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": USER,
        "KAFKA_SASL_PASSWORD": PASSWORD,
        "KAFKA_TOPIC": f"topic-{unique}",
        "KAFKA_GROUP_ID": f"group-{unique}",
        "KAFKA_TOPIC_PARTITIONS": "1",
        "REDACTION_KEY": KEY,
        "REDACT_CONFIGMAPS": str(with_configmaps).lower(),
        "LOG_LEVEL": "debug",
    }
    async with (
        running("consume", env=env | {"METRICS_ADDRESS": addresses[0]}) as consumer,
        running("collect", env=env | {"METRICS_ADDRESS": addresses[1]}) as collector,
    ):
        programs = [consumer, collector]
        await stored(connection, programs)
        metrics = [await scraped(address) for address in addresses]
        for program in programs:
            program.signal(signal.SIGTERM)
        logs = [(await program.ended()).expect(0).stderr for program in programs]

    sent = await topic_of(env, kafka.bootstrap)
    places = [place for place in PLACES if with_configmaps or place not in OPT_IN]
    planted = [*map(text_of, places), KEY, ERROR, PASSWORD, api.token, database.env["DB_PASSWORD"]]
    assert len(planted) >= 24
    texts = [spelling for text in planted for spelling in spellings(text)]
    secrets = checker.Secrets(texts)
    assert [leak for message in sent for leak in secrets.within(message)] == []
    assert [leak for text in [*logs, *metrics] for leak in secrets.within(text)] == []
    assert await checker.leaks(connection, texts) == []
    # All of it was there to be found: objects, a dead letter, an error, debug lines, numbers.
    assert len(sent) > len(PLACES)
    assert await connection.fetchval("select count(*) from dead_letter") == 1
    assert "hooks.example" in await connection.fetchval("select last_error from freshness where resource = 'jobs'")
    assert all('"level":"debug"' in log for log in logs)
    assert all("clusterinfo_" in text for text in metrics)
    # And would have been: what nobody asked to be redacted is.
    harmless = checker.Secrets(spellings(text_of("configmap")))
    assert any(harmless.within(message) for message in sent) != with_configmaps
    assert bool(await checker.leaks(connection, spellings(text_of("configmap")))) != with_configmaps
