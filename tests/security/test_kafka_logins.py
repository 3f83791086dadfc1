"""Who gets into Kafka and who does not: protocols, certificates, mechanisms, passwords and tokens, on a real broker."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import asyncpg
import pytest

from clusterinfo.errors import ClusterinfoError, TransientError
from clusterinfo.kafka import probe
from clusterinfo.kafka.consumer.group import ConsumerGroup
from clusterinfo.kafka.producer import KafkaSink
from clusterinfo.observations import Observation
from clusterinfo.settings import load
from tests.conftest import Database
from tests.kafka.apache import ApacheKafka
from tests.security.brokers import MECHANISMS, PASSWORD, USER, unsigned_token
from tests.security.certificates import Certificates
from tests.support.programs import QUIET, Api, run, simulated_api

WRONG = "canary-of-nobody-at-all"


@dataclass(frozen=True, slots=True)
class Case:
    """A listener, how it is talked to (`@name`: a file of the certificates), and what a refusal says; "": let in."""

    listener: str
    protocol: str
    given: dict[str, str]
    refusal: str = ""
    code: int = 1

    def __str__(self) -> str:
        given = "+".join(f"{name.lower()}={value}" for name, value in self.given.items() if "PASSWORD" not in name)
        return f"{self.listener}-{self.protocol}-{given}-{'refused' if self.refusal else 'let in'}"


CA = {"SSL_CA_FILE": "@ca"}
OTHER_CA = {"SSL_CA_FILE": "@other_ca"}
PAIR = {"SSL_CERT_FILE": "@client.certificate", "SSL_KEY_FILE": "@client.key"}
STRANGER = {"SSL_CERT_FILE": "@stranger.certificate", "SSL_KEY_FILE": "@stranger.key"}
EXPIRED_PAIR = {"SSL_CERT_FILE": "@expired_client.certificate", "SSL_KEY_FILE": "@expired_client.key"}
NO_TRUST = "check KAFKA_SECURITY_PROTOCOL and the KAFKA_SSL_ files.*"


def login(mechanism: str, user: str = USER, password: str = "") -> dict[str, str]:
    """The right one, unless `password` is given: the user's, or a token that is good for an hour."""
    right = "token" if mechanism == "OAUTHBEARER" else PASSWORD
    return {"SASL_MECHANISM": mechanism, "SASL_USERNAME": user, "SASL_PASSWORD": password or right}


TLS = [
    Case("TLS", "SSL", CA),
    Case("TLS", "SSL", CA | PAIR),  # not asked for, and shown all the same
    Case("TLS", "SSL", OTHER_CA, NO_TRUST + "unable to get local issuer"),
    Case("TLS", "SSL", {}, NO_TRUST + "unable to get local issuer"),  # the system's authorities
    Case("ELSEWHERE", "SSL", CA, NO_TRUST + "not valid for '127.0.0.1'"),
    Case("EXPIRED", "SSL", CA, NO_TRUST + "has expired"),
    Case("TLS", "SSL", {"SSL_CA_FILE": "@no_pem"}, "KAFKA_SSL_CA_FILE names .*no certificate", code=2),
    Case("TLS", "SSL", {"SSL_CA_FILE": "/nowhere"}, "KAFKA_SSL_CA_FILE names .*No such file", code=2),
    Case("MTLS", "SSL", CA | PAIR),
    Case("MTLS", "SSL", CA, "KAFKA_SSL_CERT_FILE if it asks for certificates"),
    Case("MTLS", "SSL", CA | STRANGER, "KAFKA_SSL_CERT_FILE"),
    Case("MTLS", "SSL", CA | EXPIRED_PAIR, "KAFKA_SSL_CERT_FILE"),
    Case("MTLS", "SSL", OTHER_CA | PAIR, NO_TRUST),
    Case(
        "MTLS", "SSL", CA | {"SSL_CERT_FILE": "@client.certificate"}, "KAFKA_SSL_CERT_FILE .with KAFKA_SSL_KEY", code=2
    ),
    Case("MTLS", "SSL", CA | {"SSL_KEY_FILE": "@client.key"}, "KAFKA_SSL_KEY_FILE is set, but", code=2),
    Case(
        "MTLS",
        "SSL",
        CA | {"SSL_CERT_FILE": "@client.certificate", "SSL_KEY_FILE": "@server.key"},
        "KAFKA_SSL_CERT_FILE .with KAFKA_SSL_KEY_FILE.*KEY_VALUES_MISMATCH",
        code=2,
    ),
]
LOGINS = [
    case
    for mechanism in MECHANISMS
    for case in (
        Case("LOGIN", "SASL_PLAINTEXT", login(mechanism)),
        Case("TLSLOGIN", "SASL_SSL", CA | login(mechanism)),
        Case("LOGIN", "SASL_PLAINTEXT", login(mechanism, password=WRONG), "check KAFKA_SASL_USERNAME and .*PASSWORD"),
        Case("TLSLOGIN", "SASL_SSL", CA | login(mechanism, password=WRONG), "check KAFKA_SASL_USERNAME and .*PASSWORD"),
    )
] + [
    *(
        Case("LOGIN", "SASL_PLAINTEXT", login(mechanism, user="nobody"), "check KAFKA_SASL_USERNAME")
        for mechanism in MECHANISMS[:3]
    ),
    Case("TLSLOGIN", "SASL_SSL", CA | login("OAUTHBEARER", password="expired"), "does not accept the token"),
    Case("TLSLOGIN", "SASL_SSL", OTHER_CA | login("PLAIN"), NO_TRUST),
    Case("LOGIN", "SASL_PLAINTEXT", {"SASL_MECHANISM": "PLAIN", "SASL_USERNAME": USER}, "PASSWORD is not set", code=2),
    Case("LOGIN", "SASL_PLAINTEXT", {"SASL_MECHANISM": "PLAIN", "SASL_PASSWORD": WRONG}, "USERNAME is not set", code=2),
    Case("LOGIN", "SASL_PLAINTEXT", {}, "KAFKA_SASL_MECHANISM is not set", code=2),
    Case("LOGIN", "SASL_PLAINTEXT", login("GSSAPI"), "KAFKA_SASL_MECHANISM is 'GSSAPI'", code=2),
]
# What speaks another protocol hangs up.
PROTOCOLS = [
    Case("TLS", "PLAINTEXT", {}, r"KAFKA_SECURITY_PROTOCOL .PLAINTEXT."),
    Case("LOGIN", "PLAINTEXT", {}, r"KAFKA_SECURITY_PROTOCOL .PLAINTEXT."),
    Case("LOGIN", "SSL", CA, r"KAFKA_SECURITY_PROTOCOL .SSL."),
    Case("LOGIN", "SASL_SSL", CA | login("PLAIN"), r"KAFKA_SECURITY_PROTOCOL .SASL_SSL."),
    Case("TLSLOGIN", "SASL_PLAINTEXT", login("PLAIN"), r"KAFKA_SECURITY_PROTOCOL .SASL_PLAINTEXT."),
    Case("TLSLOGIN", "SSL", CA, r"KAFKA_SECURITY_PROTOCOL .SSL."),
    Case("TLS", "SASL_SSL", CA | login("PLAIN"), "did not expect a login; check KAFKA_SECURITY_PROTOCOL"),
]
CASES = [*TLS, *LOGINS, *PROTOCOLS]
TOKENS = {"token": 3600.0, "expired": -10.0}


