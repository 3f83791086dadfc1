"""Records of a run: what they say of the run, of their list, and of what is in them."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from clusterinfo.kubernetes.list_state import ListState
from clusterinfo.kubernetes.normalize import NORMALIZATION, normalize
from clusterinfo.kubernetes.pages import ListPage
from clusterinfo.kubernetes.recording import Recorder, batch_of
from clusterinfo.kubernetes.redaction.objects import Redaction
from clusterinfo.model import CLOCK, GroupVersionResource, ListLane, RecordType, Unit
from clusterinfo.statements import ListCompleted, ListFailed, SnapshotStarted, read

NOON = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
DEPLOYMENTS = GroupVersionResource("apps", "v1", "deployments", "Deployment", namespaced=True)
RECORDER = Recorder(cluster="uid", cluster_name="blue", snapshot="run-1", epoch=3)


def listed(version: str = "7", ordering: str = "") -> ListState:
    lane = ListLane(Unit("uid", "apps", "deployments"), "shop")
    state = ListState(lane, DEPLOYMENTS, "list-1", ordering=ordering)
    state.admit(ListPage(resource_version=version, continue_token="", items=[]))
    return state


def test_an_object_names_its_run_its_list_and_its_redaction() -> None:
    raw = {"metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "5"}}
    item = normalize(json.dumps(raw).encode(), DEPLOYMENTS, Redaction())
    record = RECORDER.observed(item, listed(), NOON)
    assert (record.type, record.observed_at, record.body) == (RecordType.OBSERVED, NOON, item.body)
    assert (record.cluster, record.cluster_name, record.snapshot, record.epoch) == ("uid", "blue", "run-1", 3)
    assert (record.list, record.list_version, record.reach) == ("list-1", "7", "shop")
    assert (record.group, record.resource, record.namespace, record.name) == ("apps", "deployments", "shop", "web")
    assert (record.api_version, record.kind, record.uid, record.resource_version) == ("apps/v1", "Deployment", "u", "5")
    assert (record.content_hash, record.normalization) == (item.content_hash, NORMALIZATION)


def test_the_end_of_a_list_names_its_kind_and_version() -> None:
    record = RECORDER.list_ended(ListCompleted(2, "ab"), listed(), NOON)
    assert record.type is RecordType.LIST_COMPLETED
    assert read(record, ListCompleted) == ListCompleted(2, "ab")
    assert (record.snapshot, record.list, record.list_version, record.reach) == ("run-1", "list-1", "7", "shop")
    assert (record.api_version, record.kind, record.resource) == ("apps/v1", "Deployment", "deployments")
    assert (record.name, record.epoch, record.normalization) == ("", 3, NORMALIZATION)


@pytest.mark.parametrize(("version", "known", "said"), [("7", "", ""), ("", "", CLOCK), ("7", CLOCK, CLOCK)])
def test_all_records_of_a_list_say_by_what_it_is_ordered(version: str, known: str, said: str) -> None:
    raw = json.dumps({"metadata": {"name": "web", "namespace": "shop", "resourceVersion": "5"}})
    item, list_ = normalize(raw.encode(), DEPLOYMENTS, Redaction()), listed(version, known)
    ends = [RECORDER.list_ended(statement, list_, NOON) for statement in (ListCompleted(0, "0"), ListFailed())]
    assert {record.ordering for record in [RECORDER.observed(item, list_, NOON), *ends]} == {said}


def test_a_list_that_failed_at_once_says_what_was_known_before() -> None:
    unlisted = ListState(ListLane(Unit("uid", "apps", "deployments")), DEPLOYMENTS, "list-1", ordering=CLOCK)
    assert RECORDER.list_ended(ListFailed(), unlisted, NOON).ordering == CLOCK


def test_what_a_run_states_of_itself_is_a_batch_of_no_list() -> None:
    record = RECORDER.run(SnapshotStarted("v1.35", "blue"), NOON)
    assert record.type is RecordType.SNAPSHOT_STARTED
    assert (record.group, record.resource, record.list, record.snapshot, record.epoch) == ("", "", "", "run-1", 3)
    batch = batch_of(record, ListLane(record.unit))
    assert (batch.records, batch.list, batch.start, batch.end) == ([record], "", 0, 1)
    assert batch.size_bytes == len(record.body)
