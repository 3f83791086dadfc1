"""An object as it leaves the cluster: taken apart one level deep, cleaned, put together, hashed. Pure.

One raw item goes in, a `NormalizedObject` comes out. What is removed and what is redacted is decided in `redaction/`,
which finds by a search of the bytes the objects that need neither: those are never parsed any further.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from typing import Any

import msgspec
import xxhash

from clusterinfo.errors import RecordError
from clusterinfo.json_repair import repair
from clusterinfo.kubernetes.pages import Members, Slice, split_object
from clusterinfo.kubernetes.redaction.objects import Redaction, without_copies
from clusterinfo.kubernetes.redaction.search import LARGE_BYTES
from clusterinfo.kubernetes.redaction.walk import label, quote
from clusterinfo.model import GroupVersionResource

NORMALIZATION = 4
"""Version of the rules in `redaction/`: raise it with every change of what they remove or replace."""


class LastWrite(msgspec.Struct, frozen=True, gc=False):
    """The newest entry of managedFields: which field manager wrote last, and when. Texts are "" where nothing is said.

    "Manager is an identifier of the workflow managing these fields" (Kubernetes API, ManagedFieldsEntry): no user.
    """

    manager: str = ""
    operation: str = ""
    subresource: str = ""
    time: str = ""

    def at(self) -> dt.datetime | None:
        """When, aware, UTC; None if it is not said, or as nothing that a time can be read of."""
        try:
            return dt.datetime.fromisoformat(self.time).astimezone(dt.UTC) if self.time else None
        except (ValueError, OverflowError):
            return None


UNWRITTEN = LastWrite()


class NormalizedObject(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An object as it may leave the cluster: `body` is a whole manifest, `content_hash` 32 hex digits.

    Of an object that came without a resourceVersion, as aggregated APIs serve them, `resource_version` is the content
    hash: other content is another version. `is_repaired`: it came as something that is no JSON, and is not what came
    (see `json_repair.py`).
    """

    body: bytes
    namespace: str
    name: str
    uid: str
    resource_version: str
    content_hash: str
    api_version: str
    kind: str
    is_repaired: bool = False
    written: LastWrite = UNWRITTEN


def normalize(raw: Slice, gvr: GroupVersionResource, redaction: Redaction) -> NormalizedObject:
    """One item of a list of `gvr` -> what may leave the cluster. Costs about 80 µs for a pod of 12 kB.

    What cannot be read as it is (bytes that are no UTF-8; what must go, hundreds of levels deep) is repaired and read
    again. Raises RecordError, which quotes nothing of the object, if it is no object with a name even then.
    """
    try:
        return _normalize(raw, gvr, redaction)
    except _UNREADABLE:
        return _normalize_repaired(bytes(raw), gvr, redaction)


def normalize_members(members: Members, gvr: GroupVersionResource, redaction: Redaction) -> NormalizedObject | None:
    """What `normalize` returns for the item that has these `members`, which are taken from it; None if it has to be
    read as a whole.
    """
    try:
        return _normalize_members(members, gvr, redaction)
    except _UNREADABLE:
        return None


_UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError, TypeError, RecordError)


def _normalize_repaired(raw: bytes, gvr: GroupVersionResource, redaction: Redaction) -> NormalizedObject:
    repaired = repair(raw, bare_tokens=False)
    try:
        item = _normalize(repaired, gvr, redaction)
    except RecordError:
        raise
    except _UNREADABLE as error:
        raise RecordError(f"an item of {gvr.dotted} cannot be read as an object ({type(error).__name__})") from error
    if repaired != raw and any(
        "\ufffd" in text for text in (item.namespace, item.name, item.uid, item.resource_version)
    ):
        raise RecordError(
            f"an item of {gvr.dotted} has a name, namespace, uid or resourceVersion that is no Unicode text"
        )
    return msgspec.structs.replace(item, is_repaired=repaired != raw)


def _normalize(raw: Slice, gvr: GroupVersionResource, redaction: Redaction) -> NormalizedObject:
    return _normalize_members(split_object(raw), gvr, redaction)


