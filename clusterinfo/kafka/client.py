"""How to reach Kafka: settings -> client arguments, foreign errors -> ours, the first connection, dropping a client.

aiokafka's exceptions are translated here, from tables, and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from enum import Enum
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.abc import AbstractTokenProvider
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import AuthenticationFailedError, CorruptRecordException, KafkaConnectionError, KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from clusterinfo.errors import ClusterinfoError, ConfigError, FatalError, RecordError, RestartError, TransientError
from clusterinfo.kafka.aiokafka_patches import codecs, reading
from clusterinfo.settings import Settings

codecs.install()
reading.install()

CONNECT_TIMEOUT_S = 20.0  # DESIGN: "At start each end gets 20 s to connect once, then exit 1 with one line"
REQUEST_TIMEOUT_MS = 20_000  # half of aiokafka's: a request that hangs must end within a send's deadline of 60 s
RETRY_S = 0.5
STOP_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 1.0  # to close sockets nobody answers on


class Next(Enum):
    """What to do after an error."""

    RETRY = "do the same again, after a pause"
    REJOIN = "the group goes on without this member: aiokafka joins again; if it does not, another consumer does"
    NEW_PRODUCER = "aiokafka does not recover from it: another producer, and the list anew"
    SET_ASIDE = "the record, or the batch, is larger than the broker takes, or damaged"
    HALT = "nothing the program can do will help: stop with one line"


# Codes: https://kafka.apache.org/protocol#protocol_error_codes
CODES: Final = {
    -1: Next.RETRY,  # unknown server error; what aiokafka does not know arrives as this one too
    2: Next.SET_ASIDE,  # corrupt message
    3: Next.RETRY,  # unknown topic or partition: metadata on its way
    5: Next.RETRY,  # leader not available
    6: Next.RETRY,  # not the leader
    7: Next.RETRY,  # request timed out
    8: Next.RETRY,  # broker not available; aiokafka calls it and the next one final
    9: Next.RETRY,  # replica not available
    10: Next.SET_ASIDE,  # message too large
    14: Next.RETRY,  # coordinator loads
    15: Next.RETRY,  # coordinator not available
    16: Next.RETRY,  # not the coordinator
    18: Next.SET_ASIDE,  # record list too large
    19: Next.RETRY,  # not enough replicas
    20: Next.RETRY,  # not enough replicas after append
    22: Next.REJOIN,  # illegal generation
    23: Next.HALT,
    24: Next.HALT,
    25: Next.REJOIN,  # unknown member
    26: Next.HALT,
    27: Next.REJOIN,  # rebalance in progress
    29: Next.HALT,
    30: Next.HALT,
    31: Next.HALT,
    33: Next.HALT,
    34: Next.HALT,
    35: Next.HALT,
    41: Next.RETRY,  # not the controller
    45: Next.NEW_PRODUCER,  # out of order sequence number
    47: Next.NEW_PRODUCER,  # invalid producer epoch
    53: Next.HALT,
    56: Next.RETRY,  # storage error
    58: Next.HALT,
    59: Next.NEW_PRODUCER,  # unknown producer id
    79: Next.REJOIN,  # member id required
}
"""Error code of the protocol -> what to do."""

OTHERWISE: Final = Next.HALT
"""For a code without an entry, and a foreign error without a code, unless aiokafka calls it retriable: rather stop than
spin."""

REMEDIES = {
    23: "the group has members of another kind; give KAFKA_GROUP_ID a name of its own",
    24: "the broker refuses this group name; change KAFKA_GROUP_ID",
    26: "the broker refuses this session timeout",
    29: "no rights on the topic; grant Read, Write, Describe and Create on it, or change KAFKA_TOPIC",
    30: "no rights on the consumer group; grant Read on it, or change KAFKA_GROUP_ID",
    31: "no rights on the cluster; grant IdempotentWrite, and Create unless the topic exists",
    33: "the broker does not offer this mechanism; change KAFKA_SASL_MECHANISM",
    34: "the broker did not expect a login; check KAFKA_SECURITY_PROTOCOL",
    35: "the broker's version is not supported; clusterinfo needs Kafka 2.1 or later",
    53: "no rights to send as this producer",
    58: "login refused; check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
}
"""What halts -> what to do about it: every code that halts has one."""

_ERRORS: Final[dict[Next, type[ClusterinfoError]]] = {
    Next.RETRY: TransientError,
    Next.REJOIN: TransientError,
    Next.NEW_PRODUCER: RestartError,
    Next.SET_ASIDE: RecordError,
    Next.HALT: FatalError,
}
MAX_DETAIL_CHARS = 200


def explain(error: BaseException) -> str:
    """One bounded line about a foreign error: its text, or its class if it has none."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"  # asyncio's text repeats the address instead
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MAX_DETAIL_CHARS else f"{text[:MAX_DETAIL_CHARS]}..."


