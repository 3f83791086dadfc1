"""Authority, certificates and keys are replaced while the programs run: new connections use what the files hold now.

All of them at once, those of the server and of its clients, by ones of another authority: whoever still had the old
ones in memory would be refused, and would refuse.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import fields
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import yaml

from clusterinfo.sandbox.postgres import BIN_VARIABLE
from clusterinfo.sandbox.processes import free_port
from tests.conftest import Database
from tests.kafka.apache import ApacheKafka
from tests.security import test_postgres_logins as logins
from tests.security.brokers import listener_tls
from tests.security.certificates import Certificates, Pair, make
from tests.security.test_proxies import relay
from tests.security.test_rotation import QUICK, goes_on, stopped
from tests.support.programs import QUIET, Api, running, simulated_api


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with simulated_api(100) as started:
        yield started


@pytest.fixture
def used(tmp_path: Path) -> Certificates:
    """What servers and programs are set to use."""
    return _made(tmp_path / "used")


@pytest.fixture
def next_ones(tmp_path: Path) -> Certificates:
    """What takes their place."""
    return _made(tmp_path / "next")


def _made(directory: Path) -> Certificates:
    directory.mkdir()
    return make(directory)


def replace(used: Certificates, fresh: Certificates) -> None:
    """Write over each file in place: whoever has it open, or its path, has the new one."""
    for field in fields(Certificates):
        old, new = getattr(used, field.name), getattr(fresh, field.name)
        pairs = (
            [(old, new)]
            if isinstance(old, Path)
            else [(getattr(old, f.name), getattr(new, f.name)) for f in fields(Pair)]
        )
        for target, source in pairs:
            target.write_bytes(source.read_bytes())


async def test_kafka_certificates_are_read_again(
    api: Api, database: Database, connection: asyncpg.Connection, used: Certificates, next_ones: Certificates
) -> None:
    properties = {"listener.name.mtls.ssl.client.auth": "required"} | listener_tls("mtls", used.server, used)
    async with ApacheKafka({"MTLS": "SSL"}, (), **properties) as kafka:
        named = f"rotated-{uuid.uuid4().hex[:8]}"
        env = api.env | database.env | QUIET | QUICK
        env |= {"KAFKA_ENABLED": "true", "KAFKA_TOPIC": named, "KAFKA_GROUP_ID": named, "KAFKA_TOPIC_PARTITIONS": "1"}
        env |= {"KAFKA_BROKERS": kafka.bootstrap_of("MTLS"), "KAFKA_SECURITY_PROTOCOL": "SSL"}
        env |= {"KAFKA_SSL_CA_FILE": str(used.ca), "KAFKA_SSL_CERT_FILE": str(used.client.certificate)}
        env |= {"KAFKA_SSL_KEY_FILE": str(used.client.key)}
        async with running("consume", env=env) as consumer, running("collect", env=env) as collector:
            await goes_on(connection, [consumer, collector])
            replace(used, next_ones)
            await kafka.restart()
            await goes_on(connection, [consumer, collector])
            await stopped(collector, consumer)


async def test_postgres_certificates_are_read_again(
    api: Api, used: Certificates, next_ones: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BIN_VARIABLE, str(logins.DEBIAN))
    async with logins.server(used.server, logins.CERTIFIED, used) as postgres:
        administrator = await asyncpg.connect(postgres.dsn(), ssl=False, timeout=60)
        await administrator.execute(f"create role {logins.USER} superuser login password '{logins.PASSWORD}'")
        await administrator.execute("set search_path = clusterinfo")
        files = logins.CA | logins.PAIR
        env = logins.environment(logins.Case("rotated", "verify-full", logins.ENCRYPTED, files), postgres, used)
        async with running("legacy", env=env | api.env | QUIET | QUICK) as program:
            await program.wait_for_output('"Snapshot ended"')
            await goes_on(administrator, [program])
            replace(used, next_ones)
            for name, path in (
                ("server.crt", used.server.certificate),
                ("server.key", used.server.key),
                ("root.crt", used.ca),
            ):
                (postgres.data / name).write_bytes(path.read_bytes())
            await administrator.execute("select pg_reload_conf()")
            await administrator.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1", logins.USER
            )
            await goes_on(administrator, [program])
            assert await administrator.fetchval(
                "select bool_and(ssl) from pg_stat_activity join pg_stat_ssl using (pid) where usename = $1",
                logins.USER,
            )
            await stopped(program)
        await administrator.close()


async def test_the_apis_authority_is_read_again(
    api: Api,
    database: Database,
    connection: asyncpg.Connection,
    used: Certificates,
    next_ones: Certificates,
    tmp_path: Path,
) -> None:
    """The kubeconfig's file holds both authorities for as long as the change takes, as is usual."""
    port, behind = free_port(), urlsplit(api.url)
    kubeconfig = yaml.safe_load(Path(api.kubeconfig).read_text())
    kubeconfig["clusters"][0]["cluster"] = {
        "server": f"https://127.0.0.1:{port}",
        "certificate-authority": str(used.ca),
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    env = database.env | QUIET | QUICK | {"KUBECONFIG": str(tmp_path / "kubeconfig")}

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await relay(reader, writer, str(behind.hostname), int(behind.port or 0))

    async with AsyncExitStack() as front:
        await front.enter_async_context(served_with(used.server, port, pass_on))
        async with running("legacy", env=env) as program:
            await goes_on(connection, [program])
            used.ca.write_bytes(used.ca.read_bytes() + next_ones.ca.read_bytes())
            await front.aclose()
            await front.enter_async_context(served_with(next_ones.server, port, pass_on))
            await goes_on(connection, [program])
            await stopped(program)


@contextlib.asynccontextmanager
async def served_with(pair: Pair, port: int, pass_on: Callable[..., Awaitable[None]]) -> AsyncIterator[None]:
    """TLS with the certificate of `pair`; when the block ends, connections do too."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    open_now: set[asyncio.StreamWriter] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(writer)
        await pass_on(reader, writer)
        open_now.discard(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", port, ssl=context)
    try:
        yield
    finally:
        server.close()
        for writer in open_now:
            writer.transport.abort()
