"""The byte budget: bounded, fair, and safe to cancel."""

from __future__ import annotations

import asyncio

import pytest

from clusterinfo.budget import ByteBudget, Share


async def test_a_holder_waits_until_there_is_room() -> None:
    budget = ByteBudget(100)
    await budget.take(60)
    waiting = asyncio.create_task(budget.take(50))
    await asyncio.sleep(0)
    assert not waiting.done()
    budget.give_back(60)
    await asyncio.wait_for(waiting, 60)
    assert budget.held_bytes == 50


async def test_what_is_larger_than_the_budget_is_let_in_alone() -> None:
    budget = ByteBudget(100)
    await asyncio.wait_for(budget.take(500), 60)
    small = asyncio.create_task(budget.take(1))
    await asyncio.sleep(0)
    assert not small.done()
    budget.give_back(500)
    await asyncio.wait_for(small, 60)


async def test_first_come_first_served() -> None:
    budget = ByteBudget(100)
    await budget.take(100)
    order: list[int] = []

    async def take(number: int, size: int) -> None:
        await budget.take(size)
        order.append(number)

    tasks = [asyncio.create_task(take(1, 90)), asyncio.create_task(take(2, 10))]
    await asyncio.sleep(0)
    budget.give_back(100)
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    assert order == [1, 2]


async def test_a_cancelled_wait_holds_nothing() -> None:
    budget = ByteBudget(100)
    await budget.take(100)
    waiting = asyncio.create_task(budget.take(50))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    budget.give_back(100)
    assert budget.held_bytes == 0


async def test_cancelled_in_the_moment_of_its_turn_it_gives_back() -> None:
    budget = ByteBudget(100)
    await budget.take(100)
    waiting = asyncio.create_task(budget.take(50))
    await asyncio.sleep(0)
    budget.give_back(100)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert budget.held_bytes == 0


async def test_try_take_never_overtakes_who_waits() -> None:
    budget = ByteBudget(100)
    assert budget.try_take(60)
    assert not budget.try_take(50)
    waiting = asyncio.create_task(budget.take(50))
    await asyncio.sleep(0)
    assert not budget.try_take(10)
    waiting.cancel()
    await asyncio.wait({waiting})
    budget.give_back(60)
    assert budget.try_take(100)


async def test_a_share_is_resized_to_what_is_there_and_released_as_a_whole() -> None:
    budget = ByteBudget(100)
    share, other = Share(budget), Share(budget)
    await share.take(60)
    assert not other.try_take(60)
    share.resize(30)
    assert other.try_take(60)
    share.resize(80)
    assert (budget.held_bytes, share.size_bytes, other.size_bytes) == (140, 80, 60)
    other.resize(0)
    share.resize(0)
    assert budget.held_bytes == 0
