"""What is removed, redacted and hashed before an object leaves the cluster. Pure: no I/O, no clock, no environment.

One raw item goes in, a `NormalizedObject` comes out. The object's top level and its metadata are taken apart one level
deep; what must go is dropped; the slices are joined again. Whatever lies deeper is searched for telling bytes, and only
what holds them is walked through (`rewriting.py`), so that nothing that stays is ever parsed and written again.

Removed, wherever they occur: `managedFields` and the annotations in which tools keep a copy of the object.
Replaced by a fingerprint: the values of Secrets (also of Secrets wrapped in other objects), environment values and
fields of custom resources whose names look secret, userinfo in URLs, certificate requests, and, on demand, ConfigMap
values. The byte search relies on the API server writing names unescaped, which Go's encoder does.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from functools import lru_cache

import msgspec
import xxhash

from clusterinfo.errors import RecordError
from clusterinfo.json_repair import repair
from clusterinfo.kubernetes.pages import Slice, split_object
from clusterinfo.kubernetes.rewriting import Leaves, Rule, Siblings, Value, rewrite
from clusterinfo.model import GroupVersionResource
from clusterinfo.userinfo import JSON, may_hold_userinfo, replace_userinfo

NORMALIZATION = 2
"""Version of the rules below: raise it with every change of what they remove or replace."""


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


class Redaction:
    """Turns secret values into fingerprints.

    With a key: `hmac-sha256:` and the first 32 hex digits of HMAC-SHA256(key, value): a rotation is visible, and equal
    values look equal in every cluster that shares the key. Without a key: `redacted:len<=N`, N the power of two, at
    least 16, that the value's length in bytes does not exceed: a hash without a key gives way to a dictionary.
    """

    def __init__(self, key: bytes | None = None, *, configmap_values: bool = False) -> None:
        self._key = key or None
        self.configmap_values = configmap_values

    def fingerprint(self, value: bytes) -> str:
        """The text that stands for `value`."""
        if self._key is not None:
            return f"hmac-sha256:{hmac.new(self._key, value, hashlib.sha256).hexdigest()[:32]}"
        return f"redacted:len<={max(16, 1 << max(0, len(value) - 1).bit_length())}"

    def json(self, value: bytes) -> bytes:
        """The fingerprint as a JSON string."""
        return f'"{self.fingerprint(value)}"'.encode()


def normalize(raw: Slice, gvr: GroupVersionResource, redaction: Redaction) -> NormalizedObject:
    """One item of a list of `gvr` -> what may leave the cluster. Costs about 40 µs for a pod of 11 kB.

    What cannot be read as it is (bytes that are no UTF-8; what must go, hundreds of levels deep) is repaired and read
    again. Raises RecordError, which quotes nothing of the object, if it is no object with a name even then.
    """
    try:
        return _normalize(raw, gvr, redaction)
    except _UNREADABLE:
        return _normalize_repaired(bytes(raw), gvr, redaction)


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
    members = split_object(raw)
    if (metadata_raw := members.pop("metadata", None)) is None:
        raise RecordError(f"an item of {gvr.dotted} has no metadata")
    metadata = _clean_metadata(split_object(metadata_raw), redaction)
    name = _text(metadata.get("name"))
    if not name:
        raise RecordError(f"an item of {gvr.dotted} has no name")
    api_version = _text(members.pop("apiVersion", None)) or gvr.api_version
    kind = _text(members.pop("kind", None)) or gvr.kind
    redact_members(members, gvr, redaction)
    inner, outer = _pairs(metadata), _pairs(members)
    members.clear()  # of a large object two copies are alive at once, not three
    head = _pairs({"apiVersion": _quote(api_version), "kind": _quote(kind), "metadata": _braced(inner)})
    content_hash = _content_hash(inner, outer)
    body = _braced(head | outer)
    body.decode()  # msgspec does not check the UTF-8 of what it skips: 0.8 µs
    return NormalizedObject(
        body=body,
        namespace=_text(metadata.get("namespace")),
        name=name,
        uid=_text(metadata.get("uid")),
        resource_version=_text(metadata.get("resourceVersion")) or content_hash,
        content_hash=content_hash,
        api_version=api_version,
        kind=kind,
    )


def _content_hash(metadata: Mapping[str, bytes], members: Mapping[str, bytes]) -> str:
    """xxh3_128 over the sorted `"name":value`s; apiVersion, kind and managedFields are not among them any more."""
    inner = [metadata[key] for key in sorted(metadata) if key != "resourceVersion"]
    return xxhash.xxh3_128_hexdigest(b"\n".join([*inner, b"", *(members[key] for key in sorted(members))]))


# --- joining slices --------------------------------------------------------------------------------------------------

_TEXT = msgspec.json.Decoder(str | None)


def _text(raw: Slice | None) -> str:
    text = (_TEXT.decode(raw) or "") if raw is not None else ""
    if "\0" in text:
        raise ValueError("a NUL character, which no text of a database can hold")
    return text


@lru_cache(maxsize=4096)
def _label(key: str) -> bytes:
    return _quote(key) + b":"


def _quote(text: str) -> bytes:
    try:
        return msgspec.json.encode(text)
    except UnicodeEncodeError:  # a lone surrogate: valid in JSON as an escape only
        return json.dumps(text).encode()


def _pairs(members: Mapping[str, Slice]) -> dict[str, bytes]:
    """Name -> `"name":value`."""
    return {key: _label(key) + value for key, value in members.items()}


def _braced(pairs: Mapping[str, bytes]) -> bytes:
    return b"{" + b",".join(pairs.values()) + b"}"


def _join(members: Mapping[str, Slice]) -> bytes:
    return _braced(_pairs(members))


def _join_array(elements: list[bytes]) -> bytes:
    return b"[" + b",".join(elements) + b"]"


# --- what is removed -------------------------------------------------------------------------------------------------

# Annotations that hold a copy of the object: kubectl and its kin (`.../last-applied-configuration`), kopf, Rancher's
# apply (a compressed copy) and kapp.
COPY_MARKS = ("last-applied", "last-handled-configuration", "objectset.rio.cattle.io/applied", "kapp.k14s.io/original")
_COPY_MARKS = tuple(mark.encode() for mark in COPY_MARKS)
_REMOVED_MARKS = (b'"managedFields"', *_COPY_MARKS)


def _clean_metadata(metadata: dict[str, Slice], redaction: Redaction) -> dict[str, Slice]:
    metadata.pop("managedFields", None)
    annotations = bytes(metadata.get("annotations", b""))
    if _holds(annotations, _COPY_MARKS):
        kept = {key: value for key, value in split_object(annotations).items() if not _is_copy(key, value)}
        annotations = _join(kept)
    if not annotations.strip(b"{} \t\r\n"):
        metadata.pop("annotations", None)
    else:
        metadata["annotations"] = _hide_userinfo(annotations, redaction)
    return metadata


def _holds(data: bytes, marks: tuple[bytes, ...]) -> bool:
    for mark in marks:  # noqa: SIM110 - any() costs as much again as the search
        if mark in data:
            return True
    return False


def _is_copy(key: str, value: Slice | Value) -> bool:
    """True for an annotation that repeats the object; a field of a schema that is so named holds no string."""
    return any(mark in key for mark in COPY_MARKS) and bytes(memoryview(value)[:1]) == b'"'


def _is_removed(key: str, value: Value) -> bool:
    return (key == "managedFields" and value[:1] == b"[") or _is_copy(key, value)


def _strip(value: bytes) -> bytes:
    """`value` without managedFields and copies at any depth; only slices that hold their names are taken apart."""
    return rewrite(value, _REMOVED_MARKS, _strip_member)


def _strip_member(_: Siblings, key: str, value: Value) -> Value | None:
    return None if _is_removed(key, value) else value


# --- what is replaced ------------------------------------------------------------------------------------------------


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


BUILT_IN_GROUPS = _words("apps autoscaling batch extensions policy") | {
    "",
    *(
        f"{group}.k8s.io"
        for group in _words(
            "admissionregistration apiextensions apiregistration authentication authorization certificates "
            "coordination discovery events flowcontrol.apiserver internal.apiserver metrics networking node "
            "rbac.authorization resource scheduling storage storagemigration"
        )
    ),
}
"""Groups of kube-apiserver itself; any other group holds custom resources."""

_POD_CARRIERS = _words(
    "pods podtemplates replicationcontrollers controllerrevisions daemonsets deployments replicasets statefulsets "
    "cronjobs jobs"
)

# What makes a name look secret, and the last words that make it the name of something about a secret instead.
_SECRET_WORDS = _words(
    "password passwd passphrase pwd secret token credential apikey accesskey privatekey signingkey encryptionkey"
)
_KEY_KINDS = _words("api access private signing encryption master shared auth")
_ABOUT = _words(
    "name names namespace ref refs reference references selector selectors file files path paths dir mount mounts type "
    "types class kind policy enabled disabled seconds minutes expiration expiry ttl lifetime length size count version "
    "versions provider issuer url uri endpoint audience audiences template templates store stores hash"
)
_HINTS = tuple(word.encode() for word in sorted(_SECRET_WORDS | {"key"}))
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ENV = re.compile(rb'"name"\s*:\s*"([^"\\]*)"\s*,\s*"value"\s*:\s*"((?:[^"\\]|\\.)+)"')
_ENV_NAME = re.compile(rb'"name"\s*:\s*"([^"\\]*)"\s*,\s*"value"')


@lru_cache(maxsize=8192)
def looks_secret(name: str) -> bool:
    """True for `DB_PASSWORD`, `apiKey`, `token`; False for `secretName`, `tokenPath`, `passwordSecretRef`."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not words or words[-1] in _ABOUT:
        return False
    joined = "".join(words)
    return any(word in joined for word in _SECRET_WORDS) or (
        words[-1] in ("key", "keys") and not _KEY_KINDS.isdisjoint(words)
    )


