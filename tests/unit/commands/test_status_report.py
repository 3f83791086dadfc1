"""What `clusterinfo status` makes of what the database says."""

from __future__ import annotations

import datetime as dt
import io
from dataclasses import replace
from typing import Any

import orjson
import pytest
from rich.console import Console

from clusterinfo.commands.status_report import Consumers, Partition, Status, short_duration
from clusterinfo.postgres.admin.overview import ClusterRow, KindRow, OffsetRow, Overview
from tests.support.json_schemas import StatusDocument

NOON = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
CLUSTER = ClusterRow("prod", "uid-1", "v1.36.0", NOON, NOON, 12.5, 4321, True, 51852)
PODS = KindRow("prod", "", "pods", "", "verified", 4000, NOON, 42.0, None)
OFFSET = OffsetRow("kafka-1", "cluster-info", 0, "cluster-info-consumer", 90)
CONSUMERS = Consumers("us", "Stable", 2, frozenset({("t", 0), ("t", 1)}), "", "us")
NOBODY = replace(CONSUMERS, state="Empty", members=0, held=frozenset())


def status(*kinds: KindRow, dead_letters: int = 0, kafka_error: str = "") -> Status:
    overview = Overview([CLUSTER], [PODS, *kinds], [OFFSET], dead_letters)
    return Status(overview, [Partition("t", 0, 90, 100)], 900.0, kafka_error)


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
    assert status().as_json()["partitions"] == [{"topic": "t", "partition": 0, "stored": 90, "end": 100, "lag": 10}]


@pytest.mark.parametrize(
    ("cluster", "complaint"),
    [
        (replace(CLUSTER, last_run_at=None, knows_all_kinds=None), "prod: no run of lists has ended yet"),
        (replace(CLUSTER, knows_all_kinds=False), "prod: the last run of lists could not discover all kinds"),
    ],
)
def test_a_cluster_whose_kinds_are_not_all_known_needs_attention(cluster: ClusterRow, complaint: str) -> None:
    what = Status(Overview([cluster], [PODS], [OFFSET], 0), [], 900.0)
    assert not what.is_healthy
    (line,) = what.as_json()["unfinished"]
    assert line.startswith(complaint)
    assert complaint in shown(what)
    assert status().as_json()["unfinished"] == []


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
    secrets = replace(PODS, resource="secrets", state=state, objects=0, age_s=None, verified_at=None)
    assert status(secrets).is_healthy
    assert status(replace(secrets, objects=5, age_s=42.0, verified_at=NOON)).is_healthy, "it may be listed again soon"
    assert status(replace(secrets, age_s=7200.0, verified_at=NOON)).is_healthy, "nothing of it is left"


AS_OF = "4,000 rows as of 2026-11-22 12:00:00"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"state": "forbidden"}, AS_OF),
        ({"state": "excluded"}, AS_OF),
        ({"state": "failed", "last_error": "500 boom"}, f"500 boom; {AS_OF}"),
        ({"state": "unverified"}, f"not proven yet; {AS_OF}"),
        ({"state": "forbidden", "age_s": None, "verified_at": None}, "4,000 rows, never proven"),
    ],
)
def test_rows_that_nobody_verifies_any_more_need_attention(changes: dict[str, Any], why: str) -> None:
    what = status(replace(PODS, resource="secrets", **({"age_s": 7200.0} | changes)))
    assert not what.is_healthy
    assert [(found.resource, reason) for found, reason in what.attention] == [("secrets", why)]
    assert why in shown(what)


# Consumers


def consumed(consumers: Consumers, *lags: int) -> Status:
    partitions = [Partition("t", number, 100, 100 + lag) for number, lag in enumerate(lags)]
    return replace(status(), partitions=partitions, consumers=consumers)


@pytest.mark.parametrize(
    ("consumers", "lags", "words"),
    [
        (CONSUMERS, (0, 0), "consumers: 2 in group us, 2 of 2 partitions held"),
        (CONSUMERS, (37_000, 728), "consumers: 2 in group us, 2 of 2 partitions held"),
        (NOBODY, (0, 0), "consumers: none in group us"),
        (replace(NOBODY, state="unknown", members=None, error="no rights"), (9, 9), "consumers: unknown: no rights"),
    ],
)
def test_consumers_are_shown_and_well(consumers: Consumers, lags: tuple[int, ...], words: str) -> None:
    what = consumed(consumers, *lags)
    assert what.is_healthy
    assert words in shown(what)


@pytest.mark.parametrize(
    ("consumers", "lags", "why"),
    [
        (NOBODY, (37_000, 728), "37,728 messages wait and no consumer holds a partition"),
        (NOBODY, (0, 1), "1 message waits and no consumer holds a partition"),
        (replace(NOBODY, members=3), (9, 9), "18 messages wait and no consumer holds a partition"),
        (CONSUMERS, (5, 0, 7, 8), "15 messages wait in partitions that no consumer holds: t-2, t-3"),
        (
            replace(NOBODY, owner="them"),
            (9,),
            "9 messages wait and no consumer holds a partition"
            " (KAFKA_GROUP_ID is 'us', but this database belongs to group 'them')",
        ),
    ],
)
def test_what_waits_for_nobody_needs_attention(consumers: Consumers, lags: tuple[int, ...], why: str) -> None:
    what = consumed(consumers, *lags)
    assert not what.is_healthy
    assert why in shown(what)
    assert shown(what).endswith("needs attention\n")
    report = what.as_json()["consumers"]
    assert (report["why"], report["members"], report["held"]) == (
        why,
        consumers.members,
        [f"{topic}-{number}" for topic, number in sorted(consumers.held)],
    )


def test_a_rebalance_that_does_not_end_is_named() -> None:
    what = consumed(replace(NOBODY, state="PreparingRebalance", members=3), 9)
    assert "consumers: 3 in group us, 0 of 1 partitions held (PreparingRebalance)" in shown(what)


def test_scripts_learn_why_nothing_is_known_of_consumers() -> None:
    unknown = consumed(replace(NOBODY, state="unknown", members=None, error="no rights"), 9)
    assert unknown.as_json()["consumers"] == {
        "group": "us", "state": "unknown", "members": None, "held": None, "error": "no rights", "why": "",
    }  # fmt: skip
    assert status().as_json()["consumers"] is None


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
    report = orjson.loads(orjson.dumps(status(replace(PODS, reach="one", state="failed", last_error="gone")).as_json()))
    assert report["healthy"] is False
    assert report["attention"] == [
        {"cluster": "prod", "api_group": "", "resource": "pods", "reach": "one", "why": "gone"}
    ]
    assert report["clusters"][0]["last_seen"] == "2026-11-22T12:00:00+00:00"
    assert len(report["kinds"]) == 2


@pytest.mark.parametrize("consumers", [None, CONSUMERS, replace(CONSUMERS, error="not allowed", members=None)])
def test_json_is_what_its_schema_says(consumers: Consumers | None) -> None:
    """StatusDocument is what docs/schemas is made of; it refuses fields that it does not know."""
    failed = replace(PODS, reach="one", state="failed", last_error="gone", verified_at=None, age_s=None, objects=None)
    report = orjson.dumps(replace(status(failed), consumers=consumers).as_json())
    assert (
        orjson.loads(StatusDocument.model_validate_json(report).model_dump_json()).keys() == orjson.loads(report).keys()
    )


def test_durations_are_short() -> None:
    assert [short_duration(s) for s in (-1, 0, 59.9, 60, 7199, 90000)] == ["0s", "0s", "59s", "1m", "1h", "1d"]
