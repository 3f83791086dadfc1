"""Objects to bytes, once, when they change: never again while they are served. Pure.

An object is kept without its opening brace and apiVersion (and, for built-in kinds, its kind), since a list leaves
these out, a single object and a watch event put them in, and a custom resource's depends on the version asked for:
`b'{' + rest` or `b'{"kind":"Pod","apiVersion":"v1",' + rest`. `rest` is kept in a few pieces, so that what thousands of
objects share (the fields of managedFields, half of a pod) is in memory once.
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from clusterinfo.sandbox.kubernetes.catalog import JSON, ApiResource

# The order in which Go writes the metadata of a built-in kind; custom resources are written with sorted keys.
METADATA_ORDER = (
    "name", "generateName", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp",
    "deletionTimestamp", "deletionGracePeriodSeconds", "labels", "annotations", "ownerReferences", "finalizers",
    "managedFields",
)  # fmt: skip

# Lists that the server merges by key, and the keys; any other list is one field to it.
LIST_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "ports": ("containerPort", "port", "protocol"),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
    "podIPs": ("ip",),
}

NO_FIELDS: JSON = {}  # one for all leaves: read only

SHARED_MIN_BYTES = 200  # shorter field sets are cheaper kept in place than looked up and cut out


def item_prefix(resource: ApiResource) -> bytes:
    """What goes before an object's rest as an item of a list."""
    return b'{"apiVersion":"%s",' % resource.api_version.encode() if resource.custom else b"{"


def object_prefix(resource: ApiResource) -> bytes:
    """What goes before an object's rest when it is served alone or in a watch event."""
    if resource.custom:
        return item_prefix(resource)
    return b'{"kind":"%s","apiVersion":"%s",' % (resource.kind.encode(), resource.api_version.encode())


def timestamp(at: dt.datetime) -> str:
    """As Kubernetes writes times: UTC, whole seconds."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def fields_of(value: JSON | list[Any], name: str = "") -> JSON:
    """FieldsV1 of a value: its members with `f:` before the name, keyed list items with `k:`, all else `{}`."""
    if isinstance(value, dict):
        return {
            f"f:{key}": fields_of(member, key) if isinstance(member, dict | list) else NO_FIELDS
            for key, member in sorted(value.items())
        }
    keys = LIST_KEYS.get(name)
    if not keys or not value or not isinstance(value[0], dict):
        return NO_FIELDS
    fields: JSON = {".": NO_FIELDS}
    for item in value:
        present = {key: item[key] for key in keys if key in item}
        fields["k:" + orjson.dumps(present).decode()] = {".": NO_FIELDS, **fields_of(item)}
    return fields


def managed_fields(body: Mapping[str, Any], api_version: str, time: str) -> list[JSON]:
    """The two entries that a real object of this body has: what was applied, and the status that a controller wrote."""
    metadata = {
        key: body["metadata"][key] for key in ("annotations", "labels", "ownerReferences") if key in body["metadata"]
    }
    applied = {key: value for key, value in body.items() if key not in ("metadata", "status", "apiVersion", "kind")}
    fields = ({"f:metadata": fields_of(metadata)} if metadata else {}) | fields_of(applied)
    entries = [_entry("kubectl-client-side-apply", api_version, time, fields)]
    if body.get("status"):
        status = _entry("kube-controller-manager", api_version, time, {"f:status": fields_of(body["status"])})
        entries.append(status | {"subresource": "status"})
    return entries


def _entry(manager: str, api_version: str, time: str, fields: JSON) -> JSON:
    entry: JSON = {"manager": manager, "operation": "Update", "apiVersion": api_version, "time": time}
    return entry | {"fieldsType": "FieldsV1", "fieldsV1": fields}


class Encoder:
    """Turns bodies into pieces; pieces that bodies share exist once."""

    def __init__(self) -> None:
        self._shared: dict[bytes, bytes] = {}

    def encode(
        self, body: Mapping[str, Any], kind: str, custom: bool, extra: bytes = b""
    ) -> tuple[tuple[bytes, ...], int]:
        """The pieces of the rest of `body`, and which of them is its resourceVersion.

        `body["metadata"]` is complete. `extra`: further members of the object as raw JSON, well-formed or not.
        """
        pieces = _Pieces()
        members = {key: value for key, value in body.items() if key not in ("apiVersion", "kind", "metadata")}
        option = orjson.OPT_SORT_KEYS if custom else 0
        ordered: list[tuple[str, Any]] = [("metadata", None), *members.items()]
        if custom:
            ordered = sorted([*ordered, ("kind", kind)])
        for at, (key, value) in enumerate(ordered):
            pieces.text(b"," if at else b"")
            pieces.text(orjson.dumps(key) + b":")
            if key == "metadata":
                self._metadata(pieces, body["metadata"], option)
            else:
                pieces.text(orjson.dumps(value, option=option))
        if extra:
            pieces.text(b"," + extra)
        pieces.text(b"}")
        return pieces.done()

    def _metadata(self, pieces: "_Pieces", metadata: Mapping[str, Any], option: int) -> None:
        order = sorted(metadata) if option else [key for key in METADATA_ORDER if key in metadata]
        for at, key in enumerate(order):
            pieces.text((b"," if at else b"{") + orjson.dumps(key) + b":")
            value = metadata[key]
            if key == "resourceVersion":
                pieces.text(b'"')
                pieces.version(str(value).encode())
                pieces.text(b'"')
            elif key == "managedFields":
                self._managed(pieces, value, option)
            else:
                pieces.text(orjson.dumps(value, option=option))
        pieces.text(b"}")

    def _managed(self, pieces: "_Pieces", entries: Iterable[Mapping[str, Any]], option: int) -> None:
        pieces.text(b"[")
        for at, entry in enumerate(entries):
            keys = sorted(entry) if option else list(entry)
            for index, key in enumerate(keys):
                start = b"{" if index == 0 else b","
                pieces.text((b"," if at and index == 0 else b"") + start + orjson.dumps(key) + b":")
                encoded = orjson.dumps(entry[key], option=option)
                if key == "fieldsV1" and len(encoded) >= SHARED_MIN_BYTES:
                    pieces.shared(self._shared.setdefault(encoded, encoded))
                else:
                    pieces.text(encoded)
            pieces.text(b"}")
        pieces.text(b"]")


class _Pieces:
    """Collects text, cutting where a piece is shared or may be replaced."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._open: list[bytes] = []
        self._version_at = -1

    def text(self, text: bytes) -> None:
        self._open.append(text)

    def shared(self, text: bytes) -> None:
        self._cut()
        self._pieces.append(text)

    def version(self, text: bytes) -> None:
        self._cut()
        self._version_at = len(self._pieces)
        self._pieces.append(text)

    def done(self) -> tuple[tuple[bytes, ...], int]:
        self._cut()
        return tuple(self._pieces), self._version_at

    def _cut(self) -> None:
        if self._open:
            self._pieces.append(b"".join(self._open))
            self._open.clear()
