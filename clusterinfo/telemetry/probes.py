"""Probes: the ends are pinged from time to time, so that readiness knows of an outage before the next batch meets it.

A collector rests for minutes between two runs of lists, a consumer until something comes. Nothing here knows what the
ends are: each is a ping, called beside the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

from clusterinfo.errors import ClusterinfoError
from clusterinfo.observations import Observe, Recovered, Retrying

Ping = Callable[[], Awaitable[object]]
"""Returns if the end answers, raises ClusterinfoError if it does not."""

INTERVAL_S = 15.0
"""From one answer to the next ping; Kubernetes asks for readiness every 10 s."""
TIMEOUT_S = 10.0
STEP = "answer"


@asynccontextmanager
async def probed(observe: Observe, **pings: Ping) -> AsyncIterator[None]:
    """Ping every end (by its name) every 15 s while the block runs; observe which of them do not answer."""
    probes = [asyncio.create_task(_probe(name, ping, observe)) for name, ping in pings.items()]
    try:
        yield
    finally:
        for task in probes:
            task.cancel()
        await asyncio.wait(probes)


async def _probe(name: str, ping: Ping, observe: Observe) -> NoReturn:
    failures = 0
    while True:
        await asyncio.sleep(INTERVAL_S)
        error = await _error_of(ping)
        if error:
            failures += 1
            observe(Retrying(lane=name, step=STEP, error=error, wait_s=INTERVAL_S))
        elif failures:
            observe(Recovered(lane=name, step=STEP, attempts=failures + 1))
            failures = 0


async def _error_of(ping: Ping) -> str:
    """Why the end does not answer; "" if it does."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await ping()
    except TimeoutError:
        return f"no answer within {TIMEOUT_S:g} s"
    except ClusterinfoError as error:
        return str(error)
    return ""
