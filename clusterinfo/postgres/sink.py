"""PostgresSink: a batch into PostgreSQL in one transaction.

It has the pool, the deadlines and the claims; the order of the steps by which a batch is merged is `merge/apply.py`'s.
A batch that takes longer than a statement may, or that PostgreSQL refuses where no line of COPY tells which record it
was, is bisected.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
import msgspec

from clusterinfo.model import Batch, Lane, PartitionLane, Position, Receipt, Record, Rejected
from clusterinfo.observations import (
    BatchStored,
    DeadLettered,
    DeadLettersDropped,
    Drifted,
    ForeignRecords,
    LaneClaimed,
    Observation,
    Observe,
    UnitFailed,
    UnitGone,
    UnitsFollowed,
    UnitVerified,
)
from clusterinfo.postgres.connection import Connection, Pool
from clusterinfo.postgres.errors import FOREIGN, RETRIED, is_of_the_record, is_timeout, server_message, translate
from clusterinfo.postgres.merge.admission import Clocks
from clusterinfo.postgres.merge.apply import Applied, apply
from clusterinfo.postgres.merge.census import Census
from clusterinfo.postgres.merge.changes import delays_of
from clusterinfo.postgres.merge.dead_letters import LetterBound
from clusterinfo.postgres.merge.gaps import CarriedUnits
from clusterinfo.postgres.merge.large import is_large, worked_out
from clusterinfo.postgres.merge.offsets import Claims
from clusterinfo.postgres.pool import open_pool
from clusterinfo.postgres.sql import local_search_path
from clusterinfo.postgres.transactions import transaction
from clusterinfo.settings import Settings
from clusterinfo.wire import attributes_of, key_of

STATEMENT_TIMEOUT = "60s"
LOCK_TIMEOUT = "20s"
IDLE_TIMEOUT = "60s"
WRITE_TIMEOUT_S = 300.0
"""Of a whole batch; one whose statements each keep to theirs, and that still takes so long, is bisected too."""
ACQUIRE_TIMEOUT_S = 60.0
MAX_REPORTED = 10
"""Dead letters of a batch that are reported one by one; a stranger's thousands would fill the log."""


class TookTooLongError(TimeoutError):
    """A transaction met its deadline although the server answered all the while."""


