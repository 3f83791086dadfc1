"""HTTP statuses as a server sends them, one by one: what becomes of the request, and of the one after it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clusterinfo.errors import FatalError
from clusterinfo.kubernetes.api_errors import ApiStatusError, ApiTransientError
from clusterinfo.kubernetes.client import KubernetesClient
from clusterinfo.model import GroupVersionResource
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.settings import MIB, Settings

pytestmark = pytest.mark.embedded_only

CONFIGMAPS = GroupVersionResource("", "v1", "configmaps", "ConfigMap", namespaced=True)
PODS = GroupVersionResource("", "v1", "pods", "Pod", namespaced=True)


@pytest.fixture
async def api() -> AsyncIterator[SimulatedKubernetes]:
    async with SimulatedKubernetes(SimulatedCluster(seed=1)) as serving:
        yield serving


@pytest.fixture
async def client(api: SimulatedKubernetes, tmp_path: Path) -> AsyncIterator[KubernetesClient]:
    async with KubernetesClient.connect(Settings(kubeconfig=api.write_kubeconfig(tmp_path / "kubeconfig"))) as opened:
        yield opened


async def page(client: KubernetesClient, gvr: GroupVersionResource = CONFIGMAPS) -> bytes:
    return await client.get_page(gvr, limit=10, max_bytes=MIB)


@pytest.mark.parametrize("status", [408, 429, 500, 501, 502, 503, 504])
async def test_what_may_pass_is_told_so_and_passes(
    api: SimulatedKubernetes, client: KubernetesClient, status: int
) -> None:
    api.faults.fail("configmaps", status, times=1)
    with pytest.raises(ApiTransientError) as caught:
        await page(client)
    assert caught.value.status == status
    assert b'"items"' in await page(client)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 406, 410, 415, 422])
async def test_what_stays_refused_is_refused_for_that_kind_alone(
    api: SimulatedKubernetes, client: KubernetesClient, status: int
) -> None:
    api.faults.fail("configmaps", status)
    with pytest.raises(ApiStatusError) as caught:
        await page(client)
    assert caught.value.status == status
    assert b'"items"' in await page(client, PODS)


async def test_refused_once_the_credentials_are_read_again(api: SimulatedKubernetes, client: KubernetesClient) -> None:
    api.faults.fail("configmaps", 401, times=1)
    assert b'"items"' in await page(client)
    assert b'"items"' in await page(client)


async def test_refused_twice_it_halts(api: SimulatedKubernetes, client: KubernetesClient) -> None:
    api.faults.fail("configmaps", 401, times=2)
    with pytest.raises(FatalError, match=r"401 Unauthorized.*KUBECONFIG or the service account"):
        await page(client)
