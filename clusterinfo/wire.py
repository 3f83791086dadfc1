"""A record as a Kafka message and back: CloudEvents 1.0, Kafka protocol binding, binary content mode.

Pure: bytes in, bytes out; no Kafka client, no database, no clock. The attributes are a contract with other readers: see
docs/DESIGN.md. The producer sends them; the dead letters keep them, so that any CloudEvents reader can read what could
not be stored. Decoding is strict, because what passes here goes to the database unread.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from clusterinfo.errors import RecordError
from clusterinfo.model import CLOCK, MAX_NUMBER, UUID7, Record, RecordType, in_utc, is_beyond_versions, page_of

Headers = Sequence[tuple[str, bytes | None]]

CONTENT_TYPE = ("content-type", b"application/json")
SPECVERSION = ("ce_specversion", b"1.0")

STATES = frozenset({"", "oversize"})
ORDERINGS = frozenset({"", CLOCK})

# "Integer: A whole number in the range -2,147,483,648 to +2,147,483,647 inclusive." (CloudEvents 1.0.2, type system)
INTEGER_MAX = (1 << 31) - 1
NORMALIZATION_MAX = (1 << 15) - 1  # what its column, a smallint, holds
MAX_HEADERS, MAX_HEADERS_BYTES = 64, 64 * 1024  # a message of ours has 24 of 1 kB
MAX_KEY_BYTES = 64 * 1024
_DIGITS = len(str(MAX_NUMBER))  # of a number that is looked at: `int` refuses 4,301
MAX_QUOTED_CHARS = 60  # of what a reason quotes: enough to recognise a value, too little to leak one
_CACHED = 4096  # distinct clusters, ids and times remembered: more than a topic carries, or a run reads side by side
_CACHED_ALIKE = 64  # pages whose attributes are remembered: those that come side by side; each may have 64 KiB
_SIDE_BY_SIDE = 128  # lists and watches whose headers are remembered: a stranger's may have 64 kB

_ENCODER = msgspec.json.Encoder()
_KEY = msgspec.json.Decoder(tuple[str, str, str, str, str])
_OWN_KEY = msgspec.json.Decoder(tuple[str, str])
_HASH = re.compile(rb"[0-9a-f]{32}")
_UUID7 = re.compile(UUID7.encode())
_LAST_UUID7 = b"e677d21f-dbff"  # milliseconds of the end of the year 9999, the last that Python and SQL agree on
_SHARED = ("ce_snapshot", "ce_list", "ce_reach", "ce_apiversion", "ce_kind", "ce_ordering", "ce_state", "ce_session")
_VERBS = {kind: kind.value.split(".")[-2] for kind in RecordType}
_TYPES = {kind.value.encode(): kind for kind in RecordType}
_ALIKE = (
    "ce_specversion", "ce_type", "ce_clustername", "ce_time", "ce_epoch", "ce_snapshot", "ce_list", "ce_reach",
    "ce_apiversion", "ce_kind", "ce_listversion", "ce_ordering", "ce_normalization", "ce_state", "ce_session",
)  # fmt: skip
"""Attributes that all records of a page have alike: read once a page."""
OWN = (
    "ce_id", "ce_subject", "ce_uid", "ce_resourceversion", "ce_contenthash", "ce_manager", "ce_operation",
    "ce_subresource", "ce_managedat",
)  # fmt: skip
"""Attributes that an item of a page has for itself, in the order of its headers."""
Own = tuple[bytes, bytes, bytes, tuple[str, str, str], bytes]
"""Values of `OWN` from `ce_uid` on, the three that tell who wrote it as text; empty for what is absent."""
_REQUIRED = {
    RecordType.OBSERVED: ("resource", "name", "api_version", "kind", "content_hash"),
    RecordType.DELETED: ("resource", "name", "list_version"),
    RecordType.LIST_COMPLETED: ("resource", "list"),
    RecordType.LIST_FAILED: ("resource", "list"),
    RecordType.SNAPSHOT_STARTED: ("snapshot",),
    RecordType.SNAPSHOT_COMPLETED: ("snapshot",),
    RecordType.WATCH_PROGRESS: ("session",),
    RecordType.WATCH_ENDED: ("session",),
}
_VALUES = {kind: attrgetter("type", *names) for kind, names in _REQUIRED.items()}  # a tuple, of one name too


class Message(NamedTuple):
    """What Kafka carries: `key` a JSON array, `value` the body, `headers` the attributes."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


