"""What COPY refuses: which line it was, what is tried next, and when it is our fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Sequence
from typing import Any
from unittest.mock import Mock

import asyncpg
import pytest

from clusterinfo.errors import FatalError
from clusterinfo.postgres.merge import rows
from clusterinfo.postgres.merge.bodies import IDENTITY_ONLY, SANITISED, WHOLE
from clusterinfo.postgres.merge.copy_text import PIECE_BYTES
from clusterinfo.postgres.merge.rows import MAX_ALIKE, Copied, copied_line, copy
from clusterinfo.postgres.merge.staging import Staged
from clusterinfo.postgres.sql import statements
from tests.support.records import Listing

COLUMNS = "name", "fidelity", "body", "original"
Refuses = Callable[[tuple[Any, ...]], str | None]
"""A row -> SQLSTATE, None: it is taken."""


def error_of(context: str | None, sqlstate: str = "22P02") -> asyncpg.PostgresError:
    fields = {"C": sqlstate, "M": "no", "S": "ERROR"} | ({} if context is None else {"W": context})
    error: asyncpg.PostgresError = asyncpg.PostgresError.new(fields)
    return error


@pytest.mark.parametrize(
    ("context", "line"),
    [
        ("COPY resource, line 3211, column body", 3211),
        ('COPY resource, line 3211, column body: "{"a": 1}"', 3211),
        ('COPY resource, line 3211, column body: "COPY resource, line 7"', 3211),
        ('JSON data, line 1: {"a":NaN\nCOPY resource, line 12, column body', 12),
        ('JSON data, line 1: "COPY resource, line 7" NaN\nCOPY resource, line 12, column body', 12),
        ("COPY resource, Zeile 3211, Spalte body: ...", 3211),
        ("JSON-Daten, Zeile 1: {\nCOPY resource, Zeile 3211, Spalte body", 3211),
        ("resourceのCOPY、行 3211、列 body", 3211),
        ("COPY resource, línea 3211, columna body", 3211),
        ("PL/pgSQL function f() line 3 at RAISE", None),
        ("COPY resource", None),
        ("", None),
        (None, None),
    ],
)
def test_the_line_that_was_refused_is_found_in_any_language(context: str | None, line: int | None) -> None:
    assert copied_line(error_of(context), "resource") == line


class Table:
    """A table that refuses some rows, as COPY does: nothing of that COPY is stored, and the context names the line."""

    def __init__(self, refuses: Refuses, context: str | None = "COPY resource, line {line}, column body") -> None:
        self.stored: list[tuple[Any, ...]] = []
        self.sent = 0
        self.savepoints = 0
        self.copies = 0
        self._before: list[tuple[Any, ...]] = []
        self._refuses = refuses
        self._context = context

    async def execute(self, statement: str, *columns: list[Any]) -> None:
        if columns:
            assert statement is statements()["insert_resource"]
            self._insert(list(zip(*columns, strict=True)))
        elif statement.startswith("savepoint"):
            self.savepoints += 1
            self._before = list(self.stored)
        elif statement.startswith("rollback to"):
            self.stored = self._before

    async def copy_records_to_table(
        self, table: str, *, records: AsyncIterable[tuple[Any, ...]], columns: Sequence[str]
    ) -> None:
        assert (table, columns) == ("resource", COLUMNS)
        self.copies += 1
        self._insert([row async for row in records])  # all of it is on its way before the server says a word

    def _insert(self, sent: list[tuple[Any, ...]]) -> None:
        self.sent += len(sent)
        for line, row in enumerate(sent, 1):
            if sqlstate := self._refuses(row):
                raise error_of(self._context and self._context.format(line=line), sqlstate)
            self.stored.append(row)

    async def copy_to_table(
        self, table: str, *, source: AsyncIterable[bytes], columns: Sequence[str], format: str
    ) -> None:
        assert (table, columns, format) == ("resource", COLUMNS, "text")
        pieces = [piece async for piece in source]
        assert max(map(len, pieces)) <= 2 * PIECE_BYTES
        name, fidelity, body, original = b"".join(pieces).removesuffix(b"\n").split(b"\t")
        row = (name.decode(), int(fidelity), body.replace(rb"\\", b"\\"), None)
        assert original == rb"\N"
        if sqlstate := self._refuses(row):
            raise error_of(self._context and self._context.format(line=1), sqlstate)
        self.sent += 1
        self.stored.append(row)


async def copied(table: Table, bodies: Sequence[bytes], *, uses_savepoints: bool = True) -> Staged:
    """COPY one object of each body, named 0, 1, 2 ..."""
    staged, listing = Staged(uses_savepoints=uses_savepoints), Listing("100")
    items = [Copied(listing.item(str(n), "1", body=body), WHOLE, (str(n),)) for n, body in enumerate(bodies)]
    connection: Any = table
    await copy(connection, "resource", items, COLUMNS, staged)
    return staged


def refuses(*bodies: bytes, sqlstate: str = "22P02") -> Refuses:
    return lambda row: sqlstate if row[2] in bodies else None


NAN, REPAIRED, FINE = b'{"a":NaN}', b'{"a":"NaN"}', b'{"a":1}'


@pytest.mark.parametrize("uses_savepoints", [False, True])
async def test_what_is_not_refused_is_copied_at_once(uses_savepoints: bool) -> None:
    table = Table(refuses())
    staged = await copied(table, [FINE] * 7, uses_savepoints=uses_savepoints)
    assert table.stored == [(str(n), WHOLE, FINE, None) for n in range(7)]
    assert (table.sent, table.savepoints, staged.dead_letters) == (7, int(uses_savepoints), [])


@pytest.mark.parametrize(
    ("bodies", "uses_savepoints", "copies"),
    [
        ([FINE] * rows.FEW_ROWS, False, 0),
        ([FINE] * rows.FEW_ROWS, True, 1),
        ([FINE] * (rows.FEW_ROWS + 1), False, 1),
        ([b'["' + b"x" * rows.FEW_BYTES + b'"]', FINE], False, 1),
    ],
)
async def test_few_rows_are_inserted_unless_one_of_them_was_refused(
    bodies: list[bytes], uses_savepoints: bool, copies: int
) -> None:
    """COPY takes a round trip more, and says which row it refuses."""
    table = Table(refuses())
    await copied(table, bodies, uses_savepoints=uses_savepoints)
    assert (table.copies, len(table.stored)) == (copies, len(bodies))


async def test_others_have_their_turn_while_many_rows_are_sent() -> None:
    table, turns = Table(refuses()), Mock()

    async def other() -> None:
        while True:
            turns()
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    await copied(table, [FINE] * (5 * rows.ROWS_A_TURN))
    task.cancel()

    assert len(table.stored) == 5 * rows.ROWS_A_TURN
    assert turns.call_count >= 5


LARGE = b'["' + rb"\"" * rows.BYTES_A_TURN + b'"]'


@pytest.mark.parametrize("uses_savepoints", [False, True])
async def test_a_large_row_is_sent_piece_by_piece_between_its_neighbours(uses_savepoints: bool) -> None:
    table = Table(refuses())
    await copied(table, [FINE, LARGE, FINE, FINE, LARGE], uses_savepoints=uses_savepoints)
    assert [row[2] for row in table.stored] == [FINE, LARGE, FINE, FINE, LARGE]


@pytest.mark.parametrize("refused", range(6))
async def test_the_one_that_was_refused_is_found_among_large_ones(refused: int) -> None:
    bodies = [FINE, LARGE, FINE, FINE, LARGE, FINE]
    table = Table(lambda row: "22P02" if row[0] == str(refused) and row[1] != IDENTITY_ONLY else None)
    staged = await copied(table, bodies)
    expected: list[Any] = [(str(n), WHOLE, body, None) for n, body in enumerate(bodies)]
    expected[refused] = (str(refused), IDENTITY_ONLY, None, None)
    assert table.stored == expected
    assert [letter.value for letter in staged.dead_letters] == [bodies[refused]]


async def test_what_is_refused_without_savepoints_is_raised() -> None:
    table = Table(refuses(NAN))
    with pytest.raises(asyncpg.PostgresError):
        await copied(table, [FINE, NAN], uses_savepoints=False)
    assert table.savepoints == 0


async def test_a_refused_body_is_repaired_and_stands_beside_the_bytes_as_they_came() -> None:
    table = Table(refuses(NAN))
    staged = await copied(table, [FINE, NAN, FINE])
    assert table.stored == [
        ("0", WHOLE, FINE, None),
        ("1", SANITISED, REPAIRED, NAN),
        ("2", WHOLE, FINE, None),
    ]
    assert staged.dead_letters == []


async def test_one_refused_even_so_is_stored_by_its_identity_and_a_dead_letter() -> None:
    table = Table(refuses(NAN, REPAIRED))
    staged = await copied(table, [FINE, NAN, FINE])
    assert table.stored == [
        ("0", WHOLE, FINE, None),
        ("1", IDENTITY_ONLY, None, None),
        ("2", WHOLE, FINE, None),
    ]
    (letter,) = staged.dead_letters
    assert (letter.reason, letter.sqlstate, letter.value) == ("PostgreSQL refused the body: no", "22P02", NAN)


async def test_one_whose_identity_is_refused_is_a_dead_letter_and_no_more() -> None:
    table = Table(lambda row: "22021" if row[0] == "1" else None)
    staged = await copied(table, [FINE] * 3)
    assert [row[0] for row in table.stored] == ["0", "2"]
    (letter,) = staged.dead_letters
    assert (letter.reason, letter.sqlstate) == ("PostgreSQL refused the record: no", "22021")


async def test_refused_ones_next_to_each_other_first_and_last_are_all_found() -> None:
    bodies = [NAN, NAN, FINE, NAN, FINE, NAN, NAN]
    table = Table(refuses(NAN, REPAIRED))
    staged = await copied(table, bodies)
    assert [row[0] for row in table.stored] == [str(n) for n in range(7)]
    assert [letter.value for letter in staged.dead_letters] == [NAN] * 5


async def test_many_refusals_do_not_send_all_that_follows_as_many_times() -> None:
    bodies = [NAN if n % 100 == 50 else FINE for n in range(5000)]
    table = Table(refuses(NAN, REPAIRED))
    await copied(table, bodies)
    assert len(table.stored) == 5000
    assert table.sent < 4 * 5000


async def test_more_refused_alike_than_records_can_be_at_fault_stops() -> None:
    table = Table(refuses(NAN, REPAIRED))
    staged = await copied(table, [NAN] * MAX_ALIKE)
    assert len(staged.dead_letters) == MAX_ALIKE
    with pytest.raises(FatalError, match="101 records of one batch were refused alike, the first by: no"):
        await copied(Table(refuses(NAN, REPAIRED)), [NAN] * (MAX_ALIKE + 1))


async def test_many_that_were_refused_for_other_reasons_are_their_own_fault() -> None:
    table = Table(lambda row: None if row[2] is None else "22003" if row[0] == "7" else "22P02")
    assert len((await copied(table, [NAN] * (MAX_ALIKE + 1))).dead_letters) == MAX_ALIKE + 1


@pytest.mark.parametrize("sqlstate", ["23505", "57014", "53100"])
async def test_what_is_about_no_row_is_raised(sqlstate: str) -> None:
    with pytest.raises(asyncpg.PostgresError):
        await copied(Table(refuses(NAN, sqlstate=sqlstate)), [FINE, NAN])


async def test_a_refusal_that_names_no_line_is_raised_for_bisection() -> None:
    table = Table(refuses(NAN), context=None)
    with pytest.raises(asyncpg.PostgresError):
        await copied(table, [FINE, NAN])
    assert table.stored == []


def test_fidelity_is_put_where_the_columns_have_it() -> None:
    of_row = Copied(Listing("100").item("a", "1", body=FINE), WHOLE, tuple(rows.COLUMNS[:8] + rows.COLUMNS[9:15]))
    values = of_row.values(rows.COLUMNS.index("fidelity"))
    assert values[:8] == rows.COLUMNS[:8]
    assert values[8:] == (WHOLE, *rows.COLUMNS[9:15], FINE, None)
