"""The one order of the steps by which a batch is merged, for the sink and for dead letters that are replayed.

Theory of operation. This order is what makes any number of writers safe side by side:

1. (before: `Claims.admit`) the lane's position is moved, which locks it and shows that the batch is next; what was
   forgotten is read, and locked with that;
2. missing clusters are made, and belong to the batch's topic; what it says of clusters that belong to another is a dead
   letter from here on;
3. missing units are made, the batch's units are locked in id order, then the sessions that it names: from here on
   nobody else changes their rows, since whoever does holds the same locks; the batch becomes rows, with the dates that
   are believed and without what was forgotten;
4. what was said by watching is heard; what arrived is counted for each list, which shows the lists that are proven now;
5. objects are compared with their rows, written, and what they replace goes into history;
6. what sessions said is stored; states are written; what proven lists do not name is deleted; snapshots are applied;
   dead letters go in.

All of it commits or nothing does. Statements run at READ COMMITTED; those of each step lie beside its module, and a
step that has nothing to do sends none. What the rules of the merge are, and why they make any order and any repetition
of records converge, is explained in docs/DESIGN.md, "What makes it right".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from clusterinfo.model import Batch, PartitionLane, Record
from clusterinfo.observations import Observation
from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.merge.admission import Admission, Clusters, Foreign, foreign_among
from clusterinfo.postgres.merge.census import Census
from clusterinfo.postgres.merge.chain import merge_chain
from clusterinfo.postgres.merge.changes import notification_of
from clusterinfo.postgres.merge.clusters import know_clusters
from clusterinfo.postgres.merge.coverage import note_corrections
from clusterinfo.postgres.merge.dead_letters import MAX_SENT, add_dead_letters
from clusterinfo.postgres.merge.gaps import CarriedUnits, mark_gap_unverified
from clusterinfo.postgres.merge.large import is_large, worked_out
from clusterinfo.postgres.merge.lists import close_lists, count_lists
from clusterinfo.postgres.merge.rows import Merged, merge_single
from clusterinfo.postgres.merge.sessions import hear, speaking_of, store_sessions
from clusterinfo.postgres.merge.snapshots import apply_snapshots
from clusterinfo.postgres.merge.staging import Staged, stage
from clusterinfo.postgres.merge.units import Units, lock_units


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of a batch; to be believed once it is committed."""

    carried: frozenset[int]
    """What `CarriedUnits.remember` is to be given."""
    staged: Staged
    merged: Merged
    census: Census
    """Of what was admitted."""
    deleted: int = 0
    notification: str = ""
    """The statement that tells of it, to be run after the COMMIT; "": nothing has changed."""
    observations: list[Observation] = field(default_factory=list)


def corrections(staged: Staged, merged: Merged, units: Units) -> Counter[str]:
    """List -> objects that it had to correct, of kinds that are followed. Pure."""
    followed = {unit.id for unit in units.values() if unit.is_followed}
    if not followed:
        return Counter()
    places = [place for place in merged.rewritten if staged.rows[place].unit_id in followed]
    return Counter(staged.records[place].list for place in places if staged.records[place].list)


@dataclass(frozen=True, slots=True)
class _Known:
    """A batch whose clusters are there: the census of what is to be merged, and which clusters are of another topic."""

    census: Census
    clusters: Clusters
    foreign: Foreign
    observations: list[Observation]

    def hears(self, record: Record, admission: Admission) -> bool:
        """False for what is a dead letter whatever it says."""
        return record.cluster not in self.foreign and not admission.leaps(record)


async def _know(connection: Connection, batch: Batch, census: Census, admission: Admission, *, large: bool) -> _Known:
    """Make the clusters that are missing, and leave out of the census what is not to be merged."""
    if admission.forgotten or any(map(admission.leaps, batch.records)):
        census = await worked_out(large, Census.of, filter(admission.takes, batch.records))
    clusters, observations = admission.clusters, list[Observation]()
    if census.snapshots or admission.ownerless or not census.clusters.keys() <= clusters.keys():
        clusters, observations = await know_clusters(connection, census, admission)
    if foreign := foreign_among(clusters, admission.topic):
        ours = (r for r in batch.records if r.cluster not in foreign and admission.takes(r))
        census = await worked_out(large, Census.of, ours)
    return _Known(census, clusters, foreign, observations)


async def apply(
    connection: Connection,
    batch: Batch,
    census: Census,
    admission: Admission,
    carried: CarriedUnits,
    *,
    counts: bool = True,
    hears: bool = True,
    uses_savepoints: bool = False,
) -> Applied:
    """Merge a batch in the transaction that admitted it.

    Without `counts` its objects belong to no list's count; without `hears` its numbers are not counted.
    `uses_savepoints`: what PostgreSQL refuses is stored with less; otherwise it aborts the transaction.
    """
    large = is_large(batch.records) or len(batch.rejected) > MAX_SENT
    known = await _know(connection, batch, census, admission, large=large)
    said = [one for one in census.said if known.hears(one[0], admission)] if hears else []
    census, observations = known.census, known.observations
    speaking = speaking_of(batch.lane, said)
    units, sessions = await lock_units(connection, census, known.clusters, speaking, admission.now)
    new = await carried.store(connection, batch, units)
    staged = await worked_out(large, stage, batch, units, admission, known.foreign, uses_savepoints=uses_savepoints)
    observations = [*observations, *staged.foreign_records(admission.topic)]
    staged.dead_letters += census.dead_letters
    if not counts:
        staged.tallies.clear()
    said = [one for one in said if id(one[0]) not in staged.refused]
    heard = hear(said, speaking, sessions, admission.now)
    proven = await count_lists(connection, staged, heard)
    merged, left = await merge_single(connection, staged)
    if staged.repeated or left:
        merged.add(await merge_chain(connection, staged, sorted([*staged.repeated, *left]), list(proven)))
    if batch.gap and isinstance(batch.lane, PartitionLane):
        await mark_gap_unverified(connection, batch.lane, batch, admission)
        heard.mark_unverified()
    await note_corrections(connection, corrections(staged, merged, units))
    observations += await store_sessions(connection, heard, staged, merged.older)
    closed = await close_lists(connection, staged, proven, known.clusters, heard)
    deleted, observations = closed.deleted, [*observations, *closed.observations]
    if census.snapshots:
        applied = await apply_snapshots(connection, census, admission, known.clusters)
        deleted, observations = deleted + applied.deleted, [*observations, *applied.observations]
    if staged.dead_letters:
        staged.dead_letters = await add_dead_letters(connection, batch.lane, staged.dead_letters)
    notification = notification_of(units) if merged.written or deleted else ""
    return Applied(new, staged, merged, census, deleted, notification, observations)
