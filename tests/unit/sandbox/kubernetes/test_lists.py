"""Lists of the simulated API: pages of one moment, tokens that expire, kinds that come and go."""

import base64
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from clusterinfo.sandbox.kubernetes import SimulatedCluster
from clusterinfo.sandbox.kubernetes.populate import churn, populate

if TYPE_CHECKING:
    from .conftest import Client

PODS, WIDGETS = "/api/v1/pods", "/apis/shop.example.com/v1/widgets"


def configmap(name: str, namespace: str = "default") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "data": {"key": name}}


def names(pages: list[Any]) -> list[str]:
    return [item["metadata"]["name"] for page in pages for item in page["items"]]


def fill(cluster: SimulatedCluster, count: int = 10, namespace: str = "default") -> None:
    for number in range(count):
        cluster.create("configmaps", configmap(f"cm-{number}", namespace))


async def test_pages_add_up(client: "Client") -> None:
    fill(client.api.cluster)
    pages = await client.pages("/api/v1/configmaps", 3)
    assert [len(page["items"]) for page in pages] == [3, 3, 3, 1]
    assert [page["metadata"].get("remainingItemCount") for page in pages] == [7, 4, 1, None]
    assert names(pages) == [f"cm-{number}" for number in range(10)]


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [("team", ["a", "b"]), ("!team", ["c"]), ("team=one", ["a"]), ("team!=one", ["b", "c"]), ("team,team!=one", ["b"])],
)
async def test_labels_select(client: "Client", selector: str, chosen: list[str]) -> None:
    for name, labels in {"a": {"team": "one"}, "b": {"team": "two"}, "c": {}}.items():
        body = configmap(name)
        client.api.cluster.create("configmaps", body | {"metadata": body["metadata"] | {"labels": labels}})
    _, page = await client.ask("/api/v1/configmaps", labelSelector=selector)
    assert names([page]) == chosen


async def test_later_changes_do_not_show_on_later_pages(client: "Client") -> None:
    cluster = client.api.cluster
    fill(cluster)
    _, first = await client.ask("/api/v1/configmaps", limit="3")
    cluster.delete("configmaps", "default", "cm-5")
    cluster.create("configmaps", configmap("cm-55"))
    cluster.update("configmaps", "default", "cm-6", {"data": {"key": "changed"}})
    cluster.recreate("configmaps", "default", "cm-7")
    _, rest = await client.ask("/api/v1/configmaps", limit="100", continue_=first["metadata"]["continue"])
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert names([first, rest]) == [f"cm-{number}" for number in range(10)]
    assert rest["items"][3]["data"] == {"key": "cm-6"}
    assert all(
        int(one["metadata"]["resourceVersion"]) <= int(first["metadata"]["resourceVersion"]) for one in rest["items"]
    )
    assert names(await client.pages("/api/v1/configmaps", 4)) == sorted(
        [*(f"cm-{n}" for n in range(10) if n != 5), "cm-55"]
    )


async def test_churn_between_pages(client: "Client") -> None:
    cluster = client.api.cluster
    populate(cluster, 300, kinds=6, seed=1)
    expected = [
        (one.namespace, one.name, str(one.revision))
        for one in cluster.table(cluster.catalog.preferred("pods")).ordered()
    ]
    found, token = [], ""
    for seed in range(1000):
        _, page = await client.ask(PODS, limit="20", continue_=token)
        found += [
            tuple(one["metadata"][key] for key in ("namespace", "name", "resourceVersion")) for one in page["items"]
        ]
        churn(cluster, 50, seed)
        if not (token := page["metadata"].get("continue", "")):
            break
    assert found == expected


async def test_one_namespace(client: "Client") -> None:
    cluster = client.api.cluster
    fill(cluster, 4, "default")
    fill(cluster, 4, "default-2")
    pages = await client.pages("/api/v1/namespaces/default/configmaps", 3)
    assert names(pages) == [f"cm-{number}" for number in range(4)]
    token = orjson.loads(base64.urlsafe_b64decode(pages[0]["metadata"]["continue"] + "=="))
    assert token["start"] == "/cm-2\0"
    assert names(await client.pages("/api/v1/namespaces/nowhere/configmaps", 3)) == []


