"""The JSON bodies of statements: the value of a record of type list.*, snapshot.* or watch.*, declared once for both
ends.

Pure. A reader takes a missing field's default and ignores fields it does not know: the writer may be of another
release.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, TypeVar

import msgspec

from clusterinfo.errors import RecordError
from clusterinfo.model import INT64_MAX, MAX_NUMBER, UUID7, Outcome, Record, in_utc

WHOLE_GROUP = "*"
"""As the resource of a `UnitOutcome`: every kind of its group."""


MAX_STATEMENT_BYTES = 1024 * 1024
MAX_KINDS = 5000
"""In a snapshot. Clusters have some hundred; those of many operators have two or three thousand."""
MAX_WATCHES = 5000
"""In a statement about watches: each is a connection of its own."""

Moment = Annotated[dt.datetime, msgspec.Meta(tz=True)]


class ListCompleted(msgspec.Struct, frozen=True, omit_defaults=True):
    """Value of a list.completed: how many objects the list sent, and the digest over them (`model.item_digest`).

    Of a unit that is followed also which `session` follows it: all that this says of the unit after the list's version
    has numbers >= `from_`; and when the list's first page had come (`seen`). All three, or none. Of one that was to be
    followed and is not, why (`unfollowed`).
    """

    count: Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]
    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{1,32}$")]
    session: Annotated[str, msgspec.Meta(pattern=f"^({UUID7})?$")] = ""
    from_: Annotated[int, msgspec.Meta(ge=0, le=MAX_NUMBER)] = msgspec.field(default=0, name="from")
    seen: Moment | None = None
    unfollowed: str = ""

    def __post_init__(self) -> None:
        if self.seen is not None:
            _check(self.seen)
        if not bool(self.session) == bool(self.from_) == (self.seen is not None):
            raise ValueError("session, from and seen belong together")


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


class WatchedUnit(msgspec.Struct, frozen=True, omit_defaults=True):
    """A kind whose watch within a reach is not heard any more; `since`: until when it was."""

    group: str
    resource: str
    since: Moment
    reach: str = ""

    def __post_init__(self) -> None:
        _check(self.since)


class WatchProgress(msgspec.Struct, frozen=True, omit_defaults=True):
    """Value of a watch.progress: the earliest moment at which a watch that is not `behind` was last heard from."""

    heard: Moment
    behind: Annotated[list[WatchedUnit], msgspec.Meta(max_length=MAX_WATCHES)] = []
    interval_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 15.0
    """Seconds after which the next one is due."""

    def __post_init__(self) -> None:
        _check(self.heard)


class WatchEnded(msgspec.Struct, frozen=True):
    """Value of a watch.ended: which kinds its session does not follow any more, and why."""

    units: Annotated[list[WatchedUnit], msgspec.Meta(max_length=MAX_WATCHES)]
    reason: str = "unknown reason"


def _check(moment: dt.datetime) -> None:
    """Raises ValueError for a time that no database holds."""
    try:
        in_utc(moment)
    except OverflowError as error:
        raise ValueError(str(error)) from None


Statement = ListCompleted | ListFailed | SnapshotStarted | SnapshotCompleted | WatchProgress | WatchEnded
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
