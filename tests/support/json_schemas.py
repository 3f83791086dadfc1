"""docs/schemas: JSON Schemas of what programs of others read, made of the types that write it."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict

from clusterinfo.commands.status_lag import Lag
from clusterinfo.model import RecordType
from clusterinfo.postgres.admin.overview import KindRow
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


class AttentionDocument(Document):
    """One thing that needs attention, and why; of a kind or cluster, which."""

    about: Literal["kind", "cluster", "consumers", "kafka", "dead_letters", "database"]
    why: str
    cluster: str | None = None
    api_group: str | None = None
    resource: str | None = None
    reach: str | None = None


class ClusterDocument(Document):
    """A cluster, its last run of lists that ended (null: none did), and its kinds."""

    cluster: str
    uid: str
    server_version: str | None
    last_seen: dt.datetime
    last_run_at: dt.datetime | None
    last_run_s: float | None
    last_run_objects: int | None
    knows_all_kinds: bool | None
    interval_s: float | None
    objects_last_hour: int
    age_s: float | None
    kinds: int
    followed: int
    states: dict[str, int]
    objects: int
    stale_after_s: float
    worst: str
    why: str


class PartitionDocument(Document):
    """A partition: up to where it is stored, since when, and where it ends (null: Kafka was not asked)."""

    topic: str
    partition: int
    stored: int
    end: int | None
    moved_at: dt.datetime | None
    waiting_since: dt.datetime | None
    rate: float | None
    lag: int | None


class ConsumersDocument(Document):
    """The consumer group, as Kafka has it."""

    group: str
    state: str
    members: int | None
    held: list[str] | None
    error: str


class StatusDocument(Document):
    """What `clusterinfo status -o json` prints. Times are RFC 3339, durations seconds."""

    healthy: bool
    reasons: list[str]
    attention: list[AttentionDocument]
    clusters: list[ClusterDocument]
    kinds: list[KindRow]
    lag: Lag | None
    partitions: list[PartitionDocument]
    dead_letters: int
    kafka_error: str
    consumers: ConsumersDocument | None
    at: dt.datetime


def status() -> str:
    """The schema of `status -o json`."""
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
