"""The control endpoint: another process asks for changes and faults, and for the truth. With the same bearer token.

    GET  /_control/objects    NDJSON, each object once: `[group, resource, namespace, name, uid, resourceVersion]`
    GET  /_control/canaries   JSON array of every secret text planted
    GET  /_control/requests   JSON array of the last 10,000 requests
    GET  /_control            {"uid", "revision", "compacted", "objects"}
    POST /_control            {"op": ..., arguments of that operation}; answers {"result": ...}

Operations: those of `SimulatedCluster` in `CLUSTER_OPERATIONS`, those of `Faults` in `FAULT_OPERATIONS`, and
`drop_watches`, each with its method's arguments by name:
`{"op": "delete", "resource": "pods", "namespace": "ns-000", "name": "app-0"}`.
"""

import dataclasses
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from clusterinfo.sandbox.kubernetes.statuses import bad_request, page_not_found

if TYPE_CHECKING:
    from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes

CLUSTER_OPERATIONS = frozenset(
    {
        "create", "create_namespace", "update", "delete", "recreate", "compact", "tick", "add_crd", "remove_crd",
        "populate", "churn",
    }
)  # fmt: skip
FAULT_OPERATIONS = frozenset(
    {
        "forbid", "fail", "throttle", "expire_token", "cut_body", "stall", "wrong_resource_version",
        "list_version", "null_items",
        "stale_discovery", "no_aggregated_discovery", "only_beta_discovery", "unauthorized", "clear",
    }
)  # fmt: skip
LINES_A_WRITE = 1000


async def answer(api: "SimulatedKubernetes", request: web.Request) -> web.StreamResponse:
    """Raises ApiFailure: 404 for an unknown address, 400 for an operation or arguments that make no sense."""
    path = request.path.removeprefix("/_control").strip("/")
    if request.method == "POST" and not path:
        return _json({"result": operate(api, orjson.loads(await request.read()))})
    if request.method != "GET":
        raise page_not_found()
    if path == "objects":
        return await _objects(api, request)
    if path == "canaries":
        return _json(sorted(api.cluster.canaries()))
    if path == "requests":
        return _json(list(api.requests))
    if path:
        raise page_not_found()
    cluster = api.cluster
    numbers = {"revision": cluster.revision, "compacted": cluster.compacted, "objects": cluster.count()}
    return _json({"uid": cluster.uid(), **numbers})


def operate(api: "SimulatedKubernetes", command: dict[str, Any]) -> Any:
    """Do what `command` says and return what the method returned. Raises ApiFailure (400) if it cannot."""
    arguments = dict(command)
    operation = arguments.pop("op", None)
    if operation in CLUSTER_OPERATIONS:
        owner: object = api.cluster
    elif operation in FAULT_OPERATIONS:
        owner = api.faults
    elif operation == "drop_watches":
        owner = api
    else:
        raise bad_request(f"unknown op {operation!r}")
    try:
        return getattr(owner, operation)(**arguments)
    except (KeyError, TypeError, ValueError) as error:
        raise bad_request(f"{operation}: {type(error).__name__}: {error}") from error


async def _objects(api: "SimulatedKubernetes", request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    # One moment's truth: the identities are taken before the first write lets anything else run.
    lines = iter([orjson.dumps(dataclasses.astuple(one)) + b"\n" for one in api.cluster.identities()])
    while block := b"".join(islice(lines, LINES_A_WRITE)):
        await response.write(block)
    await response.write_eof()
    return response


def _json(document: Any) -> web.Response:
    return web.Response(body=orjson.dumps(document) + b"\n", content_type="application/json")