def translate(error: BaseException, doing: str) -> ClusterinfoError:
    """The error of ours that says what to do after `error`; `doing` begins its line. Raise it from `error`."""
    if isinstance(error, ClusterinfoError):
        return error
    if remedy := _remedy(error):
        return FatalError(f"{doing}: {remedy} ({explain(error)})")
    return _ERRORS[next_after(error)](f"{doing}: {explain(error)}")


def is_final(error: BaseException) -> bool:
    """Whether a table says that waiting cannot help: no rights, a refused login, a version that does not fit."""
    return bool(_remedy(error))


def next_after(error: BaseException) -> Next:
    """What to do after an exception of aiokafka or of the network."""
    if isinstance(error, AuthenticationFailedError | ssl.SSLError):
        return Next.HALT
    code = getattr(error, "errno", None) if isinstance(error, KafkaError) else None
    if code in CODES:
        return CODES[code]
    if isinstance(error, CorruptRecordException):
        return Next.SET_ASIDE
    if isinstance(error, OSError) or getattr(error, "retriable", False):  # TimeoutError is an OSError
        return Next.RETRY
    return OTHERWISE


def _remedy(error: BaseException) -> str:
    if isinstance(error, AuthenticationFailedError):
        return REMEDIES[58]
    if isinstance(error, ssl.SSLError):
        return "no TLS connection; check KAFKA_SECURITY_PROTOCOL and the KAFKA_SSL_ files"
    return REMEDIES.get(getattr(error, "errno", 0), "") if isinstance(error, KafkaError) else ""


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
        raise ConfigError(f"{variable} names {path!r}, which cannot be used: {explain(error)}") from error


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


class _AfreshClient(AIOKafkaClient):  # type: ignore[misc]  # aiokafka is untyped
    """A client that reads password and certificates again for every connection; see `log_in_afresh`."""

    _settings: Settings
    _last_context: ssl.SSLContext

    @property
    def _sasl_plain_password(self) -> str | None:
        return self._settings.secret("kafka_sasl_password")

    @property
    def _ssl_context(self) -> ssl.SSLContext | None:
        if not self._settings.kafka_security_protocol.endswith("SSL"):
            return None
        with contextlib.suppress(ConfigError):  # half of a pair is written: the ones before, until the next time
            self._last_context = _ssl_context(self._settings)
        return self._last_context


def log_in_afresh(client: AIOKafkaClient, settings: Settings) -> None:
    """From now on `client` (of a producer or consumer) connects with the password and certificates of that moment.

    aiokafka keeps what it was built with in two attributes, which it reads whenever it connects.
    """
    client._last_context = client._ssl_context
    client.__class__ = _AfreshClient
    client._settings = settings


class Client(Protocol):
    """What aiokafka's producer, consumer and admin client have in common."""

    async def start(self) -> None: ...


_levels: list[int] = []  # one for each block of `quiet` that is entered: how loud it was before the first


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """aiokafka says nothing meanwhile: what goes wrong in the block is raised, in one line of ours.

    Blocks may overlap, in any order: it speaks again, as loud as before the first, after the last.
    """
    logger = logging.getLogger("aiokafka")
    _levels.append(_levels[0] if _levels else logger.level)
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        level = _levels.pop()
        if not _levels:
            logger.setLevel(level)