@lru_cache(maxsize=8192)
def _names_secret(name: bytes) -> bool:
    return looks_secret(name.decode())


def redact_members(members: dict[str, Slice], gvr: GroupVersionResource, redaction: Redaction) -> None:
    """Apply every rule but those of metadata to an object's top-level members, in place."""
    for key, value in members.items():
        members[key] = _redact_member(key, bytes(value), gvr, redaction)


def _redact_member(key: str, value: bytes, gvr: GroupVersionResource, redaction: Redaction) -> bytes:
    if key in (encodings := _value_maps(gvr, redaction)):
        return _fingerprint_map(value, redaction, encoded=encodings[key])
    if _holds(value, _REMOVED_MARKS):
        value = _strip(value)
    if gvr.group not in BUILT_IN_GROUPS:
        value = _redact_custom(key, value, redaction)
    elif gvr.resource in _POD_CARRIERS:
        value = _redact_env(value, redaction)
    if gvr.resource in ("certificatesigningrequests", "certificaterequests"):
        value = rewrite(value, (b'"request"',), _replace_request(redaction))
    return _hide_userinfo(value, redaction)


_SECRET_MAPS = {"data": True, "stringData": False}
_CONFIGMAP_MAPS = {"data": False, "binaryData": True}


def _value_maps(gvr: GroupVersionResource, redaction: Redaction) -> Mapping[str, bool]:
    """The members whose every value is replaced -> whether those values are base64."""
    if gvr.kind == "Secret" or (gvr.resource == "secrets" and not gvr.group):
        return _SECRET_MAPS
    if redaction.configmap_values and gvr.resource == "configmaps" and not gvr.group:
        return _CONFIGMAP_MAPS
    return {}


