"""How often a consumer asks for messages where there are none.

Kafka holds an empty fetch back for `fetch_max_wait_ms`, and answers as soon as something comes. One fetch a broker is
in flight, without the partitions that were just read: as long as messages come, it is to be short. Where none have come
for a while it may be long, and nothing waits for it: at rest, ten fetches a second were half of what a consumer costs.

Brokers that only speak Kafka's protocol may answer "nothing new" at once, and aiokafka has no pause of its own;
measured on one, 4,300 empty fetches and 0.8 s of CPU a second. Each of those is made to take as long as it should.

No issue is known. It can go when aiokafka pauses after an empty fetch, or nobody uses such brokers, and where a
consumer may change `fetch_max_wait_ms` while it runs.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer

FETCH_API_KEY = 1
"""Source: Kafka protocol guide, "API Keys"."""
QUIET_AFTER_S = 5.0
QUIET_WAIT_S = 0.5
"""aiokafka's default of `fetch_max_wait_ms`."""


def pace_empty_fetches(consumer: AIOKafkaConsumer, wait_s: float) -> None:
    """Make every fetch of a started `consumer` that brings nothing take at least `wait_s`, and 0.5 s at most.

    aiokafka offers no hook for it: the one method through which its fetcher sends is wrapped.
    """
    client: Any = consumer._client
    fetcher: Any = consumer._fetcher
    send, time = client.send, asyncio.get_running_loop().time
    came_s = time()

    async def paced(node_id: int, request: Any, *args: Any, **named: Any) -> Any:
        nonlocal came_s
        began_s = time()
        response = await send(node_id, request, *args, **named)
        if getattr(request, "API_KEY", None) == FETCH_API_KEY:
            if is_empty := _is_empty(response):
                await asyncio.sleep(max(0.0, began_s + wait_s - time()))
            else:
                came_s = time()
            is_quiet = is_empty and time() - came_s > QUIET_AFTER_S
            fetcher._fetch_max_wait_ms = int(1000 * (QUIET_WAIT_S if is_quiet else wait_s))
        return response

    client.send = paced


def _is_empty(response: Any) -> bool:
    """True if no partition of a FetchResponse has records (its last field) or an error (its second)."""
    return not any(part[1] or part[-1] for _, partitions in response.topics for part in partitions)
