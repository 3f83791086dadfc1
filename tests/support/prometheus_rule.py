"""k8s/components/prometheusrule: the alerts of compose/prometheus/alerts.yaml as Prometheus' operator takes them."""

from __future__ import annotations

from textwrap import indent

from tests.support.deployed import ROOT

ALERTS = ROOT / "compose/prometheus/alerts.yaml"
HEAD = """\
# Made of compose/prometheus/alerts.yaml by `python -m tests.support.generated`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: cluster-info
  namespace: cluster-info
  labels:
    app.kubernetes.io/name: clusterinfo
    app.kubernetes.io/instance: cluster-info
    app.kubernetes.io/component: alerts
    app.kubernetes.io/version: "0.1.0"
    app.kubernetes.io/part-of: clusterinfo
    app.kubernetes.io/managed-by: kustomize
spec:
"""


def text() -> str:
    """The manifest, with the comments of the alerts."""
    alerts = ALERTS.read_text(encoding="utf-8")
    return HEAD + indent(alerts[alerts.index("groups:") :].rstrip(), "  ")
