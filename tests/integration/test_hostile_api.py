"""One API server that does to a collector all that a server can: it lists what is in order, and names the rest.

Peak memory and the longest turn of the event loop are those of a whole run over all of it, four lists at a time.
"""

from __future__ import annotations

import asyncio
import json
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from clusterinfo.kubernetes.list_state import EMPTY_PAGES
from clusterinfo.sandbox.processes import free_port

pytestmark = pytest.mark.embedded_only

GROUP = "hostile.example.com"
MIB = 1024 * 1024
MOST_MIB = 256
"""The memory limit of the shipped manifests."""
Answer = Callable[[web.Request, int], web.Response]
"""(request, how often this kind was asked for before) -> the response."""


def page(items: bytes, token: str = "") -> bytes:
    return b'{"kind":"X","metadata":{"resourceVersion":"7","continue":"%s"},"items":[%s]}' % (token.encode(), items)


def item(name: str, spec: bytes) -> bytes:
    return b'{"metadata":{"name":"%s","namespace":"ns","resourceVersion":"5"},"spec":%s}' % (name.encode(), spec)


def below(levels: int, inner: bytes) -> bytes:
    return b'{"a":' * levels + inner + b"}" * levels


def always(body: bytes) -> Answer:
    return lambda request, number: web.Response(body=body, content_type="application/json")


def zipped(size_bytes: int) -> bytes:
    """The beginning of so many bytes that say nothing, a thousandth of it to send; nobody reads as far as its checksum.

    After a full flush a block refers to nothing before it, and may be repeated.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    first, again = (packer.compress(b" " * MIB) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + again * (size_bytes // MIB - 1)


# Made when asked for: a hundred megabytes, which every worker that collects this file would make and keep.
@cache
def listed() -> dict[str, Answer]:
    """What is in order, or may be stored as it comes."""
    secret = below(195, b'{"password":"hunter2","blob":"' + b"y" * 1_400_000 + b'"}')
    return {
        "good": always(page(item("good", b"{}"))),
        "deep": always(page(item("deep", secret))),
        "deep-many": always(page(item("deep", below(195, b'{"token":"x","l":[' + b'{"a":1},' * 170_000 + b"0]}")))),
        "wide": always(page(item("wide", b'{"password":"x"' + b',"k":1' * 230_000 + b"}"))),
        "wide-words": always(page(item("wide", b'{"token":"x"' + b',"token":1' * 140_000 + b"}"))),
        "chains": always(page(item("chains", b"[" + b",".join([below(180, b'["token"]')] * 300) + b"]"))),
        "arrays": always(
            page(item("arrays", b'{"token":' + b"[" * 190 + b'"' + b"y" * 1_400_000 + b'"' + b"]" * 190 + b"}"))
        ),
        "surrogates": always(page(item("odd", b'"' + rb"\ud800" * 50_000 + b'"'))),
        "no-utf8": always(page(item("odd", b'{"a":"' + b"\xff" * 200_000 + b'"}'))),
        "too-deep": always(page(item("odd", b'{"token":' + b"[" * 50_000 + b"]" * 50_000 + b"}"))),
        "urls": always(page(item("urls", b'"' + b"https://user:hunter2@host/ " * 5_000 + b'"'))),
        "ignored-limit": always(page(b",".join(item(f"w-{n}", b'"x"') for n in range(20_000)))),
    }


@cache
def failed() -> dict[str, tuple[Answer, str]]:
    """What fails the list, and what the failure names."""
    packed = zipped(512 * MIB)
    return {
        "too-much": (
            always(page(b",".join(item(f"w-{n}", b'"' + b"x" * 50_000 + b'"') for n in range(400)))),
            "ignores `limit`",
        ),
        "one-too-large": (always(page(item("w", b'"' + b"x" * 20 * MIB + b'"'))), "a single object passes PAGE_BYTES"),
        "zipped": (
            lambda request, number: web.Response(
                body=packed, content_type="application/json", headers={"Content-Encoding": "gzip"}
            ),
            "PAGE_BYTES",
        ),
        "numbers": (always(page(b"1," * (8 * MIB - 500) + b"1")), "ignores `limit`"),
        "objects": (always(page(b"{}," * (5 * MIB) + b"{}")), "ignores `limit`"),
        "nameless": (always(page(b",".join([b'{"metadata":{}}'] * 49_000))), "no name"),
        "brackets": (always(b"[" * 15 * MIB), "no list that can be read"),
        "html": (always(b"<html>" + b"sign in " * MIB), "no list that can be read"),
        "circle": (always(page(item("a", b"1"), token="again")), "continue token"),
        "empty": (
            lambda request, number: web.Response(body=page(b"", token=str(number)), content_type="application/json"),
            f"{EMPTY_PAGES} pages in a row",
        ),
        "twice": (always(page(item("a", b"1") + b"," + item("a", b"2"))), "twice"),
        "long-name": (always(page(item("n" * 254, b"1"))), "253"),
        "elsewhere": (
            lambda request, number: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
            "not followed",
        ),
        "refused": (lambda request, number: web.Response(status=401, text="no"), "Unauthorized"),
    }


class Hostile:
    """The server. Everybody is who he says he is."""

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}
        app = web.Application()
        app.router.add_get("/{path:version|api|apis}", self._about)
        app.router.add_get(f"/apis/{GROUP}/v1/{{kind}}", self._list)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def _about(self, request: web.Request) -> web.Response:
        kinds = [*listed(), *failed()] if request.path == "/apis" else []
        return web.json_response({"gitVersion": "v1.36.0"} if request.path == "/version" else self._discovery(kinds))

    def _discovery(self, kinds: list[str]) -> Any:
        resources = [
            {"resource": kind, "scope": "Cluster", "verbs": ["list"], "responseKind": {"kind": "X"}} for kind in kinds
        ]
        versions = [{"version": "v1", "resources": resources}]
        items = [{"metadata": {"name": GROUP}, "versions": versions}] if kinds else []
        return {"kind": "APIGroupDiscoveryList", "items": items}

    async def _list(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        self._asked[kind] = self._asked.get(kind, 0) + 1
        answer = listed()[kind] if kind in listed() else failed()[kind][0]
        return answer(request, self._asked[kind])


@pytest.fixture
async def kubeconfig(tmp_path: Path) -> AsyncIterator[Path]:
    server, port = Hostile(), free_port()
    await server.runner.setup()
    await web.TCPSite(server.runner, "127.0.0.1", port).start()
    path = tmp_path / "kubeconfig"
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    tree = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [context],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }  # fmt: skip
    path.write_text(json.dumps(tree))
    yield path
    await server.runner.cleanup()


async def test_a_hostile_api_stops_no_collector_and_takes_no_memory(kubeconfig: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.hostile_lists", str(kubeconfig), stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(240):
            output, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
    figures = json.loads(output)
    print(json.dumps(figures, indent=1))

    lists = figures["lists"]
    assert {kind: lists[kind][:2] for kind in listed()} == {kind: ["completed", ""] for kind in listed()}
    assert [
        kind for kind, (_, why) in failed().items() if lists[kind][0] != "failed" or why not in lists[kind][1]
    ] == []
    assert figures["peak_mib"] < MOST_MIB
    assert figures["worked_s"] < 1, figures