def environment(case: Case, kafka: ApacheKafka, certificates: Certificates) -> dict[str, str]:
    """The variables of a case, for a topic of its own."""
    values = {f"KAFKA_{name}": _value(value, certificates) for name, value in case.given.items()}
    named = {"KAFKA_BROKERS": kafka.bootstrap_of(case.listener), "KAFKA_SECURITY_PROTOCOL": case.protocol}
    return values | named | {"KAFKA_TOPIC": f"topic-{uuid.uuid4().hex[:8]}", "KAFKA_TOPIC_PARTITIONS": "1"}


def _value(value: str, certificates: Certificates) -> str:
    if value in TOKENS:
        return unsigned_token(USER, TOKENS[value])
    return certificates.find(value)


async def tried_at_once(seconds: float, step: Callable[[], Awaitable[None]], *, pause_s: float) -> None:
    """A broker that hangs up may be one that starts, so it is asked again for 20 s: here it is asked once."""
    try:
        async with asyncio.timeout(seconds):
            return await step()
    except TransientError as error:
        raise TimeoutError from error


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "retried_within", tried_at_once)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_who_gets_in(case: Case, kafka: ApacheKafka, certificates: Certificates) -> None:
    env = environment(case, kafka, certificates)
    observed: list[Observation] = []

    async def both_ends() -> None:
        settings = load(env)
        async with KafkaSink.connect(settings, observed.append):
            pass
        async with ConsumerGroup.connect(settings, observed.append):
            pass

    if not case.refusal:
        return await both_ends()
    with pytest.raises(ClusterinfoError, match=case.refusal) as caught:
        await both_ends()
    assert caught.value.exit_code == case.code
    shown = str(caught.value) + str(observed)
    assert "\n" not in shown
    assert not [text for text in (PASSWORD, WRONG, env.get("KAFKA_SASL_PASSWORD", WRONG)) if text in shown]
    return None


@pytest.fixture(scope="module")
async def api() -> AsyncIterator[Api]:
    async with simulated_api(50) as running:
        yield running


async def test_the_pipeline_works_over_tls_with_a_login(
    api: Api, kafka: ApacheKafka, certificates: Certificates, database: Database, connection: asyncpg.Connection
) -> None:
    case = Case("TLSLOGIN", "SASL_SSL", CA | login("SCRAM-SHA-512"))
    env = api.env | database.env | environment(case, kafka, certificates) | QUIET
    env |= {"KAFKA_ENABLED": "true", "KAFKA_GROUP_ID": f"group-{uuid.uuid4().hex[:8]}", "LOG_LEVEL": "debug"}
    ended = [await run("collect", "--once", env=env), await run("consume", "--until-idle", "1s", env=env)]
    for one in ended:
        one.expect(0)
        assert PASSWORD not in one.stdout + one.stderr
    assert await connection.fetchval("select count(*) from resources") > 50


@pytest.mark.parametrize(
    "case",
    [
        Case("TLSLOGIN", "SASL_SSL", CA | login("PLAIN", password=WRONG), "KAFKA_SASL_PASSWORD"),
        Case("TLSLOGIN", "SASL_SSL", OTHER_CA | login("PLAIN"), "KAFKA_SSL_"),
        Case("TLSLOGIN", "SASL_SSL", {"SSL_CA_FILE": "@no_pem"} | login("PLAIN"), "KAFKA_SSL_CA_FILE", code=2),
    ],
    ids=str,
)
async def test_the_program_says_it_in_one_line(
    api: Api, case: Case, kafka: ApacheKafka, certificates: Certificates
) -> None:
    env = api.env | environment(case, kafka, certificates) | QUIET | {"KAFKA_ENABLED": "true"}
    ended = (await run("collect", "--once", env=env)).expect(case.code)
    started, line = ended.lines()
    assert started["msg"] == "Started"
    assert case.refusal in line["msg"]
    assert PASSWORD not in ended.stderr
    assert WRONG not in ended.stderr
