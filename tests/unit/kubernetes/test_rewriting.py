"""The walk through a value: what it drops, replaces and leaves alone, and that depth and width cost nothing extra."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from clusterinfo.errors import RecordError
from clusterinfo.json_repair import MAX_DEPTH
from clusterinfo.kubernetes import rewriting
from clusterinfo.kubernetes.normalize import Redaction, normalize
from clusterinfo.kubernetes.rewriting import Leaves, Siblings, Value, rewrite
from clusterinfo.model import GroupVersionResource

WIDGETS = GroupVersionResource("shop.example.com", "v1", "widgets", "Widget", namespaced=True)
MARKS = (b"go", b"hide", b"only")


def rule(siblings: Siblings, name: str, value: Value) -> Value | Leaves | None:
    if name == "go":
        return None
    if name == "hide":
        return Leaves(lambda scalar: b"<%d>" % len(scalar))
    if name == "only" and siblings.get("kind") == b'"Secret"':
        return b"0"
    return value


def rewritten(text: str) -> str:
    return rewrite(text.encode(), MARKS, rule).decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"go":1}', "{}"),
        ('{"go":1,"a":1}', '{"a":1}'),
        ('{"a":1,"go":1}', '{"a":1}'),
        ('{"a":1,"go":[{"go":2}],"b":2}', '{"a":1,"b":2}'),
        ('{"go":1,"go":{},"a":1,"go":[]}', '{"a":1}'),
        ('{"a":{},"go":1,"go":2}', '{"a":{}}'),
        ('[[{"go":1},2],{"go":1,"b":{"go":"x"}}]', '[[{},2],{"b":{}}]'),
        ('{ "go" : 1 , "a" : 1 }', '{ "a" : 1 }'),
        ('{"hide":"xyz","b":"go"}', '{"hide":<5>,"b":"go"}'),
        ('{"hide":[1,["a",true,null],{"a":"b"},{"go":1}]}', '{"hide":[<1>,[<3>,true,null],{"a":"b"},{}]}'),
        ('{"hide":{"a":"b","hide":"c"}}', '{"hide":{"a":"b","hide":<3>}}'),
        ('{"only":{"x":[1]},"kind":"Secret"}', '{"only":0,"kind":"Secret"}'),
        ('{"kind":"Secret","kind":"X","only":1}', '{"kind":"Secret","kind":"X","only":1}'),
        ('{"kind":{"x":"}"},"only":1}', '{"kind":{"x":"}"},"only":1}'),
        (r'{"\u0067o":1,"go":1,"\"}":"\\"}', r'{"\"}":"\\"}'),
        ("[]", "[]"),
        ("7", "7"),
    ],
)
def test_what_a_rule_says_is_done_and_the_rest_stays(text: str, expected: str) -> None:
    assert rewritten(text) == expected


def test_the_value_itself_is_a_member_too() -> None:
    assert rewrite(b'"x"', MARKS, rule, "hide") == b"<3>"
    assert rewrite(b'["x",[["y"]]]', MARKS, rule, "hide") == b"[<3>,[[<3>]]]"
    assert rewrite(b"true", MARKS, rule, "hide") == b"true"
    assert rewrite(b"[1]", MARKS, rule, "go") == b"null"


def test_what_holds_no_mark_is_the_same_object() -> None:
    value = b'{"a":[1,{"b":"x"}]}'

    assert rewrite(value, MARKS, rule) is value
    assert rewrite(b'{"a":"go"}', MARKS, rule) == b'{"a":"go"}'


def test_marks_may_mean_any_case() -> None:
    def drop(_: Siblings, name: str, value: Value) -> Value | None:
        return None if name == "GO" else value

    assert rewrite(b'{"a":{"GO":1}}', MARKS, drop) == b'{"a":{"GO":1}}'
    assert rewrite(b'{"a":{"GO":1}}', MARKS, drop, any_case=True) == b'{"a":{}}'


@pytest.mark.parametrize("text", ['{"go":1', '{"go"}', '{"go":,}', '{"a":1,,"go":2}', '{"go":"x}', "[{]go"])
def test_what_is_no_json_is_a_record_error(text: str) -> None:
    with pytest.raises(RecordError):
        rewritten(text)


def test_marks_that_lie_too_deep_are_a_recursion_error_and_other_depths_are_none() -> None:
    for levels in (MAX_DEPTH, MAX_DEPTH + 1, 5000):
        text = '{"a":' * levels + '{"go":1}' + "}" * levels
        if levels > MAX_DEPTH:
            with pytest.raises(RecursionError):
                rewritten(text)
        else:
            assert rewritten(text) == text.replace('"go":1', "")
    unmarked = "[" * 5000 + "]" * 5000
    assert rewritten(f'{{"go":1,"a":{unmarked}}}') == f'{{"a":{unmarked}}}'


# --- what it costs ---------------------------------------------------------------------------------------------------


def below(levels: int, inner: Any) -> Any:
    for _ in range(levels):
        inner = {"a": inner}
    return inner


def custom(spec: Any) -> bytes:
    tree = {"metadata": {"name": "a", "namespace": "b", "resourceVersion": "1"}, "spec": spec}
    return json.dumps(tree, separators=(",", ":")).encode()


LARGEST, SIZE = 1_400_000, 100_000
"""Of an object as etcd takes it by default, and of those that take longer."""
REMEMBERED_BYTES = 2_000_000
"""Some thousands of names, whatever comes."""
HOSTILE = {
    "a word below 195 levels": below(195, {"password": "x", "blob": "y" * LARGEST}),
    "many values below 195 levels": below(195, {"password": "x", "blob": [{"a": n} for n in range(SIZE // 10)]}),
    "a word at each of 195 levels": json.loads('{"token":' * 195 + f'"{"y" * SIZE}"' + "}" * 195),
    "an array below 190 arrays": {"token": json.loads("[" * 190 + f'"{"y" * SIZE}"' + "]" * 190)},
    "Secrets in Secrets": json.loads('{"kind":"Secret","data":' * 90 + f'{{"a":"{"y" * SIZE}"}}' + "}" * 90),
    "many members": {f"k{n}": n for n in range(SIZE // 15)} | {"password": "x"},
    "many words": {f"token{n}": n for n in range(SIZE // 19)},
    "many chains": [below(180, ["token"])] * (SIZE // 1100),
    "many containers": [[]] * (SIZE // 3) + ["token"],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_object_takes_no_more_than_a_few_times_its_bytes(name: str) -> None:
    """3 times; 5 where all of it is looked at in small parts or as one string, or much replaces little."""
    raw = custom(HOSTILE[name])
    tracemalloc.start()
    try:
        one = normalize(raw, WIDGETS, Redaction())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert b'"x"' not in one.body
    allowed = 3.1 * len(raw) if len(raw) > LARGEST else 5 * max(len(raw), len(one.body)) + REMEMBERED_BYTES
    assert peak < allowed, peak / len(raw)


@pytest.mark.parametrize("name", HOSTILE)
def test_the_bytes_that_are_looked_at_grow_with_the_size_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the depth: all bytes that the patterns take, counted; a string is taken whole wherever it stands."""
    taken = 0

    class Counted:
        def __init__(self, pattern: Any) -> None:
            self.pattern = pattern.pattern
            self._match = pattern.match

        def match(self, value: bytes, at: int) -> Any:
            nonlocal taken
            found = self._match(value, at)
            taken += found.end() - at if found else 0
            return found

    for pattern in ("_BRACKET", "_ELEMENT", "_MEMBER", "_COMMA"):
        monkeypatch.setattr(rewriting, pattern, Counted(getattr(rewriting, pattern)))
    raw = custom(HOSTILE[name])

    normalize(raw, WIDGETS, Redaction())

    assert taken < 4 * len(raw), taken / len(raw)
