"""SimulatedKubernetes: the HTTP server in front of a SimulatedCluster. Authentication and routing."""

import base64
import secrets
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson
from aiohttp import web

from clusterinfo.sandbox.kubernetes import discovery, statuses
from clusterinfo.sandbox.kubernetes.certificates import ServerTls
from clusterinfo.sandbox.kubernetes.control import Control
from clusterinfo.sandbox.kubernetes.faults import Faults
from clusterinfo.sandbox.kubernetes.requests import LoggedRequest, Target, parse_path
from clusterinfo.sandbox.kubernetes.resources import ResourceHandler
from clusterinfo.sandbox.kubernetes.responses import failure_response, json_response
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.sandbox.kubernetes.statuses import ApiFailure
from clusterinfo.sandbox.processes import free_port

LOGGED_REQUESTS = 10_000

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
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
        self.requests: deque[LoggedRequest] = deque(maxlen=LOGGED_REQUESTS)
        self.host = host
        self.port = port
        self.token = token or secrets.token_urlsafe(18)
        self.users = {self.token: "admin", **(users or {})}
        self.tls = tls
        self.resources = ResourceHandler(self.cluster, self.faults, gzip=gzip, bookmark_interval_s=bookmark_interval_s)
        self._control = Control(self.cluster, self.faults, self.requests)
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
                table.close_subscriptions()
            await runner.cleanup()

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
            response = failure_response(failure, authenticated=bool(user))
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
            return await self._control.answer(request)
        if path == "/version":
            return json_response(orjson.dumps(VERSION, option=orjson.OPT_INDENT_2))
        if path == REVIEWS and request.method == "POST":
            return await self._review(request)
        if path in ("/api", "/apis"):
            return self._root_document(request, core=path == "/api")
        return await self._answer_api(request, user, path)

    async def _review(self, request: web.Request) -> web.StreamResponse:
        """What `faults.forbid` leaves."""
        asked = await request.json()
        what = asked["spec"]["resourceAttributes"]
        allowed = not self.faults.forbids(what["resource"], what["namespace"], what["verb"])
        return json_response(orjson.dumps(asked | {"status": {"allowed": allowed}}))

    def _root_document(self, request: web.Request, core: bool) -> web.StreamResponse:
        version = discovery.negotiate(request.headers.get("Accept", ""), self.faults.aggregated_versions)
        if version is None:
            raise statuses.not_acceptable()
        if not version:
            catalog, address = self.cluster.catalog, f"{self.host}:{self.port}"
            return json_response(discovery.legacy_versions(address) if core else discovery.legacy_groups(catalog))
        body = discovery.aggregated_document(self.cluster.catalog, core, version, self.faults.stale_groups)
        tag = discovery.etag(body)
        headers = {"Cache-Control": "public", "Etag": tag, "Vary": "Accept"}
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return json_response(body, headers, discovery.AGGREGATED_TYPE.format(version=version))

    async def _answer_api(self, request: web.Request, user: str, path: str) -> web.StreamResponse:
        catalog = self.cluster.catalog
        target = parse_path(path)
        if target is None:
            group = discovery.legacy_group(catalog, path.removeprefix("/apis/"))
            if group is None:
                raise statuses.page_not_found()
            return json_response(group)
        self._check_stale(target)
        if not target.resource:
            document = discovery.legacy_resources(catalog, target.group, target.version)
            if document is None:
                raise statuses.page_not_found()
            return json_response(document)
        resource = catalog.find(target.group, target.version, target.resource)
        if resource is None or (target.namespace and not resource.namespaced):
            raise statuses.page_not_found()
        return await self.resources.answer(request, user, target, resource)

    def _check_stale(self, target: Target) -> None:
        lists = self.faults.stale_groups.get(target.group)
        if lists is not None and (lists or not target.resource):
            raise statuses.service_unavailable()
