"""The lists of a batch: progress, proof, deletion by absence, floors, states.

A list proves a unit within a reach if count and digest of what arrived agree with its completion. Three things refute
it all the same: a list that runs backwards, and two signs that list versions stalled while the objects changed.

One version of a list is one state of a kind. Two records that contradict each other at one version, or a list that
holds fewer objects than are known as of its version, show a server that breaks that rule: its versions order
nothing, so time has to. From then on the kind is ordered by when its lists began; what is under way proves nothing, and
the next list corrects everything.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from clusterinfo.model import DIGEST_MODULUS, Batch, ListLane, Record
from clusterinfo.observations import Observation, UnitFailed, UnitVerified, Warned
from clusterinfo.postgres.connection import Connection, Row
from clusterinfo.postgres.merge.staging import Staged, State, Tally
from clusterinfo.postgres.sql import statements

Complete = dict[str, Row]
"""List id -> (count, completed_at) of the lists that a batch completed: what arrived is what was announced."""


@dataclass(slots=True)
class ClosedLists:
    """What came of a batch's lists: rows deleted, what to report, and what their snapshots have yet to count."""

    proven: list[Tally] = field(default_factory=list)
    failed: list[Record] = field(default_factory=list)
    deleted: int = 0
    observations: list[Observation] = field(default_factory=list)


@dataclass(slots=True)
class _Proof:
    """What the completions of a batch prove: the proven lists by id, a state for each list, rows deleted."""

    proven: dict[str, Tally] = field(default_factory=dict)
    states: list[State] = field(default_factory=list)
    deleted: int = 0
    observations: list[Observation] = field(default_factory=list)


async def count_lists(connection: Connection, batch: Batch, staged: Staged) -> Complete:
    """Add what arrived to each list's progress and find the complete ones. Runs before the rows are planned."""
    if not staged.tallies:
        return {}
    await _add_progress(connection, batch, staged.tallies)
    rows = await connection.fetch(statements()["mark_proven"], [uuid.UUID(list_id) for list_id in staged.tallies])
    return {str(row["list"]): row for row in rows}


async def detect_contradictions(connection: Connection, staged: Staged) -> None:
    """Note the kinds of which staged records contradict one another, a row or a floor. Runs before the plan."""
    units = [row["id"] for row in await connection.fetch(statements()["find_contradictions"])]
    if units:
        staged.stalled.update(units)
        await drop_unit_progress(connection, units)


async def drop_unit_progress(connection: Connection, units: list[int]) -> None:
    """The lists of these units that are under way prove nothing any more."""
    await connection.execute(statements()["drop_unit_progress"], units)


async def close_lists(connection: Connection, batch: Batch, staged: Staged, complete: Complete) -> ClosedLists:
    """Delete what complete lists do not name, and write the states. Runs after the rows are stored."""
    if not staged.tallies and not staged.failures:
        return ClosedLists()
    await _ensure_floors(connection, staged)
    uncounted = await _find_uncounted(connection, staged, complete)
    proof = await _prove(connection, staged, complete) if staged.tallies else _Proof()
    await _drop_failed(connection, batch, staged)
    states = staged.failures + proof.states
    if states:
        await _set_states(connection, states)
    return ClosedLists(
        proven=[tally for list_id, tally in proof.proven.items() if list_id in uncounted],
        failed=[record for _, record in _failures(staged) if record.list in uncounted],
        deleted=proof.deleted,
        observations=proof.observations + [_failed(state) for state in states if state.state != "verified"],
    )


# --- progress --------------------------------------------------------------------------------------------------------


async def _add_progress(connection: Connection, batch: Batch, tallies: dict[str, Tally]) -> None:
    ordered = sorted(tallies.items())
    pages = 1 if isinstance(batch.lane, ListLane) else 0
    await connection.execute(
        statements()["add_progress"],
        [uuid.UUID(list_id) for list_id, _ in ordered],
        [t.unit_id for _, t in ordered],
        [t.reach for _, t in ordered],
        [t.snapshot for _, t in ordered],
        [t.epoch for _, t in ordered],
        [t.live_at for _, t in ordered],
        [pages for _ in ordered],
        [t.count for _, t in ordered],
        [str(t.digest % DIGEST_MODULUS) for _, t in ordered],
        [t.expected_count for _, t in ordered],
        [None if t.expected_digest is None else str(t.expected_digest) for _, t in ordered],
        [t.completed_at for _, t in ordered],
    )


async def _find_uncounted(connection: Connection, staged: Staged, complete: Complete) -> set[str]:
    """Of the lists that were proven or failed, those that their snapshots have not counted yet; they have now."""
    ended = [
        (t.unit_id, t.reach, list_id, complete[list_id]["completed_at"])
        for list_id, t in staged.tallies.items()
        if list_id in complete
    ]
    ended += [(s.unit_id, s.reach, record.list, s.at) for s, record in _failures(staged)]
    if not ended:
        return set()
    rows = await connection.fetch(
        statements()["find_fresh_lists"],
        [unit_id for unit_id, _, _, _ in ended],
        [reach for _, reach, _, _ in ended],
        [uuid.UUID(list_id) for _, _, list_id, _ in ended],
        [at for _, _, _, at in ended],
    )
    return {str(row["list"]) for row in rows}


