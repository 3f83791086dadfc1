"""Outbox: what one session says by watching on one partition, numbered and sent in order.

A number belongs to one record for ever: `put` gives it, before anybody waits. One message batch is under way at a time;
what is not confirmed is sent again under the same numbers, from the first one on, before anything that came later. So
the broker never has a number before those below it, and may have one twice, which consumers count once. While a batch
is under way the next one grows.

It knows nothing of producers: `send` is given the records that are due, and says how many of them Kafka has now.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

import msgspec

from clusterinfo.errors import ClusterinfoError
from clusterinfo.model import Record
from clusterinfo.observations import Observe
from clusterinfo.waiting import retried

LOOKED_AT = 2000
"""Records offered to `send` at once: more than fit into one message batch."""

Send = Callable[[Sequence[Record]], Awaitable[int]]
"""Sends the first of the given records, at least one, in order; how many. Raises TransientError if it is not known
whether Kafka has them, FatalError if it refuses us for good."""


class Outbox:
    """`next_number` is the one that the next record will get."""

    def __init__(self, name: str, send: Send, observe: Observe) -> None:
        self.next_number = 1
        self._name = name
        self._send = send
        self._observe = observe
        self._records: deque[Record] = deque()
        """Numbered and not confirmed."""
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        """(number of the last record handed in together, who waits for it)"""
        self._news = asyncio.Event()
        self._error: ClusterinfoError | None = None
        self._task: asyncio.Task[None] | None = None

    def put(self, records: Sequence[Record]) -> asyncio.Future[None]:
        """Number `records` and have them sent; the future is done once Kafka has them, and may be left alone."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_looked_at)
        if self._error is not None:
            future.set_exception(self._error)
            return future
        for record in records:
            self._records.append(msgspec.structs.replace(record, number=self.next_number))
            self.next_number += 1
        self._waiting.append((self.next_number - 1, future))
        self._news.set()
        self._task = self._task or asyncio.create_task(self._run(), name=f"outbox of {self._name}")
        return future

    @property
    def is_over(self) -> bool:
        """True if nothing is left that could be sent."""
        return not self._records or self._error is not None

    async def close(self) -> None:
        """Send nothing more: whoever waits is told that it is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for _, future in self._waiting:
            future.cancel()

    async def _run(self) -> None:
        try:
            while True:
                while not self._records:
                    self._news.clear()
                    await self._news.wait()
                sent = await retried(self._send_first, lane=self._name, name="send", observe=self._observe)
                self._confirm(sent)
        except ClusterinfoError as error:
            self._error = error
            for _, future in self._waiting:
                if not future.done():
                    future.set_exception(error)

    async def _send_first(self) -> int:
        return await self._send(list(islice(self._records, LOOKED_AT)))

    def _confirm(self, count: int) -> None:
        for _ in range(count):
            last = self._records.popleft().number
        while self._waiting and self._waiting[0][0] <= last:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)


def _looked_at(future: asyncio.Future[None]) -> None:
    """Whoever handed the records in may be gone: an error that nobody asks for is none to complain of."""
    if not future.cancelled():
        future.exception()
