"""The lists of a batch: progress, proof, deletion by absence, floors, states.

A list proves a unit within a reach if count and digest of what arrived agree with its completion. Two things refute it
all the same: it runs backwards, or its version stalled while the objects changed. The latter is for its collector
to see, which then orders the kind by the clock; where the collector could not, the two digests show it here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clusterinfo.model import DIGEST_MODULUS
from clusterinfo.observations import Drifted, Observation, UnitFailed, UnitVerified, Warned
from clusterinfo.postgres.connection import Connection, Row
from clusterinfo.postgres.merge.admission import Clusters
from clusterinfo.postgres.merge.bury import Absence, bury
from clusterinfo.postgres.merge.clusters import CONTESTED
from clusterinfo.postgres.merge.coverage import (
    Opening,
    find_openings,
    mark_units_unverified,
    name_sessions,
    open_coverage,
    take_back,
)
from clusterinfo.postgres.merge.numbers import Heard
from clusterinfo.postgres.merge.staging import Staged, State, Tally
from clusterinfo.postgres.sql import statements

Proven = Mapping[str, Row]
"""List id -> (count, completed_at) of the lists that a batch settled: what arrived is what was announced."""

STALLED = "its list version stalled while its objects changed: ordered by the clock from the next list on"


BROKEN = "something that was watched while it was listed has not come: unproven until the next list"


@dataclass(frozen=True, slots=True)
class ClosedLists:
    """What came of a batch's lists: objects deleted, and what to report."""

    deleted: int = 0
    observations: list[Observation] = field(default_factory=list)


async def count_lists(connection: Connection, staged: Staged, heard: Heard) -> Proven:
    """Add what arrived to each list's progress; return the lists that are proven now. Runs before rows are merged."""
    if not staged.tallies:
        return {}
    ordered = sorted(staged.tallies.items())
    rows = await connection.fetch(
        statements()["add_progress"],
        [list_id for list_id, _ in ordered],
        [t.unit_id for _, t in ordered],
        [t.reach for _, t in ordered],
        [t.epoch for _, t in ordered],
        [t.live_at for _, t in ordered],
        [t.count for _, t in ordered],
        [str(t.digest % DIGEST_MODULUS) for _, t in ordered],
        [t.expected_count for _, t in ordered],
        [None if t.expected_digest is None else str(t.expected_digest) for _, t in ordered],
        [t.completed_at for _, t in ordered],
    )
    await name_sessions(connection, heard.named, {list_id: tally.unit_id for list_id, tally in ordered})
    return {str(row["list"]): row for row in rows if row["settled"]}


async def close_lists(
    connection: Connection, staged: Staged, proven: Proven, clusters: Clusters, heard: Heard
) -> ClosedLists:
    """Delete what proven lists do not name, and write the states. Runs after the rows are merged."""
    if not staged.tallies and not staged.failures:
        return ClosedLists()
    refuted, warnings = await _find_refuted(connection, staged, proven) if proven else ({}, [])
    following = [one for one, row in proven.items() if one in heard.named or row["session_id"]]
    openings = await find_openings(connection, following)
    broken = {opening.list for opening in openings if not opening.is_proven}
    accepted = {
        list_id: _state(staged.tallies[list_id], row, clusters, is_broken=list_id in broken)
        for list_id, row in proven.items()
        if list_id not in refuted
    }
    states = [
        *staged.failures,
        *await _find_unproven(connection, staged, proven),
        *refuted.values(),
        *accepted.values(),
    ]
    if states:
        await _set_states(connection, states)
    if staged.failed_lists:
        await _drop_failed(connection, staged)
    deleted = await _delete_absent(connection, accepted, proven)
    ends = [_ended(state, deleted.get(list_id, 0)) for list_id, state in accepted.items()]
    ends += await _follow(connection, accepted, openings, deleted)
    await _drop_covered(connection, accepted, deleted)
    failed = [_failed(state) for state in states[: len(states) - len(accepted)]]
    return ClosedLists(deleted=sum(deleted.values()), observations=[*warnings, *ends, *failed])


async def _drop_failed(connection: Connection, staged: Staged) -> None:
    """Forget lists that failed; what they named stays known, but for what another has named since."""
    units = [failure.unit_id for failure in staged.failures]
    await connection.execute(statements()["trim_seen"], units)
    await connection.execute(statements()["drop_trimmed"], units)
    await connection.execute(statements()["drop_progress"], staged.failed_lists, units)


def _state(tally: Tally, row: Row, clusters: Clusters, *, is_broken: bool) -> State:
    """Of a list that is proven; of a contested cluster nothing is verified even so, nor beside a hole."""
    at, objects = row["completed_at"], row["count"]
    if clusters[tally.unit.cluster].is_contested:
        return State(tally.unit, tally.unit_id, tally.reach, "unverified", at, CONTESTED, objects)
    if is_broken:
        return State(tally.unit, tally.unit_id, tally.reach, "unverified", at, BROKEN, objects)
    return State(tally.unit, tally.unit_id, tally.reach, "verified", at, tally.unfollowed or None, objects)


# --- what proves nothing ---------------------------------------------------------------------------------------------


