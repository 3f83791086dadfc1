"""One Apache Kafka with a listener for each way of talking to it, an authorizer, and users known to the tests."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable, Mapping

from tests.kafka.apache import ApacheKafka
from tests.security.certificates import Certificates, Pair

LISTENERS = {
    "TLS": "SSL",
    "MTLS": "SSL",
    "ELSEWHERE": "SSL",
    "EXPIRED": "SSL",
    "LOGIN": "SASL_PLAINTEXT",
    "TLSLOGIN": "SASL_SSL",
    "EXPIRING": "SASL_PLAINTEXT",
}
"""Listener -> its security protocol. ELSEWHERE and EXPIRED show a certificate of another host, and one of the past;
EXPIRING ends every connection when its login is `LOGIN_LASTS_MS` old."""

LOGIN_LASTS_MS = 1500

USER, PASSWORD = "alice", "canary-of-kafka-24"
ROTATED = "bob"
"""Whose password changes."""
SUPER_USERS = ("ANONYMOUS", "client", USER, ROTATED)
PRINCIPALS = tuple(f"principal{number}" for number in range(16))
"""Users without any rights, whose password is `PASSWORD` too: each is given to one test."""
TENANTS = ("north", "south", "store")
"""Two collectors, each with a topic of its own, and their consumer; the password is `PASSWORD` too."""
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")

_MODULES = "org.apache.kafka.common.security"


def unsigned_token(user: str, valid_s: float) -> str:
    """A token such as Kafka's validator for tests takes: JSON Web Token, RFC 7519, section 6, "Unsecured JWTs"."""
    now = time.time()
    parts = {"alg": "none"}, {"sub": user, "iat": now - 60, "exp": now + valid_s}
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


def guarded_kafka(certificates: Certificates) -> ApacheKafka:
    """A broker that lets super users do anything, and others what ACLs say."""
    shown = {
        "TLS": certificates.server,
        "MTLS": certificates.server,
        "TLSLOGIN": certificates.server,
        "ELSEWHERE": certificates.elsewhere,
        "EXPIRED": certificates.expired,
    }
    properties: dict[str, str] = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": ";".join(f"User:{name}" for name in SUPER_USERS),
        "ssl.principal.mapping.rules": "RULE:^.*[cC][nN]=([a-zA-Z]+).*$/$1/,DEFAULT",
        "listener.name.mtls.ssl.client.auth": "required",
        "auto.create.topics.enable": "false",
    }
    for listener, pair in shown.items():
        properties |= listener_tls(listener.lower(), pair, certificates)
    for listener in ("login", "tlslogin", "expiring"):
        properties |= _logins(listener, dict.fromkeys((USER, *PRINCIPALS, *TENANTS), PASSWORD))
    for mechanism in MECHANISMS:
        properties[f"listener.name.expiring.{mechanism.lower()}.connections.max.reauth.ms"] = str(LOGIN_LASTS_MS)
    scram = [
        f"{mechanism}=[name={name},password={PASSWORD}]" for mechanism in MECHANISMS[1:3] for name in (USER, ROTATED)
    ]
    return ApacheKafka(LISTENERS, scram, **properties)


def listener_tls(listener: str, pair: Pair, certificates: Certificates) -> dict[str, str]:
    """The properties by which a listener shows the certificate of `pair` and trusts our authority."""
    prefix = f"listener.name.{listener}.ssl"
    return {
        f"{prefix}.keystore.type": "PEM",
        f"{prefix}.keystore.location": str(pair.both),
        f"{prefix}.truststore.type": "PEM",
        f"{prefix}.truststore.location": str(certificates.ca),
    }


def _logins(listener: str, users: Mapping[str, str]) -> dict[str, str]:
    known = " ".join(f'user_{name}="{password}"' for name, password in users.items())
    return {
        f"listener.name.{listener}.sasl.enabled.mechanisms": ",".join(MECHANISMS),
        **_jaas(listener, ["plain"], f"{_MODULES}.plain.PlainLoginModule required {known};"),
        **_jaas(listener, ["scram-sha-256", "scram-sha-512"], f"{_MODULES}.scram.ScramLoginModule required;"),
        # Takes tokens nobody signed, but not expired ones: Kafka's own, for tests.
        **_jaas(
            listener,
            ["oauthbearer"],
            f'{_MODULES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";',
        ),
    }


def _jaas(listener: str, mechanisms: Iterable[str], module: str) -> dict[str, str]:
    return {f"listener.name.{listener}.{mechanism}.sasl.jaas.config": module for mechanism in mechanisms}