async def test_keys_are_ordered_as_etcd_does(client: "Client") -> None:
    for namespace in ("a", "a-b", "a.b"):
        client.api.cluster.create("configmaps", configmap("cm", namespace))
    _, page = await client.ask("/api/v1/configmaps")
    assert [item["metadata"]["namespace"] for item in page["items"]] == ["a-b", "a.b", "a"]


async def test_expired_token_and_inconsistent_continuation(client: "Client") -> None:
    cluster = client.api.cluster
    fill(cluster)
    _, first = await client.ask("/api/v1/configmaps", limit="3")
    cluster.create("configmaps", configmap("cm-99"))
    cluster.compact()
    status, expired = await client.ask("/api/v1/configmaps", limit="3", continue_=first["metadata"]["continue"])
    assert (status, expired["reason"]) == (410, "Expired")
    status, rest = await client.ask("/api/v1/configmaps", limit="100", continue_=expired["metadata"]["continue"])
    assert status == 200
    assert rest["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]
    assert names([first, rest])[-1] == "cm-99"


async def test_history_limit_compacts_by_itself() -> None:
    cluster = SimulatedCluster(history_limit=100)
    fill(cluster, 60)
    assert cluster.compacted == 0
    for _ in range(60):
        cluster.update("configmaps", "default", "cm-0")
    assert 0 < cluster.compacted < cluster.revision


async def test_version_zero_ignores_the_limit(client: "Client") -> None:
    fill(client.api.cluster)
    _, page = await client.ask("/api/v1/configmaps", limit="3", resourceVersion="0")
    assert len(page["items"]) == 10
    assert "continue" not in page["metadata"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"continue": "!"}, 400),
        ({"continue": "e30"}, 400),
        ({"limit": "many"}, 400),
        ({"resourceVersion": "x"}, 400),
        ({"resourceVersion": "999999999"}, 504),
    ],
)
async def test_refused(client: "Client", query: dict[str, str], status: int) -> None:
    found, document = await client.ask(PODS, **query)
    assert (found, document["kind"], document["code"]) == (status, "Status", status)


async def test_custom_resources_are_served_in_each_version(client: "Client") -> None:
    body = {"metadata": {"name": "w", "namespace": "default"}, "spec": {"colour": "red"}, "data": 1}
    client.api.cluster.create("widgets.shop.example.com", body)
    for version in ("v1", "v1beta1"):
        _, page = await client.ask(f"/apis/shop.example.com/{version}/widgets", limit="5")
        assert list(page) == ["apiVersion", "items", "kind", "metadata"]
        assert page["metadata"]["continue"] == ""
        [item] = page["items"]
        assert list(item) == ["apiVersion", "data", "kind", "metadata", "spec"]
        assert item["apiVersion"] == f"shop.example.com/{version}"


async def test_removed_crd_is_gone_from_lists_and_discovery(client: "Client") -> None:
    cluster = client.api.cluster
    cluster.create("widgets.shop.example.com", {"metadata": {"name": "w", "namespace": "default"}})
    cluster.remove_crd("widgets", "shop.example.com")
    assert (await client.ask(WIDGETS)) == (404, b"404 page not found\n")
    _, groups = await client.ask("/apis")
    assert "shop.example.com" not in [group["name"] for group in groups["groups"]]
    assert {one.resource for one in cluster.identities()} == {"namespaces"}
    cluster.add_crd("widgets", "shop.example.com", "Widget")
    assert (await client.ask(WIDGETS))[1]["items"] == []


