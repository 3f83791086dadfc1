"""SimulatedKubernetes: the HTTP server in front of a SimulatedCluster. Routing, authentication, faults, transfer."""

import asyncio
import base64
import secrets
import zlib
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson
from aiohttp import web

from clusterinfo.sandbox.kubernetes import control, discovery, statuses
from clusterinfo.sandbox.kubernetes.catalog import ApiResource
from clusterinfo.sandbox.kubernetes.certificates import ServerTls
from clusterinfo.sandbox.kubernetes.conversions import rest_in
from clusterinfo.sandbox.kubernetes.encoding import object_prefix
from clusterinfo.sandbox.kubernetes.faults import Faults, Verb
from clusterinfo.sandbox.kubernetes.lists import ListPage, ListQuery, list_page
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.sandbox.kubernetes.statuses import ApiFailure
from clusterinfo.sandbox.kubernetes.tokens import INCONSISTENT, ContinueToken
from clusterinfo.sandbox.kubernetes.watches import WatchQuery, is_watch, watch_events
from clusterinfo.sandbox.processes import free_port

CONTENT_LENGTH_MAX_BYTES = 2048  # Go's net/http: a longer answer written in one go is sent chunked
GZIP_MIN_BYTES = 128 * 1024  # the API server's defaultGzipThresholdBytes; it compresses with level 1
KEPT_REQUESTS = 10_000
KEPT_TOKENS = 10_000
FLOW_SCHEMA = {"X-Kubernetes-Pf-Flowschema-Uid": "395d7f18-51db-4d54-a852-b83666e23434"}
NO_CACHE = {"Cache-Control": "no-cache, private"}

VERSION = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.0-sandbox",
    "gitCommit": "0000000000000000000000000000000000000000",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "go1.27.3",
    "compiler": "gc",
    "platform": "linux/amd64",
}


@dataclass(slots=True)
class LoggedRequest:
    """One request as it came in; `status` is 0 until it is answered. `user` is "" if nobody was recognised."""

    method: str
    path: str
    query: dict[str, str]
    user: str
    status: int = 0
    accept: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """What a path under /api or /apis means. `resource` "" is the version's own document."""

    group: str
    version: str
    namespace: str | None
    resource: str
    name: str


def parse_path(path: str) -> Target | None:
    """`/api/v1/...` and `/apis/<group>/<version>/...`; None for any other."""
    root, *parts = path.strip("/").split("/")
    if root == "apis" and parts:
        group, *parts = parts
    elif root == "api":
        group = ""
    else:
        return None
    if not parts:
        return None
    version, *parts = parts
    namespace = None
    if len(parts) >= 3 and parts[0] == "namespaces":
        _, namespace, *parts = parts
    if len(parts) > 2:
        return None
    return Target(group, version, namespace, parts[0] if parts else "", parts[1] if len(parts) > 1 else "")


