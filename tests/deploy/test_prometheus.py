"""Prometheus reads what compose/ ships for it, every query runs on one that scrapes the program's metrics, and alerts
fire when they should."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args, get_type_hints

import aiohttp
import msgspec
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
    return kind(**{one.name: example(hints[one.name]) for one in msgspec.structs.fields(kind)})


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
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
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
    series("clusterinfo_collect_interval_seconds", "300x120", cluster="a"),
    series("clusterinfo_last_snapshot_timestamp_seconds", "0+60x90 5400x30", cluster="rare"),
    series("clusterinfo_collect_interval_seconds", "3600x120", cluster="rare"),
    # With an interval of seconds one run that takes its time is nobody's alarm.
    series("clusterinfo_last_snapshot_timestamp_seconds", "-100+60x120", cluster="short"),
    series("clusterinfo_collect_interval_seconds", "10x120", cluster="short"),
    series("clusterinfo_leader", "1x60 0x60", cluster="a", lease="l", instance="a1"),
    series("clusterinfo_leader", "0x61 1x59", cluster="a", lease="l", instance="a2"),
    # One of two is spare. A collector has the metric, too.
    series("clusterinfo_assigned_partitions", "12x120", job="consumer", instance="c"),
    series("clusterinfo_assigned_partitions", "0x120", job="consumer", instance="spare"),
    series("clusterinfo_assigned_partitions", "0x120", job="collector", instance="a"),
    series("clusterinfo_last_verified_timestamp_seconds", "0+60x120", cluster="a", resource="pods"),
    # Proven by the consumer that has the partition now; another one had it before and stopped.
    series("clusterinfo_last_verified_timestamp_seconds", "0x120", cluster="a", resource="pods", instance="old"),
    series("clusterinfo_lag_records", "90000-500x120", topic="t", partition="0"),
    series("clusterinfo_batches_total", "0+10x120"),
    series("clusterinfo_delay_seconds_bucket", "0+99x120", resource="pods", le="0.25"),
    series("clusterinfo_delay_seconds_bucket", "0+100x120", resource="pods", le="5"),
    series("clusterinfo_delay_seconds_bucket", "0+100x120", resource="pods", le="+Inf"),
    series("clusterinfo_drift_total", "3x120", resource="pods"),
    series("clusterinfo_watches_failing", "0x60 2x5 0x55"),
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
    "ClusterinfoNoPartitions": [
        series("up", "1x120", job="consumer", instance="c"),
        series("clusterinfo_assigned_partitions", "12x100 0x20", job="consumer", instance="c"),
        series("clusterinfo_assigned_partitions", "0x120", job="consumer", instance="d"),
    ],
    "ClusterinfoNotCollected": [
        series("clusterinfo_last_snapshot_timestamp_seconds", "6000x120", cluster="a"),
        series("clusterinfo_collect_interval_seconds", "300x120", cluster="a"),
    ],
    "ClusterinfoNobodyLeads": [
        series("clusterinfo_leader", "1x100 0x20", cluster="a", lease="l", instance="a1"),
        series("clusterinfo_leader", "0x120", cluster="a", lease="l", instance="a2"),
    ],
    "ClusterinfoNotVerified": [
        series("clusterinfo_last_verified_timestamp_seconds", "3000x120", cluster="a", resource="pods")
    ],
    "ClusterinfoLagGrows": [series("clusterinfo_lag_records", "0+1000x120", topic="t", partition="0")],
    "ClusterinfoDelayed": [
        series("clusterinfo_delay_seconds_bucket", "0+95x120", resource="pods", le="5"),
        series("clusterinfo_delay_seconds_bucket", "0+100x120", resource="pods", le="30"),
        series("clusterinfo_delay_seconds_bucket", "0+100x120", resource="pods", le="+Inf"),
    ],
    "ClusterinfoDrift": [series("clusterinfo_drift_total", "0x100 1x20", resource="pods")],
    "ClusterinfoWatchesFail": [series("clusterinfo_watches_failing", "0x100 1x20")],
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


REST = ("offset_gaps", "dead_letters", "dead_letters_dropped", "foreign_records")


def counters(values: str, instance: str) -> list[dict[str, str]]:
    """Those that count nothing while all is well."""
    return [series(f"clusterinfo_{name}_total", values, job="consumer", instance=instance) for name in REST]


ROLLING: list[dict[str, str]] = [
    # Two consumers, replaced one after the other at 30 and 33 minutes: new ones do not answer at once, and hold nothing
    # until the group has come to rest.
    *[
        series(name, f"_x{begins} {values}", job="consumer", instance=instance)
        for instance, begins, up, held, batches, lag in [
            ("c1", 0, "1x30", "6x29 0", "0+9x30", "100x30"),
            ("c2", 0, "1x33", "6x30 12 12 0", "0+9x33", "100x33"),
            ("c3", 30, "0 1x31", "_ 0 0 6x29", "_ 0 0 0+9x29", "_ _ _ 4000-130x29"),
            ("c4", 33, "0 1x28", "_ 0 0 6x26", "_ 0 0 0+9x26", "_ _ _ 4000-150x26"),
        ]
        for name, values in {
            "up": up,
            "clusterinfo_assigned_partitions": held,
            "clusterinfo_batches_total": batches,
            "clusterinfo_lag_records": lag,
        }.items()
    ],
    # The collector is replaced as well: its first run ends after five minutes.
    series("up", "1x35", job="collector", instance="a1"),
    series("up", "_x35 0 1x25", job="collector", instance="a2"),
    series("clusterinfo_last_snapshot_timestamp_seconds", "0+60x35", cluster="a", instance="a1"),
    series(
        "clusterinfo_last_snapshot_timestamp_seconds", "_x40 2400+60x20", cluster="a", job="collector", instance="a2"
    ),
    series("clusterinfo_collect_interval_seconds", "300x35", cluster="a", instance="a1"),
    series("clusterinfo_collect_interval_seconds", "_x40 300x20", cluster="a", instance="a2"),
    series("clusterinfo_assigned_partitions", "0x60", job="collector", instance="a1"),
    # Proven again by those that have the partitions now.
    *[
        series("clusterinfo_last_verified_timestamp_seconds", values, cluster="a", resource="pods", instance=instance)
        for instance, values in {"c1": "0+60x30", "c3": "_x41 2460+60x19"}.items()
    ],
    # What is in hand is tried again here and there.
    series("clusterinfo_retries_total", "0x29 1 2 2", job="consumer", step="write", instance="c1"),
    series("clusterinfo_retries_total", "_x31 0 1 1x27", job="consumer", step="claim", instance="c3"),
    series("clusterinfo_list_seconds_count", "0+1x35", resource="pods", outcome="completed", instance="a1"),
    series("clusterinfo_list_seconds_count", "_x36 0 1x24", resource="pods", outcome="failed", instance="a2"),
    *[one for instance in ("c3", "c4") for one in counters("_x34 0x26", instance)],
    *[one for instance in ("c1", "c2") for one in counters("0x30", instance)],
]
"""An hour, a value a minute, of a pipeline that works and is replaced, process by process, in the middle of it."""


def test_a_rolling_restart_raises_no_alert(tool: Run, tmp_path: Path) -> None:
    firing = 'count(ALERTS{alertstate="firing"}) or vector(0)'
    expected = [
        {"expr": firing, "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": 0}]}
        for minute in range(61)
    ]
    checked(tool, tmp_path, [{"interval": "1m", "input_series": ROLLING, "promql_expr_test": expected}])


@pytest.mark.parametrize(
    ("last", "count"),
    [("0+60x105 _x15", 0), ("0+60x103 _x17", 1), ("_x100 6000+60x20", 0), ("6000x104 _x4 7200x12", 0)],
    ids=["gone for 14 minutes", "gone for 17 minutes", "new", "replaced"],
)
def test_a_collector_that_vanishes_is_missed(last: str, count: int, tool: Run, tmp_path: Path) -> None:
    """Its metrics are gone with it, those of consumers say so after an hour only."""
    given = [
        series("clusterinfo_last_snapshot_timestamp_seconds", last, cluster="a"),
        series("clusterinfo_collect_interval_seconds", "300x100 _x20", cluster="a"),
    ]
    checked(
        tool,
        tmp_path,
        [{"interval": "1m", "input_series": given, "promql_expr_test": [fires("ClusterinfoNotCollected", count)]}],
    )
