"""What a batch says of lists and snapshots: progress, proof, deletion by absence, states."""

from __future__ import annotations

import datetime as dt
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from clusterinfo.model import DIGEST_MODULUS, Batch, ListLane, Outcome, Record, Unit, list_start
from clusterinfo.observations import Observation, UnitFailed, UnitVerified, Warned
from clusterinfo.postgres.merge.contradictions import find_standing
from clusterinfo.postgres.merge.gaps import notice_clones, notice_namesakes
from clusterinfo.postgres.merge.staging import Staged, State, Tally, plain
from clusterinfo.postgres.merge.units import ClusterIds
from clusterinfo.postgres.sql import statements
from clusterinfo.statements import WHOLE_GROUP, SnapshotCompleted, SnapshotStarted, UnitOutcome

Complete = dict[str, Any]
"""List id -> (count, completed_at) of the lists that a batch completed: what arrived is what was announced."""


@dataclass(slots=True)
class Settled:
    """What came of a batch's lists: rows deleted, and what to say once it is committed."""

    deleted: int = 0
    observations: list[Observation] = field(default_factory=list)


async def count_lists(connection: Any, batch: Batch, staged: Staged) -> Complete:
    """Add what arrived to each list's progress and find the complete ones. Runs before the rows are planned."""
    if not staged.tallies:
        return {}
    await _add_progress(connection, batch, staged.tallies)
    rows = await connection.fetch(statements()["mark_proven"], [uuid.UUID(list_id) for list_id in staged.tallies])
    return {str(row["list"]): row for row in rows}


async def settle(connection: Any, batch: Batch, staged: Staged, complete: Complete, clusters: ClusterIds) -> Settled:
    """Delete what complete lists do not name, and write the states. Runs after the rows are stored."""
    settled = Settled()
    states = list(staged.failures)
    proven: dict[str, Tally] = {}
    fresh: set[str] = set()
    if staged.tallies or states:
        await _ensure_floors(connection, staged)
        fresh = await _find_fresh(connection, staged, complete)
    if staged.tallies:
        proven = await _prove(connection, staged, complete, states, settled)
    if staged.failed_lists:
        await _give_up(connection, batch, staged)
    if states:
        await _set_states(connection, states)
        settled.observations += [
            UnitFailed(
                cluster=s.unit.cluster, resource=s.unit.dotted, reach=s.reach, state=s.state, error=s.error or ""
            )
            for s in states
            if s.state != "verified"
        ]
    await _count_snapshots(connection, proven, staged, fresh, clusters)
    for record, said in sorted(staged.snapshots, key=lambda pair: pair[0].observed_at):
        settled.deleted += await _apply_snapshot(connection, record, said, clusters[record.cluster], settled)
    return settled


async def _add_progress(connection: Any, batch: Batch, tallies: dict[str, Tally]) -> None:
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


async def _ensure_floors(connection: Any, staged: Staged) -> None:
    pairs = {(t.unit_id, t.reach) for t in staged.tallies.values()} | {(f.unit_id, f.reach) for f in staged.failures}
    ordered = sorted(pairs)
    await connection.execute(
        statements()["ensure_floors"], [unit_id for unit_id, _ in ordered], [reach for _, reach in ordered]
    )


async def _find_fresh(connection: Any, staged: Staged, complete: Complete) -> set[str]:
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
    """The failed lists of a batch that say which list it was, each once."""
    pairs = zip(staged.failures, staged.failed_lists, strict=True)
    return list({record.list: (state, record) for state, record in pairs if record.list}.values())


async def _give_up(connection: Any, batch: Batch, staged: Staged) -> None:
    """Lists that failed prove nothing any more. Of one written page by page it is kept that its last page is stored."""
    for state, record in _failures(staged):
        if record.list == batch.list:
            await connection.execute(
                statements()["fail_list"], uuid.UUID(record.list), state.unit_id, state.reach, record.epoch, batch.end
            )
            await connection.execute(
                statements()["drop_failed_lists"], uuid.UUID(record.list), state.unit_id, state.reach
            )
        else:
            await connection.execute(statements()["drop_progress"], uuid.UUID(record.list))