def _fingerprint_map(value: bytes, redaction: Redaction, *, encoded: bool) -> bytes:
    """A Secret's data: keys stay, values become fingerprints of what they decode to; no object: one fingerprint."""
    if value == b"null":
        return value
    if value[:1] != b"{":
        return redaction.json(value)
    return _join({key: redaction.json(_plain(bytes(v), encoded=encoded)) for key, v in split_object(value).items()})


def _plain(value: bytes, *, encoded: bool) -> bytes:
    """The bytes a JSON string stands for, base64-decoded if it is `encoded`; of any other value its JSON."""
    if value[:1] != b'"':
        return b"" if value == b"null" else value
    text = str(json.loads(value)).encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(text, validate=True) if encoded else text
    except binascii.Error:
        return text


def _redact_env(value: bytes, redaction: Redaction) -> bytes:
    """Fingerprints for environment values whose names look secret. The API server writes `name` before `value`."""
    if not any(map(_names_secret, _ENV_NAME.findall(value))):
        return value

    def replace(found: re.Match[bytes]) -> bytes:
        if not _names_secret(found[1]):
            return found[0]
        start = found.start(2) - found.start() - 1
        return found[0][:start] + redaction.json(_plain(b'"' + found[2] + b'"', encoded=False))

    return _ENV.sub(replace, value)


def _redact_custom(key: str, value: bytes, redaction: Redaction) -> bytes:
    """Fingerprints within a custom resource: fields and environment values that look secret, wrapped Secrets."""
    return rewrite(value, _HINTS, _custom_rule(redaction), key, any_case=True)


def _custom_rule(redaction: Redaction) -> Rule:
    leaves = Leaves(lambda value: redaction.json(_plain(value, encoded=False)))

    def rule(siblings: Siblings, key: str, value: Value) -> Value | Leaves:
        if key in _SECRET_MAPS and siblings.get("kind") == b'"Secret"':
            return _fingerprint_map(bytes(value), redaction, encoded=_SECRET_MAPS[key])
        named = siblings.get("name") if key == "value" else b""  # `{"name": "DB_PASSWORD", "value": ...}`
        return leaves if looks_secret(_text(named) if named[:1] == b'"' else key) else value

    return rule


def _replace_request(redaction: Redaction) -> Rule:
    def rule(_: Siblings, key: str, value: Value) -> Value:
        if key == "request" and value[:1] == b'"':
            return redaction.json(_plain(bytes(value), encoded=True))
        return value

    return rule


def _hide_userinfo(value: bytes, redaction: Redaction) -> bytes:
    """`://user:password@` -> `://user:<fingerprint>@`, `://token@` -> `://<fingerprint>@`: see `userinfo.py`.

    The fingerprint is that of the text, not of its JSON: a Secret that holds the same password has the same.
    """
    if not may_hold_userinfo(value):
        return value

    def conceal(user: str | None, secret: str) -> str:
        quoted = f'"{secret}"'.encode("utf-8", "surrogateescape")
        hidden = redaction.fingerprint(_plain(quoted, encoded=False))
        return f"{hidden}@" if user is None else f"{user}:{hidden}@"

    text = value.decode("utf-8", "surrogateescape")
    return replace_userinfo(text, JSON, conceal).encode("utf-8", "surrogateescape")
