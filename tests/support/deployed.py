"""What compose/ and k8s/ say: the files as they are, and what they set for the program."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from clusterinfo.settings import SECRET_FIELDS, Settings
from tests.support.pod_security import containers, pod_spec

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
COMPOSE: dict[str, Any] = yaml.load((ROOT / "compose/compose.yaml").read_text(), yaml.CSafeLoader)

KNOWN = {name.upper() for name in Settings.model_fields} | {f"{name.upper()}_FILE" for name in SECRET_FIELDS}
"""Every variable that the program reads."""
OUR_IMAGES = ("cluster-info-collector", "cluster-info-consumer")

JSON = dict[str, Any]


def read(path: Path) -> list[JSON]:
    """The manifests of one file."""
    return [one for one in yaml.load_all(path.read_text(), yaml.CSafeLoader) if one]


def manifests(folder: str) -> list[JSON]:
    """Every manifest in a folder of k8s/ and below it, kustomize's own files left out."""
    paths = sorted((K8S / folder).rglob("*.yaml"))
    return [one for path in paths if path.name != "kustomization.yaml" for one in read(path)]


def find(among: Iterable[JSON], kind: str, name: str) -> JSON:
    """The one manifest of that kind and name."""
    (found,) = [one for one in among if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def programs(among: Iterable[JSON]) -> list[tuple[JSON, JSON]]:
    """(manifest, container) of everything that runs the program."""
    found = [(one, container) for one in among if (pod := pod_spec(one)) for container in containers(pod)]
    return [pair for pair in found if any(name in pair[1].get("image", "") for name in OUR_IMAGES)]


def environment(container: JSON, among: Iterable[JSON]) -> dict[str, str]:
    """The container's variables: its ConfigMaps', then its own; a Secret's value is `from-secret`."""
    maps = [one["configMapRef"]["name"] for one in container.get("envFrom") or []]
    found: dict[str, str] = {}
    for name in maps:
        found |= find(among, "ConfigMap", name)["data"]
    return found | {one["name"]: one.get("value", "from-secret") for one in container.get("env") or []}


def plain(given: dict[str, str]) -> dict[str, str]:
    """What can be given to the program here: without files that are not here, and what Compose itself fills in."""
    return {name: value for name, value in given.items() if not name.endswith("_FILE") and "$" not in value}