async def _prove(
    connection: Any, staged: Staged, complete: Complete, states: list[State], settled: Settled
) -> dict[str, Tally]:
    """Delete what complete lists do not name; add a state for each list of which a completion is known."""
    list_ids = [uuid.UUID(list_id) for list_id in staged.tallies]
    overtaken = {str(row["list"]) for row in await connection.fetch(statements()["find_overtaken"], list_ids)}
    states += [
        _unproven(list_id, tally.completed_at, tally)
        for list_id, tally in staged.tallies.items()
        if tally.completed_at and list_id not in overtaken | complete.keys()
    ]
    if not complete:
        return {}
    doubts = await _find_doubts(connection, staged, settled)
    deleted = {str(row["list"]): row["deleted"] for row in await connection.fetch(statements()["delete_absent"])}
    settled.deleted += sum(deleted.values())
    for list_id, row in complete.items():
        tally = staged.tallies[list_id]
        tally.count = row["count"]
        if doubt := doubts.get(list_id):
            states.append(State(tally.unit, tally.unit_id, tally.reach, doubt[0], row["completed_at"], doubt[1]))
            continue
        at = row["completed_at"]
        states.append(State(tally.unit, tally.unit_id, tally.reach, "verified", at, None, row["count"]))
        settled.observations.append(
            UnitVerified(
                cluster=tally.unit.cluster,
                resource=tally.unit.dotted,
                reach=tally.reach,
                objects=row["count"],
                deleted=deleted.get(list_id, 0),
            )
        )
    await connection.execute(statements()["drop_covered_floors"])
    await connection.execute(statements()["drop_overtaken_lists"])
    return {list_id: staged.tallies[list_id] for list_id in complete if list_id not in doubts}


async def _find_doubts(connection: Any, staged: Staged, settled: Settled) -> dict[str, tuple[str, str]]:
    """Lists whose count and digest agree and that still prove nothing: list -> (state, why)."""
    doubts: dict[str, tuple[str, str]] = {}
    standing = await find_standing(connection, staged)
    for list_id, tally in staged.tallies.items():
        if tally.unit_id in standing:
            error = "its list version stood still while its objects changed: ordered by time from the next list on"
            doubts[list_id] = ("unverified", error)
            settled.observations.append(Warned(message=f"{tally.unit.dotted}: {error}"))
    for row in await connection.fetch(statements()["find_backwards"]):
        doubts[str(row["list"])] = ("failed", _backwards(row))
    return doubts


def _unproven(list_id: str, at: dt.datetime, tally: Tally) -> State:
    error = f"list {list_id}: what arrived so far does not add up to the {tally.expected_count} objects it announced"
    return State(tally.unit, tally.unit_id, tally.reach, "unverified", at, error)


def _backwards(row: Any) -> str:
    if row["epoch"] < row["floor_epoch"]:
        return (
            f"listed under epoch {row['epoch']}, but seen under epoch {row['floor_epoch']} before: CLUSTER_EPOCH "
            f"never goes down, set it to {row['floor_epoch']} for every collector of this cluster"
        )
    return (
        f"listed at version {row['live_at']}, but proven at {row['floor']} before: was the cluster restored from a "
        "backup? raise CLUSTER_EPOCH of its collector by one"
    )


async def _set_states(connection: Any, states: list[State]) -> None:
    await connection.execute(
        statements()["set_states"],
        [s.unit_id for s in states],
        [s.reach for s in states],
        [s.state for s in states],
        [s.at for s in states],
        [s.error for s in states],
        [s.objects for s in states],
    )


