"""A cluster that is followed with an exec plugin's tokens, whatever the plugin does meanwhile.

One server, one collector.

Each stage: the plugin goes wrong, every connection is cut, and so it is asked; nothing ends, nothing of what it printed
is told; then it works again, and what changed meanwhile is there without another list.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from clusterinfo.errors import FatalError
from clusterinfo.kubernetes import credentials
from clusterinfo.kubernetes.client import KubernetesClient
from clusterinfo.kubernetes.collector import Collector
from clusterinfo.observations import Observation
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.settings import Settings
from tests.integration.lists import configmap
from tests.integration.test_following import Following, Numbered

pytestmark = pytest.mark.embedded_only

SECRET = "canary-of-the-plugin"
PATIENCE_S = 0.5  # that a plugin is given
EXPIRED = "2020-01-01T00:00:00Z"
ANSWER = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":%s}'


class Plugin:
    """What the kubeconfig names: a shell script that does what it is told from one call to the next."""

    def __init__(self, folder: Path, api: SimulatedKubernetes) -> None:
        self.path, self._token, self._calls = folder / "plugin", folder / "token", folder / "calls"
        self.child = folder / "child"
        self.lasts = EXPIRED
        """Until when what it gives is to be used; it is asked again for each connection."""
        self.api = api
        self.gives(api.token)
        document = json.loads(api.write_kubeconfig(folder / "config").read_text())
        document["users"][0]["user"] = {
            "exec": {
                "command": str(self.path),
                "apiVersion": "client.authentication.k8s.io/v1",
                "interactiveMode": "Never",
            }
        }
        self.kubeconfig = folder / "config"
        self.kubeconfig.write_text(json.dumps(document))

    def does(self, script: str) -> None:
        """From its next call on."""
        fresh = self.path.with_name("fresh")
        fresh.write_text(f"#!/bin/sh\necho >> {self._calls}\n{script}\n")
        fresh.chmod(0o755)
        fresh.rename(self.path)

    def gives(self, token: str) -> None:
        self._token.write_text(ANSWER % json.dumps({"token": token, "expirationTimestamp": self.lasts}))
        self.does(f"cat {self._token}")

    def cut_all(self) -> None:
        """Every connection of a watch, with its next line."""
        for kind in ("configmaps", "secrets", "namespaces"):
            self.api.faults.cut_watch(kind)

    def was_asked_since(self, calls: int) -> bool:
        return self.calls > calls

    def has_children(self) -> bool:
        """Whether the one that it wrote down still runs; a zombie waits for whoever takes over orphans."""
        if not self.child.exists():
            return False
        status = Path("/proc", self.child.read_text().strip(), "stat")
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"

    @property
    def calls(self) -> int:
        return len(self._calls.read_bytes()) if self._calls.exists() else 0


@pytest.fixture
def plugin(api: SimulatedKubernetes, tmp_path: Path) -> Plugin:
    return Plugin(tmp_path, api)


@pytest.fixture
async def run(api: SimulatedKubernetes, plugin: Plugin) -> AsyncIterator[Following]:
    api.resources._bookmark_interval_s = 0.1
    settings = Settings(kubeconfig=plugin.kubeconfig, include=["configmaps", "secrets", "namespaces"])
    async with KubernetesClient.connect(settings) as client:
        sink, seen = Numbered(), list[Observation]()
        following = Following(Collector(client, sink, settings, seen.append), api, sink, seen)
        await following.until_followed()
        yield following
        if not following.task.done():
            await following.stop()


WRONG = {
    "it fails": f"echo {SECRET} >&2; exit 1",
    "it fails once": f'if [ -e "$0.failed" ]; then {{works}}; else touch "$0.failed"; echo {SECRET} >&2; exit 1; fi',
    "it prints garbage": f"echo '{SECRET} is no JSON'",
    "it prints 10 MB": f"yes {SECRET} | head -c 10000000",
    "it prints and never ends": f"yes {SECRET}",
    "it hangs": "sleep 1000",
    "a child of it hangs": "sleep 1000 & echo $! > {child}; wait",
    "a child of it lives on": "sleep 1000 & echo $! > {child}; {works}",
    "a token of two lines": f"echo '{ANSWER % json.dumps({'token': SECRET + chr(10) + 'X-Header: y'})}'",
    "a token that is no header": f"echo '{ANSWER % json.dumps({'token': SECRET + chr(0x2028) + chr(1)})}'",
}
"""What it does, by what is wrong with that."""


async def test_whatever_the_plugin_does_the_cluster_is_followed(
    plugin: Plugin, run: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (problem, script) in enumerate(WRONG.items()):
        before, works = plugin.calls, plugin.path.with_name("token")
        plugin.does(script.replace("{works}", f"cat {works}").replace("{child}", str(plugin.child)))
        monkeypatch.setattr(credentials, "CREDENTIALS_S", PATIENCE_S)
        plugin.cut_all()
        await run.until(partial(plugin.was_asked_since, before))
        await asyncio.sleep(2 * PATIENCE_S)
        plugin.gives(plugin.api.token)
        monkeypatch.setattr(credentials, "CREDENTIALS_S", 30.0)
        run.api.cluster.create("configmaps", configmap(f"after-{number}"))
        await run.until_equal()
        assert SECRET not in repr(run.seen), problem
        assert not plugin.has_children(), problem
    assert run.lists_of("configmaps") == 1


async def test_a_token_that_was_exchanged_is_asked_for_again_and_one_that_stays_refused_ends_it(
    plugin: Plugin, run: Following
) -> None:
    plugin.lasts = "2100-01-01T00:00:00Z"
    for number, is_broken in enumerate((False, True, False)):
        before, kubeconfig = plugin.calls, plugin.kubeconfig.read_text()
        plugin.api.users = {f"next-{number}": "admin"}
        plugin.gives(f"next-{number}")
        if is_broken:
            plugin.kubeconfig.write_text(kubeconfig[:50])
        plugin.cut_all()
        run.api.cluster.create("configmaps", configmap(f"after-{number}"))
        if is_broken:
            await run.until(lambda: "cannot be read" in repr(run.seen))
            plugin.kubeconfig.write_text(kubeconfig)
        await run.until_equal()
        assert before < plugin.calls <= before + 2, "once for all kinds"

    plugin.gives(SECRET)
    plugin.api.users = {}
    plugin.cut_all()
    await asyncio.wait([run.task], timeout=120)
    with pytest.raises(FatalError, match="check the credentials in KUBECONFIG") as refused:
        run.task.result()
    assert SECRET not in str(refused.value) + repr(run.seen)
