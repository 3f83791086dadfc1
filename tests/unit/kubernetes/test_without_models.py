"""kubernetes_asyncio as the collector imports it: none of its models, and all that is used of it."""

from __future__ import annotations

import json
import subprocess
import sys

IMPORTED = """
import json, sys
{before}
from clusterinfo.kubernetes import client, credentials
assert credentials.InClusterConfigLoader and credentials.FileOrData and credentials.ConfigException
print(json.dumps([name for name in sys.modules if name.startswith("kubernetes_asyncio")]))
"""


def imported(before: str = "") -> set[str]:
    """What a fresh interpreter has imported of the library once it can make a connection."""
    program = [sys.executable, "-c", IMPORTED.format(before=before)]
    return set(json.loads(subprocess.run(program, check=True, capture_output=True, timeout=60).stdout))


def test_no_model_is_imported() -> None:
    found = imported()

    assert "kubernetes_asyncio.client.api_client" in found
    assert not [
        name
        for name in found
        if name.startswith(("kubernetes_asyncio.client.models.", "kubernetes_asyncio.client.api."))
    ]


def test_who_imported_all_of_it_before_keeps_it() -> None:
    assert "kubernetes_asyncio.client.models.v1_pod" in imported("import kubernetes_asyncio")