# --- writing ---------------------------------------------------------------------------------------------------------


def encode(record: Record) -> Message:
    """`record` as a message. Raises RecordError if a text cannot be UTF-8 or the body is empty."""
    if not record.body:
        raise RecordError("the record has no body, but a value is never null or empty")
    try:
        return Message(key_of(record), record.body, attributes_of(record))
    except UnicodeEncodeError as error:
        raise RecordError(f"an attribute is no Unicode text: {error.reason}") from error


def key_of(record: Record) -> bytes:
    """`[cluster, group, resource, namespace, name]` as JSON. Raises UnicodeEncodeError for half a surrogate pair."""
    return _ENCODER.encode((record.cluster, record.group, record.resource, record.namespace, record.name))


def attributes_of(record: Record) -> list[tuple[str, bytes]]:
    """The headers that say all of `record` but its key and body; what is empty is left out.

    What the records of a page have alike comes first: it compresses better, and is read at once.
    Raises UnicodeEncodeError for half a surrogate pair, RecordError for a time without zone.
    """
    headers = [
        *_shared(
            record.type,
            record.cluster,
            record.cluster_name,
            record.epoch,
            record.normalization,
            record.snapshot,
            record.list,
            record.reach,
            record.api_version,
            record.kind,
            record.ordering,
            record.state,
            record.session,
        ),
        ("ce_time", _time(record.observed_at)),
    ]
    headers += [
        (name, text.encode())
        for name, text in (
            ("ce_listversion", record.list_version),
            ("ce_id", record_id(record)),
            ("ce_subject", subject(record.group, record.resource, record.namespace, record.name)),
            ("ce_uid", record.uid),
            ("ce_resourceversion", record.resource_version),
            ("ce_contenthash", record.content_hash),
            ("ce_manager", record.manager),
            ("ce_operation", record.operation),
            ("ce_subresource", record.subresource),
        )
        if text
    ]
    if record.managed_at:
        headers.append(("ce_managedat", _time(record.managed_at)))
    if record.number:
        headers.append(("ce_number", b"%d" % record.number))
    if record.partition >= 0:
        headers.append(("ce_partition", b"%d" % record.partition))
    return headers


@lru_cache(_SIDE_BY_SIDE)
def _shared(
    kind: RecordType, cluster: str, cluster_name: str, epoch: int, normalization: int, *texts: str
) -> tuple[tuple[str, bytes], ...]:
    """The headers that all objects of a list, or of a watch, have in common; `texts`: those of `_SHARED`."""
    named = zip(_SHARED, texts, strict=True)
    return (
        SPECVERSION,
        ("ce_type", kind.value.encode()),
        ("ce_source", source(cluster)),
        CONTENT_TYPE,
        ("ce_epoch", b"%d" % epoch),
        ("ce_normalization", b"%d" % normalization),
        *((name, text.encode()) for name, text in (("ce_clustername", cluster_name), *named) if text),
    )


def record_id(record: Record) -> str:
    """CloudEvents `id`, the same whenever the same statement is sent again.

    "Producers MUST ensure that source + id is unique for each distinct event." A list attempt (a UUID of its own)
    sees a version of an object once; a watched version is identified by its key and resourceVersion alone. The deletion
    of what a resourceVersion names may reuse it, hence the verb.
    """
    verb = _VERBS[record.type]
    if record.is_of_watches:
        return f"{record.session}/{record.partition}/{record.number}/{verb}"
    if not record.is_object:
        return f"{record.list or record.snapshot}/{verb}"
    scope = record.list or f"{record.group or 'core'}/{record.resource}"
    return f"{scope}/{record.namespace}/{record.name}/{record.resource_version}/{verb}"


@lru_cache(_CACHED)
def source(cluster: str) -> bytes:
    """CloudEvents `source` of a cluster: a URI-reference, hence the percent-encoding."""
    return f"/clusters/{quote(cluster, safe='')}".encode()


def subject(group: str, resource: str, namespace: str, name: str) -> str:
    """CloudEvents `subject`, `-` for what does not apply; "" (absent) for a statement about a whole snapshot."""
    return f"{group or 'core'}/{resource}/{namespace or '-'}/{name or '-'}" if resource else ""


