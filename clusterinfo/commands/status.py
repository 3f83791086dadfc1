"""`clusterinfo status`: asks the database, and Kafka where it is used. A composition root, beside `pipelines.py`."""

from __future__ import annotations

import sys

import orjson
from rich.console import Console

from clusterinfo.commands.status_report import Consumers, Partition, Status
from clusterinfo.errors import FatalError
from clusterinfo.exit_codes import EXIT_ATTENTION, EXIT_DONE, EXIT_STOPPED
from clusterinfo.observations import Observe
from clusterinfo.postgres.admin.overview import OffsetRow, read_overview
from clusterinfo.postgres.migrations import open_migrated_pool
from clusterinfo.postgres.pool import ACQUIRE_FIRST_S
from clusterinfo.settings import Settings
from clusterinfo.topic_names import TopicNames

PIPED_WIDTH = 200
"""Columns where stdout is no terminal."""

Ends = dict[tuple[str, int], int]
"""(Topic, partition) -> offset of the message to come."""

STALE_INTERVALS = 3
"""A kind that was not verified for so many intervals missed more than one run of lists that was merely slow."""


async def show_status(
    settings: Settings, _: Observe, *, stale_after_s: float | None, every_kind: bool, as_json: bool
) -> int:
    """Print to stdout how the database, the topic and each kind are. Returns 0 (healthy), 3 (not), 1 (Kafka is away).

    `stale_after_s`: after how many seconds a verified kind needs attention; three times COLLECT_INTERVAL unless given.
    `every_kind`: name those that need no attention, too; JSON always does.
    """
    async with open_migrated_pool(settings) as pool, pool.acquire(timeout=ACQUIRE_FIRST_S) as connection:
        overview = await read_overview(connection, settings.db_schema)
    ends, error = await _ends(settings)
    consumers = await _consumers(settings, overview.offsets) if ends is not None else None
    partitions = _partitions(overview.offsets, ends, settings.topics)
    stale_s = stale_after_s or STALE_INTERVALS * settings.collect_interval
    status = Status(overview, partitions, stale_s, error, every_kind, consumers)
    if as_json:
        sys.stdout.write(orjson.dumps(status.as_json(), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        is_piped = not sys.stdout.isatty()
        Console(file=sys.stdout, width=PIPED_WIDTH if is_piped else None, soft_wrap=is_piped).print(status)
    if error:
        return EXIT_STOPPED
    return EXIT_DONE if status.is_healthy else EXIT_ATTENTION


async def _ends(settings: Settings) -> tuple[Ends | None, str]:
    """Where the topics' partitions end (None: Kafka is not used or away), and why it could not be asked."""
    if not settings.kafka_enabled:
        return None, ""
    from clusterinfo.kafka.end_offsets import end_offsets

    try:
        return dict(await end_offsets(settings)), ""
    except FatalError as error:
        return None, str(error)


async def _consumers(settings: Settings, offsets: list[OffsetRow]) -> Consumers:
    from clusterinfo.kafka.group_members import describe

    group = await describe(settings)
    owner = next((row.group_id for row in offsets if settings.topics.matches(row.topic)), settings.kafka_group_id)
    members = None if group.error else group.members
    return Consumers(settings.kafka_group_id, group.state, members, frozenset(group.held), group.error, owner)


def _partitions(offsets: list[OffsetRow], ends: Ends | None, topics: TopicNames) -> list[Partition]:
    stored = {(row.topic, row.partition): row.next_offset for row in offsets if topics.matches(row.topic)}
    return [
        Partition(*place, stored.get(place, 0), ends.get(place) if ends is not None else None)
        for place in sorted({*stored, *(ends or {})})
    ]
