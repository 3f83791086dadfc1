"""What one pass over a batch tells of it."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from clusterinfo.model import CLOCK, RecordType, Unit
from clusterinfo.postgres.merge.census import Census, is_by_clock
from clusterinfo.statements import SnapshotCompleted, SnapshotStarted
from tests.support.records import CLUSTER, NOON, Listing

LATER = NOON + dt.timedelta(minutes=1)


def test_clusters_are_known_by_their_first_record_and_their_newest() -> None:
    listing, other = Listing("100"), Listing("5", cluster="other")
    first, newest, last = (
        msgspec.structs.replace(listing.item("a", "1"), observed_at=at) for at in (NOON, LATER, NOON)
    )
    census = Census.of([first, newest, other.item("b", "1"), last])
    assert list(census.clusters) == [CLUSTER, "other"]
    assert census.clusters[CLUSTER] is first
    assert census.newest[CLUSTER] is newest


def test_the_newest_statement_about_a_kind_counts() -> None:
    old, new = Listing("100", kind="Old"), Listing("101", kind="New")
    (news,) = Census.of([old.item("a", "1"), new.item("a", "2", namespace=""), new.failed(500, "x")]).units.values()
    assert (news.kind, news.api_version, news.namespaced) == ("New", "v1", False)


def test_items_of_one_page_may_tell_that_their_kind_has_another_scope() -> None:
    listing = Listing("100")
    inside, outside = listing.item("a", "1"), listing.item("a", "2", namespace="")
    for items, namespaced in (([inside, outside], False), ([outside, inside], True)):
        (news,) = Census.of(items).units.values()
        assert news.namespaced is namespaced


def test_a_kind_is_ordered_by_the_clock_once_one_record_says_so() -> None:
    listing = Listing("100")
    said = msgspec.structs.replace(listing.item("a", "1"), ordering=CLOCK)
    (news,) = Census.of([said, listing.item("b", "2")]).units.values()
    assert news.by_clock
    assert not any(news.by_clock for news in Census.of([listing.item("b", "2")]).units.values())


@pytest.mark.parametrize("version", ["", "abc", "0", "-1", "1.5", "9223372036854775808", "٣"])
def test_a_list_version_that_is_no_integer_says_so_too(version: str) -> None:
    assert is_by_clock(Listing(version).item("a", "1"))
    assert is_by_clock(Listing(version).completed())


def test_what_belongs_to_no_list_and_lists_that_failed_say_nothing_of_it() -> None:
    listing = Listing("abc")
    assert not is_by_clock(listing.failed(500, "x"))
    assert not is_by_clock(listing.deleted("a", "abc"))


def test_snapshots_are_read_once_and_name_their_kinds() -> None:
    listing = Listing("100")
    outcomes = {("", "configmaps"): "completed", ("apps", "deploy\0ments"): "failed", ("metrics", "*"): "excluded"}
    census = Census.of([listing.snapshot_started(), listing.item("a", "1"), listing.snapshot_completed(outcomes)])
    assert [type(statement) for _, statement in census.snapshots] == [SnapshotStarted, SnapshotCompleted]
    assert list(census.units) == [Unit(CLUSTER, "", "configmaps")]
    named = census.named_units()
    assert {unit.dotted for unit in named} == {"configmaps", "deploy\ufffdments.apps"}
    assert named[Unit(CLUSTER, "", "configmaps")].kind == "ConfigMap", "what records say is kept"
    assert census.completed_clusters() == {CLUSTER}
    assert Census.of([listing.snapshot_started()]).completed_clusters() == set()


def test_a_snapshot_that_says_nothing_becomes_a_dead_letter() -> None:
    listing = Listing("100")
    statement = msgspec.structs.replace(listing.snapshot_completed({}), body=b'{"units": 5}')
    census = Census.of([statement])
    (letter,) = census.dead_letters
    assert letter.reason.startswith(f"value of {RecordType.SNAPSHOT_COMPLETED.value}")
    assert census.snapshots == []
    assert CLUSTER in census.clusters
