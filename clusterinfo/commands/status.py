"""`clusterinfo status`: asks the database, and Kafka where it is used. A composition root, beside `pipelines.py`."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING

from clusterinfo.commands.output import Line, Output, Result, redraw, scroll_away, show
from clusterinfo.commands.status_lag import Partition
from clusterinfo.commands.status_page import result_of
from clusterinfo.commands.status_report import Consumers, Status
from clusterinfo.errors import FatalError, TransientError, one_line
from clusterinfo.exit_codes import EXIT_ATTENTION, EXIT_DONE, EXIT_STOPPED
from clusterinfo.observations import Observe
from clusterinfo.postgres.admin.overview import OffsetRow, read_overview
from clusterinfo.postgres.connection import Pool
from clusterinfo.postgres.errors import FOREIGN
from clusterinfo.postgres.migrations import open_migrated_pool
from clusterinfo.postgres.pool import ACQUIRE_FIRST_S
from clusterinfo.settings import Settings
from clusterinfo.topic_names import TopicNames

if TYPE_CHECKING:
    from clusterinfo.kafka.end_offsets import End

WATCH_S = 5.0
"""From one look to the next: each counts the rows of every kind."""

Ends = Mapping[tuple[str, int], "End"]
"""(Topic, partition) -> where it ends, and what was sent to it since something of it was last stored."""


async def show_status(
    settings: Settings, _: Observe, *, stale_after_s: float | None, every_kind: bool, output: Output, watch: bool
) -> int:
    """Print to stdout how the database, the topic and each kind are. Returns 0 (healthy), 3 (not), 1 (Kafka is away).

    `stale_after_s`: after how many seconds a verified kind needs attention; three times its collector's interval unless
    given. `every_kind`: name those that need no attention, too; JSON always does. `watch`: again and again, for ever.
    """
    async with open_migrated_pool(settings) as pool:
        if watch:
            scroll_away()
        while watch:
            redraw(await _watched(settings, pool, stale_after_s, every_kind), output)
            await asyncio.sleep(WATCH_S)
        status = await _read(settings, pool, stale_after_s, every_kind)
    show(result_of(status), output)
    if status.kafka_error:
        return EXIT_STOPPED
    return EXIT_DONE if status.is_healthy else EXIT_ATTENTION


async def _watched(settings: Settings, pool: Pool, stale_after_s: float | None, every_kind: bool) -> Result:
    """How all is, or why nobody knows: who watches wants to see it come back."""
    try:
        return result_of(await _read(settings, pool, stale_after_s, every_kind))
    except (*FOREIGN, TransientError) as error:
        why = one_line(error)
        return Result([Line(f"unknown: {why}", "red")], {"healthy": None, "error": why}, [], [])


async def _read(settings: Settings, pool: Pool, stale_after_s: float | None, every_kind: bool) -> Status:
    async with pool.acquire(timeout=ACQUIRE_FIRST_S) as connection:
        overview = await read_overview(connection, settings.db_schema)
    ends, error = await _ends(settings, overview.offsets)
    return Status(
        overview,
        partitions_of(overview.offsets, ends, settings.topics),
        stale_after_s,
        settings.collect_interval,
        error,
        every_kind,
        await _consumers(settings, overview.offsets) if ends is not None else None,
    )


async def _ends(settings: Settings, offsets: list[OffsetRow]) -> tuple[Ends | None, str]:
    """Where the topics' partitions end (None: Kafka is not used or away), and why it could not be asked."""
    if not settings.kafka_enabled:
        return None, ""
    from clusterinfo.kafka.end_offsets import ends_since

    moved = {(row.topic, row.partition): row.moved_at.timestamp() for row in offsets if row.moved_at}
    try:
        return await ends_since(settings, moved), ""
    except FatalError as error:
        return None, str(error)


async def _consumers(settings: Settings, offsets: list[OffsetRow]) -> Consumers:
    from clusterinfo.kafka.group_members import describe

    group = await describe(settings)
    owner = next((row.group_id for row in offsets if settings.topics.matches(row.topic)), settings.kafka_group_id)
    members = None if group.error else group.members
    return Consumers(settings.kafka_group_id, group.state, members, frozenset(group.held), group.error, owner)


def partitions_of(offsets: list[OffsetRow], ends: Ends | None, topics: TopicNames) -> list[Partition]:
    """The partitions that are stored or that the topics have, in their order."""
    stored = {(row.topic, row.partition): row for row in offsets if topics.matches(row.topic)}
    return [_partition(at, stored.get(at), (ends or {}).get(at)) for at in sorted({*stored, *(ends or {})})]


def _partition(at: tuple[str, int], row: OffsetRow | None, end: End | None) -> Partition:
    next_offset, moved_at, rate = (row.next_offset, row.moved_at, row.rate) if row else (0, None, None)
    since = _waiting_since(row, end) if end and end.offset > next_offset else None
    return Partition(*at, next_offset, end.offset if end else None, moved_at, since, rate)


def _waiting_since(row: OffsetRow | None, end: End) -> dt.datetime | None:
    """When the first message that waits was sent; in a backlog about when what was stored last had been observed.

    There is no backlog if the first message that was sent since something was stored is the next to be stored.
    """
    is_next = row is None or row.moved_at is None or end.next_offset == row.next_offset
    if is_next and end.next_sent_s > 0:
        return dt.datetime.fromtimestamp(end.next_sent_s, dt.UTC)
    return row.observed_at if row else None
