"""Settings become client arguments; clients end in time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka import errors as foreign

from clusterinfo.errors import ConfigError
from clusterinfo.kafka import client
from clusterinfo.kafka.producer import partition_for
from clusterinfo.model import Unit
from clusterinfo.settings import Settings, load


# Computed by org.apache.kafka.common.utils.Utils of kafka-clients 4.1.0: toPositive(murmur2(text)) % 12
@pytest.mark.parametrize(
    ("unit", "partition"),
    [
        (Unit("5f0c9f2e-7d2c-4b0e-9a55-0a6a9d6a1b11", "", "pods"), 3),
        (Unit("5f0c9f2e-7d2c-4b0e-9a55-0a6a9d6a1b11", "apps", "deployments"), 10),
        (Unit("prod-eu", "", "secrets"), 9),
        (Unit("größe", "example.com", "widgets"), 4),
        (Unit("a", "b", "c"), 10),
        (Unit("c1", "", ""), 2),
    ],
)
def test_a_unit_has_the_partition_that_java_would_give_it(unit: Unit, partition: int) -> None:
    assert partition_for(unit, 12) == partition


def test_a_line_is_bounded() -> None:
    assert len(str(client.translate(OSError("long\n" * 1000), "sending"))) < 250


def test_brokers_and_protocol_reach_the_client() -> None:
    arguments = client.client_arguments(load({}, kafka_brokers="a:1, b:2"))
    assert arguments["bootstrap_servers"] == ["a:1", "b:2"]
    assert arguments["security_protocol"] == "PLAINTEXT"
    assert "ssl_context" not in arguments


def settings(given: dict[str, str]) -> Settings:
    return load({}, **{name.lower(): value for name, value in given.items()})


def sasl(mechanism: str, **more: str) -> dict[str, str]:
    return {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SASL_MECHANISM": mechanism, **more}


def test_a_login_reaches_the_client() -> None:
    given = sasl("SCRAM-SHA-512", KAFKA_SASL_USERNAME="me", KAFKA_SASL_PASSWORD="pw")
    arguments = client.client_arguments(settings(given))
    assert arguments["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (arguments["sasl_plain_username"], arguments["sasl_plain_password"]) == ("me", "pw")


async def test_a_token_reaches_the_client() -> None:
    arguments = client.client_arguments(settings(sasl("OAUTHBEARER", KAFKA_SASL_PASSWORD="token")))
    assert await arguments["sasl_oauth_token_provider"].token() == "token"


async def test_a_token_from_a_file_is_read_at_every_login(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    arguments = client.client_arguments(load(sasl("OAUTHBEARER", KAFKA_SASL_PASSWORD_FILE=str(file))))
    provider = arguments["sasl_oauth_token_provider"]
    assert await provider.token() == "first"
    file.write_text("second\n")
    assert await provider.token() == "second"
    file.unlink()
    assert await provider.token() == "first", "what cannot be read is as it was at the start"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"KAFKA_BROKERS": "host:port"}, "KAFKA_BROKERS"),
        (sasl("PLAIN", KAFKA_SASL_USERNAME="me"), "KAFKA_SASL_PASSWORD"),
        (sasl("PLAIN", KAFKA_SASL_PASSWORD="pw"), "KAFKA_SASL_USERNAME"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CA_FILE": "/nowhere/ca.pem"}, "KAFKA_SSL_CA_FILE"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CERT_FILE": "/nowhere/c.pem"}, "KAFKA_SSL_CERT_FILE"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_KEY_FILE": "/nowhere/k.pem"}, "KAFKA_SSL_KEY_FILE"),
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        client.client_arguments(settings(given))


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    given = {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CA_FILE": str(tmp_path / "ca.pem")}
    with pytest.raises(ConfigError, match=r"KAFKA_SSL_CA_FILE.*ca\.pem"):
        client.client_arguments(settings(given))


async def test_a_cleanup_that_hangs_fails_or_cancels_itself_is_over_in_time() -> None:
    async def hangs() -> None:
        await asyncio.sleep(3600)

    async def fails() -> None:
        raise foreign.KafkaError("broken")

    async def cancels() -> None:
        raise asyncio.CancelledError

    async def works() -> None:
        pass

    async with asyncio.timeout(2):
        assert [await client.bounded(step, 0.05) for step in (hangs, fails, cancels, works)] == [
            False,
            False,
            False,
            True,
        ]


async def test_a_task_that_ignores_the_first_cancellation_is_ended() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(3600)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(2):
        await client.end_tasks(task, None)
    assert task.cancelled()
