"""Clients end in time, whatever Kafka does.

aiokafka #1101: idempotent batches never expire, so that a producer's `stop()` waits for a broker for ever. #647, #1013:
a consumer's `stop()` hangs in an outage, or raises a CancelledError that nobody asked for. It can go when `stop()` of
both takes a deadline, and ends by then.

And a consumer leaves its group also while it joins. aiokafka waits for the join, which ends when all other members have
joined, and leaves only then: given up before, it stays a member to which partitions are assigned that nobody reads, for
the session timeout (30 s; on the sandbox's broker for ever, measured). It can go when `stop()` leaves at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from itertools import chain
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import MessageAccumulator
from aiokafka.protocol.group import LeaveGroupRequest

from clusterinfo.kafka.aiokafka_patches.quiet import quiet

STOP_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 1.0  # to close sockets nobody answers on


async def bounded(step: Callable[[], Awaitable[object]], timeout_s: float) -> bool:
    """Run a cleanup step of a foreign client; False if it failed or took longer than `timeout_s`.

    The step runs in a task of its own: aiokafka's `stop()` has been seen to raise CancelledError that nobody asked for
    (#647), which must not be taken for ours.
    """
    task = asyncio.ensure_future(step())
    try:
        await asyncio.wait([task], timeout=timeout_s)
    finally:
        if not task.done():
            task.cancel()
    return task.done() and not task.cancelled() and task.exception() is None


async def end_tasks(*tasks: asyncio.Future[Any] | None, timeout_s: float = 2.0) -> None:
    """Cancel tasks of a foreign client until they end, at most for `timeout_s`.

    Its tasks catch the first cancellation to wait for tasks of their own, which may never end; so cancel again.
    """
    given = {task for task in tasks if task is not None}
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    while (left := {task for task in given if not task.done()}) and asyncio.get_running_loop().time() < deadline_s:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=0.05)
    for task in given - left:
        if not task.cancelled():
            task.exception()  # seen: nobody else will ask


async def drop_producer(producer: AIOKafkaProducer) -> None:
    """End a producer without waiting for what it holds: every delivery still awaited fails. Takes 3 s at most.

    Idempotent batches never expire (aiokafka #1101), so `stop()` would wait for a broker for ever. This takes apart
    what `stop()` would: the sender task, the accumulator, the client.
    """
    producer._closed = True  # or its __del__ complains
    await end_tasks(producer._sender.sender_task)
    _fail_all(producer._message_accumulator)
    await bounded(producer.client.close, CLOSE_TIMEOUT_S)


def _fail_all(accumulator: MessageAccumulator) -> None:
    """Fail every delivery, of which nothing is logged: neither of those that nobody awaits any more, nor of batches
    that wait to be sent again, which aiokafka then looks for among those that were sent."""
    batches = {*chain(*accumulator._batches.values()), *accumulator._pending_batches}
    accumulator._pending_batches.update(batches)
    accumulator.fail_all(KafkaError("the producer was dropped"))
    for future in chain(*((batch.future, batch._drain_waiter) for batch in batches)):
        if not future.cancelled():
            future.exception()  # seen


async def stop_consumer(consumer: AIOKafkaConsumer, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Leave the group and close, within `timeout_s`; then end what is left by force (aiokafka #647, #1013)."""

    async def stop_and_leave() -> None:
        await asyncio.gather(consumer.stop(), _leave_if_joining(consumer))  # in this order: it must not join again

    with quiet():
        if await bounded(stop_and_leave, timeout_s):
            return
        coordinator, fetcher = consumer._coordinator, consumer._fetcher
        if coordinator is not None:
            await end_tasks(
                coordinator._coordination_task, coordinator._heartbeat_task, coordinator._commit_refresh_task
            )
        if fetcher is not None:
            await end_tasks(fetcher._fetch_task, *fetcher._pending_tasks)
        await bounded(consumer._client.close, CLOSE_TIMEOUT_S)


async def _leave_if_joining(consumer: AIOKafkaConsumer) -> None:
    """Leave by the connection for fetches: the coordinator's answers nothing more before the join is over."""
    coordinator = consumer._coordinator
    member_id = getattr(coordinator, "member_id", "")
    if not member_id or coordinator.coordinator_id is None or coordinator._heartbeat_task is not None:
        return  # not in a group, or at rest in it
    with contextlib.suppress(KafkaError):
        await consumer._client.send(coordinator.coordinator_id, LeaveGroupRequest(coordinator.group_id, member_id))
