"""docs/schemas: JSON Schemas of what programs of others read, made of the types that write it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict

from clusterinfo.model import RecordType
from clusterinfo.postgres.admin.overview import ClusterRow, KindRow
from clusterinfo.statements import (
    ListCompleted,
    ListFailed,
    SnapshotCompleted,
    SnapshotStarted,
    WatchEnded,
    WatchProgress,
)

DIALECT = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
BODIES = {
    RecordType.LIST_COMPLETED: ListCompleted,
    RecordType.LIST_FAILED: ListFailed,
    RecordType.SNAPSHOT_STARTED: SnapshotStarted,
    RecordType.SNAPSHOT_COMPLETED: SnapshotCompleted,
    RecordType.WATCH_PROGRESS: WatchProgress,
    RecordType.WATCH_ENDED: WatchEnded,
}


class Document(BaseModel):
    """Nothing but its fields."""

    model_config = ConfigDict(extra="forbid")


class Complaint(Document):
    """A kind that needs attention, and why."""

    cluster: str
    api_group: str
    resource: str
    reach: str
    why: str


class PartitionDocument(Document):
    """A partition: up to where it is stored, where it ends (null: Kafka was not asked)."""

    topic: str
    partition: int
    stored: int
    end: int | None
    lag: int | None


class ConsumersDocument(Document):
    """The consumer group, as Kafka has it."""

    group: str
    state: str
    members: int | None
    held: list[str] | None
    error: str
    why: str


class StatusDocument(Document):
    """What `clusterinfo status --output json` prints. Times are RFC 3339, durations seconds."""

    healthy: bool
    attention: list[Complaint]
    unfinished: list[str]
    clusters: list[ClusterRow]
    kinds: list[KindRow]
    partitions: list[PartitionDocument]
    dead_letters: int
    kafka_error: str
    consumers: ConsumersDocument | None


def status() -> str:
    """The schema of `status --output json`."""
    return _text(DIALECT | StatusDocument.model_json_schema(mode="serialization"))


def statement() -> str:
    """The schema of the values of statements; which is whose, the header `ce_type` says."""
    alternatives, definitions = msgspec.json.schema_components(BODIES.values(), ref_template="#/$defs/{name}")
    by_type = [{"title": kind.value, **schema} for kind, schema in zip(BODIES, alternatives, strict=True)]
    return _text(DIALECT | {"title": "Value of a statement, by its ce_type", "anyOf": by_type, "$defs": definitions})


def _text(schema: Any) -> str:
    return json.dumps(_published(schema), indent=2)


def _published(part: Any) -> Any:
    """Without `nothing else`, which a later release may break; docstrings on one line, as only Python 3.13 has them."""
    if isinstance(part, dict):
        return {name: _published(value) for name, value in part.items() if name != "additionalProperties"}
    if isinstance(part, list):
        return [_published(value) for value in part]
    return " ".join(part.split()) if isinstance(part, str) else part
