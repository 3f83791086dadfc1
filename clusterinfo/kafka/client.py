"""Settings -> the arguments of an aiokafka client: addresses, TLS, login. Every client of the program begins here."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

from aiokafka.abc import AbstractTokenProvider
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import collect_hosts

from clusterinfo.errors import ConfigError, one_line, quoted_path
from clusterinfo.kafka.aiokafka_patches import bootstrap, codecs, login, quiet, reading
from clusterinfo.settings import Settings

bootstrap.install()
codecs.install()
quiet.install()
reading.install()

REQUEST_TIMEOUT_MS = 20_000  # half of aiokafka's: a request that hangs must end within a send's deadline of 60 s


class _Token(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka is untyped
    """The token as it is now: it expires, and whoever writes its file writes it again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def token(self) -> str:
        return self._settings.secret("kafka_sasl_password") or ""


def client_arguments(settings: Settings) -> dict[str, Any]:
    """What every aiokafka client is built with. Raises ConfigError naming the variable that is wrong."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": _brokers(settings),
        "client_id": "clusterinfo",
        "security_protocol": settings.kafka_security_protocol,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
    }
    if settings.kafka_security_protocol.endswith("SSL"):
        arguments["ssl_context"] = _ssl_context(settings)
    if settings.kafka_security_protocol.startswith("SASL"):
        arguments |= _sasl(settings)
    return arguments


def _brokers(settings: Settings) -> list[str]:
    try:
        collect_hosts(settings.kafka_brokers)
    except ValueError as error:
        given = ",".join(settings.kafka_brokers)
        raise ConfigError(f"KAFKA_BROKERS is {given!r}: allowed is host:port, several separated by commas") from error
    return settings.kafka_brokers


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    authorities = settings.kafka_ssl_ca_file
    with _blaming("KAFKA_SSL_CA_FILE", str(authorities)):
        context = ssl.create_default_context(cafile=authorities)
    if settings.kafka_ssl_cert_file is not None:
        key = settings.kafka_ssl_key_file
        with _blaming("KAFKA_SSL_CERT_FILE (with KAFKA_SSL_KEY_FILE)", str(settings.kafka_ssl_cert_file)):
            context.load_cert_chain(settings.kafka_ssl_cert_file, key)
    elif settings.kafka_ssl_key_file is not None:
        raise ConfigError("KAFKA_SSL_KEY_FILE is set, but KAFKA_SSL_CERT_FILE is not: a key needs its certificate")
    return context


@contextlib.contextmanager
def _blaming(variable: str, path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(f"{variable} names {quoted_path(path)}, which cannot be used: {one_line(error)}") from error


def _sasl(settings: Settings) -> dict[str, Any]:
    password = settings.secret("kafka_sasl_password")
    mechanism = settings.kafka_sasl_mechanism
    if password is None:
        raise ConfigError(f"KAFKA_SASL_PASSWORD is not set, but KAFKA_SASL_MECHANISM is {mechanism}")
    if mechanism == "OAUTHBEARER":
        return {"sasl_mechanism": mechanism, "sasl_oauth_token_provider": _Token(settings)}
    if settings.kafka_sasl_username is None:
        raise ConfigError(f"KAFKA_SASL_USERNAME is not set, but KAFKA_SASL_MECHANISM is {mechanism}")
    return {
        "sasl_mechanism": mechanism,
        "sasl_plain_username": settings.kafka_sasl_username,
        "sasl_plain_password": password,
    }


def refresh_credentials(client: AIOKafkaClient, settings: Settings) -> None:
    """From now on `client` (of a producer or consumer) connects with the password and certificates of that moment."""
    uses_tls = settings.kafka_security_protocol.endswith("SSL")
    login.refresh_credentials(
        client,
        password=lambda: settings.secret("kafka_sasl_password"),
        ssl_context=lambda: _ssl_context(settings) if uses_tls else None,
    )
