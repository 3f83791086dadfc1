"""What a candidate makes of a Lease: every branch, by clocks that are passed in."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from clusterinfo.kubernetes.election import FOLLOWING, LEASE_S, RENEW_WITHIN_S, Election, LeaseName

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=dt.UTC)
AT = "2026-01-02T03:04:05.000678Z"
LATER, LATER_AT = NOW + dt.timedelta(seconds=2), "2026-01-02T03:04:07.000678Z"
OLD = "1999-12-31T23:59:59.000000Z"


def lease(holder: str | None = "other", version: str = "7", **spec: Any) -> dict[str, Any]:
    given = {"leaseDurationSeconds": 15, "renewTime": OLD, "acquireTime": OLD, "leaseTransitions": 3} | spec
    held = {"holderIdentity": holder} if holder is not None else {}
    metadata = {"name": "lead", "namespace": "ns", "resourceVersion": version, "labels": {"kept": "yes"}}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": held | given}


@pytest.fixture
def mine() -> Election:
    return Election(LeaseName("ns", "lead"), "me")


def leads(election: Election, now_s: float) -> bool:
    return now_s < election.leads_until_s


def wanted(election: Election, now_s: float, now: dt.datetime = NOW, *, follows: bool = False) -> dict[str, Any]:
    found = election.wanted(now_s, now, follows=follows)
    assert found is not None
    return found


def test_nobody_leads_before_a_lease_is_written(mine: Election) -> None:
    assert not leads(mine, 0.0)
    assert mine.holder == ""
    mine.read(None, 0.0)
    assert not leads(mine, 0.0)


def test_a_lease_that_there_is_not_is_created(mine: Election) -> None:
    mine.read(None, 5.0)
    created = wanted(mine, 5.0)
    assert created["metadata"] == {"namespace": "ns", "name": "lead", "annotations": {}}
    assert created["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": AT,
        "renewTime": AT,
        "leaseTransitions": 0,
    }
    mine.written(created, 5.0)
    assert leads(mine, 5.0 + RENEW_WITHIN_S - 0.01)


@pytest.mark.parametrize("renewed", [OLD, "2099-01-01T00:00:00.000000Z"])
def test_a_lease_of_another_is_taken_once_it_was_seen_unchanged_for_its_duration(mine: Election, renewed: str) -> None:
    """By the own clock: the times in it may be of any clock."""
    mine.read(lease(renewTime=renewed), 100.0)
    mine.read(lease(renewTime=renewed, version="8"), 110.0)  # something else of it was changed
    assert mine.wanted(100.0 + LEASE_S - 0.01, NOW, follows=False) is None
    taken = wanted(mine, 100.0 + LEASE_S)
    assert taken["metadata"]["resourceVersion"] == "8", "or another who takes it now would not be noticed"
    assert taken["metadata"]["labels"] == {"kept": "yes"}
    spec = {key: taken["spec"][key] for key in ("holderIdentity", "acquireTime", "renewTime", "leaseTransitions")}
    assert spec == {"holderIdentity": "me", "acquireTime": AT, "renewTime": AT, "leaseTransitions": 4}


def test_a_lease_that_is_renewed_is_not_taken(mine: Election) -> None:
    for second in range(0, 60, 10):
        mine.read(lease(renewTime=f"renewed at {second}"), float(second))
        assert mine.wanted(second + 9.0, NOW, follows=False) is None


@pytest.mark.parametrize(
    ("lasts", "taken_after_s"), [(40, 40.0), (1, 1.0), (0, LEASE_S), (None, LEASE_S), ("x", LEASE_S)]
)
def test_it_lasts_as_long_as_its_holder_wrote(mine: Election, lasts: Any, taken_after_s: float) -> None:
    mine.read(lease(leaseDurationSeconds=lasts), 0.0)
    assert mine.wanted(taken_after_s - 0.1, NOW, follows=False) is None
    assert mine.wanted(taken_after_s, NOW, follows=False) is not None


@pytest.mark.parametrize("holder", [None, ""])
def test_a_lease_that_was_given_up_is_taken_at_once(mine: Election, holder: str | None) -> None:
    mine.read(lease(holder), 0.0)
    taken = wanted(mine, 0.0)
    assert (taken["spec"]["holderIdentity"], taken["spec"]["leaseTransitions"]) == ("me", 4)


@pytest.mark.parametrize("transitions", [None, "x"])
def test_a_count_that_is_none_begins_again(mine: Election, transitions: Any) -> None:
    mine.read(lease(None, leaseTransitions=transitions), 0.0)
    assert wanted(mine, 0.0)["spec"]["leaseTransitions"] == 1


@pytest.mark.parametrize("empty", [{}, {"spec": None}, {"metadata": {"resourceVersion": "1", "annotations": None}}])
def test_a_lease_with_nothing_in_it_is_taken(mine: Election, empty: dict[str, Any]) -> None:
    mine.read(empty, 0.0)
    assert not mine.is_followed
    assert wanted(mine, 0.0)["spec"]["holderIdentity"] == "me"


def test_a_renewal_moves_the_time_and_nothing_else(mine: Election) -> None:
    mine.read(lease(None), 0.0)
    taken = wanted(mine, 0.0)
    mine.written(taken, 0.0)
    assert mine.is_present
    renewed = wanted(mine, 2.0, LATER)
    assert renewed == taken | {"spec": taken["spec"] | {"renewTime": LATER_AT}}


def test_who_renewed_nothing_for_the_deadline_leads_no_more_and_may_again(mine: Election) -> None:
    """Counted from when the renewal was sent: the others count from when they saw it, and wait longer."""
    mine.read(None, 0.0)
    mine.written(wanted(mine, 0.0), 3.0)
    assert leads(mine, 3.0 + RENEW_WITHIN_S - 0.01)
    assert not leads(mine, 3.0 + RENEW_WITHIN_S)
    assert RENEW_WITHIN_S < LEASE_S
    mine.written(wanted(mine, 20.0), 20.0)
    assert leads(mine, 20.0)


def test_who_sees_another_hold_it_leads_no_more(mine: Election) -> None:
    mine.written(lease("me"), 0.0)
    assert leads(mine, 1.0)
    mine.read(lease("other", version="9"), 1.0)
    assert not leads(mine, 1.0)


def test_a_lease_that_somebody_deleted_is_made_again(mine: Election) -> None:
    mine.written(lease("me"), 0.0)
    mine.read(None, 1.0)
    assert not leads(mine, 1.0)
    assert "resourceVersion" not in wanted(mine, 1.0)["metadata"]


def test_after_a_write_that_failed_it_is_read_again(mine: Election) -> None:
    mine.written(lease("me"), 0.0)
    mine.failed()
    assert not mine.is_present
    assert leads(mine, 1.0), "nobody else may take it before it has run out"


def test_it_says_that_it_follows_and_nobody_takes_that_for_another_that_leads(mine: Election) -> None:
    mine.read(lease(None), 0.0)
    mine.written(wanted(mine, 0.0), 0.0)
    assert not mine.is_followed
    mine.written(wanted(mine, 2.0, follows=True), 2.0)
    assert mine.is_followed
    seen = wanted(mine, 2.0, follows=True)
    seen["spec"]["holderIdentity"] = "other"
    mine.read(seen, 3.0)
    assert not mine.is_followed
    assert FOLLOWING not in wanted(mine, 60.0)["metadata"]["annotations"]


def test_only_its_holder_gives_it_up(mine: Election) -> None:
    assert mine.released(NOW) is None
    mine.read(lease("other"), 0.0)
    assert mine.released(NOW) is None
    mine.written(lease("me"), 0.0)
    released = mine.released(NOW)
    assert released is not None
    assert released["metadata"]["resourceVersion"] == "7"
    spec = {"leaseDurationSeconds": 1, "renewTime": AT, "acquireTime": OLD, "leaseTransitions": 3}
    assert released["spec"] == spec
    mine.written(released, 1.0)
    assert not leads(mine, 1.0)
