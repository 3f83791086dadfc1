"""A batch as rows, tallies and statements."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import orjson
import pytest

from clusterinfo.model import Batch, Record, RecordType, Rejected, list_start_us
from clusterinfo.postgres.merge.admission import MOST_AHEAD, Admission
from clusterinfo.postgres.merge.bodies import IDENTITY_ONLY, MAX_REPAIRED_BYTES, SANITISED, STUB, WHOLE
from clusterinfo.postgres.merge.staging import MAX_NAME_CHARACTERS, Staged, stage
from clusterinfo.postgres.merge.units import UnitRow
from tests.support.records import CLUSTER, LANE, NOON, Listing

MINUTE = dt.timedelta(minutes=1)


def staged_of(
    *records: Record, by_clock: bool = False, now: dt.datetime = NOON, forgotten: dt.datetime | None = None
) -> Staged:
    batch = Batch(lane=LANE, start=0, end=len(records), records=list(records))
    units = {record.unit: UnitRow(1, "ConfigMap", "v1", namespaced=True, by_clock=by_clock) for record in records}
    of = {} if forgotten is None else {(CLUSTER, "", ""): forgotten}
    return stage(batch, units, Admission(now, of, {}))


def test_an_object_is_as_old_as_the_list_that_shows_it() -> None:
    listing = Listing("100")
    staged = staged_of(listing.item("a", "17"), listing.deleted("b", "99"))
    assert [(row.name, row.live_at, row.deleted) for row in staged.rows] == [("a", 100, False), ("b", 99, True)]
    assert staged.records[0].name == "a"


def test_what_a_list_shows_was_there_when_the_list_began() -> None:
    """Whatever its id says, no later than it was observed; what no list shows when it was observed."""
    listing, old = Listing("100", at=NOON), Listing("100", at=NOON, id="ffffffff-ffff-7000-8000-000000000000")
    late = [msgspec.structs.replace(one.item("a", "17"), observed_at=NOON + MINUTE) for one in (listing, old)]
    deletion = msgspec.structs.replace(listing.deleted("b", "99"), observed_at=NOON + MINUTE)
    staged = staged_of(*late, deletion, now=NOON + MINUTE)
    assert [(row.seen_at, row.observed_at) for row in staged.rows] == [
        (NOON, NOON + MINUTE), (NOON + MINUTE, NOON + MINUTE), (NOON + MINUTE, NOON + MINUTE),
    ]  # fmt: skip


def test_a_list_names_rows_within_its_reach_alone() -> None:
    records = [
        Listing("100").item("a", "1"), Listing("100", reach="ns").item("b", "1"),
        Listing("100", reach="other").item("c", "1"), Listing("100").deleted("d", "1"),
        msgspec.structs.replace(Listing("100").item("e", "1"), list=""),
    ]  # fmt: skip
    assert [row.reach for row in staged_of(*records).rows] == ["", "ns", None, None, None]


def test_where_versions_order_nothing_it_is_as_old_as_its_list_began() -> None:
    listing = Listing("100", at=NOON)
    late = msgspec.structs.replace(listing.item("a", "17"), observed_at=NOON + MINUTE)
    (row,) = staged_of(late, by_clock=True, now=NOON + MINUTE).rows
    assert row.live_at == list_start_us(listing.id)


def test_a_list_that_began_after_its_objects_were_seen_began_with_them() -> None:
    """The clock of its collector was set back meanwhile."""
    listing = Listing("100", at=NOON)
    early = msgspec.structs.replace(listing.item("a", "17"), observed_at=NOON - MINUTE)
    (row,) = staged_of(early, by_clock=True).rows
    assert row.live_at == list_start_us(listing.id) - 60_000_000


def test_what_was_seen_before_1970_is_as_old_as_can_be() -> None:
    old = msgspec.structs.replace(Listing("100").deleted("a", "5"), observed_at=NOON.replace(year=26))
    (row,) = staged_of(old, by_clock=True).rows
    assert row.live_at == 0


def test_a_body_that_is_too_large_to_be_repaired_is_a_dead_letter_and_its_object_an_identity() -> None:
    for last, fidelity in (
        (b"1", WHOLE),
        (b"1 1", IDENTITY_ONLY),
        (b"1e9999", IDENTITY_ONLY),
        (rb'"\u0000"', IDENTITY_ONLY),
    ):
        body = b'["' + b"x" * MAX_REPAIRED_BYTES + b'",' + last + b"]"
        staged = staged_of(Listing("100").item("a", "1", body=body))
        assert [row.fidelity for row in staged.rows] == [fidelity]
        assert [letter.value for letter in staged.dead_letters] == [body] * (fidelity == IDENTITY_ONLY)
        assert len(staged.tallies) == 1


def test_an_object_without_an_integer_for_a_list_version_is_ordered_by_the_clock() -> None:
    listing = Listing("abc")
    (row,) = staged_of(listing.item("a", "17")).rows
    assert row.live_at == list_start_us(listing.id)


def test_a_date_far_ahead_is_the_present() -> None:
    ahead = [NOON + MOST_AHEAD, NOON + MOST_AHEAD + dt.timedelta(microseconds=1)]
    listing = Listing("100")
    items = [msgspec.structs.replace(listing.item(str(at), "1"), observed_at=at) for at in ahead]
    assert [row.observed_at for row in staged_of(*items).rows] == [NOON + MOST_AHEAD, NOON]


def test_what_was_forgotten_is_left_out_with_its_list() -> None:
    before, after = Listing("100", at=NOON - MINUTE), Listing("101", at=NOON + MINUTE)
    records = [before.item("a", "1"), before.completed(), after.item("a", "2"), after.completed()]
    staged = staged_of(*records, forgotten=NOON)
    assert [row.resource_version for row in staged.rows] == ["2"]
    assert list(staged.tallies) == [after.id]


def test_what_the_batch_shows_more_than_once_is_named() -> None:
    listing = Listing("100")
    keys = ("n", "a"), ("n", "b"), ("m", "b"), ("n", "a")
    items = [listing.item(name, str(place), namespace=ns) for place, (ns, name) in enumerate(keys)]
    assert staged_of(*items).repeated == [0, 3]
    assert staged_of(*items[:3]).repeated == []


def test_a_tally_adds_up() -> None:
    listing = Listing("100")
    records = [listing.item(name, "1") for name in "abc"]
    completion = listing.completed()
    staged = staged_of(*records, completion)
    (tally,) = staged.tallies.values()
    statement = orjson.loads(completion.body)
    assert (tally.count, tally.expected_count, tally.completed_at) == (3, 3, NOON)
    assert f"{tally.digest % 2**128:032x}" == statement["digest"]


def test_a_deletion_that_was_watched_belongs_to_no_list() -> None:
    listing = Listing("100")
    deleted = msgspec.structs.replace(listing.deleted("a", "5"), list=listing.id)
    assert staged_of(deleted).tallies == {}


def test_a_name_that_no_key_holds_is_a_dead_letter_and_counted() -> None:
    listing = Listing("100")
    lengths = MAX_NAME_CHARACTERS, MAX_NAME_CHARACTERS + 1
    staged = staged_of(*(listing.item("a" * length, "1", uid="u") for length in lengths))
    assert [len(row.name) for row in staged.rows] == [MAX_NAME_CHARACTERS]
    (letter,) = staged.dead_letters
    assert letter.reason == "a namespace, name or uid of more than 512 characters"
    assert staged.tallies[listing.id].count == 2


@pytest.mark.parametrize(
    ("attributes", "fidelity"),
    [({}, WHOLE), ({"body": rb'{"a":"\u0000"}'}, SANITISED), ({"body": b"{}", "state": "oversize"}, STUB)],
)
def test_how_much_of_an_object_can_be_stored(attributes: dict[str, Any], fidelity: int) -> None:
    (row,) = staged_of(Listing("100").item("a", "1", **attributes)).rows
    assert row.fidelity == fidelity


@pytest.mark.parametrize(
    "body", [b"[]", b"not json", b"{}", b'{"count":"1","digest":"0"}', b'{"count":1,"digest":"x"}']
)
def test_a_completion_that_says_nothing_becomes_a_dead_letter(body: bytes) -> None:
    staged = staged_of(Listing("100").record(RecordType.LIST_COMPLETED, body))
    assert len(staged.dead_letters) == 1
    assert "list.completed" in staged.dead_letters[0].reason
    assert staged.dead_letters[0].value == body
    assert staged.tallies == {}


@pytest.mark.parametrize(("status", "state"), [(403, "forbidden"), (500, "failed"), (0, "failed")])
def test_a_list_that_failed_says_so_and_proves_nothing(status: int, state: str) -> None:
    listing = Listing("100", reach="shop")
    staged = staged_of(listing.failed(status, "no\0 luck" * 500))
    (failure,) = staged.failures
    assert (failure.reach, failure.state, failure.at) == ("shop", state, NOON)
    assert failure.error is not None
    assert failure.error.startswith(f"{status} no\ufffd luck" if status else "no\ufffd luck")
    assert len(failure.error) == 1000
    assert staged.failed_lists == [listing.id]


def test_what_is_no_record_is_a_dead_letter_as_it_came() -> None:
    refused = Rejected(offset=3, reason="no ce_type\0", key=b"k", headers=[("h", b"v")], value=b"x", omitted_bytes=9)
    (letter,) = stage(
        Batch(lane=LANE, start=3, end=4, records=[], rejected=[refused]), {}, Admission(NOON, {}, {})
    ).dead_letters
    assert (letter.offset, letter.reason, letter.key, letter.value) == (3, "no ce_type\ufffd", b"k", b"x")
    assert letter.size_bytes == 10
