"""A batch as rows, tallies and statements."""

from __future__ import annotations

import orjson
import pytest

from clusterinfo.model import Batch, Record, RecordType
from clusterinfo.postgres.merge.staging import CLOCK, VERSION, UnitRow, news_of, stage
from tests.support.records import LANE, Listing


def unit_row(source: str = VERSION) -> UnitRow:
    return UnitRow(1, 1, "ConfigMap", "v1", True, source)


def batch_of(*records: Record) -> Batch:
    return Batch(lane=LANE, start=0, end=len(records), records=list(records))


def test_a_unit_once_ordered_by_time_stays_so() -> None:
    news = news_of([Listing("100").item("a", "1")])
    (of_unit,) = news.values()
    assert of_unit.live_at_source == VERSION
    assert not of_unit.changes(unit_row(CLOCK))
    assert of_unit.live_at_source == CLOCK


def test_a_failed_list_says_nothing_about_versions() -> None:
    (of_unit,) = news_of([Listing("100").failed(500, "x")]).values()
    assert of_unit.live_at_source is None


@pytest.mark.parametrize(
    "body", [b"[]", b"not json", b"{}", b'{"count":"1","digest":"0"}', b'{"count":1,"digest":"x"}']
)
def test_a_completion_that_says_nothing_becomes_a_dead_letter(body: bytes) -> None:
    listing = Listing("100")
    completion = listing.record(RecordType.LIST_COMPLETED, body)
    staged = stage(batch_of(completion), {completion.unit: unit_row()})
    assert len(staged.dead_letters) == 1
    assert "list.completed" in staged.dead_letters[0].reason
    assert staged.dead_letters[0].value == body


def test_a_tally_adds_up() -> None:
    listing = Listing("100")
    records = [listing.item(name, "1") for name in "abc"]
    completion = listing.completed()
    staged = stage(batch_of(*records, completion), {completion.unit: unit_row()})
    (tally,) = staged.tallies.values()
    statement = orjson.loads(completion.body)
    assert (tally.count, tally.expected_count) == (3, 3)
    assert f"{tally.digest % 2**128:032x}" == statement["digest"]
