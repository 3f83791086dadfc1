"""Statements and the modules that run them: each lies beside its module, and none is without one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clusterinfo.postgres import sql
from clusterinfo.postgres.sql import FOLDERS, parse, statements

PACKAGE = Path(sql.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "sql.py")


def names_beside(module: Path) -> list[str]:
    file = module.with_suffix(".sql")
    return [name for name, _ in parse(file.read_text(encoding="utf-8"))] if file.exists() else []


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_runs_the_statements_beside_it_all_of_them_and_no_others(module: Path) -> None:
    used = set(re.findall(r'statements\(\)\["(\w+)"\]', module.read_text(encoding="utf-8")))
    assert used == set(names_beside(module))


def test_every_statement_lies_beside_a_module_under_a_name_of_its_own() -> None:
    names = [name for module in MODULES for name in names_beside(module)]
    assert sorted(names) == sorted(statements())
    files = [path for folder in FOLDERS for path in (PACKAGE / folder).glob("*.sql")]
    assert [path for path in files if not path.with_suffix(".py").exists()] == []


def test_two_statements_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "FOLDERS", ("merge", "merge"))
    with pytest.raises(ValueError, match="two SQL statements are called '"):
        statements.__wrapped__()


def test_a_statement_is_all_up_to_the_next_name() -> None:
    text = "-- About the file.\n\n-- name: first\n-- Why.\nselect 1;\n\n-- name: second\nselect 2;\n"
    assert parse(text) == [("first", "-- Why.\nselect 1;\n\n"), ("second", "select 2;\n")]
