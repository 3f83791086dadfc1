"""get, list, watch and delete of one resource: the faults in force first, then what the cluster has.

Leases can be created and updated as well.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import replace

import orjson
from aiohttp import web

from clusterinfo.sandbox.kubernetes import responses, statuses
from clusterinfo.sandbox.kubernetes.catalog import JSON, ApiResource
from clusterinfo.sandbox.kubernetes.conversions import rest_in
from clusterinfo.sandbox.kubernetes.encoding import object_prefix
from clusterinfo.sandbox.kubernetes.faults import Faults, Rule, Verb, What
from clusterinfo.sandbox.kubernetes.lists import ListPage, ListQuery, list_page
from clusterinfo.sandbox.kubernetes.requests import Target
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.sandbox.kubernetes.statuses import ApiFailure
from clusterinfo.sandbox.kubernetes.tokens import INCONSISTENT, ContinueToken
from clusterinfo.sandbox.kubernetes.watches import WatchQuery, is_watch, watch_events

REMEMBERED_TOKENS = 10_000
WRITABLE = "leases.coordination.k8s.io"

Strikes = Callable[[What], Rule | None]
"""The rule of a sort that strikes the page of a list in hand, counted as used; None if there is none."""


class ResourceHandler:
    """Answers requests for the objects of a cluster. `gzip`: compress, `bookmark_interval_s`: of watches."""

    def __init__(
        self, cluster: SimulatedCluster, faults: Faults, *, gzip: bool = False, bookmark_interval_s: float = 60
    ) -> None:
        self.gzip = gzip
        self._cluster = cluster
        self._faults = faults
        self._bookmark_interval_s = bookmark_interval_s
        self._pages: dict[str, int] = {}  # continue token -> number of the page that it asks for

    async def answer(
        self, request: web.Request, user: str, target: Target, resource: ApiResource
    ) -> web.StreamResponse:
        """Raises ApiFailure for what a real server refuses, and for the fault that strikes."""
        if request.method == "DELETE" and target.name and "delete" in resource.verbs:
            return responses.json_response(self._delete(resource, target, target.name))
        if resource.qualified == WRITABLE and (writes := _WRITES.get((request.method, bool(target.name)))):
            self._refuse(resource, writes, target, user, 1)
            return self._write(resource, writes, target, await request.read())
        verb: Verb = "get" if target.name else "watch" if is_watch(request.query) else "list"
        if request.method != "GET" or verb not in resource.verbs:
            raise statuses.method_not_allowed()
        token = request.query.get("continue", "")
        number = self._pages.get(token, 2) if token else 1
        self._refuse(resource, verb, target, user, number)
        if verb == "get":
            return responses.json_response(self._object(resource, target))
        if verb == "watch":
            return await self._watch(request, resource, WatchQuery.parse(target.namespace, request.query))
        return await self._list(request, resource, ListQuery.parse(target.namespace, request.query), number)

    def _refuse(self, resource: ApiResource, verb: Verb, target: Target, user: str, page: int) -> None:
        """Raises ApiFailure if a fault refuses the request before anything is looked up."""
        name, namespace = resource.qualified, target.namespace
        if self._faults.take("forbid", name, verb, namespace, page):
            # A namespace is looked up as if it were within itself.
            where = target.name if resource.qualified == "namespaces" and target.name else namespace
            raise statuses.forbidden(resource, where, user, verb, target.name)
        if rule := self._faults.take("throttle", name, verb, namespace, page):
            raise statuses.too_many_requests(int(rule.value))
        if rule := self._faults.take("fail", name, verb, namespace, page):
            raise statuses.injected(int(rule.value))

    def _object(self, resource: ApiResource, target: Target) -> bytes:
        key = f"{target.namespace}/{target.name}" if target.namespace else target.name
        stored = self._cluster.table(resource).live.get(key)
        if stored is None:
            raise statuses.not_found(resource, target.name)
        return object_prefix(resource) + rest_in(resource)(stored) + b"\n"

    def _delete(self, resource: ApiResource, target: Target, name: str) -> bytes:
        """The object as it was; it is gone at once, as one without finalizers is."""
        found = self._object(resource, target)
        self._cluster.delete(resource.qualified, target.namespace or "", name)
        return found

    def _write(self, resource: ApiResource, verb: Verb, target: Target, text: bytes) -> web.Response:
        """The object as it is stored. Raises ApiFailure (409) for one that exists, or is of another version."""
        body = _posted(text, target)
        name, namespace = body["metadata"]["name"], target.namespace or ""
        live = self._cluster.table(resource).live
        stored, version = live.get(f"{namespace}/{name}"), body["metadata"].pop("resourceVersion", "")
        if verb == "create":
            self._check_namespace(namespace)
            if stored is not None:
                raise statuses.already_exists(resource, name)
            self._cluster.create(resource.qualified, body)
        elif stored is None:
            raise statuses.not_found(resource, name)
        elif version not in ("", str(stored.revision)):
            raise statuses.conflict(resource, name)
        else:
            self._cluster.replace(resource.qualified, body)
        found = self._object(resource, replace(target, name=name))
        return responses.json_response(found, status=201 if verb == "create" else 200)

    def _check_namespace(self, name: str) -> None:
        namespaces = self._cluster.catalog.preferred("namespaces")
        if name not in self._cluster.table(namespaces).live:
            raise statuses.not_found(namespaces, name)

    async def _watch(self, request: web.Request, resource: ApiResource, query: WatchQuery) -> web.StreamResponse:
        response = await responses.begin_stream(request)
        # aclosing: a client that leaves ends its subscription now, not when the generator is collected.
        async with aclosing(watch_events(self._cluster, resource, query, self._bookmark_interval_s)) as events:
            async for line in events:
                if rule := self._faults.take("watch-silence", resource.qualified, "watch", query.namespace):
                    await asyncio.sleep(rule.value)
                if self._faults.take("watch-cut", resource.qualified, "watch", query.namespace):
                    return await responses.cut(request, response, line)
                other = self._faults.take("watch-line", resource.qualified, "watch", query.namespace)
                await response.write(f"{other.text}\n".encode() if other else line)
        await response.write_eof()
        return response

    async def _list(
        self, request: web.Request, resource: ApiResource, query: ListQuery, number: int
    ) -> web.StreamResponse:
        def strikes(what: What) -> Rule | None:
            return self._faults.take(what, resource.qualified, "list", query.namespace, number)

        if query.token and strikes("expire"):
            raise _expired(query.token)
        page = list_page(self._cluster, resource, query)
        if "continue" in page.metadata:
            self._remember(page.metadata["continue"], number + 1)
        page = _distorted(page, strikes)
        if strikes("cut"):
            return await responses.send_broken(request, b"".join(page.chunks()), stall_s=None)
        if rule := strikes("stall"):
            return await responses.send_broken(request, b"".join(page.chunks()), stall_s=rule.value)
        return await responses.send(request, page.chunks(), self.gzip)

    def _remember(self, token: str, page: int) -> None:
        self._pages[token] = page
        while len(self._pages) > REMEMBERED_TOKENS:
            del self._pages[next(iter(self._pages))]


_WRITES: Mapping[tuple[str, bool], Verb] = {("POST", False): "create", ("PUT", True): "update"}
"""(Method, whether an object is named) -> what that does."""


def _posted(text: bytes, target: Target) -> JSON:
    """The object of a request, its name and namespace those of the path. Raises ApiFailure (400) for what is none."""
    try:
        body: JSON = orjson.loads(text)
        metadata = {**body["metadata"], "namespace": target.namespace}
        name = target.name or metadata["name"]
    except (ValueError, TypeError, KeyError) as error:
        raise statuses.bad_request(f"the object provided is unrecognized: {error}") from error
    return {**body, "metadata": {**metadata, "name": name}}


def _distorted(page: ListPage, strikes: Strikes) -> ListPage:
    """The page under the versions, and with the `items`, that the faults in force give it."""
    metadata, null_items = page.metadata, False
    if strikes("wrong-version"):
        metadata = {**metadata, "resourceVersion": str(int(metadata["resourceVersion"]) + 1)}
    if rule := strikes("list-version"):
        other = {key: value for key, value in metadata.items() if key != "resourceVersion"}
        metadata = other | ({"resourceVersion": rule.text} if rule.text else {})
    if not page.items and strikes("null-items"):
        null_items = True
    return ListPage(page.resource, page.items, metadata, null_items)


def _expired(token: str) -> ApiFailure:
    start = ContinueToken.decode(token).start
    return statuses.expired_continue(ContinueToken(INCONSISTENT, start).encode(slash=False))
