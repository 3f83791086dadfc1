"""What normalisation should make of an object, stated over a JSON tree: for Secrets, and kinds without own rules.

Defined where a tree can tell: not for names written with escapes (the package searches bytes, and API servers write
names plainly), nor for URLs with userinfo, nor for values whose bytes matter, nor for what an object holds twice under
the name of a copy (the package judges each by itself, a tree has the last). `is_defined` says so, `Refused` what must
fail.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from clusterinfo.kubernetes.redaction.names import Verdict, is_exempt, judge
from clusterinfo.kubernetes.redaction.values import is_harmless
from clusterinfo.model import GroupVersionResource
from tests.fuzz.trees import Number, deep, has_half_a_pair

COPIES = "last-applied", "last-handled-configuration", "objectset.rio.cattle.io/applied", "kapp.k14s.io/original"
IDENTITY = "name", "namespace", "uid", "resourceVersion"

_ESCAPED_LETTER = re.compile(rb"\\u00[2-7]|\\/|\\\"password|password\\\"")


class Refused(Exception):
    """It is no object with a readable identity and readable annotations."""


def is_defined(item: bytes) -> bool:
    """True if `normalised` can speak of it."""
    if _ESCAPED_LETTER.search(item) or (b"://" in item and b"@" in item):
        return False
    return not _holds_two_of_a_copy(item)


def _holds_two_of_a_copy(item: bytes) -> bool:
    found = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        names = [name for name, _ in pairs if name == "managedFields" or any(mark in name for mark in COPIES)]
        found = found or len(names) > len(set(names))

    with deep():
        json.loads(item, object_pairs_hook=look, parse_int=str)
    return found


def normalised(item: Any, gvr: GroupVersionResource) -> Any:
    """The object that leaves the cluster; None where the tree cannot tell. Raises Refused."""
    if not isinstance(item, dict) or not isinstance(item.get("metadata"), dict):
        raise Refused
    metadata = _metadata(item["metadata"])
    given = {"apiVersion": item.get("apiVersion"), "kind": item.get("kind")}
    if any(isinstance(text, str) and (has_half_a_pair(text) or "\0" in text) for text in given.values()):
        return None
    head = {"apiVersion": _text(given["apiVersion"]) or gvr.api_version, "kind": _text(given["kind"]) or gvr.kind}
    rest = {key: value for key, value in item.items() if key not in ("metadata", "apiVersion", "kind")}
    if gvr.resource == "secrets":
        for key in ("data", "stringData"):
            if key in rest and (fingerprints := _fingerprints(rest[key], encoded=key == "data")) is not None:
                rest[key] = fingerprints
            elif rest.get(key) is not None:
                return None
    kept = {key: value if _is_secret_map(gvr, key) else _stripped(value) for key, value in rest.items()}
    shown = {key: value if _is_left(gvr, key) else _hidden(value, key) for key, value in kept.items()}
    return {**head, "metadata": _hidden(metadata, "metadata"), **shown}


def _is_secret_map(gvr: GroupVersionResource, key: str) -> bool:
    return gvr.resource == "secrets" and key in ("data", "stringData")


def _is_left(gvr: GroupVersionResource, key: str) -> bool:
    """True where names say nothing, or all is hidden already."""
    return _is_secret_map(gvr, key) or (gvr.resource == "configmaps" and key in ("data", "binaryData"))


STRONG = Verdict(is_secret=True, is_strong=True)


def _hidden(value: Any, key: str, verdict: Verdict | None = None, *, hides: bool = False) -> Any:
    """`value` of the member `key` with fingerprints for what names say is secret; `hides`: so does one above it."""
    verdict = judge(key) if verdict is None else verdict
    hides = verdict.is_strong or (hides and not is_exempt(key))
    if key in NO_FIELDS_BELOW and isinstance(value, dict | list):
        return value
    if isinstance(value, dict):
        named = [name for name in (value.get("name"), value.get("key")) if isinstance(name, str)]
        secret = [judge(name) for name in named if judge(name).is_secret]
        return {
            name: _hidden(one, name, secret[-1] if name in VALUES and secret else None, hides=hides)
            for name, one in value.items()
        }
    if isinstance(value, list):
        within = verdict._replace(takes_numbers=False)
        return [_hidden(one, key, within, hides=hides) for one in value]
    if isinstance(value, str):
        is_secret = verdict.is_secret or hides
        if not is_secret or is_harmless(value, verdict if verdict.is_secret else STRONG, key):
            return value
        return _length_class(value.encode("utf-8", "surrogatepass"))
    is_number = isinstance(value, Number) and verdict.takes_numbers
    return _length_class(value.text.encode()) if is_number else value


VALUES = "value", "values", "default", "defaultValue", "stringValue"
NO_FIELDS_BELOW = "openAPIV3Schema", "encryptedData"


def _metadata(given: dict[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in given.items() if key != "managedFields"}
    for key in IDENTITY:
        text = _text(metadata.get(key))
        if has_half_a_pair(text) or (key == "name" and not text):
            raise Refused
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict):
        metadata["annotations"] = {key: value for key, value in annotations.items() if not _is_copy(key, value)}
        if not metadata["annotations"]:
            del metadata["annotations"]
    elif any(mark in repr(annotations) for mark in COPIES):
        raise Refused  # a copy may be in there, and what is no object has no member to remove
    kept = _stripped(metadata)
    if not kept.get("annotations", True) and isinstance(kept["annotations"], dict):
        del kept["annotations"]
    return dict(kept)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise Refused
    return value


def _is_copy(key: str, value: Any) -> bool:
    return isinstance(value, str) and any(mark in key for mark in COPIES)


def _stripped(value: Any) -> Any:
    if isinstance(value, list):
        return [_stripped(element) for element in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _stripped(member)
        for key, member in value.items()
        if not (key == "managedFields" and isinstance(member, list)) and not _is_copy(key, member)
    }


def _fingerprints(data: Any, *, encoded: bool) -> Any:
    if not isinstance(data, dict) or any(isinstance(value, dict | list) for value in data.values()):
        return None
    return {key: _length_class(_plain(value, encoded=encoded)) for key, value in data.items()}


def _plain(value: Any, *, encoded: bool) -> bytes:
    if value is None:
        return b""
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, Number):
        return value.text.encode()
    data = value.encode("utf-8", "surrogatepass")
    if encoded:
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error:
            return bytes(data)
    return bytes(data)


def _length_class(value: bytes) -> str:
    limit = 16
    while limit < len(value):
        limit *= 2
    return f"redacted:len<={limit}"
