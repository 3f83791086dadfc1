"""Dashboards and alerts name metrics that are served, with labels they have, and data sources that are provisioned.

Every SQL runs in tests/integration/test_dashboards.py, every PromQL in tests/deploy, on a Prometheus.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from prometheus_client import Histogram

from clusterinfo.telemetry.metrics import Metrics
from tests.support.deployed import COMPOSE, ROOT
from tests.support.documents import anchors
from tests.support.monitoring import ALERTS, DASHBOARDS, promql, sql, targets

PROVISIONING = ROOT / "compose/grafana/provisioning"
GIVEN_LABELS = {"job", "instance", "le"}
"""Labels that Prometheus itself, or a histogram, gives."""

OF_ANY_PROCESS = {
    sample.name for family in Metrics().registry.collect() for sample in family.samples if family.name[:8] == "process_"
}


def served() -> dict[str, set[str]]:
    """Name of each sample that /metrics can have -> its labels."""
    metrics = Metrics()
    found: dict[str, set[str]] = {}
    for metric in vars(metrics).values():
        for described in metric.describe() if hasattr(metric, "describe") else ():
            suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(described.type, [""])
            found |= {described.name + suffix: set(metric._labelnames) for suffix in suffixes}
            assert isinstance(metric, Histogram) is (described.type == "histogram")
    return found | {name: set() for name in OF_ANY_PROCESS}


@pytest.mark.parametrize(("where", "query"), promql(), ids=[where for where, _ in promql()])
def test_every_metric_is_served_and_has_the_labels(where: str, query: str) -> None:
    known = served()
    named = set(re.findall(r"\b(?:clusterinfo|process)_\w+", query))
    assert named or "up{" in query, where
    assert named <= known.keys(), where
    labels = GIVEN_LABELS.union(*(known[name] for name in named))
    used = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", query) for label in group.split(",")}
    used |= set(re.findall(r"[{,]\s*(\w+)\s*[=!]~?\"", query))
    assert used <= labels, where


def test_every_metric_is_shown_or_warned_of() -> None:
    text = " ".join(query for _, query in promql())
    unseen = {name for name in served() if name not in text and not name.endswith(("_sum", "_count", "_bucket"))}
    assert unseen <= OF_ANY_PROCESS


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboards_ask_data_sources_that_are_provisioned(name: str) -> None:
    provisioned = yaml.safe_load((PROVISIONING / "datasources/datasources.yaml").read_text())["datasources"]
    known = {(one["type"], one["uid"]) for one in provisioned}
    asked = {(one["datasource"]["type"], one["datasource"]["uid"]) for one in DASHBOARDS[name]["panels"]}
    asked |= {(one["datasource"]["type"], one["datasource"]["uid"]) for _, one in targets()}
    assert asked <= known


def test_grafana_finds_what_it_is_provisioned_with() -> None:
    services: Any = COMPOSE["services"]
    datasources = yaml.safe_load((PROVISIONING / "datasources/datasources.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards/dashboards.yaml").read_text())["providers"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    assert mounts["../k8s/components/dashboards"] == provider["options"]["path"]
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.removeprefix(provider["options"]["path"] + "/").removesuffix(".json") in DASHBOARDS
    urls = {one["type"]: one["url"] for one in datasources}
    assert {re.sub(r"^http://|:\d+$", "", url) for url in urls.values()} == {"prometheus", "postgres"}
    (password,) = [one["secureJsonData"]["password"] for one in datasources if "secureJsonData" in one]
    written = services["grafana-login"]["environment"]["LOGIN_PASSWORD_FILE"]
    assert password == f"$__file{{{written}}}"


def test_prometheus_asks_every_service_that_runs_the_program() -> None:
    config = yaml.safe_load((ROOT / "compose/prometheus/prometheus.yaml").read_text())
    asked = [sd for job in config["scrape_configs"] for sd in job["dns_sd_configs"]]
    assert {name for sd in asked for name in sd["names"]} == {"collector", "collector-demo", "consumer"}
    assert {sd["port"] for sd in asked} == {8080}
    assert {job["job_name"] for job in config["scrape_configs"]} == {"collector", "consumer"}
    assert all((ROOT / "compose/prometheus" / name).is_file() for name in config["rule_files"])


def test_an_alert_says_how_bad_it_is_and_what_is_wrong() -> None:
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS) > 5
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]


def entries() -> set[str]:
    """What TROUBLESHOOTING has an entry for, as links name it."""
    return anchors((ROOT / "docs/TROUBLESHOOTING.md").read_text(encoding="utf-8"))


def test_an_alert_names_what_to_read_where_the_document_has_it() -> None:
    for rule in ALERTS:
        document, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert document == "docs/TROUBLESHOOTING.md"
        assert not anchor or anchor in entries(), rule["alert"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_do_not_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[name]["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARDS[name]["panels"]}) == len(DASHBOARDS[name]["panels"])


def test_no_macro_of_grafana_is_left_unknown() -> None:
    assert not [where for where, query in [*sql(["c"]), *promql()] if "$" in query]


def test_every_alert_is_in_the_documents_and_leads_to_an_entry() -> None:
    text = (ROOT / "docs/DEPLOYMENT.md").read_text()
    rows = re.findall(r"^\| `(Clusterinfo\w+)` \| [^|]+ \| ([^|]+) \|$", text, re.MULTILINE)
    assert {alert for alert, _ in rows} == {rule["alert"] for rule in ALERTS}
    led = {anchor for _, look in rows for anchor in re.findall(r"TROUBLESHOOTING\.md#([\w-]+)", look)}
    assert len(led) > 4
    assert led <= entries()
