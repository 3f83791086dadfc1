"""Rows: what becomes of the objects of a batch, and the COPY of those that are new or another than before.

Objects that a batch shows once, as nearly all are, are compared with what is stored by one statement, which retires
what they replace; then they are COPYed into their table, with no staging and no second write. The others go through
`chain.py`.

What COPY refuses aborts the transaction, which is repeated behind savepoints. COPY names the line: what stands
before it is COPYed, the one that was refused is tried with less (`bodies.py`), and what follows goes on as before, so
that nothing is sent more than a few times.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from clusterinfo.errors import FatalError
from clusterinfo.model import Record, RecordType
from clusterinfo.postgres.connection import Connection, Row
from clusterinfo.postgres.errors import is_of_the_record, server_message
from clusterinfo.postgres.merge import array_text
from clusterinfo.postgres.merge.bodies import NOTHING, Body, body_of, repaired_body_of
from clusterinfo.postgres.merge.copy_text import PIECE_BYTES, pieces_of
from clusterinfo.postgres.merge.dead_letters import DeadLetter, dead_letter
from clusterinfo.postgres.merge.large import LARGE_BYTES, is_large, worked_out
from clusterinfo.postgres.merge.staging import ObjectRow, Staged
from clusterinfo.postgres.sql import statements
from clusterinfo.postgres.transactions import savepoint

MAX_ALIKE = 100
"""More records of one batch refused alike is our bug, not theirs: stop instead of dead-lettering the topic."""

ROWS_A_TURN = 200
"""Rows encoded for COPY between two turns of the event loop: 2 to 4 ms."""
BYTES_A_TURN = 1024 * 1024
"""The same of bodies: 3 ms."""
LARGE_ROW_BYTES = BYTES_A_TURN // 2
"""What has a larger body is sent piece by piece."""

WHO_COLUMNS = ("manager", "operation", "subresource", "managed_at")
COLUMNS = (
    "unit_id", "namespace", "name", "uid", "resource_version", "epoch", "live_at", "deleted", "fidelity",
    "normalization", "content_hash", "created", "valid_from", "first_observed_at", "last_observed_at",
    *WHO_COLUMNS, "body", "original",
)  # fmt: skip

_OWN = ("name", "uid", "resource_version", "content_hash")
"""Columns that `merge_rows` gets of each row; of the others each combination once."""
_WRITTEN = frozenset({"new", "replaced", "changed", "deleted", "reborn"})
_CHANGED = frozenset({"new", "changed", "reborn"})
_LINE = re.compile(r"\d+")


@dataclass(slots=True)
class Merged:
    """What became of a batch's objects, in rows."""

    written: int = 0
    unchanged: int = 0
    history: int = 0
    copy_s: float = 0.0
    """Seconds in COPY."""
    older: list[int] = field(default_factory=list)
    """The places of what was ignored as older."""
    rewritten: list[int] = field(default_factory=list)
    """The places of objects that came in a content that was not stored."""

    def add(self, other: Merged) -> None:
        """Take in what became of others."""
        self.written += other.written
        self.unchanged += other.unchanged
        self.history += other.history
        self.copy_s += other.copy_s
        self.older += other.older
        self.rewritten += other.rewritten


class Copied:
    """A row on its way into a table: columns beside fidelity and body, which get less with each refusal."""

    __slots__ = ("_tried", "body", "columns", "error", "fidelity", "record")

    def __init__(self, record: Record, fidelity: int, columns: tuple[Any, ...]) -> None:
        self.record = record
        self.fidelity = fidelity
        self.columns = columns
        self.body: Body | None = None
        self.error: asyncpg.PostgresError | None = None
        """PostgreSQL's, if it refused the body whatever was tried."""
        self._tried = 0

    def prepare(self) -> None:
        """Work out its body."""
        self.body = body_of(self.record, self.fidelity)

    def values(self, place: int) -> tuple[Any, ...]:
        """The columns with the fidelity at `place`, then body and original."""
        if self.body is None:
            self.prepare()
        assert self.body is not None
        head, tail = self.columns[:place], self.columns[place:]
        return (*head, self.body.fidelity, *tail, self.body.body, self.body.original)

    def refuse(self, error: asyncpg.PostgresError) -> bool:
        """Try less of it from now on; False if nothing less is left."""
        self._tried += 1
        if self._tried == 1 and (repaired := repaired_body_of(self.record)) != NOTHING:
            self.body = repaired
            return True
        self._tried = max(2, self._tried)
        self.body, self.error = NOTHING, error
        return self._tried == 2

    @property
    def size_bytes(self) -> int:
        """Of its body and original, as far as they are worked out."""
        return len(self.body.body or b"") + len(self.body.original or b"") if self.body else 0

    @property
    def is_lost(self) -> bool:
        """True if even its identity was refused."""
        return self._tried > 2

    def letter(self) -> DeadLetter:
        """What PostgreSQL refused of it, the body or all of it, as a dead letter."""
        assert self.error is not None
        what = "record" if self.is_lost else "body"
        reason = f"PostgreSQL refused the {what}: {server_message(self.error)}"
        return dead_letter(self.record, reason, self.error.sqlstate)


