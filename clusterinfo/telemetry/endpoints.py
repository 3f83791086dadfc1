"""`/metrics`, `/livez` and `/readyz`, over HTTP. Imported by who serves them: aiohttp's server is 20 ms of a start."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client.aiohttp import make_aiohttp_handler

from clusterinfo.telemetry.health import Health
from clusterinfo.telemetry.metrics import Metrics


@asynccontextmanager
async def listening(metrics: Metrics, health: Health, host: str | None, port: int) -> AsyncIterator[None]:
    """Serve them while the block runs. Raises OSError where nothing can be served."""
    runner = web.AppRunner(_app(metrics, health), access_log=None, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()


def _app(metrics: Metrics, health: Health) -> web.Application:
    async def livez(_: web.Request) -> web.Response:
        return _answer(health.not_alive)

    async def readyz(_: web.Request) -> web.Response:
        return _answer(health.not_ready)

    app = web.Application()
    app.router.add_get("/metrics", make_aiohttp_handler(metrics.registry))
    # What Kubernetes calls it since 1.16, and what it was called before.
    app.router.add_get("/livez", livez)
    app.router.add_get("/healthz", livez)
    app.router.add_get("/readyz", readyz)
    return app


def _answer(lines: list[str]) -> web.Response:
    return web.Response(status=503 if lines else 200, text="\n".join(lines or ["ok"]) + "\n")
