"""PostgresSink: a batch into PostgreSQL in one transaction.

Theory of operation. The order of the steps below is what makes any number of sinks safe side by side:

1. the lane's position is locked and checked against the batch: stored already, or owned by another, or ours to store;
2. dates far ahead are corrected, what dates from before its cluster or kind was forgotten is left out, clusters that
   share a uid are separated, missing clusters and units are made, the batch's units are locked in id order;
3. what arrived is counted for each list, which shows those that are complete now;
4. identities are copied to staging, and the merge plans what becomes of each (`merge/rows.sql`, `plan`);
5. only the bodies the plan wants are copied; history and rows are written;
6. complete lists delete what they do not name, states are written, snapshots are applied;
7. dead letters and the position go in, and all of it commits or nothing does.

All statements run at READ COMMITTED. From step 2 on nobody else changes the rows of the batch's units, since whoever
does holds the same locks; what is read before (positions, clusters, what is forgotten) is locked where it is read. The
statements of each step lie beside its module. What the rules of the merge are, and why they make any order and any
repetition of records converge, is explained in docs/DESIGN.md, "What makes it right".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import msgspec

from clusterinfo.model import Batch, Lane, PartitionLane, Position, Receipt, Record, Rejected
from clusterinfo.observations import BatchStored, DeadLettered, LaneClaimed, Observe
from clusterinfo.postgres.connection import Connection, Pool
from clusterinfo.postgres.errors import FOREIGN, RETRIED, is_of_the_record, is_timeout, server_message, translate
from clusterinfo.postgres.merge.admission import Clocks, read_forgotten, without_forgotten
from clusterinfo.postgres.merge.dead_letters import add_dead_letters
from clusterinfo.postgres.merge.gaps import CarriedUnits, mark_gap_unverified
from clusterinfo.postgres.merge.identities import check_separated, separate_clones
from clusterinfo.postgres.merge.lists import close_lists, count_lists, detect_contradictions
from clusterinfo.postgres.merge.offsets import Positions
from clusterinfo.postgres.merge.rows import Plan, apply_plan, copy_records, plan_and_copy
from clusterinfo.postgres.merge.snapshots import apply_snapshots
from clusterinfo.postgres.merge.staging import Staged, stage, staging_tables
from clusterinfo.postgres.merge.units import lock_batch
from clusterinfo.postgres.pool import open_pool
from clusterinfo.settings import Settings
from clusterinfo.wire import attributes_of, key_of

STATEMENT_TIMEOUT = "60s"
LOCK_TIMEOUT = "20s"
IDLE_TIMEOUT = "60s"
WRITE_TIMEOUT_S = 300.0
"""Of a whole batch; one whose statements each keep to theirs, and that still takes so long, is bisected too."""
BEGIN_TIMEOUT_S = 10.0
"""To begin takes no lock: a connection that does not answer so long was cut in silence while it was idle."""
ACQUIRE_TIMEOUT_S = 60.0


class TookTooLongError(TimeoutError):
    """A transaction met its deadline although the server answered all the while."""


@dataclass(slots=True)
class _Clock:
    """Seconds of a batch's stages."""

    started: float
    copied: float = 0.0
    merged: float = 0.0