def _normalize_members(members: Members, gvr: GroupVersionResource, redaction: Redaction) -> NormalizedObject:
    if (metadata_raw := members.pop("metadata", None)) is None:
        raise RecordError(f"an item of {gvr.dotted} has no metadata")
    metadata, managed_fields = _split_metadata(bytes(metadata_raw))
    written = last_write(managed_fields)
    name = _text(metadata.get("name"))
    if not name:
        raise RecordError(f"an item of {gvr.dotted} has no name")
    api_version = _text(members.pop("apiVersion", None)) or gvr.api_version
    kind = _text(members.pop("kind", None)) or gvr.kind
    namespace = _text(metadata.get("namespace"))
    uid, version = _text(metadata.get("uid")), _text(metadata.get("resourceVersion"))
    if "annotations" in metadata:
        metadata["annotations"] = without_copies(bytes(metadata["annotations"]))
        _drop_empty(metadata)
    body, content_hash = _cleaned(gvr, (namespace, api_version, kind), metadata, members, redaction)
    members.clear()  # what follows copies the body
    body.decode()  # msgspec does not check the UTF-8 of what it skips: 0.8 µs
    return NormalizedObject(
        body=body,
        namespace=namespace,
        name=name,
        uid=uid,
        resource_version=version or content_hash,
        content_hash=content_hash,
        api_version=api_version,
        kind=kind,
        written=written,
    )


def _drop_empty(metadata: MutableMapping[str, Any]) -> None:
    """Remove the annotations if nothing is left of them."""
    if not bytes(metadata.get("annotations", b"-")).strip(b"{} \t\r\n"):
        del metadata["annotations"]


_WHOLE = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MANAGED = b',"managedFields":['


def _split_metadata(data: bytes) -> tuple[dict[str, Slice], Slice | None]:
    """The members of a metadata, and managedFields apart: half of a pod, which is not read where it stands last.

    It does if the only `]` from there on is the metadata's last byte but one. It is a member of the metadata, and of
    no object within, if what stands before it is a whole object but for its brace.
    """
    at = data.find(_MANAGED)
    if at > 0 and data.endswith(b"]}") and data.find(b"]", at) == len(data) - 2:
        try:
            before = _WHOLE.decode(data[:at] + b"}")
        except _UNREADABLE:
            pass  # a member of that name lies deeper
        else:
            before.pop("managedFields", None)  # given twice: the last one counts
            return dict(before), data[at + len(_MANAGED) - 1 : -1]
    members = split_object(data)
    return members, members.pop("managedFields", None)


_ENTRY = msgspec.json.Decoder(LastWrite)
_ENTRIES = msgspec.json.Decoder(list[LastWrite])
_TIME, _MANAGER, _SUBRESOURCE = b'"time":"', b'"manager":"', b'"subresource":"'
_TIME_BYTES = len("2026-11-22T09:24:18Z")
_AFTER_TIME = b'","fieldsType":"FieldsV1","fieldsV1":{'
"""What follows the time of an entry of a kind that is built in: so long that most of what is managed is skipped."""


