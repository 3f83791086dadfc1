"""What becomes of a batch that cannot be stored at once."""

from __future__ import annotations

import asyncpg
import msgspec
import pytest

from clusterinfo.model import Batch, ListLane, Record, Rejected
from clusterinfo.postgres.sink import bisect
from tests.support.records import LANE, Listing

REFUSED = asyncpg.PostgresError.new({"C": "22003", "M": "too wild", "S": "ERROR"})


def record_at(offset: int) -> Record:
    return msgspec.structs.replace(Listing("100").item("a", "1"), offset=offset)


def batch_of(*messages: Record | Rejected) -> Batch:
    records = [message for message in messages if isinstance(message, Record)]
    rejected = [message for message in messages if isinstance(message, Rejected)]
    return Batch(lane=LANE, start=10, end=20, records=records, rejected=rejected, gap=True)


def test_bisected_halves_cover_the_batch_and_the_gap_is_before_the_first() -> None:
    refused = Rejected(offset=14, reason="no ce_type", key=None, headers=[], value=b"")
    first, second = bisect(batch_of(record_at(11), record_at(13), record_at(17), refused), REFUSED)
    assert (first.start, first.end, second.start, second.end) == (10, 14, 14, 20)
    assert [record.offset for record in (*first.records, *second.records)] == [11, 13, 17]
    assert (first.rejected, second.rejected) == ([], [refused])
    assert (first.gap, second.gap) == (True, False)


def test_a_record_refused_alone_becomes_a_rejected_message() -> None:
    (part,) = bisect(batch_of(record_at(11)), REFUSED)
    assert (part.start, part.end, part.records) == (10, 20, [])
    (rejected,) = part.rejected
    assert (rejected.offset, rejected.reason) == (11, "PostgreSQL refused the record: too wild")


@pytest.mark.parametrize("error", [TimeoutError(), asyncpg.QueryCanceledError("statement timeout")])
def test_a_single_record_that_takes_too_long_is_not_bisected(error: Exception) -> None:
    assert bisect(batch_of(record_at(11)), error) == []


def test_a_page_of_a_list_moves_as_one() -> None:
    records = [record_at(0), record_at(1)]
    page = Batch(lane=ListLane(records[0].unit, ""), start=0, end=1, records=records)
    assert bisect(page, REFUSED) == []
