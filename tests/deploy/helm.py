"""Renders k8s/chart by Helm's own code, for a release `cluster-info` in the namespace of that name.

`python tests/deploy/helm.py render|lint`, values as JSON on stdin, by the Python that has helm-python-sdk: the library
that the command `helm` is made of, as a wheel. Rendering prints a JSON object, template to text.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from helm_python import Chart, HelmError
from helm_python.chart import lint

CHART = Path(__file__).parents[2] / "k8s/chart"
RELEASE = "cluster-info"


def rendered(values: dict[str, Any]) -> dict[str, str]:
    """What a first installation would apply. Exits with Helm's message for values that the schema refuses."""
    chart = Chart.load(str(CHART))
    chart.validate_schema(values)
    texts: dict[str, str] = chart.render(values, name=RELEASE, namespace=RELEASE, revision=1, is_install=True)
    return texts


if __name__ == "__main__":
    given = json.load(sys.stdin)
    try:
        result = rendered(given) if sys.argv[1] == "render" else lint(str(CHART), given, strict=True, namespace=RELEASE)
    except HelmError as error:
        sys.exit(str(error))
    print(json.dumps(result))
