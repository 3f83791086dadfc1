"""Settings become client arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterinfo.errors import ConfigError
from clusterinfo.kafka import client
from clusterinfo.settings import Settings, load


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


@pytest.mark.parametrize("content", ["-----BEGIN PRIVATE KEY-----canary", "canary\nhunter2", "canary" * 100])
@pytest.mark.parametrize("variable", ["KAFKA_SSL_CA_FILE", "KAFKA_SSL_CERT_FILE"])
def test_a_certificate_where_its_file_is_expected_is_not_quoted(variable: str, content: str) -> None:
    given = {"KAFKA_SECURITY_PROTOCOL": "SSL", variable: content, "KAFKA_SSL_KEY_FILE": content}
    with pytest.raises(ConfigError, match=f"^{variable} .*something that is no path") as caught:
        client.client_arguments(settings(given if "CERT" in variable else {**given, "KAFKA_SSL_CERT_FILE": "x"}))
    assert "canary" not in str(caught.value)
