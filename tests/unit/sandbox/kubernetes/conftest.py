"""A served cluster, and a client that asks it."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest_asyncio

from clusterinfo.sandbox.kubernetes import SimulatedCluster, SimulatedKubernetes


class Client:
    """Asks one simulated API."""

    def __init__(self, api: SimulatedKubernetes, session: aiohttp.ClientSession) -> None:
        self.api = api
        self.session = session

    async def ask(self, path: str, method: str = "GET", json: Any = None, **query: str) -> tuple[int, Any]:
        """Status and decoded body. `continue_` stands for `continue`."""
        parameters = {key.rstrip("_"): value for key, value in query.items()}
        async with self.session.request(method, self.api.base_url + path, params=parameters, json=json) as response:
            body = await response.read()
            return response.status, orjson.loads(body) if "json" in response.content_type else body

    async def pages(self, path: str, limit: int) -> list[Any]:
        """All pages of one list."""
        pages, token = [], ""
        while True:
            status, page = await self.ask(path, limit=str(limit), continue_=token)
            assert status == 200
            pages.append(page)
            token = page["metadata"].get("continue", "")
            if not token:
                return pages

    async def watch(self, path: str, most: int | None = None, **query: str) -> list[Any]:
        """All events until the server ends the watch, or the first `most`."""
        events: list[Any] = []
        async with self.session.get(self.api.base_url + path, params={"watch": "1", **query}) as response:
            async for line in response.content:
                events.append(orjson.loads(line))
                if len(events) == most:
                    break
        return events


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Client]:
    """A client of an API of its own, in front of an empty cluster that has widgets."""
    cluster = SimulatedCluster()
    cluster.add_crd("widgets", "shop.example.com", "Widget", versions=("v1", "v1beta1"))
    async with SimulatedKubernetes(cluster, bookmark_interval_s=0.1) as api:
        headers = {"Authorization": f"Bearer {api.token}"}
        async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=60)) as session:
            yield Client(api, session)
