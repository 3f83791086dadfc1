"""The simulated Kubernetes API answers as a real kube-apiserver did: every recording in tests/recorded is replayed.

The recorded objects are put into a simulated cluster, so that its answers can be compared member for member, in order.
What differs from cluster to cluster - revisions, counts of what lies beyond the recorded page, uids the simulation gave
out - is put aside by `settled`.
"""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import pytest
import pytest_asyncio

from clusterinfo.sandbox.kubernetes import SimulatedCluster, SimulatedKubernetes
from tests.contract.contract import until

JSON = dict[str, Any]
RECORDED = Path(__file__).parent.parent / "recorded"
TOKENS = {"admin": "admin-token", "viewer": "viewer-token", "other": "nobody-knows-it"}

# Replayed word for word against the cluster made of the recordings.
PLAIN = [
    "discovery-aggregated-core", "discovery-aggregated-groups", "discovery-legacy-api", "discovery-legacy-apis",
    "discovery-legacy-apps-v1", "discovery-legacy-v1", "error-400-continue", "error-401", "error-404", "error-405",
    "error-410-continue", "kube-system", "list-clusterroles", "list-configmaps", "list-crds", "list-deployments",
    "list-empty", "list-namespaces", "list-nodes", "list-pods-inconsistent-continuation", "list-pods-labelled",
    "list-pods-page-1", "list-secrets", "list-services", "list-widgets", "list-widgets-before-watch", "version",
    "watch-410", "watch-too-large",
]  # fmt: skip

# Replayed by a test of their own, which first does what was done while they were recorded.
STAGED = ["error-403", "list-pods-page-2", "watch-list-widgets", "watch-widgets"]


@dataclass(frozen=True)
class Exchange:
    """One recorded request and its answer."""

    path: str
    query: dict[str, str]
    accept: str
    user: str
    status: int
    headers: dict[str, str]
    body: str

    @classmethod
    def read(cls, name: str) -> "Exchange":
        document = json.loads((RECORDED / f"{name}.json").read_text())
        request = document["request"]
        url = urlsplit(request["path"])
        query = dict(parse_qsl(url.query))
        return cls(
            url.path,
            query,
            request["accept"],
            request["user"],
            document["status"],
            document["headers"],
            document["body"],
        )

    @property
    def document(self) -> JSON:
        decoded: JSON = json.loads(self.body)
        return decoded

    @property
    def lines(self) -> list[JSON]:
        return [json.loads(line) for line in self.body.splitlines()]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: str


@pytest.fixture(scope="module")
def cluster() -> SimulatedCluster:
    """A cluster of everything that the recorded lists show, and something of each kind behind the recorded page."""
    cluster = SimulatedCluster()
    cluster.add_crd("widgets", "shop.example.com", "Widget", versions=("v1", "v1beta1"), short_names=("wd",))
    for resource, path in recorded_lists():
        for item in Exchange.read(path).document["items"]:
            put(cluster, resource, item)
    for resource, path in recorded_lists():
        document = Exchange.read(path).document
        if document["metadata"].get("continue"):
            put(cluster, resource, filler(document["items"][-1]))
    put(cluster, "namespaces", Exchange.read("kube-system").document)
    cluster.tick(50_000)
    cluster.compact()
    return cluster


def recorded_lists() -> list[tuple[str, str]]:
    names = [
        "clusterroles.rbac.authorization.k8s.io",
        "configmaps",
        "deployments.apps",
        "namespaces",
        "nodes",
        "secrets",
    ]
    names += ["services", "customresourcedefinitions.apiextensions.k8s.io", "widgets.shop.example.com"]
    short = {"customresourcedefinitions": "crds"}
    lists = [(name, f"list-{short.get(plural := name.partition('.')[0], plural)}") for name in names]
    return lists + [("pods", f"list-pods-{page}") for page in ("page-1", "page-2", "labelled")]


def put(cluster: SimulatedCluster, resource: str, item: JSON) -> None:
    """Create the recorded object, in the place of one that a fresh cluster has already."""
    metadata = item["metadata"]
    key = (metadata.get("namespace", ""), metadata["name"])
    if any((one.namespace, one.name) == key for one in cluster.table(cluster.catalog.preferred(resource)).ordered()):
        cluster.delete(resource, *key)
    cluster.create(resource, item)


def filler(item: JSON) -> JSON:
    metadata = {**item["metadata"], "name": "zzz", "uid": "00000000-0000-4000-8000-000000000000"}
    return {**item, "metadata": metadata | ({"namespace": "zzz"} if "namespace" in metadata else {})}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(cluster: SimulatedCluster) -> AsyncIterator[SimulatedKubernetes]:
    users = {TOKENS["viewer"]: "viewer"}
    async with SimulatedKubernetes(cluster, token=TOKENS["admin"], users=users, bookmark_interval_s=0.2) as api:
        yield api


async def replay(api: SimulatedKubernetes, exchange: Exchange, **changed: str) -> Answer:
    """Ask what was asked then. `changed`: parameters that must differ, as tokens and timeouts do."""
    headers = {"Accept": exchange.accept, "Authorization": f"Bearer {TOKENS[exchange.user]}"}
    query = {**exchange.query, **changed}
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
        session.get(api.base_url + exchange.path, params=query) as response,
    ):
        body = await response.read()
        return Answer(response.status, dict(response.headers), body.decode())


