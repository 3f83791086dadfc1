"""What a command prints on stdout: a table for people, or the same as JSON, YAML, CSV or names for scripts (`-o`).

Tables follow kubectl: upper-case heads, three blanks between columns, no rules, ages instead of timestamps, `<none>`
for nothing; numbers stand to the right. On a terminal the last column ends in an ellipsis where a line would not fit,
if enough of it stays to be worth reading. In a pipe nothing is cut or folded, and no line ends in blanks. What
strangers wrote never reaches a terminal unescaped. Pure but for `show`.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TextIO, TypeVar

import orjson
import typer
from rich.cells import cell_len, set_cell_size

from clusterinfo.durations import short_duration

T = TypeVar("T")
Cell = str | int | None

GAP = "   "  # https://github.com/kubernetes/cli-runtime/blob/master/pkg/printers/tabwriter.go: tabwriterPadding
NONE = "<none>"
WORTH_READING = 16
"""Columns that have to be left of the last cell for it to be cut; else the terminal folds the line."""


class Output(StrEnum):
    """What `-o` takes."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"
    NAME = "name"


@dataclass(frozen=True)  # no slots: Python 3.11 gives `Column[Thing](...)` an attribute
class Column(Generic[T]):
    """A column: its head, and what of a row stands in it (a number: to the right), or `nothing`.

    `is_wide`: with `-o wide` only. Where `nothing` is empty, a column without cells is left out.
    """

    head: str
    cell: Callable[[T], Cell]
    is_wide: bool = False
    nothing: str = NONE


@dataclass(frozen=True)
class Table(Generic[T]):
    """Rows in columns; without rows `(no dead letters)`, if that is what `nothing` says."""

    columns: Sequence[Column[T]]
    rows: Sequence[T]
    nothing: str

    def lines(self, *, wide: bool = False, width: int | None = None) -> list[str]:
        """What is printed; `width`: the terminal's columns."""
        if not self.rows:
            return [f"({self.nothing})"]
        columns = [column for column in self.columns if wide or not column.is_wide]
        cells = [(column, [column.cell(row) for row in self.rows]) for column in columns]
        texts = [_aligned(column, found) for column, found in cells if column.nothing or any(found)]
        return _joined(texts, None if wide else width)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of its own; `colour`: green, yellow or red, for the one that matters most.

    `is_prose`: a terminal gets it folded between words, not as it is.
    """

    text: str
    colour: str = ""
    is_prose: bool = True

    def lines(self, width: int | None = None, *, colours: bool = False) -> list[str]:
        """What is printed; `width`: the terminal's columns."""
        texts = [printable(self.text, keep="\t")]
        if width is not None and self.is_prose and cell_len(texts[0]) > width:
            indent = " " * (len(texts[0]) - len(texts[0].lstrip()) + 2)
            texts = textwrap.wrap(texts[0], width, subsequent_indent=indent, break_on_hyphens=False)
        return [typer.style(text, fg=self.colour, bold=True) if colours and self.colour else text for text in texts]


@dataclass(frozen=True, slots=True)
class Result:
    """What a command found or did: a `page` for people, `data` for JSON and YAML, `records` for CSV, and names."""

    page: Sequence[Line | Table[Any]]
    data: Any
    records: Sequence[Mapping[str, Any]]
    names: Sequence[str]

    @classmethod
    def listed(cls, table: Table[T], data: Callable[[T], dict[str, Any]], name: Callable[[T], str]) -> Result:
        """Rows: a table, an array, a record and a name each."""
        records = [data(row) for row in table.rows]
        return cls([table], records, records, [name(row) for row in table.rows])

    @classmethod
    def done(cls, sentence: str, data: Mapping[str, Any], name: str) -> Result:
        """One thing that was done: a sentence, an object, a record, the name of what it was done to."""
        return cls([Line(sentence)], data, [data], [name])

    def text(self, output: Output, *, width: int | None = None, colours: bool = False) -> str:
        """All of it, each line with its end. `width`: the columns of a terminal, None for a pipe."""
        match output:
            case Output.JSON:
                return _unsteered(_json(self.data).decode()) + "\n"
            case Output.YAML:
                return _yaml(self.data)
            case Output.CSV:
                return _csv([orjson.loads(_json(record)) for record in self.records])
            case Output.NAME:
                return "".join(f"{printable(name)}\n" for name in self.names)
        return "".join(f"{line}\n" for line in self._lines(output is Output.WIDE, width, colours))

    def _lines(self, wide: bool, width: int | None, colours: bool) -> list[str]:
        lines: list[str] = []
        for part in self.page:
            if isinstance(part, Table):
                lines += part.lines(wide=wide, width=width)
            else:
                lines += part.lines(width, colours=colours)
        return lines


