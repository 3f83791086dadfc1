"""The bodies of statements: what goes in comes out, and a writer of another release is understood."""

from __future__ import annotations

import datetime as dt

import pytest

from clusterinfo.errors import RecordError
from clusterinfo.model import Outcome, Record, RecordType
from clusterinfo.statements import (
    MAX_KINDS,
    MAX_STATEMENT_BYTES,
    MAX_WATCHES,
    ListCompleted,
    SnapshotCompleted,
    SnapshotStarted,
    UnitOutcome,
    WatchedUnit,
    WatchEnded,
    WatchProgress,
    encode,
    read,
)

SESSION = "01932d3a-3333-7abc-8def-0123456789ab"
NOON = dt.datetime(2026, 11, 22, 12, 0, 0, 5, tzinfo=dt.UTC)


def record(body: bytes) -> Record:
    kind = RecordType.SNAPSHOT_COMPLETED
    return Record(type=kind, cluster="c", cluster_name="c", observed_at=dt.datetime.now(dt.UTC), body=body)


def test_how_each_kind_fared_comes_back_as_it_went() -> None:
    units = [UnitOutcome("", "pods", Outcome.COMPLETED, 17), UnitOutcome("apps", "*", Outcome.EXCLUDED)]
    statement = SnapshotCompleted(True, units)
    assert read(record(encode(statement)), SnapshotCompleted) == statement


def test_the_names_in_the_value_are_the_contract() -> None:
    units = [UnitOutcome("", "pods", Outcome.COMPLETED, 17)]
    assert encode(SnapshotCompleted(True, units, 300.0)) == (
        b'{"discovery_complete":true,"units":[{"group":"","resource":"pods","outcome":"completed","count":17}],'
        b'"interval_s":300.0}'
    )
    assert encode(SnapshotStarted("v1.36.0", "prod")) == b'{"server_version":"v1.36.0","cluster_name":"prod"}'


def test_what_is_said_of_watches_comes_back_as_it_went() -> None:
    behind = [WatchedUnit("", "pods", NOON), WatchedUnit("apps", "deployments", NOON, "shop")]
    for statement in (WatchProgress(NOON, behind), WatchProgress(NOON), WatchEnded(behind, "410 Gone")):
        assert read(record(encode(statement)), type(statement)) == statement
    for completed in (ListCompleted(1, "0f"), ListCompleted(1, "0f", SESSION, 3, NOON)):
        assert read(record(encode(completed)), ListCompleted) == completed


def test_the_names_of_what_is_said_of_watches_are_the_contract() -> None:
    assert encode(ListCompleted(1, "0f")) == b'{"count":1,"digest":"0f"}'
    assert encode(ListCompleted(1, "0f", SESSION, 3, NOON)) == (
        b'{"count":1,"digest":"0f","session":"01932d3a-3333-7abc-8def-0123456789ab","from":3,'
        b'"seen":"2026-11-22T12:00:00.000005Z"}'
    )
    assert encode(WatchProgress(NOON, [WatchedUnit("", "pods", NOON, "shop")])) == (
        b'{"heard":"2026-11-22T12:00:00.000005Z","behind":'
        b'[{"group":"","resource":"pods","since":"2026-11-22T12:00:00.000005Z","reach":"shop"}]}'
    )
    assert encode(WatchEnded([], "410 Gone")) == b'{"units":[],"reason":"410 Gone"}'


FOREIGN = {
    "heard nothing": (b"{}", WatchProgress),
    "heard in no zone": (b'{"heard":"2026-11-22T12:00:00"}', WatchProgress),
    "heard in infinity": (b'{"heard":"9999-12-31T23:59:59.999999Z"}', WatchProgress),
    "heard before the year 1": (b'{"heard":"0001-01-01T00:00:00+10:00"}', WatchProgress),
    "since no time": (b'{"units":[{"group":"","resource":"pods","since":5}]}', WatchEnded),
    "since infinity": (b'{"units":[{"group":"","resource":"p","since":"9999-12-31T23:59:59.999999Z"}]}', WatchEnded),
    "a session alone": (b'{"count":1,"digest":"0","session":"%s"}' % SESSION.encode(), ListCompleted),
    "a session that is none": (b'{"count":1,"digest":"0","session":"x","from":1,"seen":"%s"}', ListCompleted),
    "from nothing": (
        b'{"count":1,"digest":"0","session":"%s","seen":"2026-11-22T12:00:00Z"}' % SESSION.encode(),
        ListCompleted,
    ),
    "a number beyond a bigint": (b'{"count":1,"digest":"0","from":9223372036854775808}', ListCompleted),
    "too many behind": (
        b'{"heard":"2026-11-22T12:00:00Z","behind":[%s]}'
        % b",".join([b'{"group":"","resource":"p","since":"2026-11-22T12:00:00Z"}'] * (MAX_WATCHES + 1)),
        WatchProgress,
    ),
}


@pytest.mark.parametrize(("body", "kind"), FOREIGN.values(), ids=FOREIGN.keys())
def test_what_no_collector_says_of_watches_is_refused(body: bytes, kind: type[ListCompleted]) -> None:
    with pytest.raises(RecordError, match="value of"):
        read(record(body), kind)


def test_what_another_release_writes_more_or_less_is_no_error() -> None:
    body = b'{"units":[{"group":"","resource":"pods","outcome":"failed"}],"later":1}'
    assert read(record(body), SnapshotCompleted) == SnapshotCompleted(False, [UnitOutcome("", "pods", Outcome.FAILED)])
    started = b'{"server_version":"v1","cluster_name":"prod","identity_known":false}'
    assert read(record(started), SnapshotStarted) == SnapshotStarted("v1", "prod")


@pytest.mark.parametrize("count", [b"-1", b"9223372036854775808", b"1.5", b'"1"', b"null"])
def test_a_count_that_no_database_holds_is_refused(count: bytes) -> None:
    body = b'{"units":[{"group":"","resource":"pods","outcome":"completed","count":%s}]}' % count
    with pytest.raises(RecordError, match="count"):
        read(record(body), SnapshotCompleted)


def test_what_is_too_large_is_not_read() -> None:
    kind = b'{"group":"","resource":"pods","outcome":"failed"},'
    for number, refused in ((MAX_KINDS, False), (MAX_KINDS + 1, True)):
        body = b'{"units":[' + (kind * number)[:-1] + b"]}"
        if refused:
            with pytest.raises(RecordError, match="length"):
                read(record(body), SnapshotCompleted)
        else:
            assert len(read(record(body), SnapshotCompleted).units) == number
    with pytest.raises(RecordError, match="1048577 bytes, more than 1048576: not read"):
        read(record(b'{"server_version":"' + b"v" * (MAX_STATEMENT_BYTES - 20) + b'"}'), SnapshotStarted)