def _failures(staged: Staged) -> list[tuple[State, Record]]:
    """The failed lists of a batch that have an id, each once."""
    pairs = zip(staged.failures, staged.failed_lists, strict=True)
    return list({record.list: (state, record) for state, record in pairs if record.list}.values())


async def _drop_failed(connection: Connection, batch: Batch, staged: Staged) -> None:
    """Lists that failed prove nothing any more. Of one written page by page it is kept that its last page is stored."""
    for state, record in _failures(staged):
        list_id = uuid.UUID(record.list)
        if record.list == batch.list:
            await connection.execute(
                statements()["fail_list"], list_id, state.unit_id, state.reach, record.epoch, batch.end
            )
            await connection.execute(statements()["drop_failed_lists"], list_id, state.unit_id, state.reach)
        else:
            await connection.execute(statements()["drop_progress"], list_id)


# --- proof -----------------------------------------------------------------------------------------------------------


async def _prove(connection: Connection, staged: Staged, complete: Complete) -> _Proof:
    """Delete what complete lists do not name; a state for each list of which a completion is known."""
    proof = _Proof(states=await _find_unproven(connection, staged, complete))
    if not complete:
        return proof
    refuted, proof.observations = await _find_refuted(connection, staged)
    deleted = {str(row["list"]): row["deleted"] for row in await connection.fetch(statements()["delete_absent"])}
    proof.deleted = sum(deleted.values())
    for list_id, row in complete.items():
        tally, at = staged.tallies[list_id], row["completed_at"]
        if list_id in refuted:
            state, error = refuted[list_id]
            proof.states.append(State(tally.unit, tally.unit_id, tally.reach, state, at, error))
            continue
        proof.proven[list_id] = replace(tally, count=row["count"])
        proof.states.append(State(tally.unit, tally.unit_id, tally.reach, "verified", at, None, row["count"]))
        proof.observations.append(_verified(tally, row["count"], deleted.get(list_id, 0)))
    await connection.execute(statements()["drop_covered_floors"])
    await connection.execute(statements()["drop_overtaken_lists"])
    return proof


async def _find_unproven(connection: Connection, staged: Staged, complete: Complete) -> list[State]:
    """States of the lists whose completion is here and does not agree with what arrived."""
    rows = await connection.fetch(statements()["find_overtaken"], [uuid.UUID(list_id) for list_id in staged.tallies])
    overtaken = {str(row["list"]) for row in rows}
    return [
        _unproven(list_id, tally.completed_at, tally)
        for list_id, tally in staged.tallies.items()
        if tally.completed_at and list_id not in overtaken | complete.keys()
    ]


async def _find_refuted(connection: Connection, staged: Staged) -> tuple[dict[str, tuple[str, str]], list[Observation]]:
    """Lists whose count and digest agree and that still prove nothing: list -> (state, why); and what to warn of."""
    refuted: dict[str, tuple[str, str]] = {}
    warnings: list[Observation] = []
    stalled = await _find_stalled(connection, staged)
    for list_id, tally in staged.tallies.items():
        if tally.unit_id in stalled:
            error = "its list version stalled while its objects changed: ordered by time from the next list on"
            refuted[list_id] = ("unverified", error)
            warnings.append(Warned(message=f"{tally.unit.dotted}: {error}"))
    for row in await connection.fetch(statements()["find_backwards"]):
        refuted[str(row["list"])] = ("failed", _backwards(row))
    return refuted, warnings


async def _find_stalled(connection: Connection, staged: Staged) -> set[int]:
    """The units whose list versions are known to have stalled since this batch: their lists prove nothing."""
    units = [row["id"] for row in await connection.fetch(statements()["find_stalled"])]
    if units:
        await drop_unit_progress(connection, units)
    return staged.stalled.union(units)


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


# --- floors and states -----------------------------------------------------------------------------------------------


async def _ensure_floors(connection: Connection, staged: Staged) -> None:
    pairs = {(t.unit_id, t.reach) for t in staged.tallies.values()} | {(f.unit_id, f.reach) for f in staged.failures}
    ordered = sorted(pairs)
    await connection.execute(
        statements()["ensure_floors"], [unit_id for unit_id, _ in ordered], [reach for _, reach in ordered]
    )


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


def _verified(tally: Tally, objects: int, deleted: int) -> UnitVerified:
    unit = tally.unit
    return UnitVerified(cluster=unit.cluster, resource=unit.dotted, reach=tally.reach, objects=objects, deleted=deleted)


def _failed(state: State) -> UnitFailed:
    unit = state.unit
    return UnitFailed(
        cluster=unit.cluster, resource=unit.dotted, reach=state.reach, state=state.state, error=state.error or ""
    )
