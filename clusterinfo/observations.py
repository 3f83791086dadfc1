"""What can be observed about a run, as frozen facts.

The parts that work make them and hand them to an `Observe`; `telemetry.py` turns each into a log line and metrics.
Pure: no I/O, no clock. No fact carries an object's content, a value of a Secret, a password or a URL with userinfo.
They are structs: to make fifty dataclasses took a tenth of a start.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """Root of all observations."""


class Repeatable(Observation, frozen=True, kw_only=True):
    """One that comes time and again; `is_news` is False if it only says again what was observed before."""

    is_news: bool = True


class Started(Observation, frozen=True, kw_only=True):
    """A command begins; `settings`: those that are not their defaults, `NAME=value` each, and no secret."""

    version: str
    command: str
    settings: tuple[str, ...] = ()


class Stopped(Observation, frozen=True, kw_only=True):
    """A command ends, `seconds` after it began, and why; one that an error ends says no more than that error."""

    command: str
    reason: str
    seconds: float


class Connected(Observation, frozen=True, kw_only=True):
    """Every end was reached for the first time: the work begins. `cluster`: the one that is listed, "" for none."""

    cluster: str = ""
    cluster_id: str = ""


class StandsBy(Observation, frozen=True, kw_only=True):
    """Another candidate, `holder`, leads, or nobody knows who: nothing is listed until this one does."""

    cluster: str
    lease: str
    holder: str = ""


class LeadershipLost(Observation, frozen=True, kw_only=True):
    """This one leads no more, though it did not give `lease` up, and why: nothing more is sent."""

    cluster: str
    lease: str
    reason: str


class LeadershipGivenUp(Observation, frozen=True, kw_only=True):
    """This one is to stop: the next one may take `lease`, and what is followed is followed until that one does."""

    cluster: str
    lease: str


class Leads(Observation, frozen=True, kw_only=True):
    """Of the candidates for `lease` this one, `holder`, leads from now on: it lists and follows."""

    cluster: str
    lease: str
    holder: str


class Discovered(Repeatable, frozen=True, kw_only=True):
    """Discovery ended: `units` will be listed, `excluded` were left out on purpose, `failing` are not wholly known."""

    cluster: str
    units: int
    excluded: int
    failing: tuple[str, ...] = ()


class PageListed(Observation, frozen=True, kw_only=True):
    """A page of a list arrived whole: items and bytes as downloaded."""

    resource: str
    reach: str
    items: int
    size_bytes: int


class ListEnded(Repeatable, frozen=True, kw_only=True):
    """A list ended; `outcome` is a `model.Outcome`, `error` empty when it completed."""

    resource: str
    reach: str
    outcome: str
    objects: int
    size_bytes: int
    seconds: float
    error: str = ""


class ListRestarted(Observation, frozen=True, kw_only=True):
    """A list began again under a new list id."""

    resource: str
    reach: str
    reason: str


class ListAbandoned(Observation, frozen=True, kw_only=True):
    """A list will not end: whoever read it was stopped."""

    resource: str
    reach: str


class WatchOpened(Observation, frozen=True, kw_only=True):
    """A kind's watch was answered: changes after `version` come from now on."""

    resource: str
    reach: str
    version: int


class WatchInterrupted(Observation, frozen=True, kw_only=True):
    """A watch broke off, and is opened again where it stands after `wait_s`."""

    resource: str
    reach: str
    error: str
    wait_s: float


class WatchLost(Observation, frozen=True, kw_only=True):
    """A watch cannot be continued, and why: its kind is not followed until its next list."""

    resource: str
    reach: str
    reason: str


class WatchFailing(Observation, frozen=True, kw_only=True):
    """A kind's watch could not be opened for so many `seconds`; that is tried again, and the kind listed meanwhile."""

    resource: str
    reach: str
    error: str
    seconds: float


class WatchRecovered(Observation, frozen=True, kw_only=True):
    """A kind's watch works again, after so many `seconds`; `WatchFailing` or `WatchLost` came before."""

    resource: str
    reach: str
    seconds: float


class WatchesCounted(Repeatable, frozen=True, kw_only=True):
    """So many watches are followed now, and so many `failing`: told as such, and not yet recovered."""

    followed: int
    failing: int


class EventsRead(Observation, frozen=True, kw_only=True):
    """So many changes of a kind came by its watch: bytes as downloaded."""

    resource: str
    reach: str
    events: int
    size_bytes: int


class SnapshotEnded(Repeatable, frozen=True, kw_only=True):
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


class RunFailed(Observation, frozen=True, kw_only=True):
    """A run of lists could not be done at all, and begins again after `wait_s`."""

    cluster: str
    error: str
    wait_s: float


class RunScheduled(Observation, frozen=True, kw_only=True):
    """The next run of lists begins in `wait_s`; 0 if the last one took longer than the interval."""

    cluster: str
    wait_s: float


class Produced(Repeatable, frozen=True, kw_only=True):
    """One list's records are in Kafka: `offset` is that of its last record, `size_bytes` of all its values."""

    topic: str
    partition: int
    offset: int
    size_bytes: int
    records: int
    resource: str


class Streamed(Observation, frozen=True, kw_only=True):
    """So many watched records are in Kafka: `size_bytes` of all their values."""

    topic: str
    partition: int
    records: int
    size_bytes: int


