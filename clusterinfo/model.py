"""The nouns that flow: what is observed, where it belongs, how it is batched.

Pure: no I/O, no clock, no environment. Every other module may import this one; it imports nothing of the package.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import xxhash

DIGEST_MODULUS = 1 << 128
INT64_MAX = (1 << 63) - 1
MAX_VERSION = 1 << 62
"""Of a list version that orders a kind: etcd's revisions count changes, so that none comes near. What claims more would
stay the newest for ever."""
_VERSION_DIGITS = len(str(MAX_VERSION))
MAX_NUMBER = 1 << 62
"""Of what a session says by watching: no session comes near, and the one after it still fits into a bigint."""

# RFC 9562, 4: "hexadecimal ... output as lower case, and input is case-insensitive"; version 7 carries the time.
UUID7 = "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
# To a database client the first and the last moment that Python knows mean -infinity and infinity.
_FIRST_MOMENT, _LAST_MOMENT = dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC)

CLOCK = "clock"
"""As a record's `ordering`: its kind is ordered by when its lists began."""


class RecordType(StrEnum):
    """CloudEvents `type` of a record: what it reports."""

    OBSERVED = "io.clusterinfo.resource.observed.v1"
    DELETED = "io.clusterinfo.resource.deleted.v1"
    LIST_COMPLETED = "io.clusterinfo.list.completed.v1"
    LIST_FAILED = "io.clusterinfo.list.failed.v1"
    SNAPSHOT_STARTED = "io.clusterinfo.snapshot.started.v1"
    SNAPSHOT_COMPLETED = "io.clusterinfo.snapshot.completed.v1"
    WATCH_PROGRESS = "io.clusterinfo.watch.progress.v1"
    WATCH_ENDED = "io.clusterinfo.watch.ended.v1"


class Outcome(StrEnum):
    """How a unit fared in a snapshot, as `snapshot.completed` reports it."""

    COMPLETED = "completed"
    FAILED = "failed"
    FORBIDDEN = "forbidden"
    EXCLUDED = "excluded"


class Pace(StrEnum):
    """How a cluster is collected."""

    ONCE = "listed once"
    LISTS = "listed every COLLECT_INTERVAL"
    FOLLOW = "listed, then followed"


@dataclass(frozen=True, slots=True, order=True)
class GroupVersionResource:
    """One listable resource as discovery describes it.

    `group` is "" for core; `version` the group's preferred one that serves the resource; `resource` the plural name;
    `kind` its Kind; `verbs` what the server allows.
    """

    group: str
    version: str
    resource: str
    kind: str
    namespaced: bool
    verbs: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """`v1`, `apps/v1`: as manifests spell it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def dotted(self) -> str:
        """`pods`, `deployments.apps`: as kubectl and `INCLUDE`/`EXCLUDE` spell it."""
        return _dotted(self.resource, self.group)


class Unit(msgspec.Struct, frozen=True, order=True, gc=False):
    """A kind in a cluster: what is listed, ordered and verified as one. Not the API version: see docs/DESIGN.md."""

    cluster: str
    group: str
    resource: str

    @property
    def dotted(self) -> str:
        """`pods`, `deployments.apps`: as kubectl spells it."""
        return _dotted(self.resource, self.group)


def _dotted(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One observation of one Kubernetes object, or one statement about a list, a snapshot or a session's watches.

    Text attributes are "" when they do not apply. `body` is the object's JSON as it left normalisation (statements: a
    small JSON object), never empty. Source of the attributes: the wire format in docs/DESIGN.md.
    """

    type: RecordType
    cluster: str
    """Identity: what the collector's CLUSTER_ID says, else the uid of the kube-system namespace."""
    cluster_name: str
    """Label a person knows the cluster by."""
    observed_at: dt.datetime
    """When it was observed; aware, UTC."""
    body: bytes
    epoch: int = 0
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    snapshot: str = ""
    """UUIDv7 of the run of lists."""
    list: str = ""
    """UUIDv7 of one attempt to list one unit."""
    reach: str = ""
    """The namespace the list was confined to; "" for all."""
    api_version: str = ""
    kind: str = ""
    uid: str = ""
    resource_version: str = ""
    """Opaque: compared for equality only."""
    list_version: str = ""
    """As of which the object was seen: the list's resourceVersion, or the object's own when watched."""
    ordering: str = ""
    """"" by list versions; "clock": by when its list began, since the versions of its kind order nothing."""
    content_hash: str = ""
    """32 hex digits: xxh3_128 of the normalised content without its version."""
    normalization: int = 0
    """Version of the redaction rules."""
    state: str = ""
    """"" whole; "oversize": body is `{size_bytes, sha256}`."""
    session: str = ""
    """UUIDv7 of the life of the collector that says this by watching; "" for everything else."""
    number: int = 0
    """Counts what its session says by watching on one partition: 1, 2, 3 ...; 0 without a session."""
    partition: int = -1
    """Of a statement about a session's watches: the partition it is about; -1 for everything else."""
    manager: str = ""
    """Field manager of the newest of managedFields: who wrote last. No user; "" if nobody is named."""
    operation: str = ""
    """What it did: Apply or Update."""
    subresource: str = ""
    """By which subresource; "" by none."""
    managed_at: dt.datetime | None = None
    """When; aware, UTC."""
    offset: int = -1
    """Kafka offset it was read from; -1 elsewhere."""

    @property
    def unit(self) -> Unit:
        return Unit(self.cluster, self.group, self.resource)

    @property
    def is_object(self) -> bool:
        """True for an observation or a deletion, False for a statement."""
        return self.type is RecordType.OBSERVED or self.type is RecordType.DELETED

    @property
    def is_of_watches(self) -> bool:
        """True for a statement about a session's watches, which is about no unit of its own."""
        return self.type is RecordType.WATCH_PROGRESS or self.type is RecordType.WATCH_ENDED


