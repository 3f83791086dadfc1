"""HTTP statuses as a server sends them, one by one: what becomes of the request, and of the one after it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from clusterinfo.errors import FatalError
from clusterinfo.kubernetes.client import KubernetesClient
from clusterinfo.kubernetes.errors import ApiStatusError, ApiTransientError
from clusterinfo.model import GroupVersionResource
from clusterinfo.sandbox.kubernetes.discovery import aggregated_document
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.settings import MIB, Settings
from tests.conftest import Database
from tests.support.front import Front
from tests.support.programs import QUIET, Ended, run

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
async def test_what_may_pass_is_reported_and_passes(
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


async def test_refused_everywhere_it_halts(api: SimulatedKubernetes, client: KubernetesClient) -> None:
    api.faults.unauthorized()
    with pytest.raises(FatalError, match=r"401 Unauthorized.*KUBECONFIG or the service account"):
        await page(client)


# --- a 401 that is not about the credentials -------------------------------------------------------------------------

UNAUTHORIZED = json.dumps(
    {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "the front proxy is unknown"}
    | {"reason": "Unauthorized", "code": 401}
)
"""As an aggregated API says it that does not trust the API server before it."""
DEPLOYMENTS = GroupVersionResource("apps", "v1", "deployments", "Deployment", namespaced=True)
DEPLOYMENTS_PATH = "/apis/apps/v1/deployments"


@pytest.fixture
async def front(api: SimulatedKubernetes) -> AsyncIterator[Front]:
    async with Front(api) as serving:
        yield serving


def with_plugin(kubeconfig: Path, token: str) -> Path:
    """The kubeconfig asks a plugin for its token; the plugin leaves a line in `calls` each time."""
    plugin = kubeconfig.with_name("plugin")
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}}
    plugin.write_text(f"#!/bin/sh\necho x >> {kubeconfig.with_name('calls')}\necho '{json.dumps(credential)}'\n")
    plugin.chmod(0o700)
    document = json.loads(kubeconfig.read_text())
    document["users"][0]["user"] = {"exec": {"apiVersion": credential["apiVersion"], "command": str(plugin)}}
    kubeconfig.write_text(json.dumps(document))
    return kubeconfig


async def test_a_401_of_one_kind_is_its_own_and_reads_the_credentials_again_but_once(
    api: SimulatedKubernetes, front: Front, tmp_path: Path
) -> None:
    kubeconfig = with_plugin(front.write_kubeconfig(tmp_path / "kubeconfig"), api.token)
    front.answers[DEPLOYMENTS_PATH] = 401, UNAUTHORIZED
    async with KubernetesClient.connect(Settings(kubeconfig=kubeconfig)) as client:
        for _ in range(5):
            with pytest.raises(ApiStatusError, match="401 Unauthorized: the front proxy is unknown"):
                await page(client, DEPLOYMENTS)
            assert b'"items"' in await page(client)
        assert (tmp_path / "calls").read_text().split() == ["x"] * 2, "once to begin with, once for all of these"

        front.answers.clear()
        api.faults.unauthorized()
        with pytest.raises(FatalError, match="credentials"):
            await page(client, DEPLOYMENTS)
        assert (tmp_path / "calls").read_text().split() == ["x"] * 3, "refused everywhere they are read again"


async def test_credentials_that_expire_beside_such_a_kind_are_renewed(
    api: SimulatedKubernetes, front: Front, tmp_path: Path
) -> None:
    kubeconfig = front.write_kubeconfig(tmp_path / "kubeconfig")
    front.answers[DEPLOYMENTS_PATH] = 401, UNAUTHORIZED
    async with KubernetesClient.connect(Settings(kubeconfig=kubeconfig)) as client:
        with pytest.raises(ApiStatusError):
            await page(client, DEPLOYMENTS)
        api.users.clear()
        api.token = "rotated"
        api.users["rotated"] = "admin"
        front.write_kubeconfig(kubeconfig)

        with pytest.raises(ApiStatusError):
            await page(client, DEPLOYMENTS)
        assert b'"items"' in await page(client)


async def test_a_probe_without_an_answer_leaves_the_question_open(
    api: SimulatedKubernetes, front: Front, tmp_path: Path
) -> None:
    async with KubernetesClient.connect(Settings(kubeconfig=front.write_kubeconfig(tmp_path / "kubeconfig"))) as client:
        front.answers = {DEPLOYMENTS_PATH: (401, UNAUTHORIZED), "/api": (503, "")}
        with pytest.raises(ApiTransientError, match="503"):
            await page(client, DEPLOYMENTS)


@dataclass(slots=True)
class Scene:
    """`clusterinfo legacy --once` over ConfigMaps, namespaces and two kinds of the group apps."""

    env: dict[str, str]
    connection: asyncpg.Connection

    async def run(self) -> Ended:
        return await run("legacy", "--once", env=self.env)

    async def freshness(self) -> dict[str, tuple[str, str | None]]:
        """Kind that is included -> state and error."""
        names = [kind.partition(".")[0] for kind in self.env["INCLUDE"].split(",")]
        rows = await self.connection.fetch("select * from freshness where resource = any ($1)", names)
        return {row["resource"]: (row["state"], row["last_error"]) for row in rows}

    async def stored(self) -> dict[str, int]:
        """Kind -> objects that exist."""
        rows = await self.connection.fetch("select resource, count(*) from resources group by resource")
        return {row["resource"]: row["count"] for row in rows}


@pytest.fixture
async def scene(
    api: SimulatedKubernetes, front: Front, database: Database, connection: asyncpg.Connection, tmp_path: Path
) -> Scene:
    for name in ("one", "two"):
        for kind in ("configmaps", "deployments.apps", "daemonsets.apps"):
            api.cluster.create(kind, {"metadata": {"name": name, "namespace": "default"}})
    kinds = "configmaps,namespaces,deployments.apps,daemonsets.apps"
    reached = {"KUBECONFIG": str(front.write_kubeconfig(tmp_path / "kubeconfig"))}
    return Scene(database.env | reached | {"INCLUDE": kinds} | QUIET, connection)


async def test_a_program_fails_a_kind_that_answers_401_and_stores_the_others(scene: Scene, front: Front) -> None:
    front.answers[DEPLOYMENTS_PATH] = 401, UNAUTHORIZED

    ended = (await scene.run()).expect(3)

    assert await scene.stored() == {"configmaps": 2, "namespaces": 4, "daemonsets": 2}
    (line,) = [line for line in ended.logged("List ended") if line["outcome"] == "failed"]
    assert (line["resource"], line["error"]) == ("deployments.apps", "Unauthorized: the front proxy is unknown")
    error = await scene.connection.fetchval("select last_error from freshness where resource = 'deployments'")
    assert "Unauthorized" in error


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (401, UNAUTHORIZED, "401 Unauthorized: the front proxy is unknown"),
        (200, "<html><body>sign in</body></html>", "what it serves cannot be read: JSON is malformed"),
        (200, '{"kind":"Status","status":"Failure"}', "its kind is 'Status', expected APIResourceList"),
    ],
)
async def test_a_program_fails_a_group_whose_document_is_none_and_keeps_what_it_had(
    scene: Scene, api: SimulatedKubernetes, front: Front, status: int, body: str, why: str
) -> None:
    api.faults.no_aggregated_discovery()
    (await scene.run()).expect(0)
    everything = await scene.stored()
    front.answers["/apis/apps/v1"] = status, body
    api.cluster.create("configmaps", {"metadata": {"name": "three", "namespace": "default"}})

    ended = (await scene.run()).expect(3)

    assert await scene.stored() == everything | {"configmaps": 3}
    (warned,) = ended.logged("kinds of the group apps may be missing: ")
    assert why in warned["msg"]


async def test_a_program_lists_what_it_can_read_of_an_aggregated_discovery(
    scene: Scene, api: SimulatedKubernetes, front: Front
) -> None:
    (await scene.run()).expect(0)
    everything = await scene.stored()
    document = json.loads(aggregated_document(api.cluster.catalog, False, "v2", ()))
    (apps,) = [group for group in document["items"] if group["metadata"]["name"] == "apps"]
    (deployments,) = [one for one in apps["versions"][0]["resources"] if one["resource"] == "deployments"]
    deployments["scope"] = None
    front.answers["/apis"] = 200, json.dumps(document)
    api.cluster.create("daemonsets.apps", {"metadata": {"name": "three", "namespace": "default"}})

    ended = (await scene.run()).expect(3)

    assert await scene.stored() == everything | {"daemonsets": 3}
    (warned,) = ended.logged("kinds of the group apps may be missing: ")
    assert "resource 'deployments' has no scope, expected scope Namespaced or Cluster" in warned["msg"]


@pytest.mark.parametrize("form", ["aggregated", "legacy"])
async def test_a_program_shows_the_kinds_of_a_group_that_is_down_as_failed_and_deletes_none(
    scene: Scene, api: SimulatedKubernetes, front: Front, form: str
) -> None:
    """Also if the group is left out meanwhile, as the warning advises."""
    if form == "legacy":
        api.faults.no_aggregated_discovery()
    (await scene.run()).expect(0)
    everything = await scene.stored()
    (await run("status", "--stale", "1d", env=scene.env)).expect(0)
    if form == "legacy":
        front.answers["/apis/apps/v1"] = 503, ""
    else:
        document = json.loads(aggregated_document(api.cluster.catalog, False, "v2", ()))
        (apps,) = [group for group in document["items"] if group["metadata"]["name"] == "apps"]
        apps["versions"] = [{"version": "v1", "freshness": "Stale"}]
        front.answers["/apis"] = 200, json.dumps(document)

    ended = (await scene.run()).expect(3)

    (warned,) = ended.logged("kinds of the group apps may be missing: ")
    assert "EXCLUDE" in warned["remedy"]
    shown = await scene.freshness()
    assert {kind: state for kind, (state, _) in shown.items()} == {
        "configmaps": "verified", "namespaces": "verified", "deployments": "failed", "daemonsets": "failed",
    }  # fmt: skip
    reason = "503" if form == "legacy" else "its server did not answer"
    assert all(reason in str(error) for state, error in shown.values() if state == "failed")
    status = (await run("status", "--stale", "1d", env=scene.env)).expect(3)
    assert reason in status.stdout
    assert "could not discover all kinds" in status.stdout

    scene.env["EXCLUDE"] = "*.apps"
    (await scene.run()).expect(0)
    assert {kind: state for kind, (state, _) in (await scene.freshness()).items() if state != "verified"} == {
        "deployments": "excluded", "daemonsets": "excluded",
    }  # fmt: skip
    assert await scene.stored() == everything

    del scene.env["EXCLUDE"]
    front.answers.clear()
    (await scene.run()).expect(0)
    assert {state for state, _ in (await scene.freshness()).values()} == {"verified"}
    assert await scene.stored() == everything


async def test_the_status_of_a_first_run_that_dies_half_way_says_so(scene: Scene, front: Front) -> None:
    """Discovery answers, and then the credentials are not accepted any more."""
    front.answers |= dict.fromkeys(["/api/v1/configmaps", "/api/v1/namespaces", DEPLOYMENTS_PATH], (401, UNAUTHORIZED))
    front.from_third["/api"] = 401, UNAUTHORIZED
    (await scene.run()).expect(1)

    status = (await run("status", env=scene.env)).expect(3)

    assert "no run of lists has ended yet" in status.stdout
    report = json.loads((await run("status", "--output", "json", env=scene.env)).expect(3).stdout)
    assert report["healthy"] is False
    assert "cluster" in {one["about"] for one in report["attention"]}


# --- redirects -------------------------------------------------------------------------------------------------------


async def test_a_redirect_to_another_origin_is_not_followed_and_fails_that_kind(
    api: SimulatedKubernetes, front: Front, tmp_path: Path
) -> None:
    """Whatever answers there is not this cluster's API, and gets neither token nor impersonation to see."""
    async with Front(api) as elsewhere:
        settings = Settings(kubeconfig=front.write_kubeconfig(tmp_path / "kubeconfig"))
        async with KubernetesClient.connect(settings) as client:
            front.redirects[DEPLOYMENTS_PATH] = f"{elsewhere.base_url}{DEPLOYMENTS_PATH}"
            with pytest.raises(ApiStatusError, match="another server: not followed") as raised:
                await page(client, DEPLOYMENTS)
            assert elsewhere.asked == []
            assert (raised.value.status, elsewhere.base_url in str(raised.value)) == (307, True)

            front.redirects[DEPLOYMENTS_PATH] = "http://user:secret@127.0.0.1:1/?token=secret"
            with pytest.raises(ApiStatusError) as raised:
                await page(client, DEPLOYMENTS)
            assert "secret" not in str(raised.value)


async def test_a_redirect_within_its_origin_is_followed_but_not_for_ever(front: Front, tmp_path: Path) -> None:
    async with KubernetesClient.connect(Settings(kubeconfig=front.write_kubeconfig(tmp_path / "kubeconfig"))) as client:
        front.redirects["/moved"] = DEPLOYMENTS_PATH
        assert b"DeploymentList" in await client.get("/moved")
        front.redirects["/circle"] = "/circle"
        with pytest.raises(ApiStatusError, match="not followed"):
            await client.get("/circle")
        assert front.paths().count("/circle") == 5