class PostgresSink:
    """Stores batches of any lane; safe to use from several pumps at once, each on a connection of its own."""

    def __init__(self, pool: Pool, settings: Settings, observe: Observe, *, lz4: bool) -> None:
        self._pool = pool
        self._observe = observe
        self._positions = Positions()
        self._carried = CarriedUnits()
        self.clocks = Clocks(observe)
        self._begin = (
            f"set local search_path = {settings.db_schema}, pg_catalog;"
            f"set local statement_timeout = '{STATEMENT_TIMEOUT}'; set local lock_timeout = '{LOCK_TIMEOUT}';"
            f"set local idle_in_transaction_session_timeout = '{IDLE_TIMEOUT}'; set local jit = off;"
            + ("set local default_toast_compression = 'lz4';" if lz4 else "")
            + staging_tables()
        )

    @classmethod
    async def on(cls, pool: Pool, settings: Settings, observe: Observe) -> PostgresSink:
        """A sink on `pool` (see `open_pool`), whose schema must be there."""
        async with pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
            lz4 = await connection.fetchval(
                "select 'lz4' = any (enumvals) from pg_settings where name = 'default_toast_compression'"
            )
        return cls(pool, settings, observe, lz4=bool(lz4))

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: Settings, observe: Observe) -> AsyncIterator[PostgresSink]:
        """A sink on a pool of its own. Raises FatalError when nothing answers for 20 s."""
        async with open_pool(settings) as pool:
            yield await cls.on(pool, settings, observe)

    async def open(self, lane: Lane) -> Position:
        """Claim a partition and return its next offset; a list begins at its beginning."""
        if not isinstance(lane, PartitionLane):
            return None
        try:
            async with self.transaction() as connection:
                offset = await self._positions.claim(connection, lane)
            self._carried.forget(lane)
        except FOREIGN as error:
            raise translate(error, f"claiming {lane}") from error
        generation = self._positions.generation(lane)
        self._observe(LaneClaimed(lane=str(lane), offset=-1 if offset is None else offset, generation=generation))
        return offset

    async def write(self, batch: Batch) -> Receipt:
        """Store the batch and move its lane's position, or do neither. A batch stored before changes nothing.

        A batch that takes longer than the statement timeout, or that PostgreSQL refuses for its data, is bisected; a
        record that is refused alone becomes a dead letter.
        """
        try:
            await self._write(batch)
        except FOREIGN as error:
            is_too_much = is_timeout(error) or isinstance(error, TookTooLongError)
            if not (is_of_the_record(error) or is_too_much) or not (parts := bisect(batch, error)):
                raise translate(error, f"storing a batch of {batch.lane}") from error
            for part in parts:
                await self.write(part)
        return Receipt(lane=batch.lane, position=batch.end)

    async def _write(self, batch: Batch) -> None:
        clock = _Clock(time.perf_counter())
        async with self.transaction() as connection:
            if await self._positions.check_offset(connection, batch):
                return  # the answer to an earlier commit was lost
            # Read before a unit is locked: whoever forgets waits for this batch from here on, without a deadlock.
            batch = await self.clocks.dated(connection, batch)
            forgotten = await read_forgotten(connection, batch)
            batch = without_forgotten(await separate_clones(connection, batch), forgotten)
            locked = await lock_batch(connection, batch)
            # Somebody may have separated clusters before their units were locked.
            await check_separated(connection, batch, locked.clusters)
            batch = locked.batch
            if await self._positions.check_page(connection, batch):
                return
            carried = await self._carried.store(connection, batch, locked)
            staged = stage(batch, locked.units)
            complete = await count_lists(connection, batch, staged)
            plan = await self.merge(connection, staged, clock) if staged.rows else None
            await mark_gap_unverified(connection, batch)
            closed = await close_lists(connection, batch, staged, complete)
            applied = await apply_snapshots(connection, staged, closed, locked.clusters)
            await add_dead_letters(connection, batch.lane, staged.dead_letters)
            await self._positions.move(connection, batch)
            clock.merged = time.perf_counter()
        # Only what is committed may be remembered or reported.
        self._carried.remember(batch, carried)
        self._report_batch(batch, staged, plan, closed.deleted + applied.deleted, clock)
        for observation in (*closed.observations, *applied.observations, *locked.observations):
            self._observe(observation)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction that is set up for the merge, with a deadline around all of it."""
        try:
            async with (
                asyncio.timeout(WRITE_TIMEOUT_S) as whole,
                self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection,
                AsyncExitStack() as stack,
            ):
                async with asyncio.timeout(BEGIN_TIMEOUT_S):
                    await stack.enter_async_context(connection.transaction())
                await connection.execute(self._begin)
                yield connection
        except RETRIED as error:
            await self._pool.expire_connections()  # whatever became of this one may have become of the others
            if whole.expired():
                raise TookTooLongError(f"it took longer than {WRITE_TIMEOUT_S:g} s") from error
            raise

    async def merge(self, connection: Connection, staged: Staged, clock: _Clock | None = None) -> Plan:
        """Rows and history of what was staged; return what the plan came to."""
        await copy_records(connection, staged)
        await detect_contradictions(connection, staged)
        plan = await plan_and_copy(connection, staged)
        if clock:
            clock.copied = time.perf_counter()
        await apply_plan(connection)
        return plan

    def _report_batch(self, batch: Batch, staged: Staged, plan: Plan | None, deleted: int, clock: _Clock) -> None:
        now = time.perf_counter()
        copied = clock.copied or clock.started
        written, unchanged = (plan.written, plan.unchanged) if plan else (0, 0)
        self._observe(
            BatchStored(
                lane=str(batch.lane),
                records=len(batch.records),
                rows_written=written,
                rows_unchanged=unchanged,
                rows_ignored=max(0, len(staged.rows) - written - unchanged),
                rows_deleted=deleted,
                history_rows=plan.history if plan else 0,
                dead_letters=len(staged.dead_letters),
                size_bytes=batch.size_bytes,
                copy_s=round(copied - clock.started, 6),
                merge_s=round(clock.merged - copied, 6),
                commit_s=round(now - clock.merged, 6),
            )
        )
        for letter in staged.dead_letters:
            self._observe(DeadLettered(lane=str(batch.lane), offset=letter.offset, reason=letter.reason))


# --- a batch that cannot be stored at once, as smaller ones that may be ----------------------------------------------


def bisect(batch: Batch, error: BaseException) -> list[Batch]:
    """Two halves of a partition's batch; of a single record that PostgreSQL refused, a batch that dead-letters it.

    Empty where there is nothing to bisect: a list's page moves as one, and a single record that takes too long is no
    record's fault. Pure.
    """
    messages: list[Record | Rejected] = [*batch.records, *batch.rejected]
    messages.sort(key=lambda message: message.offset)
    if not isinstance(batch.lane, PartitionLane) or not messages:
        return []
    if len(messages) > 1:
        middle = len(messages) // 2
        cut = messages[middle].offset
        return [_part(batch, batch.start, cut, messages[:middle]), _part(batch, cut, batch.end, messages[middle:])]
    (message,) = messages
    if not isinstance(message, Record) or not is_of_the_record(error):
        return []
    return [_part(batch, batch.start, batch.end, [_rejected(message, error)])]


def _rejected(record: Record, error: BaseException) -> Rejected:
    return Rejected(
        offset=record.offset,
        reason=f"PostgreSQL refused the record: {server_message(error)}",
        key=key_of(record),
        headers=[*attributes_of(record)],
        value=record.body,
        sqlstate=getattr(error, "sqlstate", None),
    )


def _part(batch: Batch, start: int, end: int, messages: list[Record | Rejected]) -> Batch:
    records = [message for message in messages if isinstance(message, Record)]
    rejected = [message for message in messages if isinstance(message, Rejected)]
    size_bytes = sum(len(record.body) for record in records)
    return msgspec.structs.replace(
        batch,
        start=start,
        end=end,
        records=records,
        rejected=rejected,
        size_bytes=size_bytes,
        gap=batch.gap and start == batch.start,
    )
