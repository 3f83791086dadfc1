"""Checks what Kubernetes' own schemas do not know, of KEDA and of Prometheus' operator, against models of those.

`python tests/deploy/custom_resources.py FILE...`, by the Python that has the models; ends with 1 if something is wrong.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule

MODELS = {"PodMonitor": PodMonitor, "PrometheusRule": PrometheusRule, "ScaledObject": ScaledObject}


def checked(path: str) -> int:
    """How many custom resources the file has. Exits if one is not what its model knows."""
    found = [one for one in yaml.safe_load_all(Path(path).read_text()) if one["kind"] in MODELS]
    for one in found:
        # A field that the model does not know is dropped by it, not refused.
        known = MODELS[one["kind"]].model_validate(one).model_dump(mode="json", by_alias=True, exclude_unset=True)
        if known != one:
            sys.exit(f"{path}: {json.dumps(one)}\nis not what the schema knows of it:\n{json.dumps(known)}")
    return len(found)


if __name__ == "__main__":
    print(sum(checked(path) for path in sys.argv[1:]))
