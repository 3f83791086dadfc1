"""A cluster restored from a backup, and what its epoch says: a list that cannot be believed is never verified."""

from __future__ import annotations

import pytest

from clusterinfo.model import Record
from tests.integration.test_postgres_sink import MINUTE, Bench, bench
from tests.support.records import NOON, Listing

__all__ = ["bench"]


def listed(version: str, minute: int, name: str, *, epoch: int = 0, reach: str = "") -> list[Record]:
    listing = Listing(version, NOON + minute * MINUTE, epoch=epoch, reach=reach)
    return [listing.item(name, version), listing.completed()]


@pytest.mark.parametrize("reach", ["", "ns"])
@pytest.mark.parametrize("at_once", [False, True])
async def test_a_lowered_epoch_is_reported(bench: Bench, reach: str, at_once: bool) -> None:
    raised, lowered = listed("100", 0, "a", epoch=1), listed("200", 1, "b", reach=reach)
    if at_once:
        await bench.store(*raised, *lowered)
    else:
        await bench.store(*raised)
        await bench.store(*lowered)
    assert await bench.live() == {"a": "100"}
    assert await bench.states() == {"configmaps": "failed"}, "what it says is not stored"
    error = await bench.connection.fetchval("select last_error from freshness where reach = $1", reach)
    assert "listed under epoch 0, but seen under epoch 1" in error
    await bench.store(*listed("200", 2, "b", epoch=1))
    assert await bench.live() == {"b": "200"}
    assert await bench.states() == {"configmaps": "verified"}


async def test_a_list_from_before_the_epoch_was_raised_is_only_late(bench: Bench) -> None:
    await bench.store(*listed("100", 1, "a", epoch=1))
    await bench.store(*listed("900", 0, "b"))
    assert await bench.live() == {"a": "100"}
    assert await bench.states() == {"configmaps": "verified"}


async def test_a_lowered_epoch_is_reported_although_nothing_was_proven_under_the_higher_one(bench: Bench) -> None:
    raised = Listing("100", epoch=1)
    await bench.store(raised.snapshot_started(), raised.item("a", "1"))
    for minute in (1, 2):
        await bench.store(*listed("200", minute, "b"))
        assert await bench.states() == {"configmaps": "failed"}, "an object that may be gone is stored beside it"
    await bench.store(*listed("200", 3, "b", epoch=1))
    assert await bench.live() == {"b": "200"}
    assert await bench.states() == {"configmaps": "verified"}