@lru_cache(_CACHED)
def _time(moment: dt.datetime) -> bytes:
    """RFC 3339, UTC, always with microseconds. A naive time would be read as local: refuse it."""
    if moment.tzinfo is None:
        raise RecordError("observed_at has no time zone, expected UTC")
    if moment.tzinfo is not dt.UTC:
        moment = moment.astimezone(dt.UTC)
    return f"{moment.replace(tzinfo=None).isoformat(timespec='microseconds')}Z".encode()


# --- reading ---------------------------------------------------------------------------------------------------------


def decode(key: bytes | None, value: bytes | None, headers: Headers, offset: int = -1) -> Record:
    """The record in a message. Raises RecordError with one line about what is wrong with it.

    The object's identity is taken from the key; `source` and `subject` must agree with it. The body is not parsed.
    """
    if not value:
        raise RecordError("the value is null or empty")
    attributes = _attributes(headers)
    get = attributes.get
    try:
        alike = _alike(*map(get, _ALIKE))
        if not get("ce_id"):
            raise RecordError("ce_id is missing")
        cluster, group, resource, namespace, name = _identity(key)
        record = Record(
            type=alike.type,
            cluster=cluster,
            cluster_name=alike.cluster_name,
            observed_at=alike.observed_at,
            body=value,
            epoch=alike.epoch,
            group=group,
            resource=resource,
            namespace=namespace,
            name=name,
            snapshot=alike.snapshot,
            list=alike.list,
            reach=alike.reach,
            api_version=alike.api_version,
            kind=alike.kind,
            uid=get("ce_uid", b"").decode(),
            resource_version=get("ce_resourceversion", b"").decode(),
            list_version=alike.list_version,
            ordering=alike.ordering,
            content_hash=_content_hash(get("ce_contenthash", b"")),
            normalization=alike.normalization,
            state=alike.state,
            session=alike.session,
            number=_integer("number", get("ce_number", b""), MAX_NUMBER) if "ce_number" in attributes else 0,
            partition=_integer("partition", get("ce_partition", b"")) if "ce_partition" in attributes else -1,
            manager=get("ce_manager", b"").decode(),
            operation=get("ce_operation", b"").decode(),
            subresource=get("ce_subresource", b"").decode(),
            managed_at=_moment_of(get("ce_managedat", b""), "managedat") if "ce_managedat" in attributes else None,
            offset=offset,
        )
    except UnicodeDecodeError as error:
        raise RecordError("an attribute is not UTF-8") from error
    # Last, as it compares source and subject with an identity that has been read.
    _check(record, attributes)
    return record


class Page:
    """What the items of a page have alike, known from one of them. Of others it makes what `decode` would, or none."""

    __slots__ = ("_first", "_key", "_subject")

    def __init__(self, first: Record) -> None:
        self._first = replace(first, body=b"")
        self._key = _ENCODER.encode((first.cluster, first.group, first.resource))[:-1] + b","
        self._subject = f"{first.group or 'core'}/{first.resource}"

    @classmethod
    def of(cls, key: bytes | None, value: bytes | None, shared: Headers, own: Headers) -> Page | None:
        """The page of a message whose `shared` headers its neighbours have; None if it is no item of one."""
        if not (set(dict(own)).issubset(OWN) and set(dict(shared)).isdisjoint(OWN)):
            return None
        try:
            first = decode(key, value, [*shared, *own])
        except RecordError:
            return None
        return cls(first) if page_of(first) else None

    def identity(self, key: bytes) -> tuple[str, str, bytes]:
        """Namespace, name and `ce_subject` of the item that has this key. Raises ValueError if there is none such."""
        if not key.startswith(self._key) or b"\\" in key or len(key) > MAX_KEY_BYTES:
            raise ValueError("not a key of this page, or an unusual one")
        namespace, name = _OWN_KEY.decode(b"[" + key[len(self._key) :])
        if not name:
            raise ValueError("a key without a name")
        return namespace, name, f"{self._subject}/{namespace or '-'}/{name}".encode()

    def item(self, namespace: str, name: str, value: bytes, own: Own, offset: int) -> Record:
        """The record of a message that has the headers of this page, a `ce_id`, the `ce_subject` of its key, and `own`.

        Of a message within the bounds of `decode`, whose values hold no NUL. Raises ValueError or RecordError if
        anything is unusual.
        """
        uid, version, content_hash, (manager, operation, subresource), managed_at = own
        if not value or not _HASH.fullmatch(content_hash):
            raise ValueError("no body, or no hash")
        return replace(
            self._first,
            body=value,
            namespace=namespace,
            name=name,
            uid=uid.decode(),
            resource_version=version.decode(),
            content_hash=content_hash.decode(),
            manager=manager,
            operation=operation,
            subresource=subresource,
            managed_at=_moment_of(managed_at, "managedat") if managed_at else None,
            offset=offset,
        )


