"""`python -m tests.faults.program ARGS`: `clusterinfo ARGS`, with failpoints and a short session in its group.

Here stands which function of the product is which point. Every function named must be there: a point that lost its
place would never be hit, and prove nothing. SESSION_TIMEOUT_S sets how long the group keeps the partitions of a member
that was killed (the program's own: 30 s), PROGRESS_S how often is said until when watches were heard (15 s); FAILPOINTS
and FAILPOINT_HITS are explained in `failpoints.py`.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from clusterinfo import cli
from clusterinfo.kafka.consumer import committed, connection
from clusterinfo.kafka.consumer.lanes import Lanes
from clusterinfo.kafka.consumer.source import PartitionSource
from clusterinfo.kafka.producer import KafkaSink
from clusterinfo.kubernetes import following
from clusterinfo.kubernetes.following import Followers
from clusterinfo.kubernetes.watch import WatchSource
from clusterinfo.model import Batch, PartitionLane, Receipt, Record, RecordType, WatchLane
from clusterinfo.postgres import pool as postgres_connection
from clusterinfo.postgres import sink as postgres_sink
from clusterinfo.postgres import transactions
from clusterinfo.postgres.merge import rows
from clusterinfo.postgres.merge.offsets import Claims
from clusterinfo.postgres.sink import PostgresSink
from tests.faults.failpoints import Action, Failpoints

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
BEATS_A_SESSION = 4
FEW_ROWS = 5
"""More of a batch go by COPY, which has a middle."""

Original = Callable[..., Awaitable[Any]]


@dataclass(slots=True)
class Write:
    """The batch that this task is storing. `is_new`: its position was moved, so it was not stored before."""

    batch: Batch
    is_new: bool = False


writing: ContextVar[Write | None] = ContextVar("writing", default=None)


def _detail(batch: Batch) -> dict[str, object]:
    partition = batch.lane.partition if isinstance(batch.lane, PartitionLane) else -1
    return {"partition": partition, "start": batch.start, "end": batch.end}


async def _begun(work: Awaitable[Any]) -> asyncio.Future[Any]:
    """Start `work` and let it run up to its first wait: what it sends is sent, no answer has been read."""
    future = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    return future


class Passing(list[Any]):
    """Rows on their way into COPY; `halfway` is called when half of them are handed over."""

    def __init__(self, rows: Sequence[Any], halfway: Callable[[], None]) -> None:
        super().__init__(rows)
        self._halfway = halfway

    def __iter__(self) -> Iterator[Any]:
        for place, row in enumerate(super().__iter__()):
            if place == len(self) // 2:
                self._halfway()
            yield row


class Places:
    """What stands in the place of the product's functions: each does what it did, and passes its point on the way."""

    def __init__(self, points: Failpoints) -> None:
        self._points = points

    def install(self) -> None:
        """Take those places. Raises AttributeError for a function that is not there (any more)."""
        for place, around in self.taken().items():
            self._replace(*place, around)
        rows.FEW_ROWS = FEW_ROWS

    def taken(self) -> dict[tuple[Any, str], Callable[..., Awaitable[Any]]]:
        """(owner, name) of each function, and what stands in its place."""
        return {
            (PartitionSource, "read"): self.read,
            (PostgresSink, "_write"): self.write,
            (Claims, "admit"): self.admit,
            (rows, "copy"): self.copy,
            (rows, "_send"): self.send_rows,
            (rows, "_copy_until_refused"): self.copy_until_refused,
            (postgres_sink, "apply"): self.apply,
            (transactions, "commit"): self.commit_transaction,
            (committed, "commit"): self.commit_to_kafka,
            (Lanes, "wait_for_writes"): self.wait_for_writes,
            (Claims, "claim"): self.claim,
            (KafkaSink, "_submit_all"): self.submit_all,
            (WatchSource, "read"): self.read_watch,
            (WatchSource, "ack"): self.ack_watch,
            (Followers, "_say"): self.say_progress,
        }

    def _replace(self, owner: Any, name: str, around: Callable[..., Awaitable[Any]]) -> None:
        original = getattr(owner, name)

        async def replaced(*arguments: Any, **options: Any) -> Any:
            return await around(original, *arguments, **options)

        setattr(owner, name, replaced)

    # --- consumers -----------------------------------------------------------------------------------------------

    async def read(self, original: Original, source: PartitionSource) -> Batch | None:
        """after_fetch: a batch is in hand, nobody has begun to store it."""
        batch: Batch | None = await original(source)
        if batch is not None:
            self._points.pass_by("after_fetch", **_detail(batch))
        return batch

    async def write(self, original: Original, sink: PostgresSink, batch: Batch, **options: Any) -> None:
        """after_commit: it is stored, the source does not know yet."""
        write = Write(batch)
        token = writing.set(write)
        try:
            await original(sink, batch, **options)
        finally:
            writing.reset(token)
        if write.is_new:
            self._points.pass_by("after_commit", **_detail(batch))

    async def admit(self, original: Original, claims: Claims, connection: Any, *rest: Any) -> Any:
        """after_admit: the position is moved past the batch, and nothing else is written."""
        admission = await original(claims, connection, *rest)
        if admission is not None and (write := writing.get()):
            write.is_new = True
            self._pass_in_transaction("after_admit", connection)
        return admission

    async def copy(self, original: Original, connection: Any, table: str, copied: list[Any], *rest: Any) -> float:
        """after_merge: what is replaced went into history, nothing stands in its place; after_copy: all of it does."""
        if copied:
            self._pass_in_transaction("after_merge", connection, rows=len(copied))
        seconds: float = await original(connection, table, copied, *rest)
        if copied:
            self._pass_in_transaction("after_copy", connection, rows=len(copied))
        return seconds

    async def send_rows(self, original: Original, connection: Any, table: str, copied: list[Any], *rest: Any) -> None:
        """mid_copy: COPY has begun, and not all of it was handed over; a large row goes alone, and passes no point."""

        def halfway() -> None:
            self._pass_in_transaction("mid_copy", connection, rows=len(copied))

        await original(connection, table, Passing(copied, halfway), *rest)

    async def copy_until_refused(self, original: Original, connection: Any, *rest: Any) -> Any:
        """after_refusal: a row was refused, what was sent with it is rolled back, less of it is not sent yet."""
        refusal = await original(connection, *rest)
        if refusal is not None:
            self._pass_in_transaction("after_refusal", connection, line=refusal[0])
        return refusal

    async def apply(self, original: Original, connection: Any, *rest: Any, **options: Any) -> Any:
        """before_commit: everything of the transaction is done but its end."""
        applied = await original(connection, *rest, **options)
        self._pass_in_transaction("before_commit", connection)
        return applied

    async def commit_transaction(self, original: Original, connection: Any, afterwards: Sequence[str]) -> None:
        """commit_sent_no_reply: COMMIT is on the wire, its answer is not read."""
        write = writing.get()
        if write is None or not write.is_new or not (action := self._points.draw("commit_sent_no_reply")):
            await original(connection, afterwards)
            return
        backend = connection.get_server_pid()
        committing = await _begun(original(connection, afterwards))
        self._points.strike("commit_sent_no_reply", action, backend=backend, **_detail(write.batch))
        await committing

    async def commit_to_kafka(self, original: Original, consumer: Any, positions: dict[Any, int]) -> None:
        """before_kafka_commit: stored offsets are about to be committed to Kafka."""
        self._points.pass_by(
            "before_kafka_commit", positions={at.partition: offset for at, offset in positions.items()}
        )
        await original(consumer, positions)

    async def wait_for_writes(self, original: Original, lanes: Lanes, timeout_s: float) -> None:
        """mid_revoke: the lanes are asked to stop, the writes in hand are awaited."""
        living = lanes.living_sources()
        if not living or not (action := self._points.draw("mid_revoke")):
            await original(lanes, timeout_s)
            return
        in_hand = [at.partition for at, source in living.items() if not source.written.is_set()]
        waiting = await _begun(original(lanes, timeout_s))
        self._points.strike("mid_revoke", action, partitions=sorted(at.partition for at in living), in_hand=in_hand)
        await waiting

    async def claim(self, original: Original, claims: Claims, connection: Any, lane: PartitionLane) -> int | None:
        """mid_claim: the new generation is written, and not committed."""
        offset: int | None = await original(claims, connection, lane)
        generation, backend = claims.generation(lane), connection.get_server_pid()
        detail = {"partition": lane.partition, "generation": generation, "offset": offset}
        self._points.pass_by("mid_claim", backend=backend, **detail)
        return offset

    def _pass_in_transaction(self, point: str, connection: Any, **detail: object) -> None:
        if write := writing.get():
            self._points.pass_by(point, backend=connection.get_server_pid(), **_detail(write.batch), **detail)

    # --- a collector that lists ----------------------------------------------------------------------------------

    async def submit_all(
        self, original: Original, sink: KafkaSink, producer: Any, partition: int, records: Sequence[Record],
        deliveries: list[Any],
    ) -> None:  # fmt: skip
        """mid_page, after_last_item_before_completion: only the first of a page's records are sent, and confirmed."""
        if (drawn := self._draw_page(records)) is not None:
            point, action, first = drawn
            await original(sink, producer, partition, records[:first], deliveries)
            await asyncio.gather(*(asyncio.shield(delivery.future) for delivery in deliveries))
            self._points.strike(point, action, partition=partition, list=records[0].list, sent=first, of=len(records))
            records = records[first:]
        await original(sink, producer, partition, records, deliveries)

    def _draw_page(self, records: Sequence[Record]) -> tuple[str, Action, int] | None:
        """The point that strikes at this page, what it does, and how many records go before."""
        items = sum(record.is_object for record in records)
        if items >= 2 and (action := self._points.draw("mid_page")):
            return "mid_page", action, items // 2
        is_last = records[-1].type is RecordType.LIST_COMPLETED
        if items and is_last and (action := self._points.draw("after_last_item_before_completion")):
            return "after_last_item_before_completion", action, items
        return None

    # --- a collector that follows --------------------------------------------------------------------------------

    async def read_watch(self, original: Original, source: WatchSource) -> Batch | None:
        """before_produce: events are in hand, and have no numbers yet."""
        batch: Batch | None = await original(source)
        if batch is not None:
            self._points.pass_by("before_produce", versions=[record.resource_version for record in batch.records])
        return batch

    async def ack_watch(self, original: Original, source: WatchSource, receipt: Receipt) -> None:
        """before_version_moved: Kafka has what was read, and the watch stands where it stood."""
        self._points.pass_by("before_version_moved", kind=source.gvr.dotted, confirmed=source.confirmed)
        await original(source, receipt)

    async def say_progress(self, original: Original, followers: Followers, lane: WatchLane, *rest: Any) -> None:
        """before_progress: what was read by now is numbered, and it is not said until when that was."""
        self._points.pass_by("before_progress", session=lane.session)
        await original(followers, lane, *rest)