def page_of(record: Record) -> tuple[object, ...] | None:
    """What the items of a page have alike beside what is their own; None of what is no item of a list."""
    if record.list and not record.number and record.type is RecordType.OBSERVED:
        return (  # an `attrgetter` of these takes three times as long
            record.list,
            record.list_version,
            record.observed_at,
            record.cluster,
            record.group,
            record.resource,
            record.kind,
            record.api_version,
            record.epoch,
            record.reach,
            record.ordering,
        )
    return None


class Rejected(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A message that is no record of ours: goes to the dead letters as it came, but for `omitted_bytes`."""

    offset: int
    reason: str
    key: bytes | None = None
    headers: list[tuple[str, bytes | None]]
    value: bytes
    sqlstate: str | None = None
    """PostgreSQL's code, if it was PostgreSQL that refused it."""
    omitted_bytes: int = 0
    """Of its key and its headers, which are not kept whole if they are too large."""


@dataclass(frozen=True, slots=True)
class ListLane:
    """The lane of one unit's list within one reach, or (resource "") of a snapshot's own statements."""

    unit: Unit
    reach: str = ""

    def __str__(self) -> str:
        name = self.unit.dotted or "snapshot"
        return f"{name} in {self.reach}" if self.reach else name


@dataclass(frozen=True, slots=True)
class WatchLane:
    """The lane of what a session says by watching one unit within one reach; without a resource, of all its watches."""

    unit: Unit
    reach: str
    session: str

    def __str__(self) -> str:
        name = self.unit.dotted or "watches"
        return f"watch of {name} in {self.reach}" if self.reach else f"watch of {name}"


@dataclass(frozen=True, slots=True)
class PartitionLane:
    """The lane of one partition: of which Kafka cluster, topic, and read by which consumer group."""

    kafka_cluster: str
    topic: str
    partition: int
    group_id: str

    def __str__(self) -> str:
        return partition_name(self.topic, self.partition)


def partition_name(topic: str, partition: int) -> str:
    """How Kafka's own tools and logs call it."""
    return f"{topic}-{partition}"


Lane = ListLane | PartitionLane | WatchLane


class Batch(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a source hands over at once: stored whole or not at all.

    Position of a batch: [start, end) in offsets for a partition, [page number, page number + 1) for a list. `list`
    names the list attempt a page belongs to ("" for a partition). `gap`: Kafka no longer held some of what lay between
    `start` and `end`, so that what this partition carried of its units is not known any more.
    """

    lane: Lane
    start: int
    end: int
    records: list[Record]
    rejected: list[Rejected] = []
    size_bytes: int = 0
    list: str = ""
    gap: bool = False


class Receipt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A sink's word that a batch is stored: `position` is where the lane goes on, the next offset or the next page."""

    lane: Lane
    position: int


Position = int | None
"""Where a lane goes on: the next offset to read; None: from its beginning."""


def list_start(list_id: str) -> dt.datetime:
    """When a list (or snapshot) was started, from its UUIDv7, to the millisecond.

    Source: RFC 9562, 5.7, "unix_ts_ms: 48-bit big-endian unsigned number of the Unix Epoch timestamp in milliseconds".
    """
    return dt.datetime.fromtimestamp((uuid.UUID(list_id).int >> 80) / 1000, tz=dt.UTC)


def list_start_us(list_id: str) -> int:
    """`list_start` in microseconds since 1970: the live_at of a server whose list versions are no integers."""
    return (uuid.UUID(list_id).int >> 80) * 1000


def in_utc(moment: dt.datetime) -> dt.datetime:
    """An aware time in UTC. Raises OverflowError for one that Python and SQL do not both know."""
    moment = moment if moment.tzinfo is dt.UTC else moment.astimezone(dt.UTC)
    if not _FIRST_MOMENT < moment < _LAST_MOMENT:
        raise OverflowError("a time out of range")
    return moment


def version_number(version: str) -> int | None:
    """A list version as the number that live_at is, at most 2^62, or None where it is no such number.

    One of more digits than such a number has is none, and is not looked at: `int` refuses 4,301 digits.
    """
    if len(version) > _VERSION_DIGITS or not (version.isascii() and version.isdigit()):
        return None
    number = int(version)
    return number if 0 < number <= MAX_VERSION else None


def is_beyond_versions(version: str) -> bool:
    """True for digits that say more than a list version that orders anything may."""
    if len(version) < _VERSION_DIGITS or not (version.isascii() and version.isdigit()):
        return False
    return len(version) > _VERSION_DIGITS or int(version) > MAX_VERSION


def item_digest(namespace: str, name: str, resource_version: str) -> int:
    """What an item adds to its list's digest: xxh3_128(namespace NUL name NUL resourceVersion), an int < 2**128."""
    return xxhash.xxh3_128_intdigest(f"{namespace}\0{name}\0{resource_version}".encode())


def digest_hex(digest: int) -> str:
    """A digest as the wire shows it: 32 hex digits."""
    return f"{digest % DIGEST_MODULUS:032x}"
