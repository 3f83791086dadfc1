"""What is counted of what was observed."""

from __future__ import annotations

from typing import Any

from clusterinfo import __version__
from clusterinfo.telemetry.metrics import Metrics
from tests.unit.telemetry.observed import all_observations


def test_what_a_process_observes_is_counted_by_what_it_made_it_do() -> None:
    metrics = Metrics()
    for observation in all_observations():
        metrics.observe(observation)
    classes = {sample.labels["class"]: sample.value for sample in _samples(metrics, "clusterinfo_errors_total")}
    assert classes == {"retry": 2, "restart": 4, "release": 1, "dead_letter": 1, "unreadable": 1, "fail_kind": 1}
    (lag,) = _samples(metrics, "clusterinfo_lag_records")
    assert (lag.labels, lag.value) == ({"topic": "x", "partition": "1"}, 1)


def test_every_metric_is_set_by_some_observation() -> None:
    metrics = Metrics()
    before = {name for name in _set(metrics) if not name.startswith(("process_", "clusterinfo_build_info"))}
    for observation in all_observations():
        metrics.observe(observation)
    after = {family.name for family in metrics.registry.collect() if any(sample.value for sample in family.samples)}
    assert before == {sample for sample in before if sample.endswith("_created")}, (
        "nothing is counted before it happens"
    )
    assert after == {family.name for family in metrics.registry.collect()}


def test_a_process_says_what_it_is_and_takes() -> None:
    metrics = Metrics()
    (build,) = _samples(metrics, "clusterinfo_build_info")
    assert (build.labels, build.value) == ({"version": __version__}, 1)
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"} <= _set(metrics)


def _set(metrics: Metrics) -> set[str]:
    """Names of the samples that are not 0."""
    return {sample.name for family in metrics.registry.collect() for sample in family.samples if sample.value}


def _samples(metrics: Metrics, name: str) -> list[Any]:
    return [sample for family in metrics.registry.collect() for sample in family.samples if sample.name == name]
