"""What a batch says of lists and snapshots: progress, proof, deletion by absence, states. Runs after the rows."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from clusterinfo.model import DIGEST_MODULUS, Batch, ListLane, Outcome, Record, RecordType, Unit, list_start
from clusterinfo.observations import Observation, UnitFailed, UnitVerified, Warned
from clusterinfo.postgres.staging import Staged, State, Tally
from clusterinfo.postgres.statements import statements
from clusterinfo.postgres.units import ClusterIds


@dataclass(slots=True)
class Settled:
    """What came of a batch's lists: rows deleted, and what to say once it is committed."""

    deleted: int = 0
    observations: list[Observation] = field(default_factory=list)


async def settle(connection: Any, batch: Batch, staged: Staged, clusters: ClusterIds) -> Settled:
    """Count what arrived, prove what is complete, delete what is absent, and write the states."""
    settled = Settled()
    states = list(staged.failures)
    proven: list[Tally] = []
    if staged.tallies:
        await _add_progress(connection, batch, staged.tallies)
    if staged.tallies or states:
        await _ensure_floors(connection, staged)
    if staged.tallies:
        proven = await _prove(connection, staged, states, settled)
    if states:
        await _set_states(connection, states)
        settled.observations += [
            UnitFailed(
                cluster=s.unit.cluster, resource=_dotted(s.unit), reach=s.reach, state=s.state, error=s.error or ""
            )
            for s in states
            if s.state != "verified"
        ]
    await _count_snapshots(connection, proven, staged, clusters)
    for record, said in sorted(staged.snapshots, key=lambda pair: pair[0].observed_at):
        settled.deleted += await _apply_snapshot(connection, record, said, clusters[record.cluster], settled)
    return settled


def _dotted(unit: Unit) -> str:
    return f"{unit.resource}.{unit.group}" if unit.group else unit.resource


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


async def _prove(connection: Any, staged: Staged, states: list[State], settled: Settled) -> list[Tally]:
    """Settle the lists that are complete; add a state for each list of which a completion is known."""
    rows = await connection.fetch(statements()["settle_lists"], [uuid.UUID(list_id) for list_id in staged.tallies])
    done = {str(row["list"]): row for row in rows}
    for list_id, tally in staged.tallies.items():
        if tally.completed_at and list_id not in done:
            states.append(_unproven(list_id, tally))
    if not rows:
        return []
    await _note_standing(connection, staged, settled)
    backwards = {str(row["list"]): row for row in await connection.fetch(statements()["find_backwards"])}
    deleted = {str(row["list"]): row["deleted"] for row in await connection.fetch(statements()["delete_absent"])}
    settled.deleted += sum(deleted.values())
    for list_id, row in done.items():
        tally = staged.tallies[list_id]
        at = tally.completed_at or list_start(list_id)
        if list_id in backwards:
            error = _backwards(backwards[list_id])
            states.append(State(tally.unit, tally.unit_id, tally.reach, "failed", at, error))
            continue
        states.append(State(tally.unit, tally.unit_id, tally.reach, "verified", at, None, row["count"]))
        settled.observations.append(
            UnitVerified(
                cluster=tally.unit.cluster,
                resource=_dotted(tally.unit),
                reach=tally.reach,
                objects=row["count"],
                deleted=deleted.get(list_id, 0),
            )
        )
    await connection.execute(statements()["forget_lists"])
    for list_id, row in done.items():
        staged.tallies[list_id].count = row["count"]
    return [staged.tallies[list_id] for list_id in done]


def _unproven(list_id: str, tally: Tally) -> State:
    error = f"list {list_id}: what arrived so far does not add up to the {tally.expected_count} objects it announced"
    assert tally.completed_at is not None
    return State(tally.unit, tally.unit_id, tally.reach, "unverified", tally.completed_at, error)


def _backwards(row: Any) -> str:
    return (
        f"listed at version {row['live_at']}, but proven at {row['floor']} before: was the cluster restored from a "
        "backup? raise CLUSTER_EPOCH of its collector by one"
    )


async def _note_standing(connection: Any, staged: Staged, settled: Settled) -> None:
    units = {tally.unit_id: tally.unit for tally in staged.tallies.values()}
    for row in await connection.fetch(statements()["find_standing"]):
        name = _dotted(units[row["id"]])
        message = f"the list version of {name} stood still while its objects changed: ordered by time from now on"
        settled.observations.append(Warned(message=message))


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


async def _count_snapshots(connection: Any, proven: list[Tally], staged: Staged, clusters: ClusterIds) -> None:
    verified: Counter[tuple[str, uuid.UUID]] = Counter()
    objects: Counter[tuple[str, uuid.UUID]] = Counter()
    failed: Counter[tuple[str, uuid.UUID]] = Counter()
    for tally in proven:
        if tally.snapshot:
            verified[tally.unit.cluster, tally.snapshot] += 1
            objects[tally.unit.cluster, tally.snapshot] += tally.count
    for record in staged.failed_lists:
        if record.snapshot:
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
    connection: Any, record: Record, said: dict[str, Any], cluster_id: int, settled: Settled
) -> int:
    """A snapshot began or ended; return how many rows of kinds that are gone were deleted."""
    started_at = list_start(record.snapshot)
    snapshot = uuid.UUID(record.snapshot)
    version = said.get("server_version")
    await connection.execute(
        statements()["see_cluster"], cluster_id, record.observed_at, record.epoch, str(version) if version else None
    )
    await connection.execute(statements()["count_snapshot"], snapshot, cluster_id, started_at, 0, 0, 0)
    if record.type is RecordType.SNAPSHOT_STARTED:
        return 0
    units = [unit for unit in said.get("units") or [] if isinstance(unit, dict)]
    complete = said.get("discovery_complete") is True
    await connection.execute(statements()["complete_snapshot"], snapshot, record.observed_at, complete)
    await _exclude(connection, cluster_id, units, record)
    return await _delete_gone(connection, cluster_id, units, record, settled) if complete else 0


async def _exclude(connection: Any, cluster_id: int, units: list[dict[str, Any]], record: Record) -> None:
    excluded = sorted((u["group"], u["resource"]) for u in units if u["outcome"] == Outcome.EXCLUDED)
    if not excluded:
        return
    groups, resources = [group for group, _ in excluded], [resource for _, resource in excluded]
    empty = [""] * len(excluded)
    await connection.execute(
        statements()["ensure_units"], [cluster_id] * len(excluded), groups, resources, empty, empty
    )
    await connection.execute(statements()["exclude_units"], cluster_id, groups, resources, record.observed_at)


async def _delete_gone(
    connection: Any, cluster_id: int, units: list[dict[str, Any]], record: Record, settled: Settled
) -> int:
    rows = await connection.fetch(
        statements()["delete_gone"],
        cluster_id,
        [u["group"] for u in units],
        [u["resource"] for u in units],
        record.observed_at,
        list_start(record.snapshot),
    )
    for row in rows:
        unit = Unit(record.cluster, row["api_group"], row["resource"])
        settled.observations.append(
            UnitFailed(cluster=record.cluster, resource=_dotted(unit), reach="", state="gone", error="")
        )
    return sum(row["deleted"] for row in rows)
