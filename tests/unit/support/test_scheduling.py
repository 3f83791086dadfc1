"""Who runs what side by side: what shares costly fixtures stays together, and nobody ends with a test of a minute."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.support.scheduling import OWN_PROGRAMS, OWN_SERVERS, ROOT, Scheduling, longest_first


@pytest.mark.parametrize(
    ("test", "scope"),
    [
        ("tests/apache/test_group.py::test_it", "tests/apache"),
        ("tests/integration/test_terminal.py::test_it", "tests/integration/test_terminal.py"),
        (f"{OWN_PROGRAMS[0]}::test_it", OWN_PROGRAMS[0]),
        ("tests/unit/test_wire.py::test_it[a::b]", "tests/unit/test_wire.py::test_it[a::b]"),
    ],
    ids=["a broker for the folder", "fixtures of the module", "another release", "alone"],
)
def test_what_stays_together(test: str, scope: str) -> None:
    assert Scheduling._split_scope(Scheduling.__new__(Scheduling), test) == scope


def test_what_is_named_is_there() -> None:
    assert [name for name in (*OWN_SERVERS, *OWN_PROGRAMS) if not (ROOT / name).exists()] == []


def test_what_takes_long_comes_first_and_else_the_order_stays() -> None:
    names = ["tests/unit/a.py::x", "tests/contract/b.py::y", "tests/integration/c.py::z", "tests/unit/d/e.py::w"]
    items = [SimpleNamespace(nodeid=name) for name in names]
    assert [item.nodeid for item in longest_first(items)] == [names[2], names[1], names[0], names[3]]
