"""Which records are admitted, and under which date."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from clusterinfo.model import Record
from clusterinfo.observations import Observation, Warned
from clusterinfo.postgres.merge.admission import MAX_EPOCH_STEP, MOST_AHEAD, Admission, Clocks, ClusterRow
from clusterinfo.postgres.merge.census import Census
from clusterinfo.postgres.merge.staging import stage
from clusterinfo.postgres.merge.units import UnitRow
from tests.support.records import CLUSTER, NOON, Feed, Listing

HOUR = dt.timedelta(hours=1)


def admission(**forgotten: dt.datetime) -> Admission:
    """At noon; `forgotten`: resource (`everything`: all of the cluster) -> when."""
    of = {(CLUSTER, "", "" if resource == "everything" else resource): at for resource, at in forgotten.items()}
    return Admission(NOON, of, {})


def observed_at(at: dt.datetime, listing: Listing | None = None) -> Record:
    return msgspec.structs.replace((listing or Listing("100")).item("a", "1"), observed_at=at)


def test_the_row_of_the_database_is_read() -> None:
    row = {"now": NOON, "forgotten": [(CLUSTER, "", "pods", NOON)], "clusters": [(CLUSTER, 7, True, 3, "theirs")]}
    read = Admission.from_row(row, "ours")
    assert read.topic == "ours"
    assert read.forgotten == {(CLUSTER, "", "pods"): NOON}
    assert read.clusters == {CLUSTER: ClusterRow(7, is_contested=True, epoch=3, topic="theirs")}


@pytest.mark.parametrize(
    ("at", "believed"),
    [(NOON - 365 * 24 * HOUR, NOON - 365 * 24 * HOUR), (NOON + MOST_AHEAD, NOON + MOST_AHEAD), (NOON + HOUR, NOON)],
)
def test_dates_are_believed_but_those_far_ahead(at: dt.datetime, believed: dt.datetime) -> None:
    assert admission().date(observed_at(at)) == believed


def test_a_list_began_when_its_id_says_and_never_after_it_was_observed() -> None:
    assert admission().began_at(observed_at(NOON, Listing("100", at=NOON - HOUR))) == NOON - HOUR
    assert admission().began_at(observed_at(NOON - HOUR, Listing("100", at=NOON))) == NOON - HOUR
    assert admission().began_at(observed_at(NOON + HOUR, Listing("100", at=NOON + HOUR))) == NOON
    watched = Listing("100", at=NOON - HOUR).deleted("a", "5")
    assert admission().began_at(msgspec.structs.replace(watched, snapshot="")) == watched.observed_at


def test_what_began_before_it_was_forgotten_is_not_admitted() -> None:
    before, after = Listing("100", at=NOON - HOUR).item("a", "1"), Listing("100", at=NOON).item("a", "1")
    for forgotten in (
        admission(everything=NOON),
        admission(configmaps=NOON),
        admission(everything=NOON, configmaps=NOON),
    ):
        assert not forgotten.admits(before)
        assert forgotten.admits(after)
    assert admission(pods=NOON).admits(before), "another kind"
    assert admission(configmaps=NOON).admits(Listing("100", at=NOON - HOUR, cluster="other").item("a", "1"))
    assert admission(configmaps=NOON).admits(Listing("100", at=NOON - HOUR).snapshot_started())
    assert not admission(everything=NOON).admits(Listing("100", at=NOON - HOUR).snapshot_started())


@pytest.mark.parametrize(("last", "cluster"), [(0, {}), (0, {CLUSTER: 0}), (7, {CLUSTER: 7}), (0, {"other": 7})])
def test_an_epoch_that_leaps_is_a_dead_letter(last: int, cluster: dict[str, int]) -> None:
    clusters = {uid: ClusterRow(1, is_contested=False, epoch=epoch) for uid, epoch in cluster.items()}
    near, far = (Listing("100", epoch=last + step).item("a", "1") for step in (MAX_EPOCH_STEP, MAX_EPOCH_STEP + 1))
    units = {near.unit: UnitRow(1, "ConfigMap", "v1", namespaced=True, by_clock=False)}
    staged = stage(Feed().batch(far, near), units, Admission(NOON, {}, clusters))
    kept, letters = staged.records, staged.dead_letters
    assert [(record.body, record.epoch) for record in kept] == [(near.body, near.epoch)]
    assert [letter.value for letter in letters] == [far.body]
    assert f"its epoch is {last + 1001}, more than 1000 above {last}" in letters[0].reason


def test_a_clock_that_is_ahead_is_reported_once_until_it_is_right_again() -> None:
    seen: list[Observation] = []
    clocks = Clocks(seen.append)
    wrong, right = Census.of([observed_at(NOON + HOUR)]), Census.of([observed_at(NOON)])
    for census in (right, wrong, wrong, right, wrong):
        clocks.compare(census, admission())
    first, second = seen
    assert isinstance(first, Warned)
    assert first == second
    assert first.message.startswith("cluster 'test': its collector's clock is 1:00:00 ahead of the database's")
