"""Where things stand: which kinds and members the rules look at, and how. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from functools import lru_cache

from clusterinfo.model import GroupVersionResource

COPY_MARKS = (
    "last-applied",
    "last-handled-configuration",
    "objectset.rio.cattle.io/applied",
    "kapp.k14s.io/original",
    "conversion-data",
)
"""In the names of annotations that hold a copy of the object: kubectl and its kin (`.../last-applied-configuration`),
kopf, Rancher's apply (a compressed copy), kapp, and Cluster API's conversion webhooks."""

SECRET_MAPS: Mapping[str, bool] = {"data": True, "stringData": False}
"""A Secret's members whose values are secret -> whether they are in base64."""
CONFIGMAP_MAPS: Mapping[str, bool] = {"data": False, "binaryData": True}

VALUE_MEMBERS = frozenset(("value", "values", "default", "defaultValue", "stringValue"))
"""Beside a `name` or `key` that looks secret: `{"name": "DB_PASSWORD", "value": ...}`."""

UNJUDGED_BELOW = frozenset(("openAPIV3Schema", "encryptedData"))
"""Members under which names are no fields: schemas, and what is encrypted for others to read."""

REQUESTS = frozenset(("certificatesigningrequests", "certificaterequests"))
"""Kinds whose `request` is one for a certificate."""


def secret_maps(gvr: GroupVersionResource, *, configmap_values: bool) -> Mapping[str, bool]:
    """The top-level members whose every value is replaced -> whether those values are base64."""
    if gvr.kind == "Secret" or (gvr.resource == "secrets" and not gvr.group):
        return SECRET_MAPS
    if configmap_values and is_configmap(gvr):
        return CONFIGMAP_MAPS
    return {}


def is_configmap(gvr: GroupVersionResource) -> bool:
    """True for the core group's ConfigMaps."""
    return gvr.resource == "configmaps" and not gvr.group


CLOSED_KINDS = frozenset(("configmaps", "customresourcedefinitions"))
"""Kinds with members that are not judged."""


def is_judged(gvr: GroupVersionResource, member: str) -> bool:
    """False where names and texts are the users' own: a ConfigMap's data; where they are schemas: a CRD."""
    if gvr.resource == "customresourcedefinitions":
        return member == "metadata"
    return not (is_configmap(gvr) and member in CONFIGMAP_MAPS)


def holds_request(gvr: GroupVersionResource) -> bool:
    """True if `request` is one for a certificate, base64."""
    return gvr.resource in REQUESTS


@lru_cache(maxsize=4096)
def is_copy(key: str) -> bool:
    """True for an annotation that repeats the object (a string; a field of a schema that is so named holds none)."""
    return any(mark in key for mark in COPY_MARKS)


def plain(value: bytes, *, encoded: bool) -> bytes:
    """The bytes a JSON string stands for, base64-decoded if it is `encoded`; of any other value its JSON."""
    if value[:1] != b'"':
        return b"" if value == b"null" else value
    text = str(json.loads(value)).encode("utf-8", "surrogatepass") if b"\\" in value else value[1:-1]
    try:
        return base64.b64decode(text, validate=True) if encoded else text
    except binascii.Error:
        return text
