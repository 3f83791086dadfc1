"""Observations become log lines of the documented form, metrics, and readiness."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import structlog

from clusterinfo import observations as seen
from clusterinfo.telemetry import logs
from clusterinfo.telemetry.server import Telemetry
from tests.unit.telemetry.observed import all_observations

RETRYING = seen.Retrying(lane="pods", step="write", error="PostgreSQL is away", wait_s=1)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("clusterinfo")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], root.level, ours.level = before
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def _lines(captured: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in captured.splitlines()]


def test_every_observation_has_a_line_and_passes_the_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("debug", "json")
    observer = Telemetry(logs.log_observation)
    for observation in all_observations():
        observer.observe(observation)
    lines = _lines(capsys.readouterr().err)
    assert len(lines) == len(all_observations())
    assert all(list(line)[:3] == ["level", "msg", "timestamp"] for line in lines)


def test_what_was_sent_to_kafka_is_logged_as_the_guide_says(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("info", "json")
    logs.log_observation(
        seen.Produced(topic="cluster-info", partition=0, offset=12345, size_bytes=1024000, records=3, resource="pods")
    )
    (line,) = _lines(capsys.readouterr().err)
    guide = {"level": "info", "msg": "Cluster info sent to Kafka", "topic": "cluster-info", "partition": 0}
    assert line.items() >= (guide | {"offset": 12345, "size": 1024000}).items()
    assert line["timestamp"].endswith("Z")


def test_a_kind_that_was_removed_on_purpose_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("info", "json")
    observer = Telemetry(logs.log_observation)
    observer.observe(seen.UnitGone(cluster="a", resource="widgets.example.com", deleted=2))
    (line,) = _lines(capsys.readouterr().err)
    assert (line["level"], line["resource"], line["deleted"]) == ("info", "widgets.example.com", 2)
    counted = [family for family in observer.metrics.registry.collect() if family.name == "clusterinfo_errors"]
    assert [sample for family in counted for sample in family.samples] == []


def test_lines_of_a_cluster_name_it_and_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    """A collector's from the connection on; of a consumer those that are about a cluster."""
    logs.configure_logging("info", "json")
    logs.log_observation(seen.UnitGone(cluster="id-2", resource="widgets", deleted=0, cluster_name="south"))
    logs.log_observation(seen.UnitGone(cluster="id-2", resource="widgets", deleted=0))
    logs.log_observation(seen.Connected(cluster="north", cluster_id="id-1"))
    logs.log_observation(seen.Noted(message="created"))
    logs.log_observation(seen.Discovered(cluster="north", units=1, excluded=0))
    logging.getLogger("aiokafka").warning("slow")
    lines = _lines(capsys.readouterr().err)
    north = ("north", "id-1")
    assert [(line["cluster"], line["cluster_id"]) for line in lines] == [
        ("south", "id-2"),
        ("id-2", "id-2"),
        *[north] * 4,
    ]
    assert "cluster_name" not in str(lines)


def test_what_is_no_news_is_for_debugging(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("debug", "json")
    for is_news in (True, False):
        logs.log_observation(seen.Discovered(cluster="north", units=1, excluded=0, is_news=is_news))
    lines = _lines(capsys.readouterr().err)
    assert [line["level"] for line in lines] == ["info", "debug"]
    assert "is_news" not in lines[1]


def test_seconds_are_rounded_to_milliseconds(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("info", "json")
    logs.log_observation(seen.Stopped(command="collect", reason="all is done", seconds=0.1034307230002014))
    assert _lines(capsys.readouterr().err)[0]["seconds"] == 0.103


def test_for_people_nothing_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("info", "console")
    logs.log_observation(seen.Discovered(cluster="north", units=0, excluded=2, failing=()))
    logs.log_observation(seen.PartitionsRevoked(partitions=("t-0", "t-1")))
    logs.log_observation(seen.PartitionsAssigned(partitions=()))
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.split("serves")[1].split() == ["cluster=north", "excluded=2", "units=0"]
    assert second.endswith("partitions='t-0, t-1'")
    assert third.endswith(logs.NO_PARTITION)


def test_levels_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("warning", "json")
    logs.log_observation(seen.Noted(message="quiet"))
    logs.log_observation(seen.Warned(message="loud", remedy="do this"))
    assert [(line["msg"], line["remedy"]) for line in _lines(capsys.readouterr().err)] == [("loud", "do this")]


def test_userinfo_never_reaches_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("info", "json")
    logs.log_error("cannot reach https://admin:hunter2@proxy:3128/x")
    assert "hunter2" not in (out := capsys.readouterr().err)
    assert "https://***@proxy:3128/x" in out


def test_libraries_are_heard_five_times_in_ten_seconds_and_without_tracebacks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure_logging("info", "json")
    try:
        raise ValueError("inner")
    except ValueError:
        for number in range(50):
            logging.getLogger("aiokafka.conn").exception("broken %d", number)
    logging.getLogger("aiokafka.conn").info("chatter")
    lines = _lines(capsys.readouterr().err)
    assert [line["msg"] for line in lines] == [f"broken {number}" for number in range(5)]
    assert "Traceback" not in str(lines)
