"""What survives of 350 secrets in 140 manifests, and what changes of 70 manifests without any."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterinfo.kubernetes.normalize import normalize
from clusterinfo.kubernetes.redaction.objects import Redaction
from clusterinfo.kubernetes.redaction.rules import LIMITS
from tests.unit.kubernetes.redaction.corpus import Canary, Manifest, gvr_of, manifests

MANIFESTS = manifests()
PROBES = list(yaml.load_all((Path(__file__).parent / "probes.yaml").read_text(), yaml.CSafeLoader))
REDACTIONS = (Redaction(), Redaction(b"0123456789abcdef", cluster="c"))


def survivors(redaction: Redaction) -> Iterator[Canary]:
    for manifest in MANIFESTS:
        body = normalize(manifest.body, manifest.gvr, redaction).body.decode()
        yield from (canary for canary in manifest.canaries if canary.text in body)


def is_limit(canary: Canary) -> bool:
    return canary.why.startswith("L:")


def test_the_corpus_is_large_enough() -> None:
    canaries = [canary for manifest in MANIFESTS for canary in manifest.canaries]

    assert len(MANIFESTS) >= 120
    assert sum(not is_limit(canary) for canary in canaries) >= 250
    assert len({canary.text for canary in canaries}) == len(canaries)


@pytest.mark.parametrize("redaction", REDACTIONS, ids=["no key", "key"])
def test_what_survives_are_the_documented_limits(redaction: Redaction) -> None:
    left = Counter(canary.why.removeprefix("L:") for canary in survivors(redaction))
    limits = Counter(c.why.removeprefix("L:") for m in MANIFESTS for c in m.canaries if is_limit(c))

    assert left == limits
    assert set(limits) == set(LIMITS)


def test_configmap_data_goes_on_demand() -> None:
    redaction = Redaction(configmap_values=True)
    found = [canary for canary in survivors(redaction) if canary.why == "L:ConfigMap data"]

    assert found == []


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest.gvr.kind)
def test_an_object_stays_an_object(manifest: Manifest) -> None:
    """Names, identity, and what holds no canary are as they were."""
    before = json.loads(manifest.body)
    after = json.loads(normalize(manifest.body, manifest.gvr, Redaction()).body)

    texts = [canary.text for canary in manifest.canaries]
    kept = {path: value for path, value in leaves(before) if not any(text in str((path, value)) for text in texts)}
    changed = {path for path, value in kept.items() if dict(leaves(after)).get(path) != value}
    assert {path for path in changed if path[-1] not in REDACTED_BESIDES} == set()


REDACTED_BESIDES = {"pin", "password"}
"""In the corpus as numbers, which name no canary."""


def leaves(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from leaves(value, (*path, number))
    else:
        yield path, tree


def test_there_are_probes_enough() -> None:
    telling = re.compile("pass|secret|token|cred|cookie|jwt|key|auth|pw|bearer|basic|kubeconfig|tls", re.IGNORECASE)
    found = [path for probe in PROBES for path, value in leaves(probe) if telling.search(f"{path[-2:]} {value}")]

    assert len(found) >= 150


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe["kind"])
def test_what_only_looks_secret_stays(probe: dict[str, Any]) -> None:
    raw = json.dumps(probe, separators=(",", ":")).encode()

    assert json.loads(normalize(raw, gvr_of(probe["apiVersion"], probe["kind"]), Redaction()).body) == probe
