"""The control endpoint: another process requests changes, faults, and the truth. With the same bearer token.

    GET  /_control/objects    NDJSON, each object once: `[group, resource, namespace, name, uid, resourceVersion]`
    GET  /_control/canaries   JSON array of every secret text planted
    GET  /_control/requests   JSON array of the last 10,000 requests
    GET  /_control            {"uid", "revision", "compacted", "objects"}
    POST /_control            {"op": ..., arguments of that operation}; answers {"result": ...}

Operations: those of `SimulatedCluster` in `CLUSTER_OPERATIONS`, those of `Faults` in `FAULT_OPERATIONS`, `populate` and
`churn`, each with its arguments by name:
`{"op": "delete", "resource": "pods", "namespace": "ns-000", "name": "app-0"}`.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import islice
from typing import Any

import orjson
from aiohttp import web

from clusterinfo.sandbox.kubernetes.faults import Faults
from clusterinfo.sandbox.kubernetes.populate import churn, populate
from clusterinfo.sandbox.kubernetes.requests import LoggedRequest
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.sandbox.kubernetes.statuses import bad_request, page_not_found

CLUSTER_OPERATIONS = frozenset(
    {
        "create", "create_namespace", "update", "delete", "recreate", "compact", "tick", "add_crd", "remove_crd",
        "drop_watches",
    }
)  # fmt: skip
GENERATOR_OPERATIONS: Mapping[str, Callable[..., Any]] = {"populate": populate, "churn": churn}
FAULT_OPERATIONS = frozenset(
    {
        "forbid", "fail", "throttle", "expire_token", "cut_body", "stall", "wrong_resource_version",
        "list_version", "null_items", "cut_watch", "silence_watch", "say_on_watch",
        "stale_discovery", "no_aggregated_discovery", "only_beta_discovery", "unauthorized", "clear",
    }
)  # fmt: skip
LINES_A_WRITE = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class Control:
    """What it may change and show: the cluster, the faults in force, the last requests."""

    cluster: SimulatedCluster
    faults: Faults
    requests: Collection[LoggedRequest]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Raises ApiFailure: 404 for an unknown address, 400 for an operation or arguments that make no sense."""
        path = request.path.removeprefix("/_control").strip("/")
        if request.method == "POST" and not path:
            return _json({"result": self.operate(orjson.loads(await request.read()))})
        if request.method != "GET":
            raise page_not_found()
        if path == "objects":
            return await _send_objects(self.cluster, request)
        if path == "canaries":
            return _json(sorted(self.cluster.canaries()))
        if path == "requests":
            return _json(list(self.requests))
        if path:
            raise page_not_found()
        cluster = self.cluster
        numbers = {"revision": cluster.revision, "compacted": cluster.compacted, "objects": cluster.count()}
        return _json({"uid": cluster.uid(), **numbers})

    def operate(self, command: dict[str, Any]) -> Any:
        """Do what `command` names and return its result. Raises ApiFailure (400) if it cannot."""
        arguments = dict(command)
        operation = arguments.pop("op", None)
        perform = self._operation(operation)
        try:
            return perform(**arguments)
        except (KeyError, TypeError, ValueError) as error:
            raise bad_request(f"{operation}: {type(error).__name__}: {error}") from error

    def _operation(self, name: Any) -> Callable[..., Any]:
        if name in CLUSTER_OPERATIONS:
            operation: Callable[..., Any] = getattr(self.cluster, name)
        elif name in GENERATOR_OPERATIONS:
            operation = partial(GENERATOR_OPERATIONS[name], self.cluster)
        elif name in FAULT_OPERATIONS:
            operation = getattr(self.faults, name)
        else:
            raise bad_request(f"unknown op {name!r}")
        return operation


async def _send_objects(cluster: SimulatedCluster, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    # One moment's truth: the identities are taken before the first write lets anything else run.
    lines = iter([orjson.dumps(dataclasses.astuple(one)) + b"\n" for one in cluster.identities()])
    while block := b"".join(islice(lines, LINES_A_WRITE)):
        await response.write(block)
    await response.write_eof()
    return response


def _json(document: Any) -> web.Response:
    return web.Response(body=orjson.dumps(document) + b"\n", content_type="application/json")
