"""What the schema's SQL must keep to, whatever it says: held against its text, without a server."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

FILES = {
    entry.name: entry.read_text(encoding="utf-8")
    for entry in files("clusterinfo.postgres").joinpath("schema").iterdir()
    if entry.name.endswith(".sql")
}
ALL = "\n".join(FILES[name] for name in sorted(FILES))
FUNCTIONS = {
    match[1]: match[0]
    for match in re.finditer(r"^create function (\w+).*?^(?:\$\$;|end;)$", ALL, re.MULTILINE | re.DOTALL)
}


def without_comments(sql: str) -> str:
    return re.sub(r"--[^\n]*|comment on .*?;$", "", sql, flags=re.MULTILINE | re.DOTALL)


def test_files_are_numbered_without_a_gap() -> None:
    assert [int(name[:4]) for name in sorted(FILES)] == list(range(1, len(FILES) + 1))


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_name_is_qualified_by_a_schema(name: str) -> None:
    """The schema's name is the user's to choose (DB_SCHEMA)."""
    assert not re.search(r"\bclusterinfo\.", without_comments(FILES[name]))


@pytest.mark.parametrize("name", sorted(FILES))
def test_lines_fit_a_screen(name: str) -> None:
    assert [line for line in FILES[name].splitlines() if len(line) > 140] == []


def test_functions_are_bound_to_the_schema_when_created() -> None:
    """Plain SQL bodies are atomic; a body kept as text may call no function of ours: its names are looked up later."""
    assert FUNCTIONS
    for name, text in FUNCTIONS.items():
        if "begin atomic" in text:
            continue
        assert "language plpgsql" in text, name
        assert re.search(rf"\b({'|'.join(FUNCTIONS)}) ?\(", text.partition("$$")[2]) is None, name


def test_functions_are_declared_as_what_they_are() -> None:
    """Not volatile and without SET, which would keep the planner from putting them in line.

    Those in plpgsql never are in line, but SET costs a call 4 us, half of all that they do; what they name is in
    pg_catalog, which every search_path has in front that does not say otherwise.
    """
    for name, text in FUNCTIONS.items():
        head = re.split(r"begin atomic|\$\$", text)[0]
        assert re.search(r"\b(immutable|stable)\b.*\bparallel safe\b", head, re.DOTALL), name
        assert not re.search(r"\bset\b", head), name


TABLES = {
    match[1]: re.findall(r"^    (\w+) ", match[2], re.MULTILINE)
    for match in re.finditer(r"^create table (\w+) \(\n(.*?)^\)", ALL, re.MULTILINE | re.DOTALL)
} | {"schema_migration": ["version", "name", "checksum", "applied_at"]}  # which `migrations.py` makes
"""Name -> what each of its lines begins with: a column, or what holds for all of it."""


def test_every_table_and_every_column_says_what_it_is() -> None:
    assert set(re.findall(r"^comment on table (\w+) is\b", ALL, re.MULTILINE)) == set(TABLES)
    for table, words in TABLES.items():
        columns = [word for word in words if word not in ("primary", "unique", "check")]
        assert re.findall(rf"^comment on column {table}\.(\w+) is\b", ALL, re.MULTILINE) == columns


def test_every_function_says_what_it_is() -> None:
    created = set(re.findall(r"^\s*create (?:or replace )?function (\w+)", ALL, re.MULTILINE))
    assert created == set(re.findall(r"^comment on function (\w+)", ALL, re.MULTILINE))


FIRST_RELEASE = 5
"""Files up to this one make the first schema that a program wrote to; those after it change one that is written to."""

# What would break the statements of a program that does not know of the change: it names the columns it writes.
BREAKING = {
    "something is taken away or renamed": r"\bdrop (?!table if exists %1\$I)|\brename\b",
    "a column changes its type": r"\balter column \w+ (?:set data )?type\b",
    "a column that is not written becomes needed": r"\bset not null\b"
    r"|\badd column \w+ (?![^,;]*\bdefault\b)[^,;]*\bnot null\b",
    "rows of before are refused": r"\badd (?:constraint|check|unique|primary|foreign|exclude)\b",
}


def breaches(sql: str) -> list[str]:
    return [why for why, pattern in BREAKING.items() if re.search(pattern, without_comments(sql), re.IGNORECASE)]


def breaking(files: dict[str, str]) -> dict[str, list[str]]:
    """Of the files after the first release those that would stop the release before, and why."""
    later = {name: breaches(sql) for name, sql in files.items() if int(name[:4]) > FIRST_RELEASE}
    return {name: why for name, why in later.items() if why}


def test_the_release_before_goes_on_writing() -> None:
    assert breaking(FILES) == {}
    number = FIRST_RELEASE + 1
    changed = FILES | {f"{number:04}_more.sql": "drop view pods;", f"{number + 1:04}_yet.sql": "create table later ();"}
    assert breaking(changed) == {f"{number:04}_more.sql": ["something is taken away or renamed"]}


@pytest.mark.parametrize(
    "sql",
    [
        "drop view pods;",
        "alter table unit rename column kind to sort;",
        "alter table unit alter column objects type numeric;",
        "alter table unit alter column objects set not null;",
        "alter table unit add column a text, add column b text not null;",
        "alter table unit add constraint positive check (objects >= 0);",
    ],
)
def test_what_would_stop_it_is_seen(sql: str) -> None:
    assert len(breaches(sql)) == 1


def test_what_it_does_not_notice_is_not_held_against_it() -> None:
    assert breaches("alter table unit add column a text, add column b text[] not null default '{}';") == []
