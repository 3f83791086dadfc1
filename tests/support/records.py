"""Records as a collector would make them, for tests of what becomes of them."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass, field

import msgspec
import orjson
import xxhash

from clusterinfo.model import (
    Batch,
    ListLane,
    PartitionLane,
    Record,
    RecordType,
    Rejected,
    Unit,
    digest_hex,
    item_digest,
)
from clusterinfo.statements import ListCompleted, Statement, encode

CLUSTER = "5180eaa4-7a47-4e30-81ab-2135c8f2a0e5"
LANE = PartitionLane("kafka-1", "cluster-info", 0, "cluster-info-consumer")
NOON = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
SESSION = "019aaadb-b800-7abc-8def-0123456789ab"
"""The life of a collector."""


def uuid7(at: dt.datetime) -> str:
    """A UUIDv7 of that moment."""
    random = uuid.uuid4().int & ((1 << 74) - 1)
    ms = int(at.timestamp() * 1000)
    return str(uuid.UUID(int=ms << 80 | 7 << 76 | (random >> 62) << 64 | 2 << 62 | random & ((1 << 62) - 1)))


def watched(record: Record, number: int, session: str = SESSION) -> Record:
    """An object as a watch shows it, at its own version, as what a session says under that number."""
    changes = {"list": "", "snapshot": "", "list_version": record.list_version or record.resource_version}
    if record.type is RecordType.OBSERVED:
        changes["list_version"] = record.resource_version
    return msgspec.structs.replace(record, **changes, session=session, number=number)


@dataclass
class Listing:
    """One list of one unit at one version; `at` is when it ran."""

    version: str
    at: dt.datetime = NOON
    resource: str = "configmaps"
    group: str = ""
    reach: str = ""
    epoch: int = 0
    cluster: str = CLUSTER
    cluster_name: str = "test"
    kind: str = "ConfigMap"
    normalization: int = 1
    ordering: str = ""
    snapshot: str = ""
    id: str = ""
    items: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.id = self.id or uuid7(self.at)
        self.snapshot = self.snapshot or uuid7(self.at)

    def record(self, type_: RecordType, body: bytes, **attributes: object) -> Record:
        """A record of this list."""
        fixed: dict[str, object] = {
            "cluster": self.cluster, "cluster_name": self.cluster_name, "observed_at": self.at, "epoch": self.epoch,
            "group": self.group, "resource": self.resource, "snapshot": self.snapshot, "list": self.id,
            "reach": self.reach, "api_version": f"{self.group}/v1" if self.group else "v1", "kind": self.kind,
            "list_version": self.version, "normalization": self.normalization, "ordering": self.ordering,
        }  # fmt: skip
        return Record(type=type_, body=body, **(fixed | attributes))  # type: ignore[arg-type]

    def item(
        self,
        name: str,
        version: str,
        content: object = None,
        namespace: str = "ns",
        uid: str = "",
        **attributes: object,
    ) -> Record:
        """An observed object; its hash follows its content, not its version."""
        uid = uid or f"uid-{name}"
        metadata = {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": version}
        given = attributes.pop("body", None)
        body = (
            given
            if isinstance(given, bytes)
            else orjson.dumps({"apiVersion": "v1", "kind": self.kind, "metadata": metadata, "data": content})
        )
        hashed = xxhash.xxh3_128_hexdigest(orjson.dumps([name, namespace, uid, content]))
        record = self.record(
            RecordType.OBSERVED, body, namespace=namespace, name=name, uid=uid, resource_version=version,
            **({"content_hash": hashed} | attributes),
        )  # fmt: skip
        self.items.append(record)
        return record

    def deleted(self, name: str, version: str, namespace: str = "ns", uid: str = "") -> Record:
        """A watched deletion at `version`."""
        return self.record(
            RecordType.DELETED, b"{}", namespace=namespace, name=name, uid=uid or f"uid-{name}",
            resource_version=version, list_version=version, list="", content_hash="0" * 32,
        )  # fmt: skip

    def completed(self, from_: int = 0, session: str = SESSION, seen: dt.datetime | None = None) -> Record:
        """The completion of what `item` made; with `from_` that session follows the kind from then on."""
        digest = sum(item_digest(item.namespace, item.name, item.resource_version) for item in self.items)
        statement = ListCompleted(len(self.items), digest_hex(digest))
        if from_:
            statement = msgspec.structs.replace(statement, session=session, from_=from_, seen=seen or self.at)
        return self.record(RecordType.LIST_COMPLETED, encode(statement))

    def failed(self, status: int, reason: str) -> Record:
        """The list failed."""
        body = orjson.dumps({"http_status": status, "reason": reason, "sent": len(self.items)})
        return self.record(RecordType.LIST_FAILED, body, list_version="")

    def snapshot_started(self) -> Record:
        """The snapshot this list belongs to began."""
        return self._statement(RecordType.SNAPSHOT_STARTED, {"server_version": "v1.36.0"})

    def snapshot_completed(
        self,
        outcomes: dict[tuple[str, str], str],
        *,
        discovery_complete: bool = True,
        counts: dict[tuple[str, str], int] | None = None,
        reason: str = "",
        interval_s: float | None = None,
    ) -> Record:
        """The snapshot ended; `outcomes`, and the `counts` of objects sent, by (group, resource); one `reason`."""
        counts = counts or {}
        units = [
            {"group": unit[0], "resource": unit[1], "outcome": outcome, "count": counts.get(unit, 0), "reason": reason}
            for unit, outcome in outcomes.items()
        ]
        body = {"discovery_complete": discovery_complete, "units": units, "interval_s": interval_s}
        return self._statement(RecordType.SNAPSHOT_COMPLETED, body)

    def watch(self, type_: RecordType, number: int, statement: Statement, session: str = SESSION) -> Record:
        """What a session says of its watches on partition 0."""
        return self.record(
            type_, encode(statement), group="", resource="", snapshot="", list="", kind="", api_version="", reach="",
            list_version="", ordering="", session=session, number=number, partition=0,
        )  # fmt: skip

    def _statement(self, type_: RecordType, body: object) -> Record:
        return self.record(
            type_, orjson.dumps(body), group="", resource="", list="", kind="", api_version="", list_version="",
            ordering="",
        )  # fmt: skip


@dataclass
class Feed:
    """Numbers records as a partition would and makes batches of them."""

    lane: PartitionLane = LANE
    next_offset: int = 0

    def batch(self, *records: Record, rejected: tuple[Rejected, ...] = ()) -> Batch:
        """The next batch of the partition."""
        start = self.next_offset
        numbered = [msgspec.structs.replace(record, offset=start + i) for i, record in enumerate(records)]
        self.next_offset += len(records) + len(rejected)
        size = sum(len(record.body) for record in records)
        return Batch(
            lane=self.lane,
            start=start,
            end=self.next_offset,
            records=numbered,
            rejected=list(rejected),
            size_bytes=size,
        )


def page(listing: Listing, number: int, *records: Record) -> Batch:
    """A page of a list written without Kafka."""
    lane = ListLane(Unit(listing.cluster, listing.group, listing.resource), listing.reach)
    return Batch(lane=lane, start=number, end=number + 1, records=list(records), list=listing.id)
