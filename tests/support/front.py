"""An HTTP server before a simulated API: it answers some paths in its own words and passes the others on."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDictProxy

from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.sandbox.processes import free_port

PASSED_ON = ("Accept", "Authorization")


class Front:
    """`async with Front(api) as front:`.

    Attributes: `answers` (path -> status and body), `from_third` (the same, from the third time on that the path is
    asked for), `redirects` (path -> where to), `asked` (path and headers of every request, in order).
    """

    def __init__(self, api: SimulatedKubernetes) -> None:
        self.answers: dict[str, tuple[int, str]] = {}
        self.from_third: dict[str, tuple[int, str]] = {}
        self.redirects: dict[str, str] = {}
        self.asked: list[tuple[str, CIMultiDictProxy[str]]] = []
        self._api = api
        self._port = free_port()
        app = web.Application()
        app.router.add_route("GET", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        await self._session.close()

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def write_kubeconfig(self, path: Path) -> Path:
        """That of the API, with this server in its place."""
        text = self._api.write_kubeconfig(path).read_text()
        path.write_text(text.replace(f":{self._api.port}", f":{self._port}"))
        return path

    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [path for path, _ in self.asked]

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, request.headers))
        if request.path in self.redirects:
            return web.Response(status=307, headers={"Location": self.redirects[request.path]})
        if request.path in self.from_third and self.paths().count(request.path) > 2:
            self.answers[request.path] = self.from_third[request.path]
        if request.path in self.answers:
            status, text = self.answers[request.path]
            return web.Response(status=status, text=text, content_type="application/json")
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        async with self._session.get(self._api.base_url + request.path_qs, headers=headers) as response:
            body = await response.read()
            return web.Response(status=response.status, body=body, content_type=response.content_type)