class SimulatedKubernetes:
    """`async with SimulatedKubernetes(cluster) as api:` serves a cluster over HTTP, or HTTPS, until the block ends.

    Attributes: `cluster`, `faults`, `requests` (the last 10,000), `base_url`, `token` (of the user `admin`).
    """

    def __init__(
        self,
        cluster: SimulatedCluster | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        users: Mapping[str, str] | None = None,
        gzip: bool = False,
        bookmark_interval_s: float = 60,
        tls: ServerTls | None = None,
    ) -> None:
        """`port` 0: any free one. `users`: further tokens and their user names. `gzip`: compress as a real server does
        (off, because it costs this process more than the download saves). `tls`: serve HTTPS; None: plain HTTP, over
        which client-go, and so kubectl, sends no token."""
        self.cluster = cluster or SimulatedCluster()
        self.faults = Faults()
        self.requests: deque[LoggedRequest] = deque(maxlen=KEPT_REQUESTS)
        self.host = host
        self.port = port
        self.token = token or secrets.token_urlsafe(18)
        self.users = {self.token: "admin", **(users or {})}
        self.gzip = gzip
        self.bookmark_interval_s = bookmark_interval_s
        self.tls = tls
        self._pages: dict[str, int] = {}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def base_url(self) -> str:
        return self._url(self.host)

    def _url(self, host: str) -> str:
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    async def start(self) -> None:
        """Serve; after `stop` on the same port again. Raises OSError if the port is taken."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        self.port = self.port or free_port()
        site = web.TCPSite(self._runner, self.host, self.port, ssl_context=self.tls.context if self.tls else None)
        await site.start()

    async def stop(self) -> None:
        """Close every connection, watches too; the cluster stays."""
        runner, self._runner = self._runner, None
        if runner is not None:
            for table in self.cluster.tables():
                for subscription in list(table.subscriptions):
                    subscription.close()
            await runner.cleanup()

    def drop_watches(self, resource: str) -> None:
        """End all open watches of a resource, as a restarting server does."""
        for subscription in list(self.cluster.table(self.cluster.catalog.preferred(resource)).subscriptions):
            subscription.close()

    def write_kubeconfig(self, path: Path, context: str = "sandbox", host: str | None = None) -> Path:
        """A kubeconfig with one context that reaches this server as `admin`. `host`: how the reader reaches it."""
        reached = {"server": self._url(host or self.host)}
        if self.tls:
            reached["certificate-authority-data"] = base64.b64encode(self.tls.authority.encode()).decode()
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "clusters": [{"name": context, "cluster": reached}],
            "users": [{"name": f"{context}-admin", "user": {"token": self.token}}],
            "contexts": [{"name": context, "context": {"cluster": context, "user": f"{context}-admin"}}],
        }
        path.touch(mode=0o600)
        path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))  # JSON is YAML
        return path

    # Requests

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        user = self._authenticate(request)
        accept = request.headers.get("Accept", "")
        logged = LoggedRequest(request.method, request.path, dict(request.query), user, accept=accept)
        self.requests.append(logged)
        try:
            response = await self._answer(request, user)
        except ApiFailure as failure:
            headers = {**NO_CACHE, **(FLOW_SCHEMA if user else {}), **failure.headers}
            response = web.Response(
                body=failure.body, status=failure.status, headers=headers | {"Content-Type": failure.content_type}
            )
        logged.status = response.status
        return response

    def _authenticate(self, request: web.Request) -> str:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if self.faults.all_unauthorized or scheme != "Bearer":
            return ""
        return self.users.get(token, "")

    async def _answer(self, request: web.Request, user: str) -> web.StreamResponse:
        path = request.path.rstrip("/")
        if path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        if not user:
            raise statuses.unauthorized()
        if path.startswith("/_control"):
            return await control.answer(self, request)
        if path == "/version":
            return _json(orjson.dumps(VERSION, option=orjson.OPT_INDENT_2))
        if path in ("/api", "/apis"):
            return self._root_document(request, core=path == "/api")
        return await self._answer_api(request, user, path)

    def _root_document(self, request: web.Request, core: bool) -> web.StreamResponse:
        version = discovery.negotiate(request.headers.get("Accept", ""), self.faults.aggregated_versions)
        if version is None:
            raise statuses.not_acceptable()
        if not version:
            catalog, address = self.cluster.catalog, f"{self.host}:{self.port}"
            return _json(discovery.legacy_versions(address) if core else discovery.legacy_groups(catalog))
        body = discovery.aggregated_document(self.cluster.catalog, core, version, self.faults.stale_groups)
        tag = discovery.etag(body)
        headers = {"Cache-Control": "public", "Etag": tag, "Vary": "Accept"}
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return _json(body, headers, discovery.AGGREGATED_TYPE.format(version=version))

    async def _answer_api(self, request: web.Request, user: str, path: str) -> web.StreamResponse:
        catalog = self.cluster.catalog
        target = parse_path(path)
        if target is None:
            group = discovery.legacy_group(catalog, path.removeprefix("/apis/"))
            if group is None:
                raise statuses.page_not_found()
            return _json(group)
        self._check_stale(target)
        if not target.resource:
            document = discovery.legacy_resources(catalog, target.group, target.version)
            if document is None:
                raise statuses.page_not_found()
            return _json(document)
        resource = catalog.find(target.group, target.version, target.resource)
        if resource is None or (target.namespace and not resource.namespaced):
            raise statuses.page_not_found()
        return await self._answer_resource(request, user, target, resource)

    def _check_stale(self, target: Target) -> None:
        lists = self.faults.stale_groups.get(target.group)
        if lists is not None and (lists or not target.resource):
            raise statuses.service_unavailable()

    async def _answer_resource(
        self, request: web.Request, user: str, target: Target, resource: ApiResource
    ) -> web.StreamResponse:
        verb: Verb = "get" if target.name else "watch" if is_watch(request.query) else "list"
        if request.method != "GET" or verb not in resource.verbs:
            raise statuses.method_not_allowed()
        token = request.query.get("continue", "")
        page = self._pages.get(token, 2) if token else 1
        self._check_faults(resource, verb, target, user, page)
        if verb == "get":
            return _json(self._object(resource, target))
        if verb == "watch":
            return await self._watch(request, resource, WatchQuery.parse(target.namespace, request.query))
        return await self._list(request, resource, ListQuery.parse(target.namespace, request.query), page)

    def _check_faults(self, resource: ApiResource, verb: Verb, target: Target, user: str, page: int) -> None:
        name, namespace = resource.qualified, target.namespace
        if self.faults.take("forbid", name, verb, namespace, page):
            # A namespace is looked up as if it were within itself.
            where = target.name if resource.qualified == "namespaces" and target.name else namespace
            raise statuses.forbidden(resource, where, user, verb, target.name)
        if rule := self.faults.take("throttle", name, verb, namespace, page):
            raise statuses.too_many_requests(int(rule.value))
        if rule := self.faults.take("fail", name, verb, namespace, page):
            raise statuses.injected(int(rule.value))

    def _object(self, resource: ApiResource, target: Target) -> bytes:
        key = f"{target.namespace}/{target.name}" if target.namespace else target.name
        stored = self.cluster.table(resource).live.get(key)
        if stored is None:
            raise statuses.not_found(resource, target.name)
        return object_prefix(resource) + rest_in(resource)(stored) + b"\n"

    async def _watch(self, request: web.Request, resource: ApiResource, query: WatchQuery) -> web.StreamResponse:
        response = _stream({**NO_CACHE, **FLOW_SCHEMA})
        await response.prepare(request)
        # aclosing: a client that leaves ends its subscription now, not when the generator is collected.
        async with aclosing(watch_events(self.cluster, resource, query, self.bookmark_interval_s)) as events:
            async for line in events:
                await response.write(line)
        await response.write_eof()
        return response

    async def _list(
        self, request: web.Request, resource: ApiResource, query: ListQuery, number: int
    ) -> web.StreamResponse:
        name, where = resource.qualified, query.namespace
        if query.token and self.faults.take("expire", name, "list", where, number):
            raise _expired(query.token)
        page = list_page(self.cluster, resource, query)
        if "continue" in page.metadata:
            self._remember(page.metadata["continue"], number + 1)
        if self.faults.take("wrong-version", name, "list", where, number):
            wrong = {**page.metadata, "resourceVersion": str(int(page.metadata["resourceVersion"]) + 1)}
            page = ListPage(resource, page.items, wrong)
        if rule := self.faults.take("list-version", name, "list", where, number):
            other = {key: value for key, value in page.metadata.items() if key != "resourceVersion"}
            page = ListPage(resource, page.items, other | ({"resourceVersion": rule.text} if rule.text else {}))
        if not page.items and self.faults.take("null-items", name, "list", where, number):
            page = ListPage(resource, page.items, page.metadata, null_items=True)
        if self.faults.take("cut", name, "list", where, number):
            return await self._send_broken(request, page, stall_s=None)
        if rule := self.faults.take("stall", name, "list", where, number):
            return await self._send_broken(request, page, stall_s=rule.value)
        return await self._send(request, page.chunks())

    def _remember(self, token: str, page: int) -> None:
        self._pages[token] = page
        while len(self._pages) > KEPT_TOKENS:
            del self._pages[next(iter(self._pages))]

    async def _send(self, request: web.Request, chunks: Iterable[bytes]) -> web.StreamResponse:
        """A body as a real server sends it: with its length if short, else chunked, compressed if asked for."""
        chunks = iter(chunks)
        first = next(chunks)
        second = next(chunks, None)
        if second is None and len(first) <= CONTENT_LENGTH_MAX_BYTES:
            return _json(first)
        headers = {**NO_CACHE, **FLOW_SCHEMA}
        compress = self.gzip and len(first) >= GZIP_MIN_BYTES and "gzip" in request.headers.get("Accept-Encoding", "")
        if compress:
            headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        response = _stream(headers)
        await response.prepare(request)
        rest = [first] if second is None else [first, second]
        encoded = _gzip(_chained(rest, chunks)) if compress else _plain(_chained(rest, chunks))
        async for chunk in encoded:
            await response.write(chunk)
        await response.write_eof()
        return response

    async def _send_broken(self, request: web.Request, page: ListPage, stall_s: float | None) -> web.StreamResponse:
        """Half of the body, then nothing more (None), or the rest after a pause."""
        body = b"".join(page.chunks())
        response = _stream({**NO_CACHE, **FLOW_SCHEMA})
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if stall_s is None:
            response.force_close()
            if request.transport is not None:
                request.transport.close()
            return response
        await asyncio.sleep(stall_s)
        await response.write(body[len(body) // 2 :])
        await response.write_eof()
        return response


def _expired(token: str) -> ApiFailure:
    start = ContinueToken.decode(token).start
    return statuses.expired_continue(ContinueToken(INCONSISTENT, start).encode(slash=False))


def _chained(first: Iterable[bytes], rest: Iterable[bytes]) -> Iterable[bytes]:
    yield from first
    yield from rest


async def _plain(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _gzip(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Compressed beside the event loop, since zlib lets go of the interpreter's lock."""
    compressor = zlib.compressobj(level=1, wbits=31)  # 31: gzip
    for chunk in chunks:
        if compressed := await asyncio.to_thread(compressor.compress, chunk):
            yield compressed
    yield compressor.flush()


def _stream(headers: Mapping[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", **headers})
    response.enable_chunked_encoding()
    return response


def _json(body: bytes, headers: Mapping[str, str] = NO_CACHE, content_type: str = "application/json") -> web.Response:
    response = web.Response(body=body, headers={"Content-Type": content_type, **headers, **FLOW_SCHEMA})
    if len(body) > CONTENT_LENGTH_MAX_BYTES:
        response.enable_chunked_encoding()
    return response
