"""Hands out by name the statements of the SQL files, each of which lies beside the module that runs it.

`-- name:` begins a statement; what its first lines say of it goes to the server with it.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

FOLDERS = "merge", "admin"
_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def local_search_path(schema: str) -> str:
    """What a transaction that finds our tables begins with.

    pg_catalog first, so that nothing in the schema stands in for an operator or a function of PostgreSQL's; temporary
    tables last, so that none stands in for a table (manual, "Writing SECURITY DEFINER Functions Safely").
    """
    return f"set local search_path = pg_catalog, {schema}, pg_temp"


@cache
def statements() -> dict[str, str]:
    """Name -> SQL text of every statement, captions included. Raises ValueError if two have one name."""
    found: dict[str, str] = {}
    for name, text in (pair for folder in FOLDERS for pair in _statements_in(folder)):
        if name in found:
            raise ValueError(f"two SQL statements are called {name!r}: each needs a name of its own")
        found[name] = text
    return found


def _statements_in(folder: str) -> list[tuple[str, str]]:
    entries = files("clusterinfo.postgres").joinpath(folder).iterdir()
    texts = [entry.read_text(encoding="utf-8") for entry in entries if entry.name.endswith(".sql")]
    return [pair for text in texts for pair in parse(text)]


def parse(text: str) -> list[tuple[str, str]]:
    """(name, SQL text) of each statement in the text of one file; what stands before the first is about the file."""
    _, *parts = _NAME.split(text)
    return list(zip(parts[::2], parts[1::2], strict=True))
