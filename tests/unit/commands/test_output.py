"""What commands print: kubectl's tables for people, the same as data for scripts."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from dataclasses import asdict, dataclass

import pytest
import yaml
from rich.cells import cell_len

from clusterinfo.commands import output
from clusterinfo.commands.output import Column, Line, Output, Result, Table, frame, has_colours
from tests.support.terminal import COLUMNS as SCREEN
from tests.support.terminal import rendered

NOON = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
ESCAPES = "\x1b[31m\x9b\u202e\x7fred"
"""What steers a terminal: escapes of 7 and 8 bits, what turns text around, delete."""


@dataclass(frozen=True)
class Thing:
    """A row."""

    name: str
    size: int | None
    why: str | None = ""
    at: dt.datetime = NOON


COLUMNS = (
    Column[Thing]("NAME", lambda thing: thing.name),
    Column[Thing]("SIZE", lambda thing: thing.size),
    Column[Thing]("AT", lambda thing: f"{thing.at:%Y}", is_wide=True),
    Column[Thing]("WHY", lambda thing: thing.why),
)
LONG = "because it is as it is and always was"


def table(*things: Thing) -> Table[Thing]:
    return Table(COLUMNS, things, "no things")


def listed(*things: Thing) -> Result:
    return Result.listed(table(*things), asdict, lambda thing: thing.name)


def test_a_table_is_kubectls() -> None:
    assert table(Thing("a", 7, "new"), Thing("longer", 123456, None), Thing("b", None)).lines() == [
        "NAME       SIZE   WHY",
        "a             7   new",
        "longer   123456   <none>",
        "b        <none>   <none>",
    ]


def test_no_line_ends_in_blanks_and_nothing_is_cut_in_a_pipe() -> None:
    lines = table(Thing("a", 7, LONG * 20), Thing("b", 8, "x")).lines()
    assert lines == [line.rstrip() for line in lines]
    assert lines[1].endswith(LONG * 20)


@pytest.mark.parametrize(
    ("width", "cell"),
    [(200, LONG), (55, LONG), (54, "because it is as it is and always w…"), (34, "because it is a…"), (33, LONG)],
)
def test_on_a_terminal_the_last_column_ends_in_an_ellipsis(width: int, cell: str) -> None:
    """Or is left as it is, where it would be cut to nothing."""
    line = table(Thing("a", 7, LONG), Thing("longer", 123456, "x")).lines(width=width)[1]
    assert line == f"a             7   {cell}"
    assert table(Thing("a", 7, LONG)).lines(width=width, wide=True)[1].endswith(LONG), "wide is whole"


def test_where_nothing_is_left_for_the_last_column_it_is_not_aligned() -> None:
    columns = (
        Column[Thing]("NAME", lambda thing: thing.name),
        Column[Thing]("WHY", lambda thing: thing.why, nothing=""),
    )
    rows = [Thing("a" * 30, 1, LONG), Thing("b", 2), Thing("c", 3, LONG)]
    assert Table(columns, rows, "").lines(width=40) == [
        "NAME   WHY",
        f"{'a' * 30}   {LONG}",
        "b",
        "c   because it is as it is and always w…",
    ]


PROSE = "  services of sandbox failed: the API answered 500"


def test_prose_is_folded_between_words() -> None:
    assert Line(PROSE).lines(30) == ["  services of sandbox failed:", "    the API answered 500"]
    assert Line(PROSE).lines(50) == Line(PROSE, is_prose=False).lines(30) == Line(PROSE).lines() == [PROSE]


def test_wide_has_more_columns() -> None:
    assert table(Thing("a", 7, "new")).lines(wide=True) == ["NAME   SIZE   AT     WHY", "a         7   2026   new"]


def test_characters_of_two_columns_are_aligned_and_cut_by_columns() -> None:
    lines = table(Thing("名前", 7, "理由" * 20), Thing("a", 8, "x")).lines(width=40)
    assert [cell_len(line.partition("7")[0]) for line in lines[1:2]] == [len(lines[2].partition("8")[0])]
    assert cell_len(lines[1]) <= 40
    assert lines[1].endswith("…")


def test_remarks_that_nobody_makes_take_no_column() -> None:
    remarks = Column[Thing]("REMARKS", lambda thing: thing.why, nothing="")
    assert Table((COLUMNS[0], remarks), [Thing("a", 1)], "").lines() == ["NAME", "a"]
    rows = [Thing("a", 1), Thing("b", 2, "odd")]
    assert Table((COLUMNS[0], remarks), rows, "").lines() == ["NAME   REMARKS", "a", "b      odd"]


def test_without_rows_it_says_so() -> None:
    assert listed().text(Output.TABLE) == "(no things)\n"
    assert json.loads(listed().text(Output.JSON)) == []
    assert (listed().text(Output.CSV), listed().text(Output.NAME)) == ("", "")


DATA = [
    {"name": "a", "size": 7, "why": "new", "at": "2026-11-22T12:00:00Z"},
    {"name": "b", "size": None, "why": 'it, "was"', "at": "2026-11-22T12:00:00Z"},
]


def test_scripts_read_the_same_whatever_they_read() -> None:
    result = listed(Thing("a", 7, "new"), Thing("b", None, 'it, "was"'))
    assert json.loads(result.text(Output.JSON)) == DATA
    assert yaml.safe_load(result.text(Output.YAML)) == DATA
    assert [*csv.DictReader(io.StringIO(result.text(Output.CSV)))] == [
        {"name": "a", "size": "7", "why": "new", "at": "2026-11-22T12:00:00Z"},
        {"name": "b", "size": "", "why": 'it, "was"', "at": "2026-11-22T12:00:00Z"},
    ]
    assert result.text(Output.NAME) == "a\nb\n"


def test_what_was_done_is_a_sentence_or_data() -> None:
    result = Result.done("dropped 2 things", {"dropped": 2, "all": True}, "things")
    assert result.text(Output.TABLE) == result.text(Output.WIDE) == "dropped 2 things\n"
    assert json.loads(result.text(Output.JSON)) == {"dropped": 2, "all": True}
    assert result.text(Output.CSV) == "dropped,all\n2,true\n"
    assert result.text(Output.NAME) == "things\n"


@pytest.mark.parametrize("form", Output)
def test_nothing_steers_a_terminal(form: Output) -> None:
    result = listed(Thing(ESCAPES, 7, ESCAPES))
    text = Result([Line(ESCAPES), *result.page], result.data, result.records, result.names).text(form)
    assert all(character.isprintable() for character in text.replace("\n", ""))
    if form in (Output.JSON, Output.YAML):
        (row,) = yaml.safe_load(text)
        assert row["name"] == ESCAPES, "for scripts it is whole"


@pytest.mark.parametrize(
    ("env", "is_terminal", "coloured"),
    [
        ({"TERM": "xterm-256color"}, True, True),
        ({"TERM": "xterm-256color"}, False, False),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], is_terminal: bool, coloured: bool
) -> None:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: is_terminal)
    assert has_colours(out) is coloured


def test_a_colour_is_for_the_line_that_has_one() -> None:
    verdict = Result([Line("healthy", "green"), Line("and so on")], {}, [], [])
    assert verdict.text(Output.TABLE, colours=True) == "\x1b[32m\x1b[1mhealthy\x1b[0m\nand so on\n"
    assert verdict.text(Output.TABLE) == "healthy\nand so on\n"


def screen(text: str, rows: int) -> str:
    """A frame as a terminal gets it."""
    return frame(text, rows).replace("\n", "\r\n")


@pytest.mark.parametrize("rows", [3, 5, 24])
def test_a_screen_is_drawn_over_the_one_before(rows: int) -> None:
    before = screen("".join(f"{number} is a long line\n" for number in range(9)), rows)
    after = screen("a\nbb\nccc\ndddd\n", rows)
    whole = ["a", "bb", "ccc", "dddd", ""]
    assert rendered(before + after) == (whole if rows >= 5 else ["a", "… 3 more lines", ""])


def test_what_is_too_long_ends_at_the_edge() -> None:
    assert rendered(screen("x" * 200 + "\ny\n", 24)) == ["x" * SCREEN, "y", ""]


def test_what_is_printed_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    output.show(listed(Thing("a", 7, LONG)), Output.TABLE)
    assert capsys.readouterr().out.endswith(f"{LONG}\n"), "a pipe has no width, whatever the environment says"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    output.show(listed(Thing("a", 7, LONG)), Output.TABLE)
    assert max(map(len, capsys.readouterr().out.splitlines())) == 30
