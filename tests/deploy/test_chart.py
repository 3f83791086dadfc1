"""The Helm chart applies what kustomize does for the same choices, object by object; and what it has beside that."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import Run, kustomized
from tests.support.deployed import K8S, environment, find, programs
from tests.support.pod_security import pod_spec, violations

HELM = Path(__file__).parent / "helm.py"
MONITORING = {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}}
KEDA = {"autoscaling": "keda", "kedaBootstrapServers": "kafka-service.cluster-info.svc:9092"}
PROD = {
    "image": {
        "tag": "0.1.0",
        "collector": "registry.example.com/cluster-info-collector",
        "consumer": "registry.example.com/cluster-info-consumer",
    },
    "database": {"mounted": True, "ownerSecret": "postgres-owner-secret"},
    "kafka": {"collectorSecret": "kafka-collector-secret", "consumerSecret": "kafka-consumer-secret"},
}
CHOICES: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "base": ("base", (), {}),
    "prod": ("overlays/prod", ("leader-election",), PROD | {"collector": {"replicas": 2}}),
    "prod, as a CronJob": ("overlays/prod", ("cronjob",), PROD | {"collector": {"schedule": "*/15 * * * *"}}),
    "by CPU, monitored": (
        "base",
        ("hpa", "dashboards", "podmonitor", "prometheusrule"),
        MONITORING | {"consumer": {"autoscaling": "hpa"}},
    ),
    "by lag": ("base", ("keda",), {"consumer": KEDA}),
}
"""Choice -> overlay and components of kustomize; the chart's values."""


def helm(what: str, values: dict[str, Any]) -> Any:
    """What Helm makes of these values. Raises AssertionError with its words where it refuses them."""
    assert shutil.which("python"), "see deployment_files in .ci/run"
    asked = ["python", str(HELM), what]
    done = subprocess.run(asked, input=json.dumps(values), capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr.splitlines()[-1]
    return json.loads(done.stdout)


def applied(values: dict[str, Any]) -> list[Any]:
    """The manifests that Helm applies; not those of `helm test`."""
    rendered = {name: text for name, text in helm("render", values).items() if name.endswith(".yaml")}
    texts = [text for name, text in rendered.items() if "/tests/" not in name]
    return [one for text in texts for one in yaml.safe_load_all(text) if one]


def by_name(manifests: list[Any]) -> dict[str, str]:
    """Kind and name -> the manifest, sorted; without the tool's name, and the number in the name of Helm's Job."""
    found = {}
    for one in manifests:
        text = json.dumps(one, sort_keys=True, indent=1)
        text = text.replace('managed-by": "Helm"', 'managed-by": "kustomize"').replace("-migrate-1", "-migrate")
        found[f"{one['kind']} {one['metadata']['name'].removesuffix('-1')}"] = text
    return found


@pytest.mark.parametrize("choice", CHOICES)
def test_helm_applies_what_kustomize_does(choice: str, tool: Run, tmp_path: Path) -> None:
    overlay, components, values = CHOICES[choice]
    wanted = by_name(kustomized(tool, tmp_path, overlay, components))
    del wanted["Namespace cluster-info"]  # `helm install --create-namespace`
    wanted.pop("NetworkPolicy kafka-from-keda", None)  # of the Kafka of overlays/dev
    given = values | {"image": values.get("image", {"tag": "latest"})}
    if overlay == "overlays/prod":
        maps = list(yaml.safe_load_all((K8S / "overlays/prod/settings.yaml").read_text()))
        settings, database = (one["data"] for one in maps)
        given |= {"settings": settings, "database": values["database"] | {"settings": database}}
    found = by_name(applied(given))
    assert found.keys() == wanted.keys()
    for name, text in wanted.items():
        assert found[name] == text, name


def test_helm_has_nothing_to_complain_of() -> None:
    report = helm("lint", {})
    assert report["errors"] == []
    assert [one["error"] for one in report["messages"] if one["severity"] > 1] == []


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"settings": {"KAFKA_BROKER": "kafka:9092"}}, "KAFKA_BROKER"),
        ({"settings": {"KAFKA_ENABLED": True}}, "string"),
        ({"settings": {"DB_PASSWORD": "secret"}}, "DB_PASSWORD"),
        ({"consumer": {"replica": 3}}, "replica"),
        ({"consumer": {"autoscaling": "cpu"}}, "autoscaling"),
    ],
)
def test_what_is_misspelt_is_refused(values: dict[str, Any], why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        helm("render", values)


def test_the_defaults_are_of_the_charts_version_and_keep_the_restricted_profile() -> None:
    manifests = applied({})
    assert [list(violations(one)) for one in manifests if pod_spec(one)] == [[]] * 3
    version = yaml.safe_load((K8S / "chart/Chart.yaml").read_text())["appVersion"]
    assert {owner["image"].rpartition(":")[2] for _, owner in programs(manifests)} == {version}


def test_what_the_document_sets_is_what_the_chart_takes() -> None:
    text = (K8S.parent / "docs/DEPLOYMENT.md").read_text(encoding="utf-8")
    given: dict[str, Any] = {}
    for path, value in re.findall(r"--set ([\w.]+)=(\S+)", text):
        *folders, name = path.split(".")
        place = given
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = value
    consumer = find(manifests := applied(given), "Deployment", "cluster-info-consumer")
    (owner,) = consumer["spec"]["template"]["spec"]["containers"]
    assert environment(owner, manifests).items() >= {**given["settings"], **given["database"]["settings"]}.items()


def test_what_only_the_chart_offers() -> None:
    variable = {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}
    chosen = {
        "collector": {"extraEnv": [variable], "podSpec": {"nodeSelector": {"disk": "fast"}}},
        "prometheusRule": {"enabled": True, "runbooks": "https://docs.example.com/clusterinfo"},
        "networkPolicy": {"enabled": False},
        "migrate": {"enabled": False},
        "rbac": {"create": False},
    }
    manifests = applied(chosen)
    pod = find(manifests, "Deployment", "cluster-info-collector")["spec"]["template"]["spec"]
    assert pod["containers"][0]["env"] == [variable]
    assert pod["nodeSelector"] == {"disk": "fast"}
    (group,) = find(manifests, "PrometheusRule", "cluster-info")["spec"]["groups"]
    urls = {rule["annotations"]["runbook_url"].partition("#")[0] for rule in group["rules"]}
    assert urls == {"https://docs.example.com/clusterinfo/docs/TROUBLESHOOTING.md"}
    assert {one["kind"] for one in manifests}.isdisjoint({"NetworkPolicy", "Job", "ClusterRole", "ClusterRoleBinding"})


def test_its_own_test_asks_the_database_and_its_notes_say_what_to_type() -> None:
    rendered = helm("render", {"settings": {"CLUSTER_NAME": "north"}})
    (test,) = yaml.safe_load_all(rendered["cluster-info/templates/tests/database.yaml"])
    assert list(violations(test)) == []
    assert test["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert [owner["args"] for _, owner in programs([test])] == [["clusters", "list"]]
    notes = rendered["cluster-info/templates/NOTES.txt"]
    assert "which the database calls north" in notes
    assert "deployment/cluster-info-consumer -- clusterinfo status" in notes