class PostgresSink:
    """Stores batches of any lane; safe to use from several pumps at once, each on a connection of its own."""

    def __init__(self, pool: Pool, settings: Settings, observe: Observe) -> None:
        self._pool = pool
        self._observe = observe
        self.claims = Claims()
        self.carried = CarriedUnits()
        self.clocks = Clocks(observe)
        self._letters = LetterBound(settings.dead_letter_rows, settings.dead_letter_bytes)
        self._settings = (
            f"{local_search_path(settings.db_schema)};"
            f"set local statement_timeout = '{STATEMENT_TIMEOUT}'; set local lock_timeout = '{LOCK_TIMEOUT}';"
            f"set local idle_in_transaction_session_timeout = '{IDLE_TIMEOUT}'; set local jit = off;"
            # Every statement looks rows up one by one; to plan it again for each batch takes longer than to run it.
            "set local plan_cache_mode = force_generic_plan;"
            # Such a plan is made once, at first of tables that are empty, which it reads whole until they are analyzed.
            "set local enable_seqscan = off"
        )
        if settings.db_synchronous_commit:
            self._settings += f"; set local synchronous_commit = {settings.db_synchronous_commit}"

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: Settings, observe: Observe) -> AsyncIterator[PostgresSink]:
        """A sink on a pool of its own. Raises FatalError when nothing answers for 20 s."""
        async with open_pool(settings) as pool:
            yield cls(pool, settings, observe)

    async def open(self, lane: Lane) -> Position:
        """Claim a partition and return its next offset; a list begins at its beginning."""
        if not isinstance(lane, PartitionLane):
            return None
        try:
            async with self.transaction() as connection:
                offset = await self.claims.claim(connection, lane)
            self.carried.forget(lane)
        except FOREIGN as error:
            raise translate(error, f"claiming {lane}") from error
        generation = self.claims.generation(lane)
        self._observe(LaneClaimed(lane=str(lane), offset=-1 if offset is None else offset, generation=generation))
        return offset

    async def write(self, batch: Batch) -> Receipt:
        """Store the batch and move its lane's position, or do neither. A batch stored before changes nothing.

        A batch that takes longer than the statement timeout, or that PostgreSQL refuses for its data, is bisected; a
        record that is refused alone becomes a dead letter. Before it, dead letters that are too many are deleted.
        """
        if self._letters.is_due:
            await self._drop_oldest_letters()
        try:
            await self._write_with_fallback(batch)
        except FOREIGN as error:
            is_too_much = is_timeout(error) or isinstance(error, TookTooLongError)
            if not (is_of_the_record(error) or is_too_much) or not (parts := bisect(batch, error)):
                raise translate(error, f"storing a batch of {batch.lane}") from error
            for part in parts:
                await self.write(part)
        return Receipt(lane=batch.lane, position=batch.end)

    async def _drop_oldest_letters(self) -> None:
        try:
            async with self.transaction() as connection:
                dropped = await self._letters.drop_oldest(connection)
        except FOREIGN as error:
            raise translate(error, "deleting the oldest dead letters") from error
        if dropped:
            self._observe(DeadLettersDropped(letters=dropped))

    async def _write_with_fallback(self, batch: Batch) -> None:
        """Savepoints cost every batch two round trips: they are set where something was refused."""
        try:
            await self._write(batch)
        except asyncpg.PostgresError as error:
            if not is_of_the_record(error):
                raise
            await self._write(batch, uses_savepoints=True)

    async def _write(self, batch: Batch, *, uses_savepoints: bool = False) -> None:
        began = time.perf_counter()
        census = await worked_out(is_large(batch.records), Census.of, batch.records)
        afterwards = list[str]()
        async with self.transaction(afterwards) as connection:
            admission = await self.claims.admit(connection, batch, census)
            if admission is None:
                return  # the answer to an earlier commit was lost
            applied = await apply(connection, batch, census, admission, self.carried, uses_savepoints=uses_savepoints)
            if applied.notification:
                afterwards.append(applied.notification)
            merged = time.perf_counter()
        # Only what is committed may be remembered or reported.
        self.carried.remember(batch, applied.carried)
        self.clocks.compare(applied.census, admission)
        self._letters.note(applied.staged.dead_letters)
        self._report(batch, applied, merged - began, time.perf_counter() - merged)

    @asynccontextmanager
    async def transaction(self, afterwards: Sequence[str] = ()) -> AsyncIterator[Connection]:
        """A connection inside a transaction that is set up for the merge, with a deadline around all of it.

        `afterwards`: statements that are sent with its COMMIT, and run after it; the block may still add to a list.
        """
        try:
            async with (
                asyncio.timeout(WRITE_TIMEOUT_S) as whole,
                self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection,
                transaction(connection, self._settings, afterwards),
            ):
                yield connection
        except RETRIED as error:
            await self._pool.expire_connections()  # whatever became of this one may have become of the others
            if whole.expired():
                raise TookTooLongError(f"it took longer than {WRITE_TIMEOUT_S:g} s") from error
            raise

    def _report(self, batch: Batch, applied: Applied, merge_s: float, commit_s: float) -> None:
        merged, letters = applied.merged, applied.staged.dead_letters
        self._observe(
            BatchStored(
                is_news=not all(record.number for record in batch.records),  # what is watched comes by the second
                lane=str(batch.lane),
                records=len(batch.records),
                rows_written=merged.written,
                rows_unchanged=merged.unchanged,
                rows_ignored=max(0, len(applied.staged.rows) - merged.written - merged.unchanged),
                rows_deleted=applied.deleted,
                history_rows=merged.history,
                dead_letters=len(letters),
                size_bytes=batch.size_bytes,
                copy_s=round(merged.copy_s, 6),
                merge_s=round(merge_s - merged.copy_s, 6),
                commit_s=round(commit_s, 6),
            )
        )
        for delays in delays_of(applied.census.said, dt.datetime.now(dt.UTC)):
            self._observe(delays)
        for letter in letters[:MAX_REPORTED]:
            self._observe(DeadLettered(lane=str(batch.lane), offset=letter.offset, reason=letter.reason))
        if more := letters[MAX_REPORTED:]:
            offset, reason = more[0].offset, more[0].reason
            self._observe(DeadLettered(lane=str(batch.lane), offset=offset, reason=reason, letters=len(more)))
        for observation in applied.observations:
            self._observe(_named(observation, applied.census))


def _named(observation: Observation, census: Census) -> Observation:
    """With what its collector calls the cluster, as far as the batch says so."""
    if isinstance(observation, Drifted | ForeignRecords | UnitFailed | UnitGone | UnitsFollowed | UnitVerified):
        record = census.clusters.get(observation.cluster)
        return msgspec.structs.replace(observation, cluster_name=record.cluster_name if record else "")
    return observation


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
