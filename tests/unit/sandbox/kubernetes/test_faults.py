"""What goes wrong on purpose does so as set, as often as set, and where set."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from clusterinfo.sandbox.kubernetes import Faults

if TYPE_CHECKING:
    from .conftest import Client

PATH = "/api/v1/configmaps"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"


def fill(client: "Client") -> None:
    for number in range(6):
        metadata = {"name": f"cm-{number}", "namespace": "default"}
        client.api.cluster.create("configmaps", {"metadata": metadata, "data": {}})


@pytest.mark.parametrize(
    ("inject", "status"),
    [
        (lambda faults: faults.fail("configmaps", 500, times=1), 500),
        (lambda faults: faults.fail("*", 503, times=1), 503),
        (lambda faults: faults.throttle("configmaps", 7), 429),
    ],
)
async def test_a_fault_for_one_request(client: "Client", inject: Callable[[Faults], None], status: int) -> None:
    inject(client.api.faults)
    assert (await client.ask(PATH))[0] == status
    assert (await client.ask(PATH))[0] == 200
    assert sum(client.api.faults.fired.values()) == 1


async def test_throttling_names_its_pause(client: "Client") -> None:
    client.api.faults.throttle("configmaps", 7)
    async with client.session.get(client.api.base_url + PATH) as response:
        assert response.headers["Retry-After"] == "7"


async def test_forbidden_everywhere_or_in_one_namespace(client: "Client") -> None:
    client.api.faults.forbid("configmaps", namespace="secret-one")
    assert (await client.ask("/api/v1/namespaces/secret-one/configmaps"))[0] == 403
    assert (await client.ask("/api/v1/namespaces/default/configmaps"))[0] == 200
    client.api.faults.forbid("deployments.apps")
    status, document = await client.ask("/apis/apps/v1/deployments")
    assert status == 403
    assert document["details"] == {"group": "apps", "kind": "deployments"}
    client.api.faults.clear("deployments.apps")
    assert (await client.ask("/apis/apps/v1/deployments"))[0] == 200
    client.api.faults.forbid("namespaces", verb="get")
    status, document = await client.ask("/api/v1/namespaces/kube-system")
    assert (status, document["details"]["name"]) == (403, "kube-system")
    assert (await client.ask("/api/v1/namespaces"))[0] == 200


async def test_token_expires_after_a_page(client: "Client") -> None:
    fill(client)
    client.api.faults.expire_token("configmaps", after_page=2)
    _, first = await client.ask(PATH, limit="2")
    status, second = await client.ask(PATH, limit="2", continue_=first["metadata"]["continue"])
    assert status == 200
    status, expired = await client.ask(PATH, limit="2", continue_=second["metadata"]["continue"])
    assert status == 410
    status, rest = await client.ask(PATH, limit="9", continue_=expired["metadata"]["continue"])
    assert [one["metadata"]["name"] for one in rest["items"]] == ["cm-4", "cm-5"]


async def test_body_is_cut(client: "Client") -> None:
    fill(client)
    client.api.faults.cut_body("configmaps", times=1)
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.ask(PATH)
    assert (await client.ask(PATH))[0] == 200


async def test_body_stalls(client: "Client") -> None:
    fill(client)
    client.api.faults.stall("configmaps", 0.3)
    began = time.monotonic()
    assert len((await client.ask(PATH))[1]["items"]) == 6
    assert time.monotonic() - began >= 0.3


async def test_later_page_of_another_version(client: "Client") -> None:
    fill(client)
    client.api.faults.wrong_resource_version("configmaps")
    versions = {page["metadata"]["resourceVersion"] for page in await client.pages(PATH, 3)}
    assert len(versions) == 2


async def test_list_versions_that_stand_still_or_are_missing(client: "Client") -> None:
    client.api.faults.list_version("configmaps", "opaque")
    assert (await client.ask(PATH))[1]["metadata"] == {"resourceVersion": "opaque"}
    client.api.faults.clear()
    client.api.faults.list_version("configmaps", "")
    assert (await client.ask(PATH))[1]["metadata"] == {}


async def test_null_items(client: "Client") -> None:
    client.api.faults.null_items("configmaps")
    assert (await client.ask(PATH))[1]["items"] is None


async def test_unauthorized(client: "Client") -> None:
    client.api.faults.unauthorized()
    assert (await client.ask(PATH))[0] == 401
    client.api.faults.clear()
    assert (await client.ask(PATH))[0] == 200


async def discover(client: "Client", *versions: str) -> tuple[str, Any]:
    accept = ",".join([*(AGGREGATED.format(version) for version in versions), "application/json"])
    async with client.session.get(client.api.base_url + "/apis", headers={"Accept": accept}) as response:
        return response.headers["Content-Type"], await response.json()


async def test_older_forms_of_discovery(client: "Client") -> None:
    assert (await discover(client, "v2", "v2beta1"))[0] == AGGREGATED.format("v2")
    client.api.faults.only_beta_discovery()
    kind, document = await discover(client, "v2", "v2beta1")
    assert kind == AGGREGATED.format("v2beta1")
    assert document["apiVersion"] == "apidiscovery.k8s.io/v2beta1"
    client.api.faults.no_aggregated_discovery()
    kind, document = await discover(client, "v2", "v2beta1")
    assert (kind, document["kind"]) == ("application/json", "APIGroupList")


async def test_stale_group(client: "Client") -> None:
    client.api.faults.stale_discovery("apps")
    _, document = await discover(client, "v2")
    [group] = [one for one in document["items"] if one["metadata"]["name"] == "apps"]
    assert group["versions"] == [{"version": "v1", "freshness": "Stale"}]
    assert (await client.ask("/apis/apps/v1"))[0] == 503
    assert (await client.ask("/apis/apps/v1/deployments"))[0] == 200
    client.api.faults.stale_discovery("apps", lists=True)
    assert (await client.ask("/apis/apps/v1/deployments"))[0] == 503


async def test_unchanged_discovery_is_not_sent_again(client: "Client") -> None:
    headers = {"Accept": AGGREGATED.format("v2")}
    async with client.session.get(client.api.base_url + "/apis", headers=headers) as response:
        headers["If-None-Match"] = response.headers["Etag"]
    async with client.session.get(client.api.base_url + "/apis", headers=headers) as response:
        assert response.status == 304


async def test_server_goes_away_and_comes_back(client: "Client") -> None:
    port = client.api.port
    await client.api.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.ask(PATH)
    await client.api.start()
    assert client.api.port == port
    assert (await client.ask(PATH))[0] == 200


async def test_requests_are_logged(client: "Client", tmp_path: Path) -> None:
    await client.ask(PATH, limit="7")
    last = client.api.requests[-1]
    assert (last.method, last.path, last.query["limit"], last.user, last.status) == ("GET", PATH, "7", "admin", 200)


async def test_control(client: "Client") -> None:
    async def do(operation: str, **arguments: Any) -> tuple[int, Any]:
        return await client.ask("/_control", method="POST", json={"op": operation, **arguments})

    assert (await do("populate", objects=60))[0] == 200
    status, answer = await do("create_namespace", name="extra")
    assert (status, answer["result"]["resource"]) == (200, "namespaces")
    assert (await do("churn", changes=20))[0] == 200
    assert (await do("forbid", resource="pods"))[0] == 200
    assert (await client.ask("/api/v1/pods"))[0] == 403
    assert (await do("clear"))[0] == 200
    assert (await do("delete", resource="pods", namespace="x", name="y"))[0] == 400
    assert (await do("__class__"))[0] == 400
    status, numbers = await client.ask("/_control")
    assert numbers["objects"] == client.api.cluster.count()
    async with client.session.get(client.api.base_url + "/_control/objects") as response:
        lines = [line async for line in response.content]
    assert len(lines) == numbers["objects"]
    async with aiohttp.ClientSession() as stranger, stranger.get(client.api.base_url + "/_control/objects") as refused:
        assert refused.status == 401
