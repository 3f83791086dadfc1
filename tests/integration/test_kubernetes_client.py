"""The client over real sockets: connection, credentials, caps and deadlines, and discovery."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from clusterinfo.errors import ConfigError, FatalError, TransientError
from clusterinfo.kubernetes import client as client_module
from clusterinfo.kubernetes.client import KubernetesClient
from clusterinfo.kubernetes.discovery import Discovery, Selection
from clusterinfo.kubernetes.errors import ApiStatusError, PageTooLargeError
from clusterinfo.model import GroupVersionResource
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from tests.integration.lists import CONFIGMAPS, PODS, MakeSettings, Start, configmap

pytestmark = pytest.mark.embedded_only

# --- the connection --------------------------------------------------------------------------------------------------


async def test_identifies_the_cluster_by_kube_system(api: SimulatedKubernetes, start: Start) -> None:
    run = await start()

    assert run.client.cluster.id == api.cluster.uid()
    assert run.client.cluster.name not in ("", api.cluster.uid())
    assert run.client.cluster.server_version.startswith("v1.")


def asked_for_kube_system(api: SimulatedKubernetes) -> bool:
    return any(one.path.endswith("/kube-system") for one in api.requests)


async def test_a_cluster_id_is_the_identity_and_kube_system_is_not_asked_for(
    api: SimulatedKubernetes, make_settings: MakeSettings
) -> None:
    api.faults.forbid("namespaces", verb="get")

    async with KubernetesClient.connect(make_settings(cluster_id="prod/eu 1", cluster_name="blue")) as client:
        assert (client.cluster.id, client.cluster.name) == ("prod/eu 1", "blue")
    async with KubernetesClient.connect(make_settings(cluster_id="prod/eu 1")) as client:
        assert (client.cluster.id, client.cluster.name) == ("prod/eu 1", "sandbox"), "the kubeconfig's name for it"
    assert not asked_for_kube_system(api)


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_kube_system_that_may_not_be_read_takes_a_right_or_a_cluster_id(
    api: SimulatedKubernetes, make_settings: MakeSettings, status: int
) -> None:
    """A name is no identity, whatever it is."""
    api.faults.fail("namespaces", status=status, verb="get", times=None)

    with pytest.raises(ConfigError) as refusal:
        async with KubernetesClient.connect(make_settings(cluster_name="blue")):
            pass

    for part in (str(status), "get that namespace", "`clusterinfo rbac` prints it", "CLUSTER_ID"):
        assert part in str(refusal.value)
    assert "\n" not in str(refusal.value)


async def test_a_kube_system_without_uid_takes_a_cluster_id(
    api: SimulatedKubernetes, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(self: KubernetesClient, path: str, **_: Any) -> bytes:
        return b'{"gitVersion": "v1.36.0"}' if path == "/version" else b'{"metadata": {}}'

    monkeypatch.setattr(KubernetesClient, "get", answer)

    with pytest.raises(ConfigError, match=r"has no uid: .* CLUSTER_ID"):
        async with KubernetesClient.connect(make_settings()):
            pass


async def test_who_only_asks_what_is_served_needs_no_identity(
    api: SimulatedKubernetes, make_settings: MakeSettings
) -> None:
    api.faults.forbid("namespaces", verb="get")

    async with KubernetesClient.connect(make_settings(), identify=False) as client:
        assert (await client.discover()).resources
    assert not asked_for_kube_system(api)


async def test_refused_credentials_are_fatal(api: SimulatedKubernetes, make_settings: MakeSettings) -> None:
    api.faults.unauthorized()

    with pytest.raises(FatalError, match="401"):
        async with KubernetesClient.connect(make_settings()):
            pass


async def test_a_new_token_in_the_kubeconfig_is_read_after_a_401(
    api: SimulatedKubernetes, make_settings: MakeSettings, tmp_path: Path
) -> None:
    async with KubernetesClient.connect(make_settings()) as client:
        api.users.clear()
        api.token = "rotated-token"
        api.users["rotated-token"] = "admin"
        api.write_kubeconfig(tmp_path / "kubeconfig")

        assert (await client.discover()).resources


async def test_an_api_that_is_not_there_is_fatal_in_time(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, api: SimulatedKubernetes
) -> None:
    monkeypatch.setattr(client_module, "CONNECT_WITHIN_S", 0.3)
    settings = make_settings()
    await api.stop()

    with pytest.raises(FatalError, match=r"was not reached within .* cannot be reached"):
        async with KubernetesClient.connect(settings):
            pass


@pytest.mark.parametrize("trusted", [True, False])
async def test_certificates_are_checked(
    api: SimulatedKubernetes, make_settings: MakeSettings, tmp_path: Path, trusted: bool
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = await asyncio.start_server(_relay_to(api), "127.0.0.1", 0, ssl=context)
    kubeconfig = yaml.safe_load(api.write_kubeconfig(tmp_path / "tls").read_text())
    cluster = kubeconfig["clusters"][0]["cluster"]
    cluster["server"] = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    if trusted:
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        cluster["certificate-authority"] = "ca.pem"
    (tmp_path / "tls").write_text(json.dumps(kubeconfig))
    settings = make_settings(kubeconfig=tmp_path / "tls")

    async with server:
        if trusted:
            async with KubernetesClient.connect(settings) as client:
                assert client.cluster.id == api.cluster.uid()
        else:
            with pytest.raises(FatalError, match="TLS"):
                async with KubernetesClient.connect(settings):
                    pass


def _relay_to(api: SimulatedKubernetes) -> Callable[..., Any]:
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", api.port)
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer), return_exceptions=True)

    return relay


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kubeconfig": Path("/nowhere/config")}, "KUBECONFIG is '/nowhere/config'"),
        ({"kube_context": "blue"}, "KUBE_CONTEXT is 'blue': allowed is one of sandbox"),
    ],
)
async def test_wrong_settings_name_the_variable(
    make_settings: MakeSettings, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        async with KubernetesClient.connect(make_settings(**given)):
            pass


async def test_a_broken_kubeconfig_is_a_config_error(make_settings: MakeSettings, tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_text("clusters: [\n")

    with pytest.raises(ConfigError, match="KUBECONFIG"):
        async with KubernetesClient.connect(make_settings(kubeconfig=path)):
            pass


async def test_several_kubeconfigs_are_merged_as_kubectl_does(
    api: SimulatedKubernetes, make_settings: MakeSettings, tmp_path: Path
) -> None:
    first = api.write_kubeconfig(tmp_path / "first", context="one")
    second = api.write_kubeconfig(tmp_path / "second", context="two")

    async with KubernetesClient.connect(make_settings(kubeconfig=f"{first}:{tmp_path / 'none'}:{second}")) as client:
        assert client.cluster.id == api.cluster.uid()
    with pytest.raises(ConfigError, match="one, two"):
        async with KubernetesClient.connect(make_settings(kubeconfig=f"{first}:{second}", kube_context="three")):
            pass


async def test_an_answer_beyond_the_cap_is_dropped(api: SimulatedKubernetes, start: Start) -> None:
    run = await start()

    with pytest.raises(PageTooLargeError):
        await run.client.get_page(CONFIGMAPS, limit=10, max_bytes=1000)
    assert len(json.loads(await run.client.get_page(CONFIGMAPS, limit=10, max_bytes=10**6))["items"]) == 10


async def test_a_silent_server_is_transient(
    api: SimulatedKubernetes, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await start()
    monkeypatch.setattr(client_module, "BETWEEN_CHUNKS_S", 0.2)
    api.faults.stall("configmaps", seconds=5)

    with pytest.raises(TransientError, match="in time"):
        await run.client.get_page(CONFIGMAPS, limit=10, max_bytes=10**6)


async def test_throttling_says_how_long_to_wait(api: SimulatedKubernetes, start: Start) -> None:
    run = await start()
    api.faults.throttle("configmaps", retry_after_s=7)

    with pytest.raises(TransientError) as caught:
        await run.client.get_page(CONFIGMAPS, limit=10, max_bytes=10**6)
    assert caught.value.retry_after_s == 7


async def test_an_unknown_kind_is_a_status(start: Start) -> None:
    run = await start()

    with pytest.raises(ApiStatusError) as caught:
        await run.client.get_page(
            GroupVersionResource("nothing.example.com", "v1", "things", "Thing", namespaced=True),
            limit=1,
            max_bytes=10**6,
        )
    assert (caught.value.status, caught.value.reason) == (404, "NotFound")


async def test_gzip_is_read(make_settings: MakeSettings, tmp_path: Path) -> None:
    cluster = SimulatedCluster()
    cluster.create("configmaps", configmap("big", 500_000, "default"))
    async with SimulatedKubernetes(cluster, gzip=True) as api:
        settings = make_settings(kubeconfig=api.write_kubeconfig(tmp_path / "gzip"))
        async with KubernetesClient.connect(settings) as client:
            body = await client.get_page(CONFIGMAPS, limit=10, max_bytes=10**6)
            with pytest.raises(PageTooLargeError):
                await client.get_page(CONFIGMAPS, limit=10, max_bytes=400_000)
    assert len(body) > 500_000


# --- discovery -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["v2", "v2beta1", "legacy"])
async def test_all_forms_of_discovery_find_the_same(api: SimulatedKubernetes, start: Start, form: str) -> None:
    run = await start()
    expected = run.discovery
    if form == "v2beta1":
        api.faults.only_beta_discovery()
    if form == "legacy":
        api.faults.no_aggregated_discovery()

    found = await run.client.discover()

    assert sorted(found.resources) == sorted(expected.resources)
    assert sorted(found.excluded) == sorted(expected.excluded)
    assert found.complete


@pytest.mark.parametrize("legacy", [False, True])
async def test_a_stale_group_is_reported(api: SimulatedKubernetes, start: Start, legacy: bool) -> None:
    run = await start()
    api.faults.stale_discovery("apps")
    if legacy:
        api.faults.no_aggregated_discovery()

    found = await run.client.discover(Selection())

    assert found.failing == ("apps",)
    assert not found.complete
    assert PODS.dotted in {gvr.dotted for gvr in found.resources}


def test_discovery_is_complete_without_failing_groups() -> None:
    assert Discovery(resources=()).complete