class _Alike(NamedTuple):
    """What the attributes `_ALIKE` say."""

    type: RecordType
    cluster_name: str
    observed_at: dt.datetime
    epoch: int
    snapshot: str
    list: str
    reach: str
    api_version: str
    kind: str
    list_version: str
    ordering: str
    normalization: int
    state: str
    session: str


@lru_cache(_CACHED_ALIKE)
def _alike(specversion: bytes | None, kind: bytes | None, *texts: bytes | None) -> _Alike:
    """What these attributes say, None for each that is absent. Raises RecordError, UnicodeDecodeError."""
    type_ = _type_of(specversion, kind)
    get = dict(zip(_ALIKE[2:], texts, strict=True)).get

    def text(name: str) -> bytes:
        return get(name) or b""

    def integer(name: str, most: int) -> int:
        return 0 if (found := get(f"ce_{name}")) is None else _integer(name, found, most)

    alike = _Alike(
        type=type_,
        cluster_name=text("ce_clustername").decode(),
        observed_at=_moment(text("ce_time")),
        epoch=integer("epoch", INTEGER_MAX),
        snapshot=_uuid7(text("ce_snapshot")),
        list=_uuid7(text("ce_list")),
        reach=text("ce_reach").decode(),
        api_version=text("ce_apiversion").decode(),
        kind=text("ce_kind").decode(),
        list_version=text("ce_listversion").decode(),
        ordering=text("ce_ordering").decode(),
        normalization=integer("normalization", NORMALIZATION_MAX),
        state=text("ce_state").decode(),
        session=_uuid7(text("ce_session")),
    )
    _check_alike(alike)
    return alike


def _attributes(headers: Headers) -> dict[str, bytes]:
    if len(headers) > MAX_HEADERS:
        raise RecordError(f"it has {len(headers)} headers, more than {MAX_HEADERS}: not read")
    attributes: dict[str, Any] = dict(headers)
    if len(attributes) != len(headers):
        _check_unique([name for name, _ in headers if name.startswith("ce_")])
    try:
        values = b"".join(attributes.values())
    except TypeError:  # one is null, as if it were not there
        attributes = {name: value for name, value in attributes.items() if value is not None}
        values = b"".join(attributes.values())
    names = "".join(attributes)
    if len(names) + len(values) > MAX_HEADERS_BYTES:
        raise RecordError(f"its headers are larger than {MAX_HEADERS_BYTES} bytes: not read")
    if b"\0" in values:
        raise RecordError("an attribute contains a NUL character, which no text of a database can hold")
    if not names.isascii() and not is_text(names):
        raise RecordError("the name of a header is not UTF-8")
    return attributes


def _check_unique(names: Sequence[str]) -> None:
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise RecordError(f"header {quoted(min(twice))} is there more than once")


