"""What is watched is numbered lane by lane, and stored in that order, however often it has to be tried."""

from __future__ import annotations

import asyncio
import datetime as dt

import pytest

from clusterinfo import waiting
from clusterinfo.errors import TransientError
from clusterinfo.model import Batch, Lane, ListLane, Receipt, Record, RecordType, Unit, WatchLane
from clusterinfo.numbering import NumberingLanes
from clusterinfo.observations import unobserved

PODS, NODES = (WatchLane(Unit("c", "", resource), "", "session") for resource in ("pods", "nodes"))


class Rows:
    """Stores nothing at the first attempt of all."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.is_busy = True

    async def open(self, lane: Lane) -> None:
        """Nothing to claim."""

    async def write(self, batch: Batch) -> Receipt:
        await asyncio.sleep(0)
        if self.is_busy:
            self.is_busy = False
            raise TransientError("busy")
        self.batches.append(batch)
        return Receipt(lane=batch.lane, position=batch.end)


def batch_of(lane: Lane, *types: RecordType) -> Batch:
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    records = [Record(type=one, cluster="c", cluster_name="c", observed_at=now, body=b"{}") for one in types]
    return Batch(lane=lane, start=7, end=8, records=records)


async def test_each_watch_counts_for_itself_and_is_stored_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting.Backoff, "next_s", lambda self, error=None: 0.001)
    rows = Rows()
    sink = NumberingLanes(rows, unobserved)
    observed = RecordType.OBSERVED
    assert (sink.next_number(PODS), sink.progress_lane(PODS)) == (1, (PODS, 0))
    first = asyncio.create_task(sink.write(batch_of(PODS, observed, observed)))
    second = asyncio.create_task(sink.write(batch_of(PODS, RecordType.WATCH_PROGRESS)))
    await asyncio.sleep(0)
    assert sink.next_number(PODS) == 4
    await sink.write(batch_of(NODES, observed))
    assert (await first, await second) == (Receipt(lane=PODS, position=8), Receipt(lane=PODS, position=8))
    of_pods = [batch for batch in rows.batches if batch.lane == PODS]
    assert [(one.number, one.partition) for batch in of_pods for one in batch.records] == [(1, -1), (2, -1), (3, 0)]
    assert [(batch.start, batch.end) for batch in of_pods] == [(1, 3), (3, 4)]
    assert [one.number for batch in rows.batches if batch.lane == NODES for one in batch.records] == [1]


async def test_a_list_is_handed_on_as_it_is() -> None:
    rows = Rows()
    batch = batch_of(ListLane(Unit("c", "", "pods")), RecordType.OBSERVED)
    with pytest.raises(TransientError):
        await NumberingLanes(rows, unobserved).write(batch)
    await NumberingLanes(rows, unobserved).write(batch)
    assert rows.batches == [batch]
