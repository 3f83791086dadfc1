"""The JSON bodies of statements: the value of a record of type list.* or snapshot.*, declared once for both ends.

Pure. A reader takes a missing field's default and ignores fields it does not know: the writer may be of another
release.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from clusterinfo.errors import RecordError
from clusterinfo.model import INT64_MAX, Outcome, Record

WHOLE_GROUP = "*"
"""As the resource of a `UnitOutcome`: every kind of its group."""


MAX_STATEMENT_BYTES = 1024 * 1024
MAX_KINDS = 5000
"""In a snapshot. Clusters have some hundred; those of many operators have two or three thousand."""


class ListCompleted(msgspec.Struct, frozen=True):
    """Value of a list.completed: how many objects the list sent, and the digest over them (`model.item_digest`)."""

    count: Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]
    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{1,32}$")]


class ListFailed(msgspec.Struct, frozen=True):
    """Value of a list.failed: the HTTP status (0: none), why, and how many objects were sent before."""

    http_status: int = 0
    reason: str = "unknown reason"
    sent: int = 0


class UnitOutcome(msgspec.Struct, frozen=True):
    """How one kind fared in a snapshot; resource `WHOLE_GROUP`: what is not named of a group whose kinds are not known,
    since its discovery `failed` (`reason` says why), or because it was left out (`excluded`).
    """

    group: str
    resource: str
    outcome: Outcome
    count: Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)] = 0
    """Objects that its completed lists sent."""
    reason: str | msgspec.UnsetType = msgspec.UNSET
    """Why discovery failed; only of a whole group."""


class SnapshotStarted(msgspec.Struct, frozen=True):
    """Value of a snapshot.started."""

    server_version: str = ""
    cluster_name: str = ""


class SnapshotCompleted(msgspec.Struct, frozen=True):
    """Value of a snapshot.completed: whether discovery knew every group, when the next run is, how each kind fared."""

    discovery_complete: bool = False
    units: Annotated[list[UnitOutcome], msgspec.Meta(max_length=MAX_KINDS)] = []
    interval_s: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """From one run of its collector to the next, in seconds; None: nobody knows when the next is."""


Statement = ListCompleted | ListFailed | SnapshotStarted | SnapshotCompleted
Body = TypeVar("Body", bound=Statement)

_ENCODER = msgspec.json.Encoder()


def encode(statement: Statement) -> bytes:
    """The statement as the value of a record."""
    return _ENCODER.encode(statement)


def read(record: Record, body: type[Body]) -> Body:
    """The value of `record`. Raises RecordError if it is no such statement."""
    if len(record.body) > MAX_STATEMENT_BYTES:
        raise RecordError(
            f"value of {record.type}: {len(record.body)} bytes, more than {MAX_STATEMENT_BYTES}: not read"
        )
    try:
        return msgspec.json.decode(record.body, type=body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"value of {record.type}: {error}") from None
