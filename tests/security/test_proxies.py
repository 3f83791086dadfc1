"""The Kubernetes API behind a proxy: the usual variables, and a kubeconfig's `proxy-url`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from clusterinfo.sandbox.kubernetes.populate import populate
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from tests.conftest import Database
from tests.support.programs import QUIET, Ended, run

PASSWORD = "canary-of-the-proxy"
TUNNEL_ENDS = b"\r\n\r\n"


@dataclass(slots=True)
class HttpProxy:
    """Tunnels what CONNECT asks for (RFC 9110, 9.3.6), to those who know the password; `asked`: for which targets."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    refused: int = 0

    @property
    def url(self) -> str:
        return f"http://somebody:{PASSWORD}@127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[HttpProxy]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(TUNNEL_ENDS)).decode()
        method, target, *_ = head.split()
        known = base64.b64encode(f"somebody:{PASSWORD}".encode()).decode()
        if method != "CONNECT" or f"Proxy-Authorization: Basic {known}" not in head:
            self.refused += 1
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            writer.close()
            return
        self.asked.append(target)
        host, port = target.rsplit(":", 1)
        writer.write(b"HTTP/1.1 200 OK" + TUNNEL_ENDS)
        await relay(reader, writer, host, int(port))


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    """Both directions, until either ends."""
    there, back = await asyncio.open_connection(host, port)

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await source.read(65536):
                target.write(chunk)
                await target.drain()
        target.close()

    await asyncio.gather(copy(reader, back), copy(there, writer))


@pytest.fixture
async def proxy() -> AsyncIterator[HttpProxy]:
    async with HttpProxy().serving() as serving:
        yield serving


@dataclass(frozen=True, slots=True)
class Served:
    """An API with TLS: where it listens, and a kubeconfig for it, to be changed."""

    address: str
    kubeconfig: dict[str, Any]
    path: Path

    async def listed(self, database: Database, given: dict[str, str], **cluster: str) -> Ended:
        """`legacy --once` with the variables `given` and these fields of the kubeconfig's cluster."""
        self.kubeconfig["clusters"][0]["cluster"] |= cluster
        self.path.write_text(yaml.safe_dump(self.kubeconfig))
        env = database.env | QUIET | {"KUBECONFIG": str(self.path), "LOG_LEVEL": "debug", "INCLUDE": "pods"} | given
        ended = await run("legacy", "--once", env=env)
        assert PASSWORD not in ended.stdout + ended.stderr
        return ended


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with SimulatedKubernetes() as simulated:
        populate(simulated.cluster, objects=30)

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await relay(reader, writer, simulated.host, simulated.port)

        async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context) as server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            path = tmp_path / "kubeconfig"
            kubeconfig = yaml.safe_load(simulated.write_kubeconfig(path).read_text())
            kubeconfig["clusters"][0]["cluster"] = {"server": f"https://{address}", "certificate-authority": "ca.pem"}
            yield Served(address, kubeconfig, path)


async def test_https_proxy_is_used(api: Served, proxy: HttpProxy, database: Database) -> None:
    (await api.listed(database, {"HTTPS_PROXY": proxy.url})).expect(0)
    assert set(proxy.asked) == {api.address}


@pytest.mark.parametrize(
    ("left_out", "is_asked"),
    [("example.com,127.0.0.1", False), ("10.0.0.0/8, 127.0.0.0/8", False), ("10.0.0.0/8,::1/128,x/y", True)],
)
async def test_no_proxy_is_obeyed(
    api: Served, proxy: HttpProxy, database: Database, left_out: str, is_asked: bool
) -> None:
    """Ranges of addresses too, as whatever is written in Go understands them."""
    (await api.listed(database, {"HTTPS_PROXY": proxy.url, "NO_PROXY": left_out})).expect(0)
    assert bool(proxy.asked) is is_asked


async def test_a_proxy_for_plain_http_is_not_asked(api: Served, proxy: HttpProxy, database: Database) -> None:
    (await api.listed(database, {"HTTP_PROXY": proxy.url})).expect(0)
    assert proxy.asked == []


async def test_the_kubeconfigs_proxy_is_used(api: Served, proxy: HttpProxy, database: Database) -> None:
    """And beats the variables, as with kubectl."""
    given = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    (await api.listed(database, given, **{"proxy-url": proxy.url})).expect(0)
    assert set(proxy.asked) == {api.address}


async def test_a_proxy_that_refuses_is_named_without_its_password(
    api: Served, proxy: HttpProxy, database: Database
) -> None:
    wrong = proxy.url.replace(PASSWORD, f"not-{PASSWORD}")
    ended = (await api.listed(database, {"HTTPS_PROXY": wrong})).expect(1)
    (error,) = ended.errors()
    assert "407" in error
    assert "HTTPS_PROXY" in error
    assert proxy.refused > 0


async def test_another_sort_of_proxy_is_refused(api: Served, database: Database) -> None:
    ended = (await api.listed(database, {}, **{"proxy-url": f"socks5://somebody:{PASSWORD}@127.0.0.1:9"})).expect(2)
    (error,) = ended.errors()
    assert "proxy-url" in error