def show(result: Result, output: Output) -> None:
    """Print it to stdout."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    sys.stdout.write(result.text(output, width=width, colours=has_colours(sys.stdout)))
    sys.stdout.flush()


def scroll_away() -> None:
    """Hide what a terminal shows, where it is not drawn over."""
    if has_cursor(sys.stdout):
        sys.stdout.write("\n" * shutil.get_terminal_size().lines)


def redraw(result: Result, output: Output) -> None:
    """Print it over what was printed before: on a terminal as one screen, elsewhere below it."""
    if not has_cursor(sys.stdout):
        show(result, output)
        return
    size = shutil.get_terminal_size()
    text = result.text(output, width=size.columns, colours=has_colours(sys.stdout))
    sys.stdout.write(frame(text, size.lines))
    sys.stdout.flush()


def frame(text: str, rows: int) -> str:
    """`text` over a whole screen of so many rows. What does not fit is counted; lines end at the edge."""
    lines = text.splitlines()
    if len(lines) >= rows:  # the last row is the cursor's
        lines[rows - 2 :] = [f"… {len(lines) - rows + 2} more lines"]
    clear_line, clear_below, home, no_wrap, wrap = "\x1b[K", "\x1b[J", "\x1b[H", "\x1b[?7l", "\x1b[?7h"
    return home + no_wrap + "".join(f"{line}{clear_line}\n" for line in lines) + clear_below + wrap


def has_cursor(out: TextIO) -> bool:
    """Whether it is a terminal that can do more than print."""
    return out.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def has_colours(out: TextIO) -> bool:
    """Whether somebody wants colours there (https://no-color.org)."""
    return has_cursor(out) and not os.environ.get("NO_COLOR")


def ago(then: dt.datetime | None, now: dt.datetime) -> str:
    """How long ago it was; "" for never."""
    return "" if then is None else short_duration((now - then).total_seconds())


def printable(text: str, keep: str = "") -> str:
    """`text` with what would steer a terminal as backslash escapes, but for the characters of `keep`."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


# --- tables ----------------------------------------------------------------------------------------------------------


def _aligned(column: Column[Any], cells: Sequence[Cell]) -> list[str]:
    """Head and cells of a column, equally wide."""
    is_number = any(isinstance(cell, int) for cell in cells)
    texts = [column.head, *(_shown(cell) or column.nothing for cell in cells)]
    width = max(map(cell_len, texts))
    pads = [" " * (width - cell_len(text)) for text in texts]
    return [pad + text if is_number else text + pad for pad, text in zip(pads, texts, strict=True)]


def _shown(cell: Cell) -> str:
    return str(cell) if isinstance(cell, int) else printable(cell or "")


def _joined(columns: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """The lines of columns whose cells are equally wide.

    Where the terminal leaves too little for the last one, it is not aligned: most lines fit all the same.
    """
    *others, last = columns
    if width is None:
        return [GAP.join(cells).rstrip() for cells in zip(*others, last, strict=True)]
    taken = sum(cell_len(column[0]) + len(GAP) for column in others)
    if others and width - taken < WORTH_READING:
        others[-1] = [cell.rstrip() for cell in others[-1]]
    starts = ["".join(cell + GAP for cell in cells) for cells in zip(*others, strict=True)] or [""] * len(last)
    return [
        (start + _cut(end.rstrip(), width - cell_len(start))).rstrip() for start, end in zip(starts, last, strict=True)
    ]


def _cut(text: str, room: int) -> str:
    if cell_len(text) <= room or room < WORTH_READING:
        return text
    return set_cell_size(text, room - 1).rstrip() + "…"


# --- for scripts -----------------------------------------------------------------------------------------------------


def _json(data: Any) -> bytes:
    return orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z)


def _unsteered(document: str) -> str:
    """JSON with what would steer a terminal as `\\u` escapes: orjson leaves what is no ASCII as it is."""
    return re.sub(r"[^\n -~]", lambda c: c[0] if c[0].isprintable() else json.dumps(c[0])[1:-1], document)


def _yaml(data: Any) -> str:
    """The same as JSON, in ASCII: whatever else there is stands as escapes."""
    import yaml

    return yaml.safe_dump(orjson.loads(_json(data)), sort_keys=False)


def _csv(records: Sequence[Mapping[str, Any]]) -> str:
    """RFC 4180 but for the line ends; nothing for no records."""
    text = io.StringIO()
    if records:
        writer = csv.DictWriter(text, [*records[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _field(value) for name, value in record.items()} for record in records)
    return text.getvalue()


def _field(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    return orjson.dumps(value).decode() if isinstance(value, bool | list | dict) else value
