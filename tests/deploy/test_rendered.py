"""What kustomize makes of k8s/: every overlay, with every component, as it would be applied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterinfo import __version__
from clusterinfo.settings import load
from tests.deploy.conftest import Run, kustomized
from tests.support.deployed import K8S, KNOWN, environment, find, plain, programs
from tests.support.pod_security import containers, pod_spec, violations

HERE = Path(__file__).parent
OVERLAYS = ("base", "overlays/dev", "overlays/prod")
CHOICES = ((), ("cronjob",), ("leader-election",), ("hpa",), ("keda",), ("dashboards", "podmonitor", "prometheusrule"))
"""Components that are taken together."""
CUSTOM = {"PodMonitor", "PrometheusRule", "ScaledObject"}
"""Kinds of others, which Kubernetes' own schemas do not know."""


@pytest.fixture(
    scope="module",
    params=[(overlay, names) for overlay in OVERLAYS for names in CHOICES],
    ids=lambda given: "+".join((given[0], *given[1])),
)
def rendered(request: pytest.FixtureRequest, tool: Run, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    overlay, components = request.param
    return kustomized(tool, tmp_path_factory.mktemp("kustomization"), overlay, components)


def test_kubernetes_would_accept_it(rendered: list[Any], tool: Run, tmp_path: Path) -> None:
    known = [one for one in rendered if one["kind"] not in CUSTOM]
    (tmp_path / "known.yaml").write_text(yaml.safe_dump_all(known))
    assert "WARN" not in tool("kubernetes-validate", "--strict", tmp_path / "known.yaml")
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in rendered]
    assert len(names) == len(set(names))


def test_those_who_brought_the_kinds_would_accept_them(tool: Run) -> None:
    files = [
        path for path in sorted(K8S.glob("components/*/*.yaml")) if any(kind in path.read_text() for kind in CUSTOM)
    ]
    assert int(tool("python", HERE / "custom_resources.py", *files)) == len(CUSTOM)


def test_it_keeps_the_restricted_profile(rendered: list[Any]) -> None:
    namespace = find(rendered, "Namespace", "cluster-info")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert [(one["metadata"]["name"], list(violations(one))) for one in rendered if list(violations(one))] == []


def test_everything_is_in_the_namespace(rendered: list[Any]) -> None:
    outside = [one for one in rendered if one["metadata"].get("namespace") != "cluster-info"]
    assert {one["kind"] for one in outside} == {"Namespace", "ClusterRole", "ClusterRoleBinding"}


LABELS = {f"app.kubernetes.io/{name}" for name in ("name", "instance", "version", "part-of", "managed-by")}
SELECTING = {f"app.kubernetes.io/{name}" for name in ("name", "instance", "component")}
"""What may never change, and so holds no version and no tool."""


def test_everything_is_labelled_as_kubernetes_recommends(rendered: list[Any]) -> None:
    for one in rendered:
        labels = one["metadata"]["labels"]
        assert labels.keys() >= LABELS, one["metadata"]["name"]
        assert labels["app.kubernetes.io/instance"] == "cluster-info"
        if labels["app.kubernetes.io/name"] == "clusterinfo":
            assert labels["app.kubernetes.io/version"] == __version__
        if "template" in one.get("spec", {}):
            assert one["spec"]["template"]["metadata"]["labels"].keys() >= LABELS | SELECTING
            assert labels.keys() >= SELECTING


def test_selectors_select_by_what_never_changes(rendered: list[Any]) -> None:
    selectors = [found for one in rendered for found in selectors_of(one)]
    assert len(selectors) >= 7
    assert [one for one in selectors if not one.keys() <= SELECTING or len(one) < 2] == []
    labels = [pod_labels for one in rendered if (pod_labels := labels_of_pods(one))]
    ours = [one for one in selectors if one["app.kubernetes.io/name"] == "clusterinfo"]
    assert [one for one in ours if not any(one.items() <= given.items() for given in labels)] == []


def selectors_of(manifest: Any) -> list[dict[str, str]]:
    """How a manifest selects Pods: as its own, to spread, to allow or to count them."""
    spec = manifest.get("spec", {})
    found = [spec.get("podSelector", {}).get("matchLabels"), spec.get("selector")]
    found += [one["labelSelector"] for one in (pod_spec(manifest) or {}).get("topologySpreadConstraints") or []]
    return [one.get("matchLabels", one) for one in found if one]


def labels_of_pods(manifest: Any) -> dict[str, str] | None:
    spec = manifest.get("spec", {}).get("jobTemplate", manifest).get("spec", {})
    return spec["template"]["metadata"]["labels"] if "template" in spec and "metadata" in spec["template"] else None


