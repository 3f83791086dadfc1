"""Prometheus reads what compose/ ships for it, every query runs on one that scrapes the program's metrics, and alerts
fire when they should."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args, get_type_hints

import aiohttp
import pytest
import yaml
from prometheus_client import generate_latest

from clusterinfo.observations import Observation
from clusterinfo.sandbox.processes import free_port
from clusterinfo.settings import load
from clusterinfo.telemetry import metrics
from clusterinfo.telemetry.server import Telemetry
from tests.deploy.conftest import Run
from tests.support.deployed import ROOT
from tests.support.monitoring import ALERTS, promql
from tests.support.programs import started

SHIPPED = ROOT / "compose/prometheus"
VALUES: dict[Any, Any] = {str: "x", int: 100_000, float: 1.0, bool: True, dt.datetime: dt.datetime.now(dt.UTC)}


def test_prometheus_accepts_its_configuration(tool: Run) -> None:
    assert f"{len(ALERTS)} rules found" in tool("promtool", "check", "config", SHIPPED / "prometheus.yaml")


def test_names_and_types_of_metrics_keep_the_conventions(tool: Run, tmp_path: Path) -> None:
    """promtool's linter says nothing of what is served."""
    telemetry = Telemetry()
    observe_everything(telemetry)
    (tmp_path / "metrics").write_bytes(generate_latest(telemetry.metrics.registry))
    assert tool("sh", "-c", f"promtool check metrics <{tmp_path / 'metrics'} 2>&1") == ""


# Every query runs


def observation(kind: type[Observation]) -> Observation:
    """One of that sort, filled with anything."""
    hints = get_type_hints(kind)
    return kind(**{one.name: example(hints[one.name]) for one in dataclasses.fields(kind) if one.init})


def example(hint: Any) -> Any:
    """A value of that type."""
    if hint in VALUES:
        return VALUES[hint]
    return example(get_args(hint)[0]) if get_args(hint) and hint.__class__.__name__ == "UnionType" else hint()


def observe_everything(telemetry: Telemetry) -> None:
    """Everything that is counted, once; assigned partitions before their lag, which a new assignment forgets."""
    for kind in dict.fromkeys((*metrics._COUNTERS, *metrics._ERROR_CLASSES)):
        telemetry.metrics.observe(observation(kind))


