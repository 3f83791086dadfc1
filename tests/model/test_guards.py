"""Guards are found in the text of a statement, and taken out of it."""

from __future__ import annotations

import pytest

from tests.model.guards import guards_of

SQL = """
-- A comment, where it says and.
update a set n = coalesce(b.n, a.n), m = greatest(a.m, $2)
from b join c on c.id = b.id and c.x is distinct from b.x
where a.id = b.id and (b.y = 'or' or not exists (select from d where d.id = b.id)) and b.z <= $1;
"""

EXPECTED = {
    "coalesce(b.n, a.n)": ("coalesce(b.n, a.n)", "(array[b.n, a.n])[1]"),
    "greatest(a.m, $2)": ("greatest(a.m, $2)", "(array[a.m, $2])[1]"),
    "greatest(a.m, $2) #2": ("greatest(a.m, $2)", "(array[a.m, $2])[2]"),
    "on c.id = b.id": ("on c.id = b.id", "on (c.id = b.id or true)"),
    "and c.x is distinct from b.x": ("c.x is distinct from b.x", "(c.x is distinct from b.x or true)"),
    "where a.id = b.id": ("a.id = b.id", "(a.id = b.id or true)"),
    "and (b.y = 'or' or not exists (...))": (
        "(b.y = 'or' or not exists (select from d where d.id = b.id))",
        "((b.y = 'or' or not exists (select from d where d.id = b.id)) or true)",
    ),
    "or not exists (...)": (
        "not exists (select from d where d.id = b.id)", "((not exists (select from d where d.id = b.id)) and false)",
    ),
    "b.y = 'or' or": ("b.y = 'or'", "((b.y = 'or') and false)"),
    "where d.id = b.id": ("d.id = b.id", "(d.id = b.id or true)"),
    "and b.z <= $1": ("b.z <= $1", "(b.z <= $1 or true)"),
}  # fmt: skip


def test_each_condition_is_a_guard() -> None:
    found = {guard.words: guard.without for guard in guards_of("it", SQL)}
    assert found == {words: SQL.replace(old, new, 1) for words, (old, new) in EXPECTED.items()}


CLAUSES = (
    ("select 1 from t order by id for update of t", {
        "order by id": ("order by id", ""), "for update of t": ("for update of t", ""),
    }),
    ("insert into t select 1 on conflict (id) do update set n = 1 where t.n < 2 returning n", {
        "on conflict (id) do update": ("on conflict (id) do update set n = 1 where t.n < 2", ""),
        "where t.n < 2": ("t.n < 2", "(t.n < 2 or true)"),
    }),
    ("select case when a and b then 1 end limit 3", {
        "when a and b then": ("a and b", "((a and b) and false)"),
        "when a": ("when a", "when (a or true)"),
        "and b": ("and b", "and (b or true)"),
        "limit 3": ("limit 3", ""),
    }),
    ("select case a when 1 then b or c end as x", {
        "when 1 then": ("1", "nullif(1, 1)"),
        "or c": ("or c", "or ((c) and false)"),
        "b or": ("b or", "((b) and false) or"),
    }),
    ("update t set a = 1, n = t.n or s.n", {
        "or s.n": ("s.n", "((s.n) and false)"), "t.n or": ("t.n", "((t.n) and false)"),
    }),
    ("select lag(a) over b from t window b as (partition by c order by d)", {
        "order by d": ("order by d", "order by random()"),
    }),
    ("select a, coalesce(b < 1 and c, false) as x where d or e and f", {
        "coalesce(b < 1 and c, false)": ("coalesce(b < 1 and c, false)", "(array[b < 1 and c, false])[1]"),
        "and c": ("and c", "and (c or true)"),
        "b < 1 and": ("b < 1", "(b < 1 or true)"),
        "where d": ("where d", "where (d or true)"),
        "or e and f": ("e and f", "((e and f) and false)"),
        "d or": ("d or", "((d) and false) or"),
        "and f": ("and f", "and (f or true)"),
        "e and": ("e and", "(e or true) and"),
    }),
    ("select distinct on (a) a from t where case when a then b end and left(c, 1) = 'x' group by a having d > 1", {
        "where case when a then b end": ("case when a then b end", "(case when a then b end or true)"),
        "when a then": ("when a", "when ((a) and false)"),
        "and left(c, 1) = 'x'": ("left(c, 1) = 'x'", "(left(c, 1) = 'x' or true)"),
        "having d > 1": ("d > 1", "(d > 1 or true)"),
    }),
)  # fmt: skip


@pytest.mark.parametrize(("sql", "expected"), CLAUSES)
def test_clauses_are_guards_as_well(sql: str, expected: dict[str, tuple[str, str]]) -> None:
    found = {guard.words: guard.without for guard in guards_of("it", sql)}
    assert found == {words: sql.replace(old, new, 1) for words, (old, new) in expected.items()}
