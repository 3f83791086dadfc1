"""`clusterinfo dead-letters`: list, show, replay or drop what could not be stored. Results go to stdout."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from clusterinfo import wire
from clusterinfo.commands import dead_letter_report as report
from clusterinfo.commands.output import Line, Output, Result, show
from clusterinfo.errors import FatalError, RecordError
from clusterinfo.exit_codes import EXIT_DONE
from clusterinfo.observations import Observe, Warned
from clusterinfo.postgres.admin import dead_letters as letters
from clusterinfo.postgres.admin.replay import replay
from clusterinfo.postgres.connection import Pool
from clusterinfo.postgres.errors import FOREIGN, translate
from clusterinfo.postgres.migrations import open_migrated_pool
from clusterinfo.postgres.pool import ACQUIRE_FIRST_S, present
from clusterinfo.postgres.sink import PostgresSink
from clusterinfo.postgres.sql import local_search_path
from clusterinfo.settings import Settings


@asynccontextmanager
async def _connection(settings: Settings, doing: str) -> AsyncIterator[Any]:
    """A connection inside one transaction on a schema that is up to date; errors say what was being done."""
    try:
        async with (
            open_migrated_pool(settings) as pool,
            pool.acquire(timeout=ACQUIRE_FIRST_S) as connection,
            connection.transaction(),
        ):
            await connection.execute(f"{local_search_path(settings.db_schema)}; set local lock_timeout = '20s'")
            yield connection
    except FOREIGN as error:
        raise translate(error, doing) from error


async def list_letters(
    settings: Settings, observe: Observe, *, reason: str | None, limit: int, replayed: bool, output: Output
) -> int:
    """Print the newest dead letters."""
    async with _connection(settings, "listing dead letters") as connection:
        found = await letters.find_letters(connection, reason=reason, replayed=replayed, limit=limit)
        total = await letters.count_letters(connection, reason=reason, replayed=replayed)
        now = await present(connection)
    show(report.listed(found, now), output)
    if total > len(found):
        observe(Warned(message=f"{total - len(found)} older dead letters are not shown", remedy="--limit shows more"))
    return EXIT_DONE


async def show_letter(settings: Settings, observe: Observe, letter_id: int, *, raw: bool, output: Output) -> int:
    """Print all that is known of a dead letter, or (`raw`) the bytes of its value and nothing else."""
    async with _connection(settings, "reading a dead letter") as connection:
        letter = await letters.open_letter(connection, letter_id)
    if letter.is_cut_off:
        observe(Warned(message=f"of its value's {letter.size_bytes} bytes only the first MiB was kept"))
    if raw:
        sys.stdout.buffer.write(letter.value or b"")
        sys.stdout.buffer.flush()
    else:
        show(report.shown(letter), output)
    return EXIT_DONE


async def drop_letters(
    settings: Settings, _: Observe, ids: Sequence[int] | None, *, only_replayed: bool, output: Output
) -> int:
    """Delete dead letters for good: these, or (None) all, or all that were replayed."""
    async with _connection(settings, "dropping dead letters") as connection:
        await letters.check_letters(connection, ids or ())
        dropped = await letters.drop_letters(connection, ids, only_replayed=only_replayed)
    records = [{"id": letter_id} for letter_id in dropped]
    show(Result([Line(f"dropped {len(dropped)} dead letters")], records, records, [*map(str, dropped)]), output)
    return EXIT_DONE


async def replay_letters(settings: Settings, observe: Observe, ids: Sequence[int] | None, *, output: Output) -> int:
    """Store dead letters again (None: all that were not replayed yet), each by itself, and say what came of each.

    Raises FatalError if any was refused.
    """
    async with _connection(settings, "looking for dead letters") as connection:
        await letters.check_letters(connection, ids or ())
        chosen = list(dict.fromkeys(ids)) if ids is not None else await letters.waiting_letters(connection)
    outcomes: list[report.Replayed] = []
    try:
        async with open_migrated_pool(settings) as pool:
            sink = PostgresSink(pool, settings, observe)
            for letter_id in chosen:
                outcomes.append(await _outcome(sink, pool, settings, letter_id))
    finally:
        if outcomes or not chosen:  # whatever ends it: what was replayed was replayed
            show(report.replayed(outcomes), output)
    if refused := sum(outcome.result == "refused" for outcome in outcomes):
        raise FatalError(f"{refused} of {len(chosen)} dead letters were refused again, and stay")
    return EXIT_DONE


async def _outcome(sink: PostgresSink, pool: Pool, settings: Settings, letter_id: int) -> report.Replayed:
    try:
        changed = await _replay(sink, pool, settings, letter_id)
    except RecordError as error:
        return report.Replayed(letter_id, "refused", str(error))
    return report.Replayed(letter_id, "stored", "") if changed else report.Replayed(letter_id, *report.UNCHANGED)


async def _replay(sink: PostgresSink, pool: Pool, settings: Settings, letter_id: int) -> bool:
    try:
        async with pool.acquire(timeout=ACQUIRE_FIRST_S) as connection, connection.transaction(readonly=True):
            await connection.execute(local_search_path(settings.db_schema))
            letter = await letters.open_letter(connection, letter_id)
    except FOREIGN as error:
        raise translate(error, f"reading dead letter {letter_id}") from error
    letter.check_whole()
    return await replay(sink, letter_id, wire.decode(letter.key, letter.value, letter.headers), letter.topic)
