"""What `clusterinfo status` makes of what the database says."""

from __future__ import annotations

import datetime as dt
import io
from dataclasses import replace

import orjson
import pytest
from rich.console import Console

from clusterinfo.commands.status_report import Partition, Status, short_duration
from clusterinfo.postgres.admin.overview import ClusterRow, KindRow, OffsetRow, Overview

NOON = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
CLUSTER = ClusterRow("prod", "uid-1", "v1.36.0", NOON, NOON, 12.5, 4321, 51852)
PODS = KindRow("prod", "", "pods", "", "verified", 4000, NOON, 42.0, None)
OFFSET = OffsetRow("kafka-1", "cluster-info", 0, "cluster-info-consumer", 90)


def status(*kinds: KindRow, dead_letters: int = 0, kafka_error: str = "") -> Status:
    overview = Overview([CLUSTER], [PODS, *kinds], [OFFSET], dead_letters)
    return Status(overview, [Partition(0, 90, 100)], 900.0, kafka_error)


def shown(what: Status) -> str:
    text = io.StringIO()
    Console(file=text, width=140).print(what)
    return text.getvalue()


def test_a_verified_cluster_is_healthy_whatever_the_lag() -> None:
    assert status().is_healthy
    text = shown(status())
    assert "prod" in text
    assert "4,000" in text
    assert text.endswith("dead letters: 0\nhealthy\n")
    assert status().as_json()["partitions"] == [{"partition": 0, "stored": 90, "end": 100, "lag": 10}]


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (replace(PODS, resource="jobs", api_group="batch", state="failed", last_error="500 boom"), "500 boom"),
        (replace(PODS, resource="jobs", api_group="batch", state="unverified", age_s=None), "not proven yet"),
        (replace(PODS, resource="jobs", api_group="batch", age_s=7200.0), "not verified again for 2h"),
    ],
)
def test_a_kind_that_needs_attention_is_named(kind: KindRow, complaint: str) -> None:
    what = status(kind)
    assert not what.is_healthy
    assert [(found.resource, why) for found, why in what.attention] == [("jobs", complaint)]
    text = shown(what)
    assert "jobs.batch" in text
    assert complaint in text
    assert text.endswith("needs attention\n")


@pytest.mark.parametrize("state", ["forbidden", "excluded", "gone"])
def test_what_somebody_decided_needs_no_attention(state: str) -> None:
    assert status(replace(PODS, resource="secrets", state=state, age_s=None)).is_healthy


def test_dead_letters_and_an_absent_kafka_need_attention() -> None:
    assert not status(dead_letters=3).is_healthy
    assert "clusterinfo dead-letters list" in shown(status(dead_letters=3))
    assert not status(kafka_error="no answer").is_healthy
    assert "lag unknown: no answer" in shown(status(kafka_error="no answer"))


def test_a_database_without_clusters_is_not_healthy() -> None:
    empty = Status(Overview([], [], [], 0), [], 900.0)
    assert not empty.is_healthy
    assert "no cluster is stored here yet" in shown(empty)


def test_scripts_get_everything() -> None:
    said = orjson.loads(orjson.dumps(status(replace(PODS, reach="one", state="failed", last_error="gone")).as_json()))
    assert said["healthy"] is False
    assert said["attention"] == [
        {"cluster": "prod", "api_group": "", "resource": "pods", "reach": "one", "why": "gone"}
    ]
    assert said["clusters"][0]["last_seen"] == "2026-11-22T12:00:00+00:00"
    assert len(said["kinds"]) == 2


def test_durations_are_short() -> None:
    assert [short_duration(s) for s in (-1, 0, 59.9, 60, 7199, 90000)] == ["0s", "0s", "59s", "1m", "1h", "1d"]