async def merge_single(connection: Connection, staged: Staged) -> tuple[Merged, list[int]]:
    """Store the objects that a batch shows once; return what became of them, and the places of what is left over."""
    repeated = set(staged.repeated)
    places = [place for place in range(len(staged.rows)) if place not in repeated] if repeated else None
    rows = staged.rows if places is None else [staged.rows[place] for place in places]
    if not rows:
        return Merged(), []
    found = await connection.fetch(statements()["merge_rows"], *parameters_of(rows))
    classes = {row["class"]: row for row in found}
    counts = Counter({name: row["count"] for name, row in classes.items()})
    at = places or range(len(rows))
    written = [
        _copied(staged.records[at[place - 1]], rows[place - 1], times)
        for name in _WRITTEN & classes.keys()
        for place, times in sorted(_times(rows, classes[name]))  # as they came: neighbours, to indexes and to readers
    ]
    copy_s = await copy(connection, "resource", written, COLUMNS, staged)
    merged = Merged(
        written=sum(not copied.is_lost for copied in written),
        unchanged=counts["listed"] + counts["seen"] + counts["known"],
        history=counts["changed"] + counts["deleted"],
        copy_s=copy_s,
        older=[at[place - 1] for place in classes["older"]["places"]] if "older" in classes else [],
        rewritten=[at[place - 1] for name in _CHANGED & classes.keys() for place in classes[name]["places"]],
    )
    return merged, [at[place - 1] for place in classes["chain"]["places"]] if "chain" in classes else []


def parameters_of(rows: Sequence[ObjectRow]) -> list[list[Any] | str]:
    """The parameters of `merge_rows`: columns of what rows have alike, each once; of each row which one; its own."""
    columns = dict(zip(ObjectRow._fields, zip(*rows, strict=True), strict=True))
    names, uids, versions, hashes = (columns.pop(name) for name in _OWN)
    alike: dict[tuple[Any, ...], int] = {}
    pages = [alike.setdefault(page, len(alike) + 1) for page in zip(*columns.values(), strict=True)]
    own = array_text.of_texts(names), array_text.of_texts(uids), array_text.of_texts(versions)
    return [*map(list, zip(*alike, strict=True)), array_text.of_numbers(pages), *own, array_text.of_bytes(hashes)]


def _times(rows: Sequence[ObjectRow], of_class: Row) -> Iterable[tuple[int, tuple[Any, ...]]]:
    """(place, created and three times) of each row of a class; one that replaces none begins when it was observed."""
    if of_class["times"] is not None:
        return ((place, tuple(times)) for place, times in zip(of_class["places"], of_class["times"], strict=True))
    shown = ((place, rows[place - 1]) for place in of_class["places"])
    return ((place, (True, row.observed_at, row.observed_at, row.seen_at)) for place, row in shown)


def _copied(record: Record, row: ObjectRow, times: tuple[Any, ...]) -> Copied:
    return Copied(record, row.fidelity, _identity(row) + times + who(record))


def who(record: Record) -> tuple[Any, ...]:
    """Who wrote that version, as far as it is known; nobody is known of a deletion."""
    if not record.manager or record.type is RecordType.DELETED:
        return None, None, None, None
    return record.manager, record.operation or None, record.subresource or None, record.managed_at


def _identity(row: ObjectRow) -> tuple[Any, ...]:
    """All that is stored of an object but its fidelity, times and body."""
    return (*row[:8], row.normalization, row.content_hash)


# --- COPY, and what it refuses ---------------------------------------------------------------------------------------