async def _find_unproven(connection: Connection, staged: Staged, proven: Proven) -> list[State]:
    """States of the lists whose completion is here and does not agree with what arrived."""
    unproven = {
        list_id: (tally, tally.completed_at)
        for list_id, tally in staged.tallies.items()
        if tally.completed_at and list_id not in proven
    }
    if not unproven:
        return []
    rows = await connection.fetch(statements()["find_overtaken"], list(unproven))
    overtaken = {str(row["list"]) for row in rows}
    return [_unproven(one, at, tally) for one, (tally, at) in unproven.items() if one not in overtaken]


async def _find_refuted(
    connection: Connection, staged: Staged, proven: Proven
) -> tuple[dict[str, State], list[Observation]]:
    """Lists whose count and digest agree and that still prove nothing, with their states; and what to warn of."""
    warnings: list[Observation] = []
    refuted: dict[str, State] = {}
    units = [row["id"] for row in await connection.fetch(statements()["find_stalled_versions"], list(proven))]
    for list_id, row in proven.items():
        tally = staged.tallies[list_id]
        if tally.unit_id in units:
            refuted[list_id] = _refuted(tally, row, "unverified", STALLED)
            warnings.append(Warned(message=f"{tally.unit.dotted}: {STALLED}"))
    for row in await connection.fetch(statements()["find_backwards"], list(proven)):
        list_id = str(row["list"])
        refuted[list_id] = _refuted(staged.tallies[list_id], proven[list_id], "failed", _backwards(row))
    if units:
        await connection.execute(statements()["drop_unit_progress"], units)
    if refuted:
        unverified = {staged.tallies[list_id].unit_id for list_id in refuted}
        await mark_units_unverified(connection, unverified, max(state.at for state in refuted.values()))
    return refuted, warnings


def _refuted(tally: Tally, row: Row, state: str, error: str) -> State:
    return State(tally.unit, tally.unit_id, tally.reach, state, row["completed_at"], error)


def _unproven(list_id: str, at: dt.datetime, tally: Tally) -> State:
    error = f"list {list_id}: what arrived so far does not add up to the {tally.expected_count} objects it announced"
    return State(tally.unit, tally.unit_id, tally.reach, "unverified", at, error)


def _backwards(row: Row) -> str:
    if row["epoch"] < row["floor_epoch"]:
        return (
            f"listed under epoch {row['epoch']}, but seen under epoch {row['floor_epoch']} before: CLUSTER_EPOCH "
            f"never goes down, set it to {row['floor_epoch']} for every collector of this cluster"
        )
    return (
        f"listed at version {row['live_at']}, but proven at {row['floor']} before: was the cluster restored from a "
        "backup? raise CLUSTER_EPOCH of its collector by one"
    )


# --- what is proven --------------------------------------------------------------------------------------------------


async def _delete_absent(connection: Connection, accepted: Mapping[str, State], proven: Proven) -> dict[str, int]:
    """Raise the floors that these lists prove, and delete what they do not name.

    Returns of each list that raised one how many objects it deleted.

    What one of two clusters under one identity does not name may be the other's: of those nothing is deleted.
    """
    believed = [list_id for list_id, state in accepted.items() if state.error != CONTESTED]
    raised = await connection.fetch(statements()["raise_floors"], believed) if believed else []
    absences = [Absence(row["unit_id"], row["reach"], row["epoch"], row["live_at"]) for row in raised]
    counts = await bury(connection, absences, list(proven)) if absences else []
    return {str(row["list"]): count for row, count in zip(raised, counts, strict=True)}


async def _follow(
    connection: Connection, accepted: Mapping[str, State], openings: Sequence[Opening], deleted: Mapping[str, int]
) -> list[Observation]:
    """Open what these lists let be followed. What they correct of what was followed before is drift: report it."""
    believed = [one for one in openings if one.list in accepted and accepted[one.list].error != CONTESTED]
    drift = {one: one.corrected + deleted.get(one.list, 0) for one in believed if one.was_followed and not one.is_cut}
    drifted = {one: objects for one, objects in drift.items() if objects}
    await take_back(connection, drifted)
    await open_coverage(connection, believed)
    return [_drifted(accepted[one.list], objects) for one, objects in drifted.items()]


def _drifted(state: State, objects: int) -> Drifted:
    return Drifted(cluster=state.unit.cluster, resource=state.unit.dotted, reach=state.reach, objects=objects)


async def _drop_covered(connection: Connection, accepted: Mapping[str, State], raised: Mapping[str, int]) -> None:
    if accepted:
        await connection.execute(statements()["drop_covered"], list(accepted), list(raised))


async def _set_states(connection: Connection, states: Sequence[State]) -> None:
    await connection.execute(
        statements()["set_states"],
        [s.unit_id for s in states],
        [s.reach for s in states],
        [s.state for s in states],
        [s.at for s in states],
        [s.error for s in states],
        [s.objects for s in states],
    )


def _ended(state: State, deleted: int) -> Observation:
    """Of a list that was accepted."""
    if state.state != "verified":
        return _failed(state)
    unit, objects = state.unit, state.objects or 0
    return UnitVerified(cluster=unit.cluster, resource=unit.dotted, reach=state.reach, objects=objects, deleted=deleted)


def _failed(state: State) -> UnitFailed:
    unit = state.unit
    return UnitFailed(
        cluster=unit.cluster, resource=unit.dotted, reach=state.reach, state=state.state, error=state.error or ""
    )
