"""The pump: which step follows which error, and that nothing is read twice or acked unwritten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from clusterinfo.errors import FatalError, LostError, RestartError, TransientError
from clusterinfo.model import Batch, Lane, ListLane, Position, Receipt, Unit
from clusterinfo.observations import LaneEnded, LaneLost, LaneRestarted, Observation, Recovered, Retrying
from clusterinfo.pump import deliver, pump
from clusterinfo.waiting import Backoff

LANE = ListLane(Unit("c", "", "pods"))


class Ends:
    """A source of `batches` and a sink, in one: each step may be set to fail first."""

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.position = 0
        self.stored: list[int] = []
        self.acked: list[int] = []
        self.steps: list[str] = []
        self.failures: dict[str, list[Exception]] = {}
        self.on_ack: Callable[[], None] = lambda: None
        self.on_restart: Callable[[], None] = lambda: None
        self.blocks_at = ""
        self.is_blocked = asyncio.Event()

    async def _step(self, name: str) -> None:
        self.steps.append(name)
        if name == self.blocks_at:
            self.is_blocked.set()
            await asyncio.sleep(3600)
        if self.failures.get(name):
            raise self.failures[name].pop(0)

    async def open(self, lane: Lane, position: Position = None) -> None:
        await self._step("open")

    async def read(self) -> Batch | None:
        await self._step("read")
        if self.position == self.batches:
            return None
        return Batch(lane=LANE, start=self.position, end=self.position + 1, records=[])

    async def restart(self) -> None:
        await self._step("restart")
        self.position = 0
        self.on_restart()

    async def ack(self, receipt: Receipt) -> None:
        self.acked.append(receipt.position)
        self.position = receipt.position
        self.on_ack()

    async def close(self) -> None:
        await self._step("close")

    async def write(self, batch: Batch) -> Receipt:
        await self._step("write")
        self.stored.append(batch.start)
        return Receipt(lane=batch.lane, position=batch.end)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "next_s", lambda self, error=None: 0.001)


async def _pump(ends: Ends, stopping: asyncio.Event | None = None) -> list[Observation]:
    seen: list[Observation] = []
    try:
        await pump(ends, ends, LANE, seen.append, stopping)
    finally:
        assert seen.pop() == LaneEnded(lane="pods"), "however a lane ends, it is reported"
        assert ends.steps.pop() == "close", "however a lane ends, its source is closed"
        assert "close" not in ends.steps
    return seen


async def test_every_batch_is_written_once_and_acked_after() -> None:
    ends = Ends(3)
    assert await _pump(ends) == []
    assert (ends.stored, ends.acked) == ([0, 1, 2], [1, 2, 3])


@pytest.mark.parametrize("step", ["open", "read", "write"])
async def test_a_transient_error_repeats_that_step_alone(step: str) -> None:
    ends = Ends(1)
    ends.failures[step] = [TransientError("no"), TransientError("no")]
    seen = await _pump(ends)
    assert ends.stored == [0]
    assert [type(observation) for observation in seen] == [Retrying, Retrying, Recovered]


async def test_a_restart_opens_the_lane_again() -> None:
    ends = Ends(2)
    ends.failures["write"] = [RestartError("moved")]
    seen = await _pump(ends)
    assert ends.steps[:6] == ["open", "open", "read", "write", "restart", "open"]
    assert ends.stored == [0, 1]
    assert [type(observation) for observation in seen] == [LaneRestarted]


async def test_a_lane_that_is_to_stop_is_not_claimed_again() -> None:
    ends, stopping = Ends(2), asyncio.Event()
    ends.failures["write"] = [RestartError("moved")]
    ends.on_restart = stopping.set
    await _pump(ends, stopping)
    assert ends.steps == ["open", "open", "read", "write", "restart"]


async def test_restarts_wait_longer_and_longer_until_a_batch_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    ends = Ends(2)
    ends.failures["read"] = [RestartError("again")] * 3
    waits = [seen.wait_s for seen in await _pump(ends) if isinstance(seen, LaneRestarted)]
    assert waits == sorted(waits)
    assert waits[2] > waits[0]


async def test_a_lost_lane_is_released_quietly() -> None:
    ends = Ends(2)
    ends.failures["write"] = [LostError("theirs")]
    assert [type(observation) for observation in await _pump(ends)] == [LaneLost]
    assert ends.acked == []


async def test_a_fatal_error_ends_the_pump() -> None:
    ends = Ends(2)
    ends.failures["write"] = [FatalError("broken")]
    with pytest.raises(FatalError, match="broken"):
        await _pump(ends)


async def test_asked_to_stop_it_finishes_the_batch_in_hand() -> None:
    ends, stopping = Ends(5), asyncio.Event()
    ends.on_ack = stopping.set
    await _pump(ends, stopping)
    assert ends.acked == [1]


async def test_asked_to_stop_it_does_not_wait_for_a_failing_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "next_s", lambda self, error=None: 60.0)
    ends, stopping = Ends(1), asyncio.Event()
    ends.failures["write"] = [TransientError("away")]
    asyncio.get_running_loop().call_later(0.05, stopping.set)
    async with asyncio.timeout(60):
        with pytest.raises(TransientError, match="away"):
            await _pump(ends, stopping)


@pytest.mark.parametrize("step", ["open", "read", "write"])
async def test_cancelled_in_the_middle_of_a_step_it_closes_its_source(step: str) -> None:
    ends = Ends(2)
    ends.blocks_at = step
    pumping = asyncio.create_task(_pump(ends))
    async with asyncio.timeout(60):
        await ends.is_blocked.wait()
    pumping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pumping
    assert (ends.stored, ends.acked) == ([], [])


async def test_a_source_that_cannot_be_closed_ends_its_lane_nevertheless() -> None:
    ends, seen = Ends(0), list[Observation]()
    ends.failures["close"] = [FatalError("stays open")]
    with pytest.raises(FatalError, match="stays open"):
        await pump(ends, ends, LANE, seen.append)
    assert seen == [LaneEnded(lane="pods")]


# --- a batch without a source ----------------------------------------------------------------------------------------

STATEMENT = Batch(lane=LANE, start=0, end=1, records=[])


async def _deliver(ends: Ends) -> list[type[Observation]]:
    seen: list[Observation] = []
    try:
        await deliver(ends, STATEMENT, seen.append)
    finally:
        assert seen.pop() == LaneEnded(lane="pods")
    return [type(observation) for observation in seen]


async def test_a_batch_without_a_source_is_written_once() -> None:
    ends = Ends(0)
    assert await _deliver(ends) == []
    assert ends.steps == ["open", "write"]


@pytest.mark.parametrize("step", ["open", "write"])
async def test_a_batch_without_a_source_is_tried_again(step: str) -> None:
    ends = Ends(0)
    ends.failures[step] = [TransientError("no"), TransientError("no")]
    assert await _deliver(ends) == [Retrying, Retrying, Recovered]
    assert ends.stored == [0]


async def test_a_batch_without_a_source_is_written_again_after_a_restart() -> None:
    ends = Ends(0)
    ends.failures["write"] = [RestartError("moved")]
    assert await _deliver(ends) == [LaneRestarted]
    assert ends.steps == ["open", "write", "open", "write"]


async def test_a_batch_without_a_source_ends_with_its_lane_or_an_error() -> None:
    ends = Ends(0)
    ends.failures["write"] = [LostError("theirs"), FatalError("broken")]
    assert await _deliver(ends) == [LaneLost]
    with pytest.raises(FatalError, match="broken"):
        await _deliver(ends)
    assert ends.stored == []
