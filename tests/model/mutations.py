"""The mutation gate: the merge with one guard taken out, each of which the model has to notice.

A mutation changes the text of one statement, or one method, while it is entered; nothing on disk is touched. What it
replaces must be there exactly as often as it says, so that no mutation can quietly become none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from clusterinfo.model import Batch, PartitionLane
from clusterinfo.postgres.merge.offsets import TO_BE_STORED, Positions
from clusterinfo.postgres.sql import statements


@dataclass(frozen=True)
class Mutation:
    """One guard, the scene that needs it, and what is left without it. `sorts`: what may be its consequence."""

    guard: str
    scene: str
    sorts: frozenset[str]
    statement: str = ""
    replacements: tuple[tuple[str, str], ...] = ()
    method: str = ""
    instead: Callable[..., Any] | None = None

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The merge without this guard."""
        if self.instead:
            original = getattr(Positions, self.method)
            setattr(Positions, self.method, self.instead)
            try:
                yield
            finally:
                setattr(Positions, self.method, original)
            return
        text = statements()[self.statement]
        mutated = text
        for old, new in self.replacements:
            assert mutated.count(old) == 1, (
                f"{self.guard}: {old!r} stands {mutated.count(old)} times in {self.statement}"
            )
            mutated = mutated.replace(old, new)
        statements()[self.statement] = mutated
        try:
            yield
        finally:
            statements()[self.statement] = text


def _sql(guard: str, scene: str, sorts: str, statement: str, *replacements: tuple[str, str]) -> Mutation:
    return Mutation(guard, scene, frozenset(sorts.split()), statement, replacements)


async def _any_offset(self: Positions, connection: Any, batch: Batch, lane: PartitionLane) -> bool:
    """As `_check_offset`, without comparing the offset."""
    from clusterinfo.errors import LostError, RestartError

    row = await connection.fetchrow(statements()["lock_offset"], lane.kafka_cluster, lane.topic, lane.partition)
    generation = row["generation"] if row else 0
    if generation > self.generation(lane):
        raise LostError(str(lane))
    if generation < self.generation(lane):
        raise RestartError(str(lane))
    return TO_BE_STORED


async def _any_page(self: Positions, connection: Any, batch: Batch) -> bool:
    """As `_check_page`, without comparing the page."""
    return TO_BE_STORED


async def _any_owner(self: Positions, connection: Any, batch: Batch, lane: PartitionLane) -> bool:
    """As `_check_offset`, without comparing the generation."""
    from clusterinfo.errors import RestartError

    row = await connection.fetchrow(statements()["lock_offset"], lane.kafka_cluster, lane.topic, lane.partition)
    stored = row["next_offset"] if row else None
    if stored is None or stored == batch.start:
        return TO_BE_STORED
    if stored == batch.end:
        return not TO_BE_STORED
    raise RestartError(str(lane))


_ANYTHING = "offsets counts phantom lost wrong history floor state"

MUTATIONS = (
    _sql(
        "live_at order", "superseded", "history wrong", "plan",
        ("when (r.epoch, r.live_at) > (s.epoch, s.live_at) then true", "when true then true"),
    ),
    _sql(
        "fidelity order", "stubbed", "wrong", "plan",
        ("origin_normalization desc, origin_fidelity desc,", "origin_normalization desc,"),
        ("and (fidelity <= lag(fidelity) over chain or lag(fidelity) over chain in (0, 2))",
         "and fidelity = lag(fidelity) over chain"),
    ),
    _sql(
        "normalization order", "unlearnt", "wrong", "plan",
        ("order by origin_normalization desc, origin_fidelity desc,", "order by"),
    ),
    _sql(
        "completeness proof", "incomplete", "counts lost", "mark_proven",
        ("expected_count = count and expected_digest = digest", "expected_count is not null"),
    ),
    _sql("digest", "swapped", "counts lost", "mark_proven", (" and expected_digest = digest", "")),
    _sql(
        "floor", "resurrected", "phantom history", "plan",
        ("and (f.epoch, f.live_at) >= (r.epoch, r.live_at))", "and false)"),
    ),
    Mutation(
        "compare-and-set", "unanswered", frozenset(_ANYTHING.split()), method="_check_offset", instead=_any_offset,
    ),
    Mutation("generation", "usurped", frozenset(_ANYTHING.split()), method="_check_offset", instead=_any_owner),
    _sql(
        "unit lock", "crowded", _ANYTHING + " stuck", "lock_units",
        ("order by u.id for update of u", "order by u.id"),
    ),
    _sql(
        "late completion", "hasty", "counts state", "add_progress",
        ("coalesce(excluded.expected_count, p.expected_count)", "excluded.expected_count"),
    ),
    _sql(
        "floors never sink", "overtaken floor", "floor", "delete_absent",
        (" and (v.epoch, v.live_at) > (f.epoch, f.live_at)\n    order", "\n    order"),
    ),
    _sql("reach", "narrow", "lost", "delete_absent", ("and (p.reach = '' or r.namespace = p.reach)", "")),
    _sql(
        "tombstones", "buried", "history", "plan",
        ("when s.unit_id is null then", "when s.unit_id is null or s.deleted then"),
    ),
    _sql("settled once", "repeated", "counts", "add_progress", ("where not p.settled", "")),
    _sql("gone kinds", "abolished", "phantom", "plan", ("r.observed_at >= u.gone_before and ", "")),
    Mutation("page position", "paged", frozenset({"counts", "history"}), method="_check_page", instead=_any_page),
    _sql(
        "alarm", "backwards", "state", "find_backwards",
        ("where (v.epoch, v.live_at) < (b.epoch, b.live_at)", "where false"),
    ),
    _sql("no false alarm", "sluggish", "state", "find_backwards", (" and f.proven_at < v.began_at", "")),
)  # fmt: skip
