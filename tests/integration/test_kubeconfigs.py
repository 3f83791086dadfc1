"""What a kubeconfig asks for, as the server sees it, and what a broken one makes the program say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from clusterinfo.errors import ConfigError, TransientError
from clusterinfo.kubernetes.client import KubernetesClient
from clusterinfo.model import GroupVersionResource
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.settings import MIB, Settings
from tests.conftest import Database
from tests.support.front import Front
from tests.support.programs import QUIET, Ended, run

pytestmark = pytest.mark.embedded_only

PODS = GroupVersionResource("", "v1", "pods", "Pod", namespaced=True)
SECRET = "canary-hunter2"


@pytest.fixture
async def api() -> AsyncIterator[SimulatedKubernetes]:
    async with SimulatedKubernetes(SimulatedCluster(seed=1)) as serving:
        yield serving


@pytest.fixture
async def front(api: SimulatedKubernetes) -> AsyncIterator[Front]:
    async with Front(api) as serving:
        yield serving


def as_user(kubeconfig: Path, **members: Any) -> Path:
    """The kubeconfig with `members` for its user, beside the token; `_` stands for `-`."""
    document = json.loads(kubeconfig.read_text())
    document["users"][0]["user"] |= {name.strip("_").replace("_", "-"): value for name, value in members.items()}
    kubeconfig.write_text(json.dumps(document))
    return kubeconfig


def impersonated(front: Front) -> set[tuple[tuple[str, str], ...]]:
    """The different things that requests named of whom they are to be from."""
    asked = (headers.items() for _, headers in front.asked)
    return {tuple((k, v) for k, v in headers if k.lower().startswith("impersonate")) for headers in asked}


@pytest.mark.parametrize("legacy", [False, True])
async def test_every_request_impersonates_whom_the_kubeconfig_names(
    api: SimulatedKubernetes, front: Front, tmp_path: Path, legacy: bool
) -> None:
    if legacy:
        api.faults.no_aggregated_discovery()
    kubeconfig = front.write_kubeconfig(tmp_path / "kubeconfig")
    extra = {"example.com/Team": ["a", "b"]}
    as_user(kubeconfig, as_="viewer", as_uid="u-1", as_groups=["viewers", "readers"], as_user_extra=extra)

    async with KubernetesClient.connect(Settings(kubeconfig=kubeconfig)) as client:
        await client.ping()
        await client.discover()
        await client.get_page(PODS, limit=10, max_bytes=MIB)
        before = len(front.asked)
        front.answers["/api/v1/pods"] = 401, ""
        with pytest.raises(Exception, match="401"):
            await client.get_page(PODS, limit=10, max_bytes=MIB)

    assert {"/version", "/api", "/apis", "/api/v1/pods"} <= set(front.paths())
    assert len(front.asked) - before == 3, "refused, refused after the credentials were read again, and the probe"
    key = "Impersonate-Extra-example.com%2fteam"
    groups = (("Impersonate-Group", "viewers"), ("Impersonate-Group", "readers"))
    expected = (("Impersonate-User", "viewer"), ("Impersonate-Uid", "u-1"), *groups, (key, "a"), (key, "b"))
    assert impersonated(front) == {expected}


async def test_without_as_nobody_is_impersonated(front: Front, tmp_path: Path) -> None:
    async with KubernetesClient.connect(Settings(kubeconfig=front.write_kubeconfig(tmp_path / "kubeconfig"))):
        assert impersonated(front) == {()}


async def legacy(kubeconfig: Path, database: Database) -> Ended:
    return await run("legacy", "--once", env=database.env | QUIET | {"KUBECONFIG": str(kubeconfig)})


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"as_groups": ["viewers"]}, "requesting uid, groups or user-extra without impersonating a user"),
        ({"as_": 5}, "`as` has another form than expected"),
    ],
)
async def test_a_program_refuses_what_cannot_be_impersonated(
    front: Front, database: Database, tmp_path: Path, members: dict[str, Any], reason: str
) -> None:
    kubeconfig = as_user(front.write_kubeconfig(tmp_path / "kubeconfig"), **members)

    ended = (await legacy(kubeconfig, database)).expect(2)

    (error,) = ended.errors()
    assert reason in error
    assert front.asked == []


async def test_a_program_says_where_a_kubeconfig_is_broken_and_quotes_nothing(
    front: Front, database: Database, tmp_path: Path
) -> None:
    kubeconfig = as_user(front.write_kubeconfig(tmp_path / "kubeconfig"), token=SECRET)
    text = kubeconfig.read_text()
    kubeconfig.write_text(text[: text.index(SECRET) + len(SECRET)])

    ended = (await legacy(kubeconfig, database)).expect(2)

    (error,) = ended.errors()
    assert error.startswith(f"KUBECONFIG '{kubeconfig}' cannot be read: line 1, column ")
    assert SECRET not in ended.stderr


async def test_a_kubeconfig_that_is_half_written_when_it_is_read_again_is_not_quoted_either(
    api: SimulatedKubernetes, front: Front, tmp_path: Path
) -> None:
    kubeconfig = front.write_kubeconfig(tmp_path / "kubeconfig")
    async with KubernetesClient.connect(Settings(kubeconfig=kubeconfig)) as client:
        api.faults.unauthorized()
        kubeconfig.write_text(f"users:\n- name: u\n  user: {{token: {SECRET}")

        with pytest.raises(TransientError, match=r"cannot be read: line 3, .*is it whole\?") as caught:
            await client.get_page(PODS, limit=10, max_bytes=MIB)

    assert SECRET not in str(caught.value)
    assert isinstance(caught.value.__cause__, ConfigError)
    assert SECRET not in repr(caught.value.__cause__)
    assert caught.value.__cause__.__cause__ is None
