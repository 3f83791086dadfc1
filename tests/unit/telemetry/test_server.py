"""The endpoints: what they answer, and where they are served."""

from __future__ import annotations

import aiohttp
import pytest

from clusterinfo import observations as seen
from clusterinfo.errors import ConfigError
from clusterinfo.settings import load
from clusterinfo.telemetry.server import Telemetry, parse_address

RETRYING = seen.Retrying(lane="pods", step="write", error="PostgreSQL is away", wait_s=1)


async def test_liveness_fails_only_while_a_lane_is_stuck_for_good(unused_tcp_port: int) -> None:
    observer = Telemetry()
    settings = load({}, metrics_address=f"127.0.0.1:{unused_tcp_port}")

    async def livez(http: aiohttp.ClientSession) -> tuple[int, str]:
        async with http.get(f"http://127.0.0.1:{unused_tcp_port}/livez") as answer:
            return answer.status, await answer.text()

    async with observer.served(settings, wanted=True), aiohttp.ClientSession() as http:
        observer.observe(RETRYING)
        assert await livez(http) == (200, "ok\n"), "what may pass is no reason to start again"
        observer.observe(seen.Stuck(lane="topic-3", offset=7, rebuilt=2))
        assert await livez(http) == (503, "topic-3: Kafka has more messages but none arrive\n")
        observer.observe(seen.Freed(lane="topic-3"))
        assert await livez(http) == (200, "ok\n")


@pytest.mark.parametrize("address", ["8080", ":x", ":70000", "localhost"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(ConfigError, match="METRICS_ADDRESS"):
        parse_address(address)


async def test_the_endpoints_answer(unused_tcp_port: int) -> None:
    observer = Telemetry()
    settings = load({}, metrics_address=f"127.0.0.1:{unused_tcp_port}")
    url = f"http://127.0.0.1:{unused_tcp_port}"
    async with observer.served(settings, wanted=True), aiohttp.ClientSession() as http:
        observer.observe(seen.PageListed(resource="pods", reach="", items=7, size_bytes=100))
        async with http.get(f"{url}/metrics") as answer:
            assert 'clusterinfo_listed_objects_total{resource="pods"} 7.0' in await answer.text()
        async with http.get(f"{url}/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "not connected yet\n")
        for path in ("livez", "healthz"):
            async with http.get(f"{url}/{path}") as answer:
                assert answer.status == 200, "what starts is alive"
        observer.observe(seen.Connected())
        async with http.get(f"{url}/readyz") as answer:
            assert answer.status == 200
        observer.observe(RETRYING)
        async with http.get(f"{url}/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "pods, write: PostgreSQL is away\n")
        async with http.get(f"{url}/livez") as answer:
            assert answer.status == 200, "a database that is away is no reason to be restarted"
