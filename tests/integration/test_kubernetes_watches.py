"""What the client makes of a watch: its lines as they come, what refusals mean, and that nothing waits behind it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from clusterinfo.errors import FatalError, TransientError
from clusterinfo.kubernetes.client import TLS_BUFFER_BYTES, KubernetesClient, OpenWatch
from clusterinfo.kubernetes.errors import ApiStatusError, ApiTransientError
from clusterinfo.sandbox.kubernetes.certificates import make_tls
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.settings import Settings
from tests.integration.lists import CONFIGMAPS, configmap

pytestmark = pytest.mark.embedded_only


async def drained(watch: OpenWatch) -> None:
    while await watch.read(10):
        pass


async def test_a_watch_brings_what_changes_and_its_refusals_have_names(tmp_path: Path) -> None:
    cluster = SimulatedCluster()
    async with SimulatedKubernetes(cluster, bookmark_interval_s=0.2) as api:
        settings = Settings(kubeconfig=api.write_kubeconfig(tmp_path / "kubeconfig"))
        async with KubernetesClient.connect(settings) as client:
            version = cluster.revision
            cluster.create("configmaps", configmap("a", namespace="default"))
            async with client.watch(CONFIGMAPS, version=version, timeout_s=60) as watch:
                assert b'"ADDED"' in await watch.read(10)
                assert b'"BOOKMARK"' in await watch.read(10)
                api.faults.silence_watch("configmaps", 60)
                with pytest.raises(TimeoutError):
                    await watch.read(0.5)
            api.faults.clear()
            async with client.watch(CONFIGMAPS, version=cluster.revision, timeout_s=1) as watch:
                await drained(watch)
            api.faults.cut_watch("configmaps")
            async with client.watch(CONFIGMAPS, version=version, timeout_s=60) as watch:
                with pytest.raises(TransientError):
                    await drained(watch)
            api.faults.throttle("configmaps", retry_after_s=7)
            with pytest.raises(ApiTransientError) as throttled:
                async with client.watch(CONFIGMAPS, version=version, timeout_s=60):
                    pass
            assert throttled.value.retry_after_s == 7
            api.faults.forbid("configmaps", verb="watch")
            with pytest.raises(ApiStatusError, match="403"):
                async with client.watch(CONFIGMAPS, version=version, timeout_s=60):
                    pass


async def test_a_token_that_was_exchanged_is_read_again_for_a_watch(tmp_path: Path) -> None:
    async with SimulatedKubernetes() as api:
        kubeconfig = api.write_kubeconfig(tmp_path / "kubeconfig")
        async with KubernetesClient.connect(Settings(kubeconfig=kubeconfig)) as client:
            api.users = {"another": "admin"}
            kubeconfig.write_text(kubeconfig.read_text().replace(api.token, "another"))
            async with client.watch(CONFIGMAPS, version=api.cluster.revision, timeout_s=60):
                pass
            api.users = {}
            with pytest.raises(FatalError, match="credentials"):
                async with client.watch(CONFIGMAPS, version=api.cluster.revision, timeout_s=60):
                    pass


async def test_lists_do_not_wait_behind_watches(tmp_path: Path) -> None:
    async with SimulatedKubernetes() as api:
        settings = Settings(kubeconfig=api.write_kubeconfig(tmp_path / "kubeconfig"))
        async with KubernetesClient.connect(settings) as client:
            opened = asyncio.Semaphore(0)

            async def watch() -> None:
                async with client.watch(CONFIGMAPS, version=api.cluster.revision, timeout_s=60) as one:
                    opened.release()
                    await one.read(60)

            watches = [asyncio.create_task(watch()) for _ in range(150)]
            async with asyncio.timeout(60):
                for _ in watches:
                    await opened.acquire()
                await client.ping()
            for task in watches:
                task.cancel()
            await asyncio.gather(*watches, return_exceptions=True)


async def test_a_tls_connection_that_waits_keeps_little_and_brings_much_all_the_same(tmp_path: Path) -> None:
    cluster = SimulatedCluster()
    async with SimulatedKubernetes(cluster, tls=make_tls()) as api:
        settings = Settings(kubeconfig=api.write_kubeconfig(tmp_path / "kubeconfig"))
        async with KubernetesClient.connect(settings) as client:
            version = cluster.revision
            async with client.watch(CONFIGMAPS, version=version, timeout_s=60) as watch:
                assert watch._response.connection is not None
                protocol: Any = watch._response.connection.transport._ssl_protocol  # type: ignore[union-attr]
                cluster.create("configmaps", configmap("large", 1_000_000, "default"))
                received = b""
                async with asyncio.timeout(60):
                    while not received.endswith(b"\n"):
                        received += await watch.read(10)
                assert b"x" * 1_000_000 in received
                assert len(protocol._ssl_buffer) == TLS_BUFFER_BYTES
