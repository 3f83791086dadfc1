"""The queries that compose/ ships: those of Grafana's dashboards and of Prometheus' alerts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.support.deployed import ROOT

DASHBOARDS = {
    path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "k8s/components/dashboards").glob("*.json"))
}
ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.load((ROOT / "compose/prometheus/alerts.yaml").read_text(), yaml.CSafeLoader)["groups"]
    for rule in group["rules"]
]


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    """(`dashboard: panel`, query) of every query of every dashboard, those that fill a variable too."""
    for dashboard in DASHBOARDS.values():
        for variable in dashboard["templating"]["list"]:
            query = {"rawSql": variable["query"], "datasource": variable["datasource"]}
            yield f"{dashboard['title']}: variable {variable['name']}", query
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                yield f"{dashboard['title']}: {panel['title']}", target


def promql() -> list[tuple[str, str]]:
    """(where, PromQL) of dashboards and alerts, with Grafana's variables filled in."""
    shown = [(where, target["expr"]) for where, target in targets() if "expr" in target]
    filled = [(where, expr.replace("$__rate_interval", "1m").replace("$__range", "1h")) for where, expr in shown]
    return filled + [(f"alert: {rule['alert']}", rule["expr"]) for rule in ALERTS]


def sql(clusters: list[str]) -> list[tuple[str, str]]:
    """(where, SQL) of the dashboards, with Grafana's macros and variables filled in: `clusters` are those chosen."""
    quoted = ", ".join(f"'{name}'" for name in clusters)
    found = []
    for where, target in targets():
        if "rawSql" in target:
            query = target["rawSql"].replace("${cluster:sqlstring}", quoted)
            query = re.sub(r"\$__timeFilter\(([^)]*)\)", r"\1 between now() - interval '1 day' and now()", query)
            query = query.replace("$__timeFrom()", "'2020-01-01T00:00:00Z'").replace("$__timeTo()", "now()")
            found.append((where, query))
    return found
