"""Observations become log lines of the documented form, metrics, and readiness."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any, get_type_hints

import aiohttp
import orjson
import pytest
import structlog

from clusterinfo import observations as seen
from clusterinfo.errors import ConfigError
from clusterinfo.observations import Observation
from clusterinfo.settings import load
from clusterinfo.telemetry import logs
from clusterinfo.telemetry.metrics import Metrics
from clusterinfo.telemetry.probes import STEP

RETRYING = seen.Retrying(lane="pods", step="write", error="PostgreSQL is away", wait_s=1)
VALUES: dict[Any, Any] = {str: "x", int: 1, float: 0.5, tuple[str, ...]: ("x",), tuple[int, ...]: (1,)}


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("clusterinfo")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], root.level, ours.level = before
    structlog.reset_defaults()


def _lines(captured: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in captured.splitlines()]


def _all_observations() -> list[Observation]:
    kinds = [kind for kind in vars(seen).values() if isinstance(kind, type) and issubclass(kind, Observation)]
    return [
        kind(**{field.name: VALUES[get_type_hints(kind)[field.name]] for field in dataclasses.fields(kind)})
        for kind in kinds
        if kind is not Observation
    ]


def test_every_observation_has_a_line_and_passes_the_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("debug", "json")
    observer = logs.Telemetry(logs.log_observation)
    for observation in _all_observations():
        observer.observe(observation)
    lines = _lines(capsys.readouterr().err)
    assert len(lines) == len(_all_observations())
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


def test_what_a_process_observes_is_counted_by_what_it_made_it_do() -> None:
    metrics = Metrics()
    for observation in _all_observations():
        metrics.observe(observation)
    classes = {sample.labels["class"]: sample.value for sample in _samples(metrics, "clusterinfo_errors_total")}
    assert classes == {"retry": 1, "restart": 3, "let_go": 1, "set_aside": 2, "fail_kind": 1}
    (lag,) = _samples(metrics, "clusterinfo_lag_records")
    assert (lag.labels, lag.value) == ({"topic": "x", "partition": "1"}, 1)


def test_a_kind_that_was_removed_on_purpose_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("info", "json")
    observer = logs.Telemetry(logs.log_observation)
    observer.observe(seen.UnitGone(cluster="a", resource="widgets.example.com", deleted=2))
    (line,) = _lines(capsys.readouterr().err)
    assert (line["level"], line["resource"], line["deleted"]) == ("info", "widgets.example.com", 2)
    assert _samples(observer.metrics, "clusterinfo_errors_total") == []


def test_every_metric_is_set_by_some_observation() -> None:
    metrics = Metrics()
    before = {sample.name for family in metrics.registry.collect() for sample in family.samples if sample.value}
    for observation in _all_observations():
        metrics.observe(observation)
    after = {family.name for family in metrics.registry.collect() if any(sample.value for sample in family.samples)}
    assert before == {sample for sample in before if sample.endswith("_created")}, (
        "nothing is counted before it happens"
    )
    assert after == {family.name for family in metrics.registry.collect()}


def _samples(metrics: Metrics, name: str) -> list[Any]:
    return [sample for family in metrics.registry.collect() for sample in family.samples if sample.name == name]


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


def test_readiness_follows_failing_steps() -> None:
    health = logs.Health()
    health.observe(RETRYING)
    assert health.failing == {("pods", "write"): "PostgreSQL is away"}
    health.observe(seen.Recovered(lane="pods", step="write", attempts=2))
    assert health.failing == {}
    health.observe(RETRYING)
    health.observe(seen.LaneEnded(lane="other"))
    assert health.failing
    health.observe(seen.LaneEnded(lane="pods"))
    assert health.failing == {}, "a lane that ended while a step failed does not fail for ever"


async def test_liveness_fails_only_while_a_lane_is_stuck_for_good(unused_tcp_port: int) -> None:
    observer = logs.Telemetry()
    settings = load({}, metrics_address=f"127.0.0.1:{unused_tcp_port}")

    async def healthz(http: aiohttp.ClientSession) -> tuple[int, str]:
        async with http.get(f"http://127.0.0.1:{unused_tcp_port}/healthz") as answer:
            return answer.status, await answer.text()

    async with observer.served(settings, wanted=True), aiohttp.ClientSession() as http:
        observer.observe(RETRYING)
        assert await healthz(http) == (200, "ok\n"), "what may pass is no reason to start anew"
        observer.observe(seen.Stuck(lane="topic-3", offset=7, rebuilt=2))
        assert await healthz(http) == (503, "topic-3: nothing comes from Kafka, which has more\n")
        observer.observe(seen.Freed(lane="topic-3"))
        assert await healthz(http) == (200, "ok\n")


@pytest.mark.parametrize("address", ["8080", ":x", ":70000", "localhost"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(ConfigError, match="METRICS_ADDRESS"):
        logs.parse_address(address)


async def test_the_endpoints_answer(unused_tcp_port: int) -> None:
    observer = logs.Telemetry()
    settings = load({}, metrics_address=f"127.0.0.1:{unused_tcp_port}")
    url = f"http://127.0.0.1:{unused_tcp_port}"
    async with observer.served(settings, wanted=True), aiohttp.ClientSession() as http:
        observer.observe(seen.PageListed(resource="pods", reach="", items=7, size_bytes=100))
        async with http.get(f"{url}/metrics") as answer:
            assert 'clusterinfo_listed_objects_total{resource="pods"} 7.0' in await answer.text()
        async with http.get(f"{url}/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "not connected yet\n")
        async with http.get(f"{url}/healthz") as answer:
            assert answer.status == 200, "what starts is alive"
        observer.observe(seen.Connected())
        async with http.get(f"{url}/readyz") as answer:
            assert answer.status == 200
        observer.observe(RETRYING)
        async with http.get(f"{url}/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "pods, write: PostgreSQL is away\n")
        async with http.get(f"{url}/healthz") as answer:
            assert answer.status == 200, "a database that is away is no reason to be restarted"


def test_a_run_of_lists_that_stands_still_is_not_alive() -> None:
    """Every step of it has a deadline, so none is known that does; another process is the last resort."""
    now_s = 0.0
    health = logs.Health(clock=lambda: now_s)
    run = seen.Discovered(cluster="a", units=2, excluded=0)
    ended = seen.SnapshotEnded(cluster="a", kinds=2, failed=0, forbidden=0, objects=0, size_bytes=0, seconds=1)
    health.observe(run)
    now_s += logs.SILENT_S
    health.observe(seen.PageListed(resource="pods", reach="", items=1, size_bytes=1))
    now_s += logs.SILENT_S
    assert health.complaints == []
    health.observe(seen.Retrying(lane="Kafka", step=STEP, error="away", wait_s=1))
    now_s += 1
    assert health.complaints == ["a: its run of lists has stood still for 601 s"], "asking is not moving"
    health.observe(RETRYING)
    assert health.complaints == [], "what is tried again is not stuck"
    health.observe(ended)
    now_s += 100 * logs.SILENT_S
    assert health.complaints == [], "between two runs nothing has to move"


def test_readiness_follows_runs_of_lists() -> None:
    health = logs.Health()
    failed = seen.RunFailed(cluster="a", error="the API cannot be reached", wait_s=1)
    health.observe(failed)
    assert health.failing == {("a", "run of lists"): "the API cannot be reached"}
    health.observe(seen.SnapshotEnded(cluster="a", kinds=0, failed=0, forbidden=0, objects=0, size_bytes=0, seconds=1))
    assert health.failing == {}
