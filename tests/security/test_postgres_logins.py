"""Who gets into PostgreSQL, and whether encrypted: every sslmode against every sort of server.

What is expected is libpq's table: PostgreSQL manual, 34.19.1, "SSL Mode Descriptions", and 34.19.3: "require", given a
root certificate, checks as "verify-ca" does. The servers are Debian's: the embedded one has no TLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest

from clusterinfo.errors import ClusterinfoError
from clusterinfo.postgres import pool as postgres_connection
from clusterinfo.postgres.pool import open_pool
from clusterinfo.sandbox.postgres import BIN_VARIABLE, EmbeddedPostgres
from clusterinfo.settings import Settings, load
from tests.security.certificates import Certificates, Pair
from tests.support.programs import QUIET, run

DEBIAN = Path("/usr/lib/postgresql/15/bin")
USER, PASSWORD, WRONG = "app", "canary-of-postgres-24", "canary-of-nobody-at-all"
MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

# What pg_hba.conf says of our user; the administrator may log in as the sandbox does.
ANY = f"host all {USER} 127.0.0.1/32 scram-sha-256"
TLS_ONLY = f"hostssl all {USER} 127.0.0.1/32 scram-sha-256"
CERTIFIED = f"{TLS_ONLY} clientcert=verify-ca"
ADMINISTRATOR = "host all postgres 127.0.0.1/32 scram-sha-256"

PLAIN, ENCRYPTED = "plain", "encrypted"
NO_TLS = "has no TLS, but DB_SSL_MODE is {mode}"
NOT_TRUSTED = "no TLS connection, and DB_SSL_MODE is {mode}: .*self-signed certificate.*DB_SSL_ROOT_CERT"
ELSEWHERE = "no TLS connection, and DB_SSL_MODE is {mode}: .*not valid for '127.0.0.1'.*check DB_HOST"
EXPIRED = "no TLS connection, and DB_SSL_MODE is {mode}: .*has expired.*DB_SSL_ROOT_CERT"
NOT_PLAIN = "no encryption .SQLSTATE 28000.; check DB_USER, DB_SSL_MODE and DB_SSL_CERT"
NO_CERTIFICATE = "requires a valid client certificate .SQLSTATE 28000.; .*DB_SSL_CERT"
NO_ROOT = "DB_SSL_MODE is {mode}: root certificate .* set DB_SSL_ROOT_CERT"
NOT_ACCEPTED = "accepts the certificate in DB_SSL_CERT"

CA, OTHER_CA = {"root_cert": "@ca"}, {"root_cert": "@other_ca"}
PAIR = {"cert": "@client.certificate", "key": "@client.key"}
STRANGER = {"cert": "@stranger.certificate", "key": "@stranger.key"}
EXPIRED_PAIR = {"cert": "@expired_client.certificate", "key": "@expired_client.key"}

# Server, DB_SSL_ files -> what comes of each mode, in the order of MODES.
TABLE: list[tuple[str, dict[str, str], tuple[str, ...]]] = [
    ("no TLS", CA, (PLAIN, PLAIN, PLAIN, NO_TLS, NO_TLS, NO_TLS)),
    ("TLS", CA, (PLAIN, PLAIN, ENCRYPTED, ENCRYPTED, ENCRYPTED, ENCRYPTED)),
    ("TLS", OTHER_CA, (PLAIN, PLAIN, ENCRYPTED, NOT_TRUSTED, NOT_TRUSTED, NOT_TRUSTED)),
    ("TLS", {}, (PLAIN, PLAIN, ENCRYPTED, ENCRYPTED, NO_ROOT, NO_ROOT)),
    ("TLS only", CA, (NOT_PLAIN, ENCRYPTED, ENCRYPTED, ENCRYPTED, ENCRYPTED, ENCRYPTED)),
    ("of another host", CA, (PLAIN, PLAIN, ENCRYPTED, ENCRYPTED, ENCRYPTED, ELSEWHERE)),
    ("expired", CA, (PLAIN, PLAIN, ENCRYPTED, EXPIRED, EXPIRED, EXPIRED)),
    ("asks for a certificate", CA | PAIR, (NOT_PLAIN, *[ENCRYPTED] * 5)),
    # "prefer" tries without encryption last, and that refusal is the one it tells: so does libpq.
    ("asks for a certificate", CA, (NOT_PLAIN, NO_CERTIFICATE, NOT_PLAIN, *[NO_CERTIFICATE] * 3)),
]


@dataclass(frozen=True, slots=True)
class Case:
    """A server, what it is reached with, and what comes of it: plain, encrypted, or what a refusal says."""

    server: str
    mode: str
    expected: str
    files: dict[str, str] = field(default_factory=dict)
    password: str = PASSWORD
    code: int = 1

    def __str__(self) -> str:
        files = "+".join(value.removeprefix("@") for value in self.files.values()) or "no files"
        got = self.expected if self.expected in (PLAIN, ENCRYPTED) else "refused"
        return f"{self.server}-{self.mode}-{files}-{'right' if self.password == PASSWORD else 'wrong'} password-{got}"


CASES = [
    *(
        Case(server, mode, expected.format(mode=mode), files, code=2 if expected == NO_ROOT else 1)
        for server, files, outcomes in TABLE
        for mode, expected in zip(MODES, outcomes, strict=True)
    ),
    Case("asks for a certificate", "verify-full", NOT_ACCEPTED, CA | STRANGER),
    Case("asks for a certificate", "verify-full", NOT_ACCEPTED, CA | EXPIRED_PAIR),
    Case("TLS", "verify-full", "DB_SSL_ROOT_CERT names .*no certificate", {"root_cert": "@no_pem"}, code=2),
    Case("TLS", "verify-full", "DB_SSL_ROOT_CERT names .*is no file", {"root_cert": "/nowhere"}, code=2),
    Case("TLS", "verify-full", "DB_SSL_CERT .with DB_SSL_KEY.", CA | {"cert": "@client.certificate"}, code=2),
    Case("TLS", "verify-full", "DB_SSL_KEY is set, but DB_SSL_CERT", CA | {"key": "@client.key"}, code=2),
    Case("TLS", "verify_full", "DB_SSL_MODE is 'verify_full'", CA, code=2),
    Case("no TLS", "disable", "28P01.; check DB_USER and DB_PASSWORD", password=WRONG),
    Case("TLS", "verify-full", "28P01.; check DB_USER and DB_PASSWORD", CA, password=WRONG),
    Case("no TLS", "disable", "28P01.; check DB_USER and DB_PASSWORD", password=""),
]


def server(pair: Pair | None, rule: str, certificates: Certificates) -> EmbeddedPostgres:
    """A PostgreSQL that shows the certificate of `pair` (None: has no TLS) and treats our user by `rule`."""
    files = {"pg_hba.conf": f"{ADMINISTRATOR}\n{rule}\n".encode()}
    if pair is None:
        return EmbeddedPostgres(files=files)
    files |= {"server.crt": pair.certificate.read_bytes(), "server.key": pair.key.read_bytes()}
    files |= {"root.crt": certificates.ca.read_bytes()}
    return EmbeddedPostgres({"ssl": "on", "ssl_ca_file": "root.crt"}, files)


@pytest.fixture(scope="module")
async def servers(certificates: Certificates) -> AsyncIterator[dict[str, EmbeddedPostgres]]:
    """One of each sort, all with the same user and password."""
    kinds = {
        "no TLS": (None, ANY),
        "TLS": (certificates.server, ANY),
        "TLS only": (certificates.server, TLS_ONLY),
        "of another host": (certificates.elsewhere, ANY),
        "expired": (certificates.expired, ANY),
        "asks for a certificate": (certificates.server, CERTIFIED),
    }
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(BIN_VARIABLE, str(DEBIAN))
        async with AsyncExitStack() as running:
            started = {name: server(pair, rule, certificates) for name, (pair, rule) in kinds.items()}
            await asyncio.gather(*(running.enter_async_context(one) for one in started.values()))
            await asyncio.gather(*(_make_user(one) for one in started.values()))
            yield started


async def _make_user(running: EmbeddedPostgres) -> None:
    administrator = await asyncpg.connect(running.dsn(), ssl=False, timeout=60)
    await administrator.execute(f"create role {USER} login password '{PASSWORD}'")
    await administrator.close()


def environment(case: Case, running: EmbeddedPostgres, certificates: Certificates) -> dict[str, str]:
    """The variables of a case."""
    files = {f"DB_SSL_{name.upper()}": certificates.find(value) for name, value in case.files.items()}
    own = {"DB_USER": USER, "DB_PASSWORD": case.password, "DB_SSL_MODE": case.mode}
    return running.env() | own | files


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_who_gets_in_and_how(
    case: Case, servers: dict[str, EmbeddedPostgres], certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/nowhere")  # where libpq's default root certificate would be
    env = environment(case, servers[case.server], certificates)
    if case.expected in (PLAIN, ENCRYPTED):
        assert await _is_encrypted(load(env)) == (case.expected == ENCRYPTED)
        return
    # A server that hangs up on a certificate may be one that starts, so it is asked again: not for 20 s here.
    monkeypatch.setattr(postgres_connection, "FIRST_CONNECTION_S", 1.0)
    with pytest.raises(ClusterinfoError, match=case.expected) as caught:
        await _is_encrypted(load(env))
    assert caught.value.exit_code == case.code
    assert PASSWORD not in str(caught.value)
    assert WRONG not in str(caught.value)


async def _is_encrypted(settings: Settings) -> bool:
    async with open_pool(settings) as pool, pool.acquire() as connection:
        return bool(await connection.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()"))


@pytest.mark.parametrize(
    "case",
    [
        Case("of another host", "verify-full", "check DB_HOST against the server's certificate", CA),
        Case("TLS", "verify-full", "set DB_SSL_ROOT_CERT", code=2),
        Case("TLS", "verify-full", "DB_PASSWORD", CA, password=WRONG),
    ],
    ids=str,
)
async def test_the_program_says_it_in_one_line(
    case: Case, servers: dict[str, EmbeddedPostgres], certificates: Certificates
) -> None:
    env = environment(case, servers[case.server], certificates) | QUIET
    ended = (await run("migrate", env=env)).expect(case.code)
    (line,) = ended.lines()
    assert case.expected in line["msg"]
    assert PASSWORD not in ended.stderr
    assert WRONG not in ended.stderr