# --- the process -----------------------------------------------------------------------------------------------------


def die_with_parent() -> None:
    """Whoever runs the tests may be killed: nothing of them stays behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def shorten_sessions(session_timeout_s: float) -> None:
    """Have every consumer made from now on join with this session timeout."""
    module: Any = connection
    make: Callable[..., Any] = module.AIOKafkaConsumer
    session_timeout_ms = int(session_timeout_s * 1000)
    short = {
        "session_timeout_ms": session_timeout_ms,
        "heartbeat_interval_ms": session_timeout_ms // BEATS_A_SESSION,
        "retry_backoff_ms": 50,
    }

    def made(*args: Any, **options: Any) -> Any:
        return make(*args, **options | short)

    module.AIOKafkaConsumer = made


def sign_connections() -> None:
    """Have the database see which process a connection belongs to: `clusterinfo-<pid>`."""
    module: Any = postgres_connection
    arguments_of: Callable[..., dict[str, Any]] = module.connection_arguments

    def signed(*args: Any) -> dict[str, Any]:
        arguments = arguments_of(*args)
        arguments["server_settings"] |= {"application_name": f"clusterinfo-{os.getpid()}"}
        return arguments

    module.connection_arguments = signed


def main() -> None:
    die_with_parent()
    sign_connections()
    if seconds := os.environ.get("SESSION_TIMEOUT_S"):
        shorten_sessions(float(seconds))
    if seconds := os.environ.get("PROGRESS_S"):
        following.PROGRESS_S = float(seconds)
    if armed := os.environ.get("FAILPOINTS"):
        Places(Failpoints(armed, os.environ["FAILPOINT_HITS"])).install()
    cli.main()


if __name__ == "__main__":
    main()
