"""Manifests as people have them, with secrets in them that can be told from all else: `corpus.yaml`, read."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from clusterinfo.model import GroupVersionResource

_MACRO = re.compile(r"<(P|S|L:[^|>]*)(?:\|(\w+))?>")
_PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIE{0}\n{0}==\n-----END RSA PRIVATE KEY-----\n"
_SECRET = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: x\nstringData:\n  a: {0}\n"


def _base64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


WRITTEN: dict[str, Callable[[str], str]] = {
    "": str,
    "b64": _base64,
    "basic": lambda text: _base64(f"admin:{text}"),
    "jwt": lambda text: f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{text}abcdefgh",
    "ghp": lambda text: f"ghp_{text}abcdefghijklmnopqrstuvwxy",
    "glpat": lambda text: f"glpat-{text}abcdefghi",
    "xoxb": lambda text: f"xoxb-1234567890-{text}",
    "akia": lambda text: f"AKIA{text.upper()}ABCDE",
    "sk": lambda text: f"sk_live_{text}abcdefgh",
    "slack": lambda text: f"https://hooks.slack.com/services/T000/B000/{text}",
    "discord": lambda text: f"https://discord.com/api/webhooks/1234567/{text}",
    "teams": lambda text: f"https://x.webhook.office.com/webhookb2/{text}",
    "pem": _PEM.format,
    "pem64": lambda text: _base64(_PEM.format(text)),
    "manifest": lambda text: _base64(_SECRET.format(text)),
    "release": lambda text: _base64(gzip.compress(json.dumps({"manifest": _SECRET.format(text)}).encode(), mtime=0)),
    "gzip": lambda text: _base64(gzip.compress(_SECRET.format(text).encode(), mtime=0)),
}


@dataclass(frozen=True)
class Canary:
    """A secret: the text to look for, and P (promised), S (silent) or the reason why it stays."""

    text: str
    why: str


@dataclass
class Manifest:
    """An object, what it is, and its canaries."""

    gvr: GroupVersionResource
    body: bytes
    canaries: list[Canary] = field(default_factory=list)


def manifests() -> list[Manifest]:
    """All of them."""
    documents = yaml.load_all((Path(__file__).parent / "corpus.yaml").read_text(), yaml.CSafeLoader)
    found, numbers = [], iter(range(1000, 10_000))
    for document in documents:
        canaries: list[Canary] = []
        tree = _planted(document, canaries, lambda: f"cnry{next(numbers)}Xq7")
        body = json.dumps(tree, separators=(",", ":")).encode()
        found.append(Manifest(gvr_of(document["apiVersion"], document["kind"]), body, canaries))
    return found


def gvr_of(api_version: str, kind: str) -> GroupVersionResource:
    """The resource that discovery would name."""
    group, _, version = api_version.rpartition("/")
    plural = re.sub(r"(s|x|ch)$", r"\1e", re.sub(r"y$", "ie", kind.lower())) + "s"
    return GroupVersionResource(group, version, plural, kind, namespaced=True)


def _planted(tree: Any, canaries: list[Canary], new: Callable[[], str]) -> Any:
    if isinstance(tree, dict):
        return {_planted(key, canaries, new): _planted(value, canaries, new) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_planted(element, canaries, new) for element in tree]
    return _MACRO.sub(lambda found: _plant(found, canaries, new), tree) if isinstance(tree, str) else tree


def _plant(found: re.Match[str], canaries: list[Canary], new: Callable[[], str]) -> str:
    core = new()
    written = WRITTEN[found[2] or ""](core)
    canaries.append(Canary(next((text for text in (core, core.upper()) if text in written), written), found[1]))
    return written