async def _count_snapshots(
    connection: Any, proven: dict[str, Tally], staged: Staged, fresh: set[str], clusters: ClusterIds
) -> None:
    verified: Counter[tuple[str, uuid.UUID]] = Counter()
    objects: Counter[tuple[str, uuid.UUID]] = Counter()
    failed: Counter[tuple[str, uuid.UUID]] = Counter()
    for list_id, tally in proven.items():
        if tally.snapshot and list_id in fresh:
            verified[tally.unit.cluster, tally.snapshot] += 1
            objects[tally.unit.cluster, tally.snapshot] += tally.count
    for _, record in _failures(staged):
        if record.snapshot and record.list in fresh:
            failed[record.cluster, uuid.UUID(record.snapshot)] += 1
    for key in sorted({*verified, *failed}, key=lambda pair: pair[1]):
        await connection.execute(
            statements()["count_snapshot"],
            key[1],
            clusters[key[0]],
            list_start(str(key[1])),
            verified[key],
            failed[key],
            objects[key],
        )


async def _apply_snapshot(
    connection: Any, record: Record, statement: SnapshotStarted | SnapshotCompleted, cluster_id: int, settled: Settled
) -> int:
    """A snapshot began or ended; return how many rows of kinds that are gone were deleted."""
    version = None
    if isinstance(statement, SnapshotStarted):
        version = plain(statement.server_version) or None
        await _rename(connection, record, cluster_id, settled)
        await _warn_of_shared_identity(connection, record, cluster_id, settled)
    await connection.execute(statements()["update_cluster"], cluster_id, record.observed_at, record.epoch, version)
    arguments = uuid.UUID(record.snapshot), cluster_id, record.began_at, 0, 0, 0
    await connection.execute(statements()["count_snapshot"], *arguments)
    if isinstance(statement, SnapshotStarted):
        return 0
    complete, units = statement.discovery_complete, statement.units
    await connection.execute(
        statements()["complete_snapshot"], uuid.UUID(record.snapshot), record.observed_at, complete
    )
    await _exclude(connection, cluster_id, units, record)
    return await _delete_gone(connection, cluster_id, units, record, settled) if complete else 0


async def _warn_of_shared_identity(connection: Any, record: Record, cluster_id: int, settled: Settled) -> None:
    if told := await notice_clones(connection, record, cluster_id):
        remedy = "if it is one cluster, give its collectors one CLUSTER_NAME and run `clusterinfo forget` for the other"
        settled.observations.append(Warned(message=told, remedy=remedy))
    if told := await notice_namesakes(connection, record, cluster_id):
        remedy = "allow get on namespace kube-system to every collector, and set CLUSTER_NAME of one of them"
        settled.observations.append(Warned(message=told, remedy=remedy))


async def _rename(connection: Any, record: Record, cluster_id: int, settled: Settled) -> None:
    name = record.cluster_name
    label = await connection.fetchval(statements()["rename_cluster"], cluster_id, name, record.observed_at)
    if label is not None:
        message = f"the cluster with uid {record.cluster} is called {name!r} now and shown as {label!r}"
        settled.observations.append(Warned(message=message))


async def _exclude(connection: Any, cluster_id: int, units: list[UnitOutcome], record: Record) -> None:
    excluded = [unit for unit in units if unit.outcome is Outcome.EXCLUDED and unit.resource != WHOLE_GROUP]
    if excluded:
        groups, resources = [plain(unit.group) for unit in excluded], [plain(unit.resource) for unit in excluded]
        await connection.execute(statements()["exclude_units"], cluster_id, groups, resources, record.observed_at)


async def _delete_gone(
    connection: Any, cluster_id: int, units: list[UnitOutcome], record: Record, settled: Settled
) -> int:
    began = record.began_at
    groups, resources = [plain(unit.group) for unit in units], [plain(unit.resource) for unit in units]
    rows = await connection.fetch(statements()["delete_gone"], cluster_id, groups, resources, record.observed_at, began)
    await connection.execute(statements()["remember_discovery"], cluster_id, began)
    for row in rows:
        unit = Unit(record.cluster, row["api_group"], row["resource"])
        settled.observations.append(
            UnitFailed(cluster=record.cluster, resource=unit.dotted, reach="", state="gone", error="")
        )
    return sum(row["deleted"] for row in rows)
