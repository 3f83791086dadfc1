"""What can be observed about a run, as frozen facts.

The parts that work make them and hand them to an `Observe`; `telemetry.py` turns each into a log line and metrics.
Pure: no I/O, no clock. No fact carries an object's content, a value of a Secret, a password or a URL with userinfo.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Root of all observations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeatable(Observation):
    """One that comes time and again; `is_news` is False if it only says again what was observed before."""

    is_news: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Observation):
    """A command begins; `settings`: those that are not their defaults, `NAME=value` each, and no secret."""

    version: str
    command: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(Observation):
    """A command ends, `seconds` after it began, and why; one that an error ends says no more than that error."""

    command: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected(Observation):
    """Every end was reached for the first time: the work begins. `cluster`: the one that is listed, "" for none."""

    cluster: str = ""
    cluster_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StandsBy(Observation):
    """Another candidate, `holder`, leads, or nobody knows who: nothing is listed until this one does."""

    cluster: str
    lease: str
    holder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadershipLost(Observation):
    """This one leads no more, though it did not give `lease` up, and why: nothing more is sent."""

    cluster: str
    lease: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadershipGivenUp(Observation):
    """This one is to stop: the next one may take `lease`, and what is followed is followed until that one does."""

    cluster: str
    lease: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leads(Observation):
    """Of the candidates for `lease` this one, `holder`, leads from now on: it lists and follows."""

    cluster: str
    lease: str
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovered(Repeatable):
    """Discovery ended: `units` will be listed, `excluded` were left out on purpose, `failing` are not wholly known."""

    cluster: str
    units: int
    excluded: int
    failing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PageListed(Observation):
    """A page of a list arrived whole: items and bytes as downloaded."""

    resource: str
    reach: str
    items: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListEnded(Repeatable):
    """A list ended; `outcome` is a `model.Outcome`, `error` empty when it completed."""

    resource: str
    reach: str
    outcome: str
    objects: int
    size_bytes: int
    seconds: float
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRestarted(Observation):
    """A list began again under a new list id."""

    resource: str
    reach: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListAbandoned(Observation):
    """A list will not end: whoever read it was stopped."""

    resource: str
    reach: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOpened(Observation):
    """A kind's watch was answered: changes after `version` come from now on."""

    resource: str
    reach: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchInterrupted(Observation):
    """A watch broke off, and is opened again where it stands after `wait_s`."""

    resource: str
    reach: str
    error: str
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLost(Observation):
    """A watch cannot be continued, and why: its kind is not followed until its next list."""

    resource: str
    reach: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchFailing(Observation):
    """A kind's watch could not be opened for so many `seconds`; that is tried again, and the kind listed meanwhile."""

    resource: str
    reach: str
    error: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRecovered(Observation):
    """A kind's watch works again, after so many `seconds`; `WatchFailing` or `WatchLost` came before."""

    resource: str
    reach: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchesCounted(Repeatable):
    """So many watches are followed now, and so many `failing`: told as such, and not yet recovered."""

    followed: int
    failing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsRead(Observation):
    """So many changes of a kind came by its watch: bytes as downloaded."""

    resource: str
    reach: str
    events: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotEnded(Repeatable):
    """A run of lists ended: the summary of a `collect`."""

    cluster: str
    kinds: int
    failed: int
    forbidden: int
    objects: int
    size_bytes: int
    seconds: float
    interval_s: float | None = None
    """From its beginning to that of the next; None: nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed(Observation):
    """A run of lists could not be done at all, and begins again after `wait_s`."""

    cluster: str
    error: str
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunScheduled(Observation):
    """The next run of lists begins in `wait_s`; 0 if the last one took longer than the interval."""

    cluster: str
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Produced(Repeatable):
    """One list's records are in Kafka: `offset` is that of its last record, `size_bytes` of all its values."""

    topic: str
    partition: int
    offset: int
    size_bytes: int
    records: int
    resource: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed(Observation):
    """So many watched records are in Kafka: `size_bytes` of all their values."""

    topic: str
    partition: int
    records: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stubbed(Observation):
    """An object larger than the broker accepts was sent as a stub."""

    resource: str
    namespace: str
    name: str
    size_bytes: int
    limit_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemUnreadable(Observation):
    """An item of a page could not be read as an object and was skipped; its list does not complete."""

    resource: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentAwaited(Observation):
    """This member joins the consumer group, and waits for its partitions."""

    group: str
    topics: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionsRevoked(Observation):
    """A rebalance began: these partitions, `topic-number` each, are this member's no more until it has ended."""

    partitions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionsAssigned(Observation):
    """The consumer group gave this member these partitions, `topic-number` each."""

    partitions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding(Observation):
    """So many partitions are assigned to this member; reported from time to time, 0 included."""

    partitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneClaimed(Observation):
    """A partition is claimed in the database and read from `offset` (-1: from its beginning)."""

    lane: str
    offset: int
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetGap(Observation):
    """Records between the stored offset and the first one Kafka still holds are gone (retention)."""

    lane: str
    expected: int
    found: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lagging(Observation):
    """Of an assigned partition, so many records are in Kafka and not stored; reported from time to time, 0 included."""

    topic: str
    partition: int
    records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStored(Repeatable):
    """A batch is committed: what it held, what it did, and the seconds of its stages."""

    lane: str
    records: int
    rows_written: int
    rows_unchanged: int
    rows_ignored: int
    rows_deleted: int
    history_rows: int
    dead_letters: int
    size_bytes: int
    copy_s: float
    merge_s: float
    commit_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AllStored(Observation):
    """A consumer that was to end when idle does: the sum of its batches."""

    batches: int
    records: int
    rows_written: int
    rows_unchanged: int
    rows_ignored: int
    rows_deleted: int
    dead_letters: int
    size_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangesStored(Observation):
    """What was watched of a kind is committed; `delays_s`: of each change, how long ago it was seen by its watch."""

    resource: str
    delays_s: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drifted(Observation):
    """A list of a kind that was followed had to correct that many objects: something was missed and not noticed."""

    cluster: str
    resource: str
    reach: str
    objects: int
    cluster_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitsFollowed(Observation):
    """Nothing is missing of what a session has said of these kinds; `cluster` is its identity."""

    cluster: str
    resources: tuple[str, ...]
    cluster_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLettered(Observation):
    """A record could not be stored and became a dead letter; or so many `letters` of a batch, of which this is one."""

    lane: str
    offset: int
    reason: str
    letters: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLettersDropped(Observation):
    """The oldest dead letters, so many, were deleted: there are more than may be kept."""

    letters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignRecords(Observation):
    """Records on `topic` of a cluster that belongs to another, `owner`, became dead letters; nothing was applied."""

    topic: str
    cluster: str
    owner: str
    records: int
    cluster_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitVerified(Observation):
    """A list's count and digest agree with what arrived: absent rows were deleted."""

    cluster: str
    resource: str
    reach: str
    objects: int
    deleted: int
    cluster_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFailed(Observation):
    """A unit is `failed`, `forbidden` or `unverified`; nothing of it was deleted."""

    cluster: str
    resource: str
    reach: str
    state: str
    error: str
    cluster_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitGone(Observation):
    """A complete discovery no longer names a unit: its rows (`deleted`) went to history. Meant so, and no error."""

    cluster: str
    resource: str
    deleted: int
    cluster_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying(Observation):
    """A step failed and is tried again after `wait_s`."""

    lane: str
    step: str
    error: str
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered(Observation):
    """A step that had failed succeeded."""

    lane: str
    step: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRestarted(Observation):
    """A lane starts again from its beginning or its stored position, after `wait_s`."""

    lane: str
    error: str
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneEnded(Observation):
    """Nothing moves on a lane any more, whatever the reason: what failed on it does not fail now."""

    lane: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLost(Observation):
    """A lane was released: somebody else owns it."""

    lane: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck(Observation):
    """Kafka has more than `offset`, nothing comes, and `rebuilt` other consumers did not help: liveness fails."""

    lane: str
    offset: int
    rebuilt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed(Observation):
    """What was stuck goes on after all."""

    lane: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned(Observation):
    """Something a person should know and change; `remedy` says how."""

    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted(Observation):
    """Something worth a line that calls for no action."""

    message: str


Observe = Callable[[Observation], None]
"""Takes one observation; never blocks, never raises."""


def unobserved(_: Observation) -> None:
    """The `Observe` that ignores what it is given."""
