"""What listeners are told, and how long changes took."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from msgspec.structs import replace

from clusterinfo.model import Unit
from clusterinfo.observations import ChangesStored
from clusterinfo.postgres.merge.changes import MAX_PAYLOAD_BYTES, delays_of, payload_of
from tests.support.records import NOON, Listing, watched


@pytest.mark.parametrize(("kinds", "named"), [(1, 1), (100, 100), (1000, 0)])
def test_kinds_are_named_unless_they_are_too_many(kinds: int, named: int) -> None:
    units = [Unit("c", "apps", f"kind-{number}") for number in range(kinds)]
    payload = payload_of(units)
    assert json.loads(payload) == [["c", "apps", f"kind-{number}"] for number in range(named)]
    assert len(payload) <= MAX_PAYLOAD_BYTES


def test_of_what_was_watched_it_is_told_how_long_ago() -> None:
    pods, maps = Listing("100", resource="pods"), Listing("100")
    ahead = replace(maps.item("b", "2"), observed_at=NOON + dt.timedelta(seconds=9))
    said = [(watched(pods.item("p", "1"), 1), None), (watched(maps.item("a", "1"), 2), None), (watched(ahead, 3), None)]
    assert delays_of(said, NOON + dt.timedelta(seconds=2)) == [
        ChangesStored(resource="pods", delays_s=(2.0,)),
        ChangesStored(resource="configmaps", delays_s=(2.0, 0.0)),
    ]
