"""Who notices each guard of the merge that is gone: a scene of the model, or a test of the merge named beside it.

Every guard of every statement in `clusterinfo/postgres/merge/*.sql` (see `guards.py`) stands once in `missed.py`, by
its words; `test_mutations.py` fails where one is missing or is no more. Whoever writes a guard finds out who misses it
by `python -m tests.model.survey STATEMENT`, and writes the test that does where nobody does. Guards of following that
are no SQL are those of `code_guards.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from clusterinfo.postgres.sql import parse, statements
from tests.model.code_guards import CodeGuard, without_code
from tests.model.guards import Guard, guards_of
from tests.model.missed import MISSED_BY, UNMISSED
from tests.model.scenarios import SCENES


@dataclass(frozen=True)
class Mutation:
    """A guard that is taken out, and who notices: a scene, or (with `::`) the id of a test."""

    guard: Guard
    missed_by: str

    @property
    def is_missed_by_a_scene(self) -> bool:
        return "::" not in self.missed_by


@contextmanager
def without(guard: Guard | CodeGuard) -> Iterator[None]:
    """The merge, or the program, without this guard, in this process; nothing on disk is touched."""
    if isinstance(guard, CodeGuard):
        with without_code(guard):
            yield
        return
    text = statements()[guard.statement]
    statements()[guard.statement] = guard.without
    try:
        yield
    finally:
        statements()[guard.statement] = text


@cache
def all_guards() -> dict[str, Guard]:
    """Name -> guard, of all statements of the merge."""
    folder = files("clusterinfo.postgres").joinpath("merge")
    texts = [entry.read_text(encoding="utf-8") for entry in folder.iterdir() if entry.name.endswith(".sql")]
    found = [guard for text in sorted(texts) for name, sql in parse(text) for guard in guards_of(name, sql)]
    return {guard.name: guard for guard in found}


def mutations() -> list[Mutation]:
    """One for each guard that somebody misses."""
    return [
        Mutation(all_guards()[name], missed_by)
        for statement, parts in MISSED_BY.items()
        for missed_by, listed in parts.items()
        for name in (f"{statement}: {words}" for words in listed)
        if name in all_guards()
    ]


def listed() -> list[str]:
    """Names of all guards that are spoken of here."""
    missed = [
        f"{statement}: {words}" for statement, parts in MISSED_BY.items() for part in parts.values() for words in part
    ]
    unmissed = [f"{statement}: {words}" for statement, reasons in UNMISSED.items() for words in reasons]
    return missed + unmissed


assert all("::" in one or one in SCENES for parts in MISSED_BY.values() for one in parts)
