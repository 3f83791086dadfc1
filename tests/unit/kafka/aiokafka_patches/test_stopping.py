"""Clients and their tasks end in time."""

from __future__ import annotations

import asyncio

from aiokafka import errors as foreign

from clusterinfo.kafka.aiokafka_patches.stopping import bounded, end_tasks


async def test_a_cleanup_that_hangs_fails_or_cancels_itself_is_over_in_time() -> None:
    async def hangs() -> None:
        await asyncio.sleep(3600)

    async def fails() -> None:
        raise foreign.KafkaError("broken")

    async def cancels() -> None:
        raise asyncio.CancelledError

    async def works() -> None:
        pass

    async with asyncio.timeout(60):
        assert [await bounded(step, 0.05) for step in (hangs, fails, cancels, works)] == [
            False,
            False,
            False,
            True,
        ]


async def test_a_task_that_ignores_the_first_cancellation_is_ended() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(3600)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await end_tasks(task, None)
    assert task.cancelled()
