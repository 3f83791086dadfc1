"""A collector whose clock was set wrong: what it dated far ahead silences nothing that comes once it is right."""

from __future__ import annotations

import datetime as dt

import pytest

from clusterinfo.observations import Warned
from tests.integration.test_postgres_sink import MINUTE, Bench, bench
from tests.support.records import Listing

__all__ = ["bench"]

PODS = {("", "configmaps"): "completed"}


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@pytest.fixture(params=["version", "clock"])
def versions(request: pytest.FixtureRequest) -> list[str]:
    """The versions of successive lists: revisions, or none."""
    return [str(100 + number) for number in range(9)] if request.param == "version" else [""] * 9


async def test_a_kind_that_fails_is_shown_after_a_list_from_ahead(bench: Bench, versions: list[str]) -> None:
    ahead = Listing(versions[0], now() + dt.timedelta(days=400))
    await bench.store(ahead.snapshot_started(), ahead.item("a", "1"), ahead.completed(), ahead.snapshot_completed(PODS))
    assert await bench.states() == {"configmaps": "verified"}
    warned = bench.last(Warned)
    assert "its collector's clock is 400 days, 0:00:00 ahead" in warned.message
    failing = Listing(versions[1], now())
    await bench.store(failing.failed(500, "boom"))
    assert await bench.states() == {"configmaps": "failed"}
    right = Listing(versions[2], now())
    await bench.store(right.item("b", "2"), right.completed())
    assert await bench.states() == {"configmaps": "verified"}
    assert await bench.live() == {"b": "2"}
    assert await bench.connection.fetchval("select max(valid_to) < now() from resource_history")


async def test_a_kind_that_was_gone_by_a_clock_ahead_comes_back(bench: Bench, versions: list[str]) -> None:
    first = Listing(versions[0], now() - MINUTE)
    await bench.store(first.item("a", "1"), first.completed())
    ahead = Listing("", now() + dt.timedelta(days=400))
    await bench.store(ahead.snapshot_started(), ahead.snapshot_completed({}))
    assert await bench.states() == {"configmaps": "gone"}
    back = Listing(versions[1], now())
    await bench.store(back.item("a", "1"), back.completed(), back.snapshot_completed(PODS))
    assert await bench.live() == {"a": "1"}
    assert await bench.states() == {"configmaps": "verified"}


async def test_a_clock_is_reported_once_until_it_is_right(bench: Bench) -> None:
    for number, ahead in enumerate((1, 1, 0, 1)):
        listing = Listing(str(100 + number), now() + ahead * dt.timedelta(hours=1))
        await bench.store(listing.item("a", "1"), listing.completed())
    assert len([seen for seen in bench.seen if isinstance(seen, Warned)]) == 2


async def test_a_clock_that_is_a_little_ahead_is_believed(bench: Bench) -> None:
    listing = Listing("100", now() + 2 * MINUTE)
    await bench.store(listing.item("a", "1"), listing.completed())
    assert await bench.connection.fetchval("select valid_from from resource") == listing.at
    assert not [seen for seen in bench.seen if isinstance(seen, Warned)]