def settled(value: Any, name: str = "") -> Any:
    """A document without what depends on the cluster's history."""
    if isinstance(value, dict):
        return {key: settled(member, key) for key, member in value.items()}
    if isinstance(value, list):
        return [settled(member) for member in value]
    if name == "continue" and value:
        token = json.loads(base64.urlsafe_b64decode(value + "=="))
        return token | {"rv": min(token["rv"], 0)}
    if name in ("resourceVersion", "remainingItemCount"):
        return type(value).__name__
    if name == "serverAddress":
        return re.sub(r"\d+$", "PORT", value)
    if name == "message":
        return re.sub(r"\(\d+\)$", "(OLDEST)", value)
    return value


def assert_same(found: Any, recorded: Any) -> None:
    """The same documents: members, order, values."""
    assert json.dumps(settled(found), indent=1) == json.dumps(settled(recorded), indent=1)


def assert_same_headers(answer: Answer, exchange: Exchange) -> None:
    for name in ("Content-Type", "Cache-Control"):
        assert answer.headers[name] == exchange.headers[name]
    framing = {"Content-Length", "Transfer-Encoding"}
    if framing & exchange.headers.keys():
        assert framing & answer.headers.keys() == framing & exchange.headers.keys()
    if "Etag" in exchange.headers:
        assert all(re.fullmatch(r'"[0-9A-F]{128}"', headers["Etag"]) for headers in (answer.headers, exchange.headers))


def test_every_recording_is_replayed() -> None:
    assert sorted(PLAIN + STAGED) == sorted(path.stem for path in RECORDED.glob("*.json"))


@pytest.mark.parametrize("name", PLAIN)
async def test_answers_as_recorded(api: SimulatedKubernetes, name: str) -> None:
    exchange = Exchange.read(name)
    changed = {"timeoutSeconds": "1"} if "timeoutSeconds" in exchange.query else {}
    answer = await replay(api, exchange, **changed)
    assert answer.status == exchange.status
    assert_same_headers(answer, exchange)
    if name == "version":
        assert list(json.loads(answer.body)) == list(exchange.document)
    elif exchange.body.startswith("{"):
        assert_same(json.loads(answer.body), exchange.document)
    else:
        assert answer.body == exchange.body


async def test_discovery_is_the_same_to_the_byte(api: SimulatedKubernetes) -> None:
    for name in ("discovery-aggregated-core", "discovery-aggregated-groups", "discovery-legacy-apps-v1"):
        exchange = Exchange.read(name)
        assert (await replay(api, exchange)).body == exchange.body


async def test_objects_are_the_same_to_the_byte(api: SimulatedKubernetes) -> None:
    exchange = Exchange.read("list-pods-page-1")
    answer = await replay(api, exchange)
    versions = re.compile(r'"resourceVersion":"\d+"')
    items = [versions.sub("", body.split('"items":', 1)[1]) for body in (answer.body, exchange.body)]
    assert items[0] == items[1]


async def test_second_page_continues_the_first(api: SimulatedKubernetes) -> None:
    first, second = Exchange.read("list-pods-page-1"), Exchange.read("list-pods-page-2")
    metadata = json.loads((await replay(api, first)).body)["metadata"]
    answer = await replay(api, second, **{"continue": metadata["continue"]})
    assert answer.status == second.status
    assert_same_headers(answer, second)
    found = json.loads(answer.body)
    assert found["metadata"]["resourceVersion"] == metadata["resourceVersion"]
    assert_same(found, second.document)


async def test_forbidden(api: SimulatedKubernetes) -> None:
    exchange = Exchange.read("error-403")
    api.faults.forbid("pods")
    try:
        answer = await replay(api, exchange)
    finally:
        api.faults.clear()
    assert answer.status == exchange.status
    assert_same_headers(answer, exchange)
    assert answer.body == exchange.body


async def test_streaming_list(api: SimulatedKubernetes) -> None:
    exchange = Exchange.read("watch-list-widgets")
    answer = await replay(api, exchange, timeoutSeconds="1")
    assert_same_headers(answer, exchange)
    found = [json.loads(line) for line in answer.body.splitlines()]
    assert_same(found[: len(exchange.lines)], exchange.lines)


async def test_watch(api: SimulatedKubernetes, cluster: SimulatedCluster) -> None:
    exchange = Exchange.read("watch-widgets")
    watching = asyncio.create_task(replay(api, exchange, timeoutSeconds="3", resourceVersion=str(cluster.revision)))
    table = cluster.table(cluster.catalog.preferred("widgets.shop.example.com"))
    await until(lambda: table.subscriptions)
    added, modified, _, recreated = [line["object"] for line in exchange.lines[:4]]
    widgets = "widgets.shop.example.com"
    cluster.create(widgets, {**added, "metadata": {**added["metadata"]}})
    cluster.update(widgets, "ns-001", "live", {"spec": modified["spec"]})
    cluster.delete(widgets, "ns-001", "live")
    cluster.create(widgets, recreated)
    deletion = cluster.delete(widgets, "ns-001", "live")
    answer = await watching
    assert_same_headers(answer, exchange)
    found = [json.loads(line) for line in answer.body.splitlines()]
    assert_same(found[: len(exchange.lines)], exchange.lines)
    revisions = [int(line["object"]["metadata"]["resourceVersion"]) for line in found]
    assert revisions[:5] == list(range(deletion - 4, deletion + 1))
    assert found[4]["object"]["metadata"]["resourceVersion"] == str(deletion)