async def test_events_and_autoscalers_are_served_twice(client: "Client") -> None:
    populate(client.api.cluster, 100, seed=3)
    _, core = await client.ask("/api/v1/events")
    _, other = await client.ask("/apis/events.k8s.io/v1/events")
    assert core["items"]
    assert names([core]) == names([other])
    assert core["items"][0]["message"] == other["items"][0]["note"]
    _, second = await client.ask("/apis/autoscaling/v2/horizontalpodautoscalers")
    _, first = await client.ask("/apis/autoscaling/v1/horizontalpodautoscalers")
    assert second["items"][0]["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 80
    assert first["items"][0]["spec"]["targetCPUUtilizationPercentage"] == 80
    identities = [(one.group, one.resource) for one in client.api.cluster.identities()]
    assert identities.count(("", "events")) == len(core["items"])
    assert ("events.k8s.io", "events") not in identities


async def test_raw_members_are_served_as_they_are(client: "Client") -> None:
    raw = b'"data":{"lone":"\\ud800","deep":' + b"[" * 2000 + b"]" * 2000 + b"}"
    client.api.cluster.create("configmaps", {"metadata": {"name": "odd", "namespace": "default"}}, raw)
    async with client.session.get(client.api.base_url + "/api/v1/configmaps") as response:
        assert raw in await response.read()


async def test_gzip_and_chunks(client: "Client") -> None:
    populate(client.api.cluster, 400, kinds=6)
    async with client.session.get(client.api.base_url + PODS) as response:
        plain = await response.read()
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert "Content-Encoding" not in response.headers
    client.api.resources.gzip = True
    async with client.session.get(client.api.base_url + PODS) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert await response.read() == plain


async def test_get_one_object(client: "Client") -> None:
    fill(client.api.cluster, 1)
    status, found = await client.ask("/api/v1/namespaces/default/configmaps/cm-0")
    assert (status, found["kind"], found["data"]) == (200, "ConfigMap", {"key": "cm-0"})
    status, missing = await client.ask("/api/v1/namespaces/default/configmaps/cm-1")
    assert (status, missing["reason"]) == (404, "NotFound")
    for method in ("POST", "DELETE"):
        status, refused = await client.ask("/api/v1/namespaces/default/configmaps", method=method, json={})
        assert (status, refused["reason"]) == (405, "MethodNotAllowed")


async def test_delete_one_object(client: "Client") -> None:
    fill(client.api.cluster, 2)
    before = client.api.cluster.revision
    status, found = await client.ask("/api/v1/namespaces/default/configmaps/cm-0", method="DELETE")
    assert (status, found["kind"], found["data"]) == (200, "ConfigMap", {"key": "cm-0"})
    status, missing = await client.ask("/api/v1/namespaces/default/configmaps/cm-0", method="DELETE")
    assert (status, missing["reason"]) == (404, "NotFound")
    assert [one.name for one in client.api.cluster.identities() if one.resource == "configmaps"] == ["cm-1"]
    assert client.api.cluster.revision == before + 1


LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"


async def test_a_lease_is_created_once_and_updated_as_it_was_read(client: "Client") -> None:
    new = {"metadata": {"name": "lead"}, "spec": {"holderIdentity": "a"}}
    status, made = await client.ask(LEASES, method="POST", json=new)
    assert (status, made["kind"], made["metadata"]["namespace"], made["spec"]) == (201, "Lease", "default", new["spec"])
    status, refused = await client.ask(LEASES, method="POST", json=new)
    assert (status, refused["reason"]) == (409, "AlreadyExists")
    made["spec"]["holderIdentity"] = "b"
    status, updated = await client.ask(f"{LEASES}/lead", method="PUT", json=made)
    assert (status, updated["spec"], updated["metadata"]["uid"]) == (200, made["spec"], made["metadata"]["uid"])
    status, refused = await client.ask(f"{LEASES}/lead", method="PUT", json=made)
    assert (status, refused["reason"]) == (409, "Conflict")
    assert (await client.ask(f"{LEASES}/lead"))[1] == updated


async def test_what_lease_cannot_be_written(client: "Client") -> None:
    body = {"metadata": {"name": "lead"}}
    assert (await client.ask(f"{LEASES}/lead", method="PUT", json=body))[0] == 404
    assert (await client.ask(LEASES.replace("default", "nowhere"), method="POST", json=body))[0] == 404
    assert (await client.ask(LEASES, method="POST", json=["lead"]))[0] == 400
    client.api.faults.forbid("leases.coordination.k8s.io", verb="create")
    assert (await client.ask(LEASES, method="POST", json=body))[0] == 403
    assert (await client.ask("/api/v1/namespaces/default/configmaps", method="POST", json=body))[0] == 405