@asynccontextmanager
async def scraping(targets: dict[str, str], folder: Path) -> AsyncIterator[str]:
    """Prometheus with the shipped alerts and these targets (job -> address) every second; its address."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(SHIPPED / "alerts.yaml")],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [address]}]} for job, address in targets.items()
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    flags = {
        "config.file": folder / "prometheus.yaml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": address,
    }
    argv = ("prometheus", *(f"--{name}={value}" for name, value in flags.items()))
    async with started(argv, {}) as program:
        await program.wait_for_output("Server is ready to receive web requests")
        yield f"http://{address}"


async def ask(session: aiohttp.ClientSession, server: str, query: str) -> list[Any]:
    async with session.get(f"{server}/api/v1/query", params={"query": query}) as response:
        answer = await response.json()
        assert answer["status"] == "success", (query, answer)
        assert not answer.get("warnings"), (query, answer)
        found = answer["data"]["result"]
        assert isinstance(found, list)
        return found


async def test_every_query_runs_and_those_of_dashboards_show_something(tmp_path: Path) -> None:
    telemetry = Telemetry()
    address = f"127.0.0.1:{free_port()}"
    settings = load({"METRICS_ADDRESS": address})
    async with (
        telemetry.served(settings, wanted=True),
        scraping({"collector": address, "consumer": address}, tmp_path) as server,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
    ):
        async with asyncio.timeout(60):
            while not await ask(session, server, "count_over_time(clusterinfo_batches_total[1m]) > 4"):
                observe_everything(telemetry)
                await asyncio.sleep(0.5)
        found = {where: await ask(session, server, query) for where, query in promql()}
    assert len(found) > 20
    assert [where for where, result in found.items() if not result and not where.startswith("alert: ")] == []


# Alerts


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    written = ", ".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{written}}}", "values": values}


SILENT: list[dict[str, str]] = [
    series("up", "1x120", job="consumer", instance="c"),
    series("clusterinfo_last_snapshot_timestamp_seconds", "0+60x120", cluster="a"),
    series("clusterinfo_last_verified_timestamp_seconds", "0+60x120", cluster="a", resource="pods"),
    # Proven by the consumer that has the partition now; another one had it before and stopped.
    series("clusterinfo_last_verified_timestamp_seconds", "0x120", cluster="a", resource="pods", instance="old"),
    series("clusterinfo_lag_records", "90000-500x120", topic="t", partition="0"),
    series("clusterinfo_batches_total", "0+10x120"),
    series("clusterinfo_offset_gaps_total", "0x120"),
    series("clusterinfo_dead_letters_total", "3x120"),
    series("clusterinfo_dead_letters_dropped_total", "3x120"),
    series("clusterinfo_foreign_records_total", "3x120", topic="t"),
    series("clusterinfo_list_seconds_count", "0+1x120", resource="pods", outcome="completed"),
    series("clusterinfo_list_seconds_count", "0x10 1x110", resource="nodes", outcome="failed"),
    series("clusterinfo_retries_total", "0+1x120", job="consumer", step="write"),
]
"""Two hours, a value a minute, of a pipeline that works: its lag shrinks, one list failed, now and then a retry."""

FIRING: dict[str, list[dict[str, str]]] = {
    "ClusterinfoDown": [series("up", "1 0 0 0 " * 30, job="consumer", instance="c")],
    "ClusterinfoNoConsumer": [series("up", "1x90 _x30", job="consumer", instance="c")],
    "ClusterinfoNotCollected": [series("clusterinfo_last_snapshot_timestamp_seconds", "6000x120", cluster="a")],
    "ClusterinfoNotVerified": [
        series("clusterinfo_last_verified_timestamp_seconds", "3000x120", cluster="a", resource="pods")
    ],
    "ClusterinfoLagGrows": [series("clusterinfo_lag_records", "0+1000x120", topic="t", partition="0")],
    "ClusterinfoNothingStored": [
        series("clusterinfo_lag_records", "10x120", topic="t", partition="0"),
        series("clusterinfo_batches_total", "7x120"),
    ],
    "ClusterinfoRecordsMissing": [series("clusterinfo_offset_gaps_total", "0x100 1x20")],
    "ClusterinfoDeadLetters": [series("clusterinfo_dead_letters_total", "0x100 2x20")],
    "ClusterinfoDeadLettersDropped": [series("clusterinfo_dead_letters_dropped_total", "0x100 2x20")],
    "ClusterinfoForeignRecords": [series("clusterinfo_foreign_records_total", "0x100 2x20", topic="t")],
    "ClusterinfoListsFail": [series("clusterinfo_list_seconds_count", "0+0.2x120", resource="pods", outcome="failed")],
    "ClusterinfoRetries": [series("clusterinfo_retries_total", "0+12x120", job="consumer", step="write")],
}
"""Alert -> the two hours at whose end it fires."""


def expectation(rule: dict[str, Any], fires: bool) -> dict[str, Any]:
    return {"eval_time": "2h", "alertname": rule["alert"], "exp_alerts": [{}] if fires else []}


def fires(alert: str, count: int) -> dict[str, Any]:
    """At the end of the two hours there are `count` alerts of this name.

    Asked by the metric that Prometheus keeps of its alerts, since promtool's own way compares texts too.
    """
    return {
        "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)',
        "eval_time": "2h",
        "exp_samples": [{"labels": "{}", "value": count}],
    }


def checked(tool: Run, folder: Path, tests: list[dict[str, Any]]) -> None:
    document = {"rule_files": [str(SHIPPED / "alerts.yaml")], "evaluation_interval": "1m", "tests": tests}
    (folder / "test.yaml").write_text(yaml.safe_dump(document))
    tool("promtool", "test", "rules", folder / "test.yaml")


def test_a_pipeline_that_works_raises_no_alert(tool: Run, tmp_path: Path) -> None:
    expected = [expectation(rule, fires=False) for rule in ALERTS]
    checked(tool, tmp_path, [{"interval": "1m", "input_series": SILENT, "alert_rule_test": expected}])


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_fires(rule: dict[str, Any], tool: Run, tmp_path: Path) -> None:
    expected = fires(rule["alert"], 1)
    checked(
        tool,
        tmp_path,
        [{"interval": "1m", "input_series": FIRING[rule["alert"]], "promql_expr_test": [expected]}],
    )


@pytest.mark.parametrize(
    ("consumers", "down", "gone"),
    [
        (["1x120"], 0, 0),
        (["1x60 0x60"], 1, 0),
        (["1x60 _x60"], 0, 1),
        (["1x120", "1x60 _x60"], 0, 0),
        (["1x114 _x6"], 0, 0),
        ([], 0, 1),
    ],
    ids=["well", "down", "vanished", "one-of-two-vanished", "replaced", "never-there"],
)
def test_a_consumer_that_vanishes_is_missed_as_one_that_is_down(
    consumers: list[str], down: int, gone: int, tool: Run, tmp_path: Path
) -> None:
    ups = [series("up", values, job="consumer", instance=f"c{number}") for number, values in enumerate(consumers)]
    ups.append(series("up", "1x120", job="collector", instance="a"))
    expected = [fires("ClusterinfoDown", down), fires("ClusterinfoNoConsumer", gone)]
    checked(tool, tmp_path, [{"interval": "1m", "input_series": ups, "promql_expr_test": expected}])