async def probe(settings: Settings, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
    """Return once one of the brokers answers (and lets us in).

    aiokafka's own bootstrap only logs why it failed; this says it. Raises FatalError, in one line, at once for a
    refused login or certificate, else after `timeout_s` seconds; ConfigError for settings that cannot be used.
    """
    arguments = client_arguments(settings)
    brokers = collect_hosts(arguments.pop("bootstrap_servers"))
    last: BaseException | None = None
    with quiet():
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    for host, port, _ in brokers:
                        try:
                            return await _knock(host, port, arguments)
                        except (OSError, KafkaError) as error:
                            last = error
                            _give_up_if_fatal(error, f"{host}:{port}")
                    await asyncio.sleep(RETRY_S)
        except TimeoutError:
            reason = explain(last) if last else "no answer"
            raise unreachable(settings, timeout_s, reason, remedy=_remedy_of_closing(last, settings)) from None


async def _knock(host: str, port: int, arguments: dict[str, Any]) -> None:
    """Connect, log in and ask: a broker that wanted a login, or another token, hangs up at the first question."""
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


def _give_up_if_fatal(error: BaseException, broker: str) -> None:
    if isinstance(translated := translate(error, f"Kafka at {broker}"), FatalError):
        raise translated from error


def unreachable(settings: Settings, timeout_s: float, reason: str, *, remedy: str = "") -> FatalError:
    """The one line for a first connection that did not come about."""
    usual = "check that it runs, and set KAFKA_BROKERS to its address as clients see it (host:port, comma-separated)"
    brokers = ",".join(settings.kafka_brokers)
    return FatalError(f"cannot reach Kafka at {brokers} within {timeout_s:g} s: {reason}; {remedy or usual}")


@contextlib.asynccontextmanager
async def first_time(settings: Settings, timeout_s: float = CONNECT_TIMEOUT_S) -> AsyncIterator[None]:
    """The block must end within `timeout_s`; foreign errors of it leave as ours, in one line, aiokafka silent."""
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


async def bounded(step: Callable[[], Awaitable[object]], timeout_s: float) -> bool:
    """Run a cleanup step of a foreign client; False if it failed or took longer than `timeout_s`.

    The step runs in a task of its own: aiokafka's `stop()` has been seen to raise CancelledError that nobody asked for
    (#647), which must not be taken for ours.
    """
    task = asyncio.ensure_future(step())
    try:
        await asyncio.wait([task], timeout=timeout_s)
    finally:
        if not task.done():
            task.cancel()
    return task.done() and not task.cancelled() and task.exception() is None


async def end_tasks(*tasks: asyncio.Future[Any] | None, timeout_s: float = 2.0) -> None:
    """Cancel tasks of a foreign client until they end, at most for `timeout_s`.

    Its tasks catch the first cancellation to wait for tasks of their own, which may never end; so cancel again.
    """
    given = {task for task in tasks if task is not None}
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    while (left := {task for task in given if not task.done()}) and asyncio.get_running_loop().time() < deadline_s:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=0.05)
    for task in given - left:
        if not task.cancelled():
            task.exception()  # seen: nobody else will ask


async def drop_producer(producer: AIOKafkaProducer) -> None:
    """End a producer without waiting for what it holds: every delivery still awaited fails. Takes 3 s at most.

    Idempotent batches never expire (aiokafka #1101), so `stop()` would wait for a broker for ever. This takes apart
    what `stop()` would: the sender task, the accumulator, the client.
    """
    producer._closed = True  # or its __del__ complains
    await end_tasks(producer._sender.sender_task)
    producer._message_accumulator.fail_all(KafkaError("the producer was dropped"))
    await bounded(producer.client.close, CLOSE_TIMEOUT_S)


async def stop_consumer(consumer: AIOKafkaConsumer, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Leave the group and close, within `timeout_s`; then end what is left by force (aiokafka #647, #1013)."""
    with quiet():
        if await bounded(consumer.stop, timeout_s):
            return
        coordinator, fetcher = consumer._coordinator, consumer._fetcher
        if coordinator is not None:
            await end_tasks(
                coordinator._coordination_task, coordinator._heartbeat_task, coordinator._commit_refresh_task
            )
        if fetcher is not None:
            await end_tasks(fetcher._fetch_task, *fetcher._pending_tasks)
        await bounded(consumer._client.close, CLOSE_TIMEOUT_S)
