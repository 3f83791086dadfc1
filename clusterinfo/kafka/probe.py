"""The first connection: whether Kafka answers and accepts the login, else one line about why not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import AuthenticationFailedError, KafkaConnectionError, KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from clusterinfo.errors import FatalError, TransientError, one_line
from clusterinfo.kafka.aiokafka_patches.quiet import quiet
from clusterinfo.kafka.aiokafka_patches.stopping import STOP_TIMEOUT_S
from clusterinfo.kafka.client import client_arguments
from clusterinfo.kafka.errors import translate
from clusterinfo.settings import Settings
from clusterinfo.waiting import retried_within

CONNECT_TIMEOUT_S = 20.0  # at a start, then exit 1 with one line (docs/DESIGN.md, section 8)
RETRY_S = 0.5


async def probe(settings: Settings, timeout_s: float | None = None) -> None:
    """Return once one of the brokers answers (and accepts the login).

    aiokafka's own bootstrap only logs why it failed. Raises FatalError, in one line, at once for a
    refused login or certificate, else after `timeout_s`, or CONNECT_TIMEOUT_S; ConfigError for settings that cannot be
    used.
    """
    timeout_s = timeout_s or CONNECT_TIMEOUT_S
    arguments = client_arguments(settings)
    brokers = collect_hosts(arguments.pop("bootstrap_servers"))
    last: BaseException | None = None

    async def try_each() -> None:
        nonlocal last
        for host, port, _ in brokers:
            try:
                return await _knock(host, port, arguments)
            except (OSError, KafkaError) as error:
                last = error
                _raise_if_fatal(error, f"{host}:{port}")
        raise TransientError("no broker answers") from last

    with quiet():
        try:
            await retried_within(timeout_s, try_each, pause_s=RETRY_S)
        except TimeoutError:
            reason = one_line(last) if last else "no answer"
            raise unreachable(settings, timeout_s, reason, remedy=_remedy_of_closing(last, settings)) from None


async def _knock(host: str, port: int, arguments: dict[str, Any]) -> None:
    """Connect, log in and send a request: a broker that wanted a login, or another token, hangs up at the first one."""
    connection = await create_conn(host, port, **arguments)
    try:
        answer = await connection.send(MetadataRequest([]))
        if not answer.brokers:  # Kafka answers one request of a login it refused, with nothing, and then hangs up
            await connection.send(MetadataRequest([]))
    except KafkaConnectionError as error:
        if arguments.get("sasl_mechanism") == "OAUTHBEARER":  # aiokafka does not read why the token is refused
            raise AuthenticationFailedError("the broker does not accept the token") from error
        raise
    finally:
        if (closing := connection.close()) is not None:
            await asyncio.wait([closing], timeout=STOP_TIMEOUT_S)


def _remedy_of_closing(error: BaseException | None, settings: Settings) -> str:
    """What to do about a broker that is there, and hangs up; "" for one that is not."""
    if not isinstance(error, KafkaConnectionError | ConnectionResetError):
        return ""
    protocol = settings.kafka_security_protocol
    certificate = ", and KAFKA_SSL_CERT_FILE if it asks for certificates" if protocol.endswith("SSL") else ""
    return f"check KAFKA_SECURITY_PROTOCOL ({protocol}) against what that listener speaks{certificate}"


def _raise_if_fatal(error: BaseException, broker: str) -> None:
    if isinstance(translated := translate(error, f"Kafka at {broker}"), FatalError):
        raise translated from error


def unreachable(settings: Settings, timeout_s: float, reason: str, *, remedy: str = "") -> FatalError:
    """The one line for a first connection that did not come about."""
    usual = "check that it runs, and set KAFKA_BROKERS to its address as clients see it (host:port, comma-separated)"
    brokers = ",".join(settings.kafka_brokers)
    return FatalError(f"cannot reach Kafka at {brokers} within {timeout_s:g} s: {reason}; {remedy or usual}")


@contextlib.asynccontextmanager
async def first_connection(settings: Settings, timeout_s: float | None = None) -> AsyncIterator[None]:
    """The block must end within `timeout_s`, or CONNECT_TIMEOUT_S; foreign errors of it leave as ours, in one line,
    aiokafka silent."""
    timeout_s = timeout_s or CONNECT_TIMEOUT_S
    with quiet():
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError as error:
            reason = "a broker answered, but not the ones it names: check its advertised.listeners"
            raise unreachable(settings, timeout_s, reason) from error
        except (KafkaError, OSError) as error:
            translated = translate(error, f"Kafka at {','.join(settings.kafka_brokers)}")
            raise FatalError(str(translated)) from error
