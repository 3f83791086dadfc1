"""Every Sink does what `pump.Sink` says: one clause a test, for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from clusterinfo.pump import Sink
from tests.contract.contract import at_each_turn, error_of, implementations
from tests.contract.sink_cases import LOCAL_CALLS, REMOTE_CALLS, SINKS, Operation, SinkCase, recover
from tests.support.members import Store
from tests.support.proxy import Proxy

OUTAGES = [Proxy.refuse, Proxy.go_silent]


@pytest.fixture(params=[name for names in SINKS.values() for name in names])
def case(request: pytest.FixtureRequest) -> SinkCase:
    """A sink of each class, for each kind of lane that it treats differently."""
    found: SinkCase = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=REMOTE_CALLS + LOCAL_CALLS, ids="-".join)
def operation(request: pytest.FixtureRequest) -> Operation:
    """Each call of each sink."""
    name, call = request.param
    return Operation.of(request.getfixturevalue(name), call)


@pytest.fixture(params=REMOTE_CALLS, ids="-".join)
def remote_operation(request: pytest.FixtureRequest) -> Operation:
    """Each call that needs a server."""
    name, call = request.param
    return Operation.of(request.getfixturevalue(name), call)


def test_every_sink_is_in_the_suite() -> None:
    assert implementations(Sink) == set(SINKS) - {Store}


async def test_open_returns_where_the_lane_goes_on(case: SinkCase) -> None:
    assert await case.sink.open(case.lane) is None
    batch = case.batch
    await case.write()
    assert await case.sink.open(case.lane) == case.position_after(batch)


async def test_write_stores_the_whole_batch(case: SinkCase) -> None:
    await case.open()
    for _ in range(2):
        await case.write()
        assert await case.stored() == case.given


async def test_writing_the_same_batch_again_does_no_harm(case: SinkCase) -> None:
    await case.open()
    for _ in range(2):
        await case.sink.write(case.batch)
        await case.write()
    assert await case.stored() == case.given
    await case.open()


async def test_a_restarted_lane_goes_on_although_the_batch_was_stored(case: SinkCase) -> None:
    await case.open()
    await case.sink.write(case.batch)
    await case.sink.open(case.lane)
    await case.write()
    await case.write()
    assert await case.stored() == case.given


# --- interruptions -----------------------------------------------------------------------------------------------


async def test_cancelled_anywhere_it_is_done_again_and_leaves_nothing_behind(operation: Operation) -> None:
    case = operation.case
    async for cancelled in at_each_turn(operation.prepare, operation.run, asyncio.Task.cancel):
        cancelled.check_cancelled()
        await case.is_at_rest()
        if case.is_atomic:
            assert await case.stored() in (case.given, case.given + case.names_in_hand())
        if cancelled.was_reached:
            await operation.run()
    await case.write()
    assert await case.stored() == case.given


async def test_cut_off_anywhere_it_raises_what_may_be_repeated_and_then_succeeds(remote_operation: Operation) -> None:
    case, run = remote_operation.case, remote_operation.run

    async def prepare() -> None:
        """The connection that was cut at the end of a call is noticed at the beginning of the next."""
        opening = asyncio.ensure_future(remote_operation.prepare())
        await asyncio.wait({opening})
        await recover(opening, case, remote_operation.prepare)

    async for cut in at_each_turn(prepare, run, lambda _: case.proxy.cut()):
        await recover(cut.task, case, run)
        await case.is_at_rest()
    await case.write()
    assert await case.stored() == case.given


@pytest.mark.parametrize("outage", OUTAGES)
async def test_once_its_peer_is_back_the_same_call_succeeds(
    remote_operation: Operation, outage: Callable[[Proxy], None]
) -> None:
    case = remote_operation.case
    await remote_operation.prepare()
    outage(case.proxy)
    for _ in range(2):
        call = asyncio.ensure_future(remote_operation.run())
        await asyncio.wait({call})
        assert error_of(call)
    await case.proxy.restore()
    await case.open()
    await remote_operation.run()
    await case.write()
    assert await case.stored() == case.given
    await case.is_at_rest()