def is_text(name: str) -> bool:
    """Whether it was UTF-8: what was not has lone surrogates in its place."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _type_of(specversion: bytes | None, text: bytes | None) -> RecordType:
    if specversion != b"1.0":
        raise RecordError(f"no CloudEvent 1.0: ce_specversion is {quoted(specversion)}")
    if (kind := _TYPES.get(text or b"")) is None:
        raise RecordError(f"ce_type is {quoted(text)}, which is no type of record")
    return kind


def _identity(key: bytes | None) -> tuple[str, str, str, str, str]:
    if key and len(key) > MAX_KEY_BYTES:
        raise RecordError(f"the key has {len(key)} bytes, more than {MAX_KEY_BYTES}: not read")
    try:
        identity = _KEY.decode(key or b"")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(
            f"the key is {quoted(key)}, expected [cluster, group, resource, namespace, name] as JSON"
        ) from error
    if "\0" in "".join(identity):
        raise RecordError("the key contains a NUL character, which no text of a database can hold")
    if not identity[0]:
        raise RecordError("the key names no cluster")
    return identity


@lru_cache(_CACHED)
def _moment(text: bytes, name: str = "time") -> dt.datetime:
    return _moment_of(text, name)


def _moment_of(text: bytes, name: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text.decode("ascii"))
    except ValueError as error:
        raise RecordError(f"ce_{name} is {quoted(text)}, expected an RFC 3339 timestamp") from error
    if moment.tzinfo is dt.UTC and 1 < moment.year < dt.MAXYEAR:  # as it is written
        return moment
    if moment.tzinfo is None:
        raise RecordError(f"ce_{name} is {quoted(text)}, which has no time zone")
    try:
        return in_utc(moment)
    except OverflowError as error:
        raise RecordError(f"ce_{name} is {quoted(text)}, which is out of range") from error


@lru_cache(_CACHED)
def _uuid7(text: bytes) -> str:
    if text and (not _UUID7.fullmatch(text) or text[:13] > _LAST_UUID7):
        raise RecordError(f"ce_list, ce_snapshot or ce_session is {quoted(text)}, expected a UUIDv7 of before 10000")
    return text.decode()


def _integer(name: str, text: bytes, most: int = INTEGER_MAX) -> int:
    if len(text) <= _DIGITS and text.isdigit() and (number := int(text)) <= most:
        return number
    raise RecordError(f"ce_{name} is {quoted(text)}, expected a whole number from 0 to {most}")


def _content_hash(text: bytes) -> str:
    if text and not _HASH.fullmatch(text):
        raise RecordError(f"ce_contenthash is {quoted(text)}, expected 32 hexadecimal digits")
    return text.decode()


def _check(record: Record, attributes: dict[str, bytes]) -> None:
    if attributes.get("ce_source") != source(record.cluster):
        raise RecordError(f"ce_source is {quoted(attributes.get('ce_source'))}, but the key has another cluster")
    expected = subject(record.group, record.resource, record.namespace, record.name)
    if attributes.get("ce_subject", b"") != expected.encode():
        raise RecordError(f"ce_subject is {quoted(attributes.get('ce_subject'))}, but the key has {quoted(expected)}")
    if record.session or record.number or record.is_of_watches:
        _check_session(record)
    if missing := _missing(record):
        raise RecordError(f"{missing} is missing from a record of type {record.type.value}")


def _check_alike(alike: _Alike) -> None:
    if alike.state not in STATES:
        raise RecordError(f"ce_state is {quoted(alike.state)}, expected oversize or none")
    if alike.ordering not in ORDERINGS:
        raise RecordError(f"ce_ordering is {quoted(alike.ordering)}, expected clock or none")
    if not alike.ordering and is_beyond_versions(alike.list_version):
        raise RecordError(
            f"ce_listversion is {quoted(alike.list_version)}: above 2^62 no version orders anything, and what is "
            "ordered by the clock says so"
        )


def _check_session(record: Record) -> None:
    """What is said by watching has a number; what is listed, or said of a list or a snapshot, has none."""
    if bool(record.session) != bool(record.number):
        raise RecordError("ce_session and ce_number belong together, and one of them is missing")
    if record.number and (record.list or not (record.is_object or record.is_of_watches)):
        raise RecordError("ce_number is there, but only what is watched is numbered")
    if record.is_of_watches and (record.partition < 0 or record.resource):
        raise RecordError("a statement about watches needs ce_partition, and a key that names the cluster alone")


def _missing(record: Record) -> str:
    """What a record of its type cannot do without and has not; "" if it has everything."""
    if not all(_VALUES[record.type](record)):
        return next(name for name in _REQUIRED[record.type] if not getattr(record, name))
    return "" if record.list or record.list_version or not record.is_object else "list or list_version"


def quoted(value: str | bytes | None) -> str:
    """`value` as a message may show it: at most 60 characters, one line, printable."""
    if value is None:
        return "missing"
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
    shown = text if len(text) <= MAX_QUOTED_CHARS else f"{text[:MAX_QUOTED_CHARS]}..."
    return ascii(shown)