async def copy(connection: Connection, table: str, rows: list[Copied], columns: Sequence[str], staged: Staged) -> float:
    """COPY rows into a table; behind savepoints what is refused becomes dead letters. Returns seconds.

    A refusal ends the COPY at its line; after it less is sent at once, so that many refusals do not send all that
    follows as many times.
    """
    await _prepare(rows)
    began = time.perf_counter()
    fidelity_at = columns.index("fidelity")
    if rows and not staged.uses_savepoints:
        await _copy_all(connection, table, rows, columns, fidelity_at)
        return time.perf_counter() - began
    refused: dict[int, Copied] = {}
    most = len(rows)
    while rows:
        chunk = rows[:most]
        refusal = await _copy_until_refused(connection, table, chunk, columns, fidelity_at)
        if refusal is None:
            rows, most = rows[len(chunk) :], most * 2
            continue
        line, error = refusal
        if line > 1:
            await _copy_all(connection, table, chunk[: line - 1], columns, fidelity_at)
        row = chunk[line - 1]
        keeps = await worked_out(is_large([row.record]), row.refuse, error)
        if row.error is not None:
            refused[id(row)] = row
            _check_alike(list(refused.values()))
        rows, most = rows[line - 1 if keeps else line :], max(1, line)
    staged.dead_letters += [row.letter() for row in refused.values()]
    return time.perf_counter() - began


async def _prepare(rows: Sequence[Copied]) -> None:
    """Work out the large bodies; the others are when they are sent."""
    for row in rows:
        if len(row.record.body) > LARGE_BYTES:
            await worked_out(True, row.prepare)


def _check_alike(refused: list[Copied]) -> None:
    if len(refused) <= MAX_ALIKE or len({row.error.sqlstate for row in refused if row.error}) > 1:
        return
    first = refused[0].error
    assert first is not None
    raise FatalError(f"{len(refused)} records of one batch were refused alike, the first by: {server_message(first)}")


async def _copy_until_refused(
    connection: Connection, table: str, rows: list[Copied], columns: Sequence[str], fidelity_at: int
) -> tuple[int, asyncpg.PostgresError] | None:
    """COPY all rows or none; of a refusal the line, from 1, and the error. Raises what is about no row."""
    sent = 0
    try:
        async with savepoint(connection):
            for part in _parts(rows):
                await _send(connection, table, part, columns, fidelity_at)
                sent += len(part)
    except asyncpg.PostgresError as error:
        if not is_of_the_record(error) or (line := copied_line(error, table)) is None:
            raise
        return sent + line, error.with_traceback(None)  # which would hold what was sent as long as the error is kept
    return None


async def _copy_all(
    connection: Connection, table: str, rows: list[Copied], columns: Sequence[str], fidelity_at: int
) -> None:
    for part in _parts(rows):
        await _send(connection, table, part, columns, fidelity_at)


def _parts(rows: list[Copied]) -> Iterator[list[Copied]]:
    """The rows in order: what is large alone, what stands between together."""
    begin = 0
    for place, row in enumerate(rows):
        if row.size_bytes > LARGE_ROW_BYTES:
            if place > begin:
                yield rows[begin:place]
            yield [row]
            begin = place + 1
    if begin < len(rows):
        yield rows[begin:]


async def _send(
    connection: Connection, table: str, rows: list[Copied], columns: Sequence[str], fidelity_at: int
) -> None:
    if rows[0].size_bytes > LARGE_ROW_BYTES:  # it is alone
        pieces = _in_pieces(rows[0].values(fidelity_at))
        await connection.copy_to_table(table, source=pieces, columns=columns, format="text")
    else:
        records = in_turns(row.values(fidelity_at) for row in rows)
        await connection.copy_records_to_table(table, records=records, columns=columns)


async def in_turns(rows: Iterable[tuple[Any, ...]]) -> AsyncIterator[tuple[Any, ...]]:
    """What COPY is sent; asyncpg would encode all of it before anything else of the process goes on.

    What is large in a row, its body if it has one, is its last value but one.
    """
    size_bytes = 0
    for number, row in enumerate(rows, 1):
        yield row
        size_bytes += len(row[-2]) if isinstance(row[-2], bytes) else 0
        if number % ROWS_A_TURN == 0 or size_bytes > BYTES_A_TURN:
            size_bytes = 0
            await asyncio.sleep(0)


async def _in_pieces(row: tuple[Any, ...]) -> AsyncIterator[bytes]:
    for piece in pieces_of(row, json_at=-2):
        yield piece
        if len(piece) >= PIECE_BYTES:
            await asyncio.sleep(0)


def copied_line(error: asyncpg.PostgresError, table: str) -> int | None:
    """The line that a COPY into `table` was at, from 1; None if the error does not tell.

    The last line of its context is `COPY resource, line 3211, column body: ...`, in the server's language; what the
    value was may follow.
    """
    for line in reversed((getattr(error, "context", None) or "").splitlines()):
        _, found, rest = line.partition(table)
        if found and (number := _LINE.search(rest)):
            return int(number[0])
    return None