class Stubbed(Observation, frozen=True, kw_only=True):
    """An object larger than the broker accepts was sent as a stub."""

    resource: str
    namespace: str
    name: str
    size_bytes: int
    limit_bytes: int


class ItemUnreadable(Observation, frozen=True, kw_only=True):
    """An item of a page could not be read as an object and was skipped; its list does not complete."""

    resource: str
    reason: str


class AssignmentAwaited(Observation, frozen=True, kw_only=True):
    """This member joins the consumer group, and waits for its partitions."""

    group: str
    topics: str


class PartitionsRevoked(Observation, frozen=True, kw_only=True):
    """A rebalance began: these partitions, `topic-number` each, are this member's no more until it has ended."""

    partitions: tuple[str, ...]


class PartitionsAssigned(Observation, frozen=True, kw_only=True):
    """The consumer group gave this member these partitions, `topic-number` each."""

    partitions: tuple[str, ...]


class Holding(Observation, frozen=True, kw_only=True):
    """So many partitions are assigned to this member; reported from time to time, 0 included."""

    partitions: int


class LaneClaimed(Observation, frozen=True, kw_only=True):
    """A partition is claimed in the database and read from `offset` (-1: from its beginning)."""

    lane: str
    offset: int
    generation: int


class OffsetGap(Observation, frozen=True, kw_only=True):
    """Records between the stored offset and the first one Kafka still holds are gone (retention)."""

    lane: str
    expected: int
    found: int


class Lagging(Observation, frozen=True, kw_only=True):
    """Of an assigned partition, so many records are in Kafka and not stored; reported from time to time, 0 included."""

    topic: str
    partition: int
    records: int


class BatchStored(Repeatable, frozen=True, kw_only=True):
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


class AllStored(Observation, frozen=True, kw_only=True):
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


class ChangesStored(Observation, frozen=True, kw_only=True):
    """What was watched of a kind is committed; `delays_s`: of each change, how long ago it was seen by its watch."""

    resource: str
    delays_s: tuple[float, ...]


class Drifted(Observation, frozen=True, kw_only=True):
    """A list of a kind that was followed had to correct that many objects: something was missed and not noticed."""

    cluster: str
    resource: str
    reach: str
    objects: int
    cluster_name: str = ""


class UnitsFollowed(Observation, frozen=True, kw_only=True):
    """Nothing is missing of what a session has said of these kinds; `cluster` is its identity."""

    cluster: str
    resources: tuple[str, ...]
    cluster_name: str = ""


class DeadLettered(Observation, frozen=True, kw_only=True):
    """A record could not be stored and became a dead letter; or so many `letters` of a batch, of which this is one."""

    lane: str
    offset: int
    reason: str
    letters: int = 1


class DeadLettersDropped(Observation, frozen=True, kw_only=True):
    """The oldest dead letters, so many, were deleted: there are more than may be kept."""

    letters: int


class ForeignRecords(Observation, frozen=True, kw_only=True):
    """Records on `topic` of a cluster that belongs to another, `owner`, became dead letters; nothing was applied."""

    topic: str
    cluster: str
    owner: str
    records: int
    cluster_name: str = ""


class UnitVerified(Observation, frozen=True, kw_only=True):
    """A list's count and digest agree with what arrived: absent rows were deleted."""

    cluster: str
    resource: str
    reach: str
    objects: int
    deleted: int
    cluster_name: str = ""


class UnitFailed(Observation, frozen=True, kw_only=True):
    """A unit is `failed`, `forbidden` or `unverified`; nothing of it was deleted."""

    cluster: str
    resource: str
    reach: str
    state: str
    error: str
    cluster_name: str = ""


class UnitGone(Observation, frozen=True, kw_only=True):
    """A complete discovery no longer names a unit: its rows (`deleted`) went to history. Meant so, and no error."""

    cluster: str
    resource: str
    deleted: int
    cluster_name: str = ""


class Retrying(Observation, frozen=True, kw_only=True):
    """A step failed and is tried again after `wait_s`."""

    lane: str
    step: str
    error: str
    wait_s: float


class Recovered(Observation, frozen=True, kw_only=True):
    """A step that had failed succeeded."""

    lane: str
    step: str
    attempts: int


class LaneRestarted(Observation, frozen=True, kw_only=True):
    """A lane starts again from its beginning or its stored position, after `wait_s`."""

    lane: str
    error: str
    wait_s: float = 0.0


class LaneEnded(Observation, frozen=True, kw_only=True):
    """Nothing moves on a lane any more, whatever the reason: what failed on it does not fail now."""

    lane: str


class LaneLost(Observation, frozen=True, kw_only=True):
    """A lane was released: somebody else owns it."""

    lane: str
    error: str


class Stuck(Observation, frozen=True, kw_only=True):
    """Kafka has more than `offset`, nothing comes, and `rebuilt` other consumers did not help: liveness fails."""

    lane: str
    offset: int
    rebuilt: int


class Freed(Observation, frozen=True, kw_only=True):
    """What was stuck goes on after all."""

    lane: str


class Warned(Observation, frozen=True, kw_only=True):
    """Something a person should know and change; `remedy` says how."""

    message: str
    remedy: str = ""


class Noted(Observation, frozen=True, kw_only=True):
    """Something worth a line that calls for no action."""

    message: str


Observe = Callable[[Observation], None]
"""Takes one observation; never blocks, never raises."""


def unobserved(_: Observation) -> None:
    """The `Observe` that ignores what it is given."""