def test_a_collector_and_consumers_run_with_variables_they_read(rendered: list[Any]) -> None:
    found = programs(rendered)
    assert sorted(owner["args"][0] for _, owner in found if owner["args"] != ["migrate"]) == ["collect", "consume"]
    for _, owner in found:
        given = environment(owner, rendered)
        assert given.keys() <= KNOWN
        settings = load(plain(given))
        if owner["args"] == ["migrate"]:
            assert not [name for name in given if name.startswith("KAFKA_")], "whose files it has not"
            continue
        assert settings.kafka_enabled is True
        assert settings.kafka_partition == "auto"


def test_what_is_referred_to_is_there(rendered: list[Any]) -> None:
    """ConfigMaps and ServiceAccounts; files within what is mounted; of Secrets, those that the overlays name."""
    secrets = {"postgres-secret", "postgres-owner-secret", "kafka-collector-secret", "kafka-consumer-secret"}
    for manifest in (one for one in rendered if pod_spec(one)):
        pod = pod_spec(manifest) or {}
        if "serviceAccountName" in pod:
            find(rendered, "ServiceAccount", pod["serviceAccountName"])
        named = {one["secret"]["secretName"] for one in pod.get("volumes") or [] if "secret" in one}
        for owner in containers(pod):
            asked = [one["valueFrom"]["secretKeyRef"] for one in owner.get("env") or [] if "valueFrom" in one]
            named |= {one["name"] for one in asked}
            mounts = {one["mountPath"] for one in owner.get("volumeMounts") or []}
            ours = [owner for _, mine in programs([manifest]) if mine is owner]
            files = [value for one in ours for value in environment(one, rendered).values() if value.startswith("/")]
            assert all(str(Path(file).parent) in mounts for file in files), manifest["metadata"]["name"]
        assert named <= secrets


def test_who_scales_says_how_many(rendered: list[Any]) -> None:
    scaled = any(one["kind"] in ("HorizontalPodAutoscaler", "ScaledObject") for one in rendered)
    spec = find(rendered, "Deployment", "cluster-info-consumer")["spec"]
    assert ("replicas" in spec) is not scaled


def test_the_development_servers_let_in_who_needs_them(tool: Run) -> None:
    manifests = list(yaml.safe_load_all(tool("kubectl", "kustomize", K8S / "overlays/dev")))
    for server, variable in (("kafka", "KAFKA_BROKERS"), ("postgres", "DB_HOST")):
        (rule,) = find(manifests, "NetworkPolicy", server)["spec"]["ingress"]
        for manifest, owner in programs(manifests):
            labels = labels_of_pods(manifest) or {}
            allowed = any(selects(peer["podSelector"], labels) for peer in rule["from"])
            assert allowed or variable not in environment(owner, manifests), (server, labels)


def selects(selector: Any, labels: dict[str, str]) -> bool:
    """Whether a label selector of Kubernetes selects what has these labels."""
    wanted = selector.get("matchLabels", {})
    among = {one["key"]: one["values"] for one in selector.get("matchExpressions", []) if one["operator"] == "In"}
    return wanted.items() <= labels.items() and all(labels.get(key) in values for key, values in among.items())


def test_production_is_encrypted(tool: Run) -> None:
    manifests = list(yaml.safe_load_all(tool("kubectl", "kustomize", K8S / "overlays/prod")))
    for _, owner in programs(manifests):
        given = environment(owner, manifests)
        if owner["args"] != ["migrate"]:
            assert given["KAFKA_SECURITY_PROTOCOL"] == "SASL_SSL"
            assert given["KAFKA_SSL_CA_FILE"]
        assert not {"DB_PASSWORD", "KAFKA_SASL_PASSWORD"} & given.keys()
        if "DB_HOST" in given:
            assert given["DB_SSL_MODE"] == "verify-full"
            assert given["DB_SSL_ROOT_CERT"]


def test_the_schema_is_made_once_and_by_a_job(rendered: list[Any]) -> None:
    job, consumer = find(rendered, "Job", "cluster-info-migrate"), find(rendered, "Deployment", "cluster-info-consumer")
    (migrating,), (storing,) = (containers(pod_spec(one) or {}) for one in (job, consumer))
    assert (migrating["args"], storing["args"]) == (["migrate"], ["consume", "--no-migrate"])
    assert migrating["image"] == storing["image"]
    assert (pod_spec(job) or {})["restartPolicy"] == "Never"
    assert job["spec"]["ttlSecondsAfterFinished"] > 0, "what cannot be changed must go before the next release"


def test_in_production_the_owner_migrates_and_consumers_may_make_nothing(tool: Run) -> None:
    manifests = list(yaml.safe_load_all(tool("kubectl", "kustomize", K8S / "overlays/prod")))
    job, consumer = (
        find(manifests, "Job", "cluster-info-migrate"),
        find(manifests, "Deployment", "cluster-info-consumer"),
    )
    (migrating,), (storing,) = (containers(pod_spec(one) or {}) for one in (job, consumer))
    users = [one["valueFrom"]["secretKeyRef"]["name"] for owner in (migrating, storing) for one in owner["env"] if one["name"] == "DB_USER"]  # fmt: skip  # noqa: E501
    assert users == ["postgres-owner-secret", "postgres-secret"]
