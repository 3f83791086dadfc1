"""Every Source does what `pump.Source` says: one clause a test, for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from clusterinfo.pump import Source
from tests.contract.contract import at_each_turn, error_of, implementations, interrupt, until
from tests.contract.source_cases import SOURCES, SourceCase
from tests.support.proxy import Proxy

Step = Callable[[SourceCase], Awaitable[object]]

PATIENCE_S = 0.3
"""How long the peer of those that wait for it is away."""


@pytest.fixture(params=SOURCES.values())
def case(request: pytest.FixtureRequest) -> SourceCase:
    """A source of each class."""
    found: SourceCase = request.getfixturevalue(request.param)
    return found


def test_every_source_is_in_the_suite() -> None:
    assert implementations(Source) == set(SOURCES)


async def test_read_gives_the_same_batch_until_it_is_acked(case: SourceCase) -> None:
    await case.open()
    batch = await case.read()
    assert batch.records
    assert await case.read() == batch


async def test_ack_moves_on_to_the_next(case: SourceCase) -> None:
    await case.open()
    first = await case.take()
    assert (await case.read()).start == first.end
    await case.take_rest()
    assert case.stored == case.names


async def test_read_after_the_end_is_none(case: SourceCase) -> None:
    await case.open()
    await case.take_rest()
    case.end()
    assert [await case.source.read(), await case.source.read()] == [None, None]


async def test_restart_forgets_what_was_not_acked_and_begins_again(case: SourceCase) -> None:
    await case.open()
    await case.take()
    await case.read()
    await case.source.restart()
    assert case.budget.held_bytes == 0
    await case.open()
    await case.take_rest()
    assert case.stored == case.names


# --- what is held ------------------------------------------------------------------------------------------------


async def unopened(case: SourceCase) -> None:
    """A pump whose sink fails closes what it never opened."""


async def opened(case: SourceCase) -> None:
    await case.open()


async def reading(case: SourceCase) -> None:
    """A batch in hand, and the next one on its way."""
    await case.open()
    await case.read()


async def ahead(case: SourceCase) -> None:
    """A batch in hand, and all there that was on its way."""
    await reading(case)
    await until(case.is_ahead)


async def between_two(case: SourceCase) -> None:
    await case.open()
    await case.take()


async def restarted(case: SourceCase) -> None:
    await reading(case)
    await case.source.restart()


async def ended(case: SourceCase) -> None:
    await case.open()
    await case.take_rest()


async def waiting(case: SourceCase) -> None:
    """Nobody waits any more for a batch that has not come."""
    await ended(case)
    await interrupt(case.source.read(), 10, asyncio.Task.cancel)


STATES = [unopened, opened, reading, ahead, between_two, restarted, ended, waiting]


@pytest.mark.parametrize("state", STATES)
async def test_close_releases_what_is_held_and_may_be_called_twice(case: SourceCase, state: Step) -> None:
    await state(case)
    for _ in range(2):
        await case.source.close()
        assert case.held() == []


@pytest.mark.parametrize("state", STATES)
async def test_a_closed_source_may_be_opened_again(case: SourceCase, state: Step) -> None:
    await state(case)
    await case.start_over()
    await case.take_rest()
    assert case.stored == case.names


# --- interruptions -----------------------------------------------------------------------------------------------

OPERATIONS: dict[str, tuple[Step, Callable[[SourceCase], Coroutine[Any, Any, object]]]] = {
    "open": (unopened, SourceCase.open),
    "read": (opened, SourceCase.read),
    "read on": (between_two, SourceCase.read),
    "restart": (reading, lambda case: case.source.restart()),
    "close": (reading, lambda case: case.source.close()),
    "close early": (waiting, lambda case: case.source.close()),
}
"""What is done, after what."""


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_cancelled_anywhere_it_is_done_again_and_leaves_nothing_behind(case: SourceCase, operation: str) -> None:
    before, run = OPERATIONS[operation]
    async for cancelled in at_each_turn(lambda: from_nothing(case, before), lambda: run(case), asyncio.Task.cancel):
        cancelled.check_cancelled()
        await run(case)
        if run not in (SourceCase.open, SourceCase.read):
            await from_nothing(case, opened)
        await case.take_rest()
        assert case.stored == case.names
        await case.source.close()
        assert case.held() == []


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_cancelled_anywhere_and_closed_it_leaves_nothing_behind(case: SourceCase, operation: str) -> None:
    before, run = OPERATIONS[operation]
    async for cancelled in at_each_turn(lambda: from_nothing(case, before), lambda: run(case), asyncio.Task.cancel):
        cancelled.check_cancelled()
        await case.source.close()
        assert case.held() == []


async def from_nothing(case: SourceCase, before: Step) -> None:
    """Bring a closed source to where the operation begins, with nothing stored."""
    case.stored, case.position = [], None
    await before(case)


CALLS = ["open", "read", "read on"]
OUTAGES = [Proxy.refuse, Proxy.go_silent]


@pytest.mark.parametrize("operation", CALLS)
async def test_cut_off_anywhere_it_raises_what_may_be_repeated_and_then_succeeds(
    case: SourceCase, operation: str
) -> None:
    before, run = OPERATIONS[operation]
    async for cut in at_each_turn(lambda: from_nothing(case, before), lambda: run(case), lambda _: case.proxy.cut()):
        await case.recover(error_of(cut.task), run)
        await case.take_rest()
        assert case.stored == case.names
        await case.source.close()
        assert case.held() == []


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("operation", CALLS)
async def test_once_its_peer_is_back_the_same_call_succeeds(
    case: SourceCase, operation: str, outage: Callable[[Proxy], None]
) -> None:
    before, run = OPERATIONS[operation]
    await from_nothing(case, before)
    outage(case.proxy)
    call = asyncio.create_task(run(case))
    await asyncio.wait({call}, timeout=PATIENCE_S if case.heals_itself else None)
    assert call.done() or case.heals_itself
    await case.proxy.restore()
    await asyncio.wait({call})
    await case.recover(error_of(call), run)
    await case.take_rest()
    assert case.stored == case.names
