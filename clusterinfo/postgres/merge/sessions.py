"""Sessions in the database: locked, brought up to date by a batch, and with them what they follow.

Theory of operation. Only the batches of one partition touch its sessions, one after the other. A batch first *hears*
what it says by watching: which numbers came, which were here before (`numbers.py`). Once its objects are merged it is
known which of those that came for the first time were too old to be kept: for the history that is as good as lost.
Then, in order, holes cut intervals, ends close them, progress lets them begin again; completed lists open them last
(`lists.py`).

Locks: units, then sessions (both by `lock_units`), then coverage in the order of ids. A session whose numbers come as
they are due goes on as it is locked, and is written again only if the batch says more of it. A batch that says nothing
by watching sends nothing.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence

from clusterinfo.model import Lane, PartitionLane, Unit
from clusterinfo.observations import Observation, UnitsFollowed
from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.merge.coverage import Version, begin_coverage, cut_coverage, end_coverage, find_unkept
from clusterinfo.postgres.merge.numbers import (
    Cut,
    Ended,
    Heard,
    Place,
    Progressed,
    Said,
    Session,
    SessionKey,
    Speaking,
    listen,
)
from clusterinfo.postgres.merge.staging import ObjectRow, Staged
from clusterinfo.postgres.sql import statements


def place_of(lane: Lane) -> Place:
    """Where sessions count what comes by a lane; without Kafka each kind and reach counts for itself."""
    if isinstance(lane, PartitionLane):
        return lane.kafka_cluster, lane.topic, lane.partition
    return "", f"{lane.unit.dotted}/{lane.reach}", 0


def speaking_of(lane: Lane, said: Sequence[Said]) -> Speaking:
    """What a batch of this lane names."""
    return Speaking.of(place_of(lane), said)


def hear(said: Sequence[Said], speaking: Speaking, sessions: Mapping[SessionKey, Session], now: dt.datetime) -> Heard:
    """Take in what a batch says, to `sessions` as they were when they were locked. Pure."""
    heard = listen(said, sessions, now)
    heard.stored = speaking.moved(sessions)
    return heard


async def store_sessions(
    connection: Connection, heard: Heard, staged: Staged, older: Sequence[int]
) -> list[Observation]:
    """Write what `hear` took in; return what to report. `older`: the places of what the merge ignored as older."""
    if not heard.sessions:
        return []
    late = await _cut_late(connection, heard, staged, older)
    for event in heard.events:
        if isinstance(event, Cut):
            await _save(connection, heard, [event.session])
            await cut_coverage(connection, [event.session.id], [])
        elif isinstance(event, Ended):
            await _save(connection, heard, [event.session])
            await end_coverage(connection, event)
    if changed := [session for session in heard.sessions.values() if session != heard.stored.get(session.id)]:
        await _save(connection, heard, changed)
    return [] if late else await _begin(connection, heard)


async def _cut_late(connection: Connection, heard: Heard, staged: Staged, older: Sequence[int]) -> bool:
    """Cut the intervals that miss what came too late; True if there are any."""
    late = {
        place: heard.first[id(staged.records[place])] for place in older if id(staged.records[place]) in heard.first
    }
    if not late:
        return False
    lost = await find_unkept(connection, [_version(staged.rows[place]) for place in late], list(late.values()))
    if lost:
        await cut_coverage(connection, [], lost)
        for place in late:
            heard.cut(staged.records[place])
    return bool(lost)


def _version(row: ObjectRow) -> Version:
    return row.unit_id, row.namespace, row.name, row.resource_version, row.epoch, row.deleted


async def _begin(connection: Connection, heard: Heard) -> list[Observation]:
    """Let what is cut begin with the last progress of each session, if that came after its last hole."""
    last = {event.session.id: event for event in heard.events if isinstance(event, Cut | Progressed)}
    said_at = {session_id: event.said_at for session_id, event in last.items() if isinstance(event, Progressed)}
    followed = await begin_coverage(connection, said_at) if said_at else []
    clusters = {session.id: cluster for (cluster, _), session in heard.sessions.items()}
    kinds: dict[str, list[str]] = {}
    for row in followed:
        cluster = clusters[row.session_id]
        kinds.setdefault(cluster, []).append(Unit(cluster, row.api_group, row.resource).dotted)
    return [UnitsFollowed(cluster=cluster, resources=tuple(of_cluster)) for cluster, of_cluster in kinds.items()]


async def _save(connection: Connection, heard: Heard, sessions: Sequence[Session]) -> None:
    heard.stored |= {session.id: session for session in sessions}
    await connection.execute(
        statements()["save_sessions"],
        [session.id for session in sessions],
        [session.next_number for session in sessions],
        [_multirange(session) for session in sessions],
        [session.heard for session in sessions],
        [session.heard_number for session in sessions],
        [session.behind for session in sessions],
        [json.dumps(dict(session.ended)) for session in sessions],
        [session.interval_s for session in sessions],
        [session.is_unverified for session in sessions],
        [session.cut_number for session in sessions],
    )


def _multirange(session: Session) -> str:
    """As PostgreSQL writes one."""
    return "{" + ",".join(f"[{start},{end})" for start, end in session.missing) + "}"
