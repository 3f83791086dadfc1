"""The bodies of statements: what goes in comes out, and a writer of another release is understood."""

from __future__ import annotations

import datetime as dt

import pytest

from clusterinfo.errors import RecordError
from clusterinfo.model import Outcome, Record, RecordType
from clusterinfo.statements import (
    MAX_KINDS,
    MAX_STATEMENT_BYTES,
    SnapshotCompleted,
    SnapshotStarted,
    UnitOutcome,
    encode,
    read,
)


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
