"""The ACLs that SECURITY.md lists are what each role needs: with them it works, without one it is refused."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import asyncpg
import orjson
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.conftest import Database
from tests.kafka.apache import ApacheKafka
from tests.security.acls import Acl, allow, documented
from tests.security.brokers import PASSWORD, PRINCIPALS
from tests.support.programs import JSON, QUIET, Api, Ended, run, simulated_api

ACLS = documented()
COMMANDS = {"collect": ("collect", "--once"), "consume": ("consume", "--until-idle", "1s", "--no-migrate")}
NAMED = {"topic": "KAFKA_TOPIC", "group": "KAFKA_GROUP_ID"}


@pytest.fixture(scope="module")
async def api() -> AsyncIterator[Api]:
    async with simulated_api(50) as running:
        yield running


@pytest.fixture(scope="module")
def principals() -> Iterator[str]:
    """Each is given away once."""
    return iter(PRINCIPALS)


@pytest.fixture
def env(api: Api, database: Database, kafka: ApacheKafka) -> dict[str, str]:
    """A topic and a group of the test's own, on the listener that asks for a login."""
    unique = uuid.uuid4().hex[:8]
    named = {"KAFKA_TOPIC": f"topic-{unique}", "KAFKA_GROUP_ID": f"group-{unique}", "KAFKA_TOPIC_PARTITIONS": "1"}
    reached = {"KAFKA_ENABLED": "true", "KAFKA_BROKERS": kafka.bootstrap_of("LOGIN"), "KAFKA_SASL_PASSWORD": PASSWORD}
    how = {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SASL_MECHANISM": "PLAIN"}
    return api.env | database.env | named | reached | how | QUIET


async def make_topic(kafka: ApacheKafka, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1)])
    await admin.close()


async def run_as(principal: str, role: str, env: dict[str, str]) -> Ended:
    return await run(*COMMANDS[role], env=env | {"KAFKA_SASL_USERNAME": principal})


async def test_both_roles_work_with_what_is_listed(
    kafka: ApacheKafka, principals: Iterator[str], env: dict[str, str], connection: asyncpg.Connection
) -> None:
    """And nothing else: the collector makes the topic, the consumer reads it."""
    for role in COMMANDS:
        principal = next(principals)
        await allow(kafka.bootstrap, principal, [acl for acl in ACLS if acl.role == role], env)
        (await run_as(principal, role, env)).expect(0)
        assert await examined(env | {"KAFKA_SASL_USERNAME": principal}, role) == []
    assert await connection.fetchval("select count(*) from resources") > 50


@pytest.mark.parametrize("lacking", ACLS, ids=str)
async def test_what_lacks_is_named_in_one_line(
    lacking: Acl, kafka: ApacheKafka, principals: Iterator[str], env: dict[str, str]
) -> None:
    """Everything listed for the role, but one; the topic is there unless the right to make it is what lacks."""
    principal = next(principals)
    held = [acl for acl in ACLS if acl.role == lacking.role and acl != lacking]
    await allow(kafka.bootstrap, principal, held, env)
    if lacking.operation != "Create":
        await make_topic(kafka, env["KAFKA_TOPIC"])
    ended = await run_as(principal, lacking.role, env)
    if not lacking.is_needed:
        ended.expect(0)
        return
    ended.expect(1)
    (error,) = ended.errors()
    assert NAMED[lacking.resource] in error
    assert lacking.operation in error
    if lacking.operation != "Create":
        refused = await examined(env | {"KAFKA_SASL_USERNAME": principal}, lacking.role)
        assert [lacking.operation in line["found"] + line["remedy"] for line in refused] == [True]


async def examined(env: dict[str, str], role: str) -> list[JSON]:
    """What `clusterinfo doctor` has against this user; nothing was written to find out."""
    ended = await run("doctor", role, "--output", "json", env=env)
    return [line for line in orjson.loads(ended.stdout) if line["state"] not in ("ok", "unknown")]


async def test_status_works_with_describe_and_says_when_the_group_may_not_be_seen(
    kafka: ApacheKafka, principals: Iterator[str], env: dict[str, str]
) -> None:
    await make_topic(kafka, env["KAFKA_TOPIC"])
    principal = env | {"KAFKA_SASL_USERNAME": next(principals)}
    name = principal["KAFKA_SASL_USERNAME"]
    await allow(kafka.bootstrap, name, [Acl("status", "topic", "KAFKA_TOPIC", "Describe", True)], env)
    report = await status(principal)
    assert (report["consumers"]["state"], report["consumers"]["members"]) == ("unknown", None)
    assert "no rights on the consumer group" in report["consumers"]["error"]
    assert report["kafka_error"] == ""
    assert [partition["lag"] for partition in report["partitions"]] == [0]

    await allow(kafka.bootstrap, name, [Acl("status", "group", "KAFKA_GROUP_ID", "Describe", True)], env)
    report = await status(principal)
    assert (report["consumers"]["state"], report["consumers"]["members"], report["consumers"]["error"]) == (
        "Dead",
        0,
        "",
    )


async def status(env: dict[str, str]) -> JSON:
    """What scripts read of an empty database, which needs attention."""
    report: JSON = orjson.loads((await run("status", "--output", "json", env=env)).expect(3).stdout)
    return report
