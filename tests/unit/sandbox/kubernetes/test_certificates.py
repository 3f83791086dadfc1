"""The simulated API over TLS: who trusts its authority reaches it, and nobody else does."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import orjson
import pytest
from cryptography import x509

from clusterinfo.kubernetes.client import KubernetesClient
from clusterinfo.sandbox.kubernetes import SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.certificates import VALID, make_tls
from clusterinfo.settings import load


@pytest.fixture
async def api() -> AsyncIterator[SimulatedKubernetes]:
    async with SimulatedKubernetes(tls=make_tls("cluster.example")) as served:
        yield served


def trusting(authority: str) -> ssl.SSLContext:
    """As strict as Python 3.13 and later are unless set otherwise."""
    context = ssl.create_default_context(cadata=authority)
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


async def status(url: str, context: ssl.SSLContext, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(f"{url}/version", ssl=context) as answer:
        return answer.status


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_it_is_reached_by_whoever_trusts_its_authority(api: SimulatedKubernetes, host: str) -> None:
    assert api.tls
    url = api.base_url.replace("127.0.0.1", host)
    assert url == f"https://{host}:{api.port}"
    assert await status(url, trusting(api.tls.authority), api.token) == 200
    assert await status(url, trusting(api.tls.authority), "none of its own") == 401


async def test_nobody_takes_another_authority_for_its_own(api: SimulatedKubernetes) -> None:
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await status(api.base_url, trusting(make_tls().authority), api.token)


async def test_the_kubeconfig_names_the_authority(api: SimulatedKubernetes, tmp_path: Path) -> None:
    path = api.write_kubeconfig(tmp_path / "kubeconfig")
    assert path.stat().st_mode & 0o777 == 0o600
    async with KubernetesClient.connect(load({"KUBECONFIG": str(path)})) as client:
        assert client.cluster.server_version


def test_plain_http_names_none(tmp_path: Path) -> None:
    kubeconfig = orjson.loads(SimulatedKubernetes().write_kubeconfig(tmp_path / "kubeconfig").read_bytes())
    assert kubeconfig["clusters"][0]["cluster"].keys() == {"server"}


async def test_the_certificate_is_for_this_machine_and_for_some_days(api: SimulatedKubernetes) -> None:
    assert api.tls
    pem = await asyncio.to_thread(ssl.get_server_certificate, (api.host, api.port), timeout=60)
    certificate = x509.load_pem_x509_certificate(pem.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(name.value) for name in names} == {"127.0.0.1", "localhost", "cluster.example"}
    left = certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
    assert VALID - dt.timedelta(minutes=5) < left <= VALID
    authority = x509.load_pem_x509_certificate(api.tls.authority.encode())
    certificate.verify_directly_issued_by(authority)