def last_write(managed_fields: Slice | None) -> LastWrite:
    """The newest entry of `managedFields`, of several at once the last. Costs 3 µs for 5 kB, most of which is skipped.

    What cannot be read says nothing, and costs nobody the object.
    """
    if managed_fields is None:
        return UNWRITTEN
    try:
        data = bytes(managed_fields)
        newest = _searched(data) or _decoded(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return UNWRITTEN
    return newest if "\0" not in newest.manager + newest.subresource + newest.operation else UNWRITTEN


def _searched(data: bytes) -> LastWrite | None:
    """The newest entry, found without a look at what it manages; None if it is not written as servers write it.

    They write manager, operation, apiVersion, time, then what is managed, then subresource; of a custom resource in the
    order of the alphabet.
    """
    is_built_in = data.startswith(b"[{" + _MANAGER)
    needle, offset = (_AFTER_TIME, -_TIME_BYTES) if is_built_in else (_TIME, len(_TIME))
    at, newest = -1, b""
    found = data.find(needle)
    while found >= 0:
        time = data[found + offset : found + offset + _TIME_BYTES]
        if time[-1:] != b"Z":
            return None
        if time >= newest:
            at, newest = found + offset, time
        found = data.find(needle, found + len(needle))
    start = data.rfind(_MANAGER, 0, at) if at >= 0 else -1
    if start < 0:
        return None
    subresource = b""
    if is_built_in:
        end = data.find(b"},{" + _MANAGER, at)
        subresource = _tail(data[at : end if end >= 0 else len(data)])
    return _ENTRY.decode(b'{%s%s%s"}' % (subresource, data[start:at], newest))


def _tail(entry: bytes) -> bytes:
    """`"subresource":"status",` if an entry ends so."""
    start = entry.rfind(_SUBRESOURCE, -120)
    return entry[start : entry.find(b'"', start + len(_SUBRESOURCE)) + 1] + b"," if start >= 0 else b""


def _decoded(data: bytes) -> LastWrite:
    newest = UNWRITTEN
    for entry in _ENTRIES.decode(data):
        if entry.time >= newest.time:
            newest = entry
    return newest


def _cleaned(
    gvr: GroupVersionResource,
    identity: tuple[str, str, str],
    metadata: dict[str, Slice],
    members: dict[str, Slice],
    redaction: Redaction,
) -> tuple[bytes, str]:
    """The body and its hash, cleaned: taken apart only if it is large, or if a rule concerns more than its spec."""
    namespace, api_version, kind = identity
    head = _head(api_version, kind)
    if sum(map(len, members.values())) <= LARGE_BYTES:
        parts = _joinable(metadata), _joinable(members)
        content_hash, spec = _content_hash(*parts), parts[1].get("spec")
        if redaction.clean_spec(*parts, gvr, namespace, content_hash):
            if parts[1].get("spec") is not spec:
                content_hash = _content_hash(*parts)
            return _assemble(head, *parts), content_hash
        del parts, spec
    cleaned = _bytes(metadata), _bytes(members)
    members.clear()
    redaction.clean(*cleaned, gvr, namespace)
    _drop_empty(cleaned[0])
    parts = _joinable(cleaned[0]), _joinable(cleaned[1])
    cleaned[1].clear()  # it may be large, and so may what follows
    content_hash = _content_hash(*parts)
    return _assemble(head, *parts), content_hash


@lru_cache(maxsize=1024)
def _head(api_version: str, kind: str) -> bytes:
    return b'{"apiVersion":%s,"kind":%s,"metadata":{' % (quote(api_version), quote(kind))


def _assemble(head: bytes, metadata: Joinable, members: Joinable) -> bytes:
    parts = [head]
    for value in metadata.values():
        parts += value, b","
    parts[-1] = b"}"
    for value in members.values():
        parts += b",", value
    parts.append(b"}")
    return b"".join(parts)


def _content_hash(metadata: Joinable, members: Joinable) -> str:
    """xxh3_128 over the sorted `"name":value`s; apiVersion, kind and managedFields are not among them any more."""
    inner = [metadata[name] for name in sorted(metadata) if name != "resourceVersion"]
    outer = [members[name] for name in sorted(members)]
    return xxhash.xxh3_128_hexdigest(b"\n".join((*inner, b"", *outer)))


# --- joining slices --------------------------------------------------------------------------------------------------

_TEXT = msgspec.json.Decoder(str | None)


def _text(raw: Slice | None) -> str:
    text = (_TEXT.decode(raw) or "") if raw is not None else ""
    if "\0" in text:
        raise ValueError("a NUL character, which no text of a database can hold")
    return text


def _bytes(members: Mapping[str, Slice]) -> dict[str, bytes]:
    return {key: bytes(value) for key, value in members.items()}


Joinable = dict[str, bytes]
"""Name -> `"name":value`, to be joined by commas."""


def _joinable(members: Mapping[str, Slice]) -> Joinable:
    return {name: label(name) + value for name, value in members.items()}
