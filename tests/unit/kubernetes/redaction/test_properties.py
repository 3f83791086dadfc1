"""For all JSON: what the search passes over no rule changes; a patch is what a walk makes; a walk changes no form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterinfo.kubernetes.redaction import search
from clusterinfo.kubernetes.redaction.needles import NOT_IN
from clusterinfo.kubernetes.redaction.patch import rewrite, rewritten
from clusterinfo.kubernetes.redaction.search import may_concern, may_concern_values
from clusterinfo.kubernetes.redaction.walk import Rules, walk

NAMES = st.sampled_from(
    [
        "name",
        "key",
        "value",
        "values",
        "default",
        "password",
        "DB_PASSWORD",
        "token",
        "secret",
        "secrets",
        "kind",
        "data",
        "stringData",
        "items",
        "env",
        "args",
        "httpTokens",
        "pin",
        "pat",
        "PAT",
        "authorization",
        "credentials",
        "tokens",
        "annotations",
        "managedFields",
        "x",
        "valueFrom",
        "secretKeyRef",
        "last-applied",
        "example.com/token",
        "checksum/secret",
        "openAPIV3Schema",
        "apiKey",
        "API_KEY",
        "REDIS_AUTH",
        "KUBE_CONFIG",
        "to_ken",
        "passwordRef",
        "path",
        "b{c",
        'a"b',
        "a\\b",
        "é",
        "2token",
    ]
)
TEXTS = st.sampled_from(
    (
        *[
            "password",
            "DB_PASSWORD",
            "token",
            "x",
            "hunter2",
            "Secret",
            "SecretList",
            "--password",
            "--token=abc1",
            "-x",
            "4096",
            "true",
            "$(X)",
        ],
        *("postgres://u:p@h/x", "postgres://u:p{w@h", "a@b", "https://h", "password=abc1", "x password: abc1 y"),
        *("kind: Secret\ndata:\n  a: b\n", '{"password":"abc1"}', '{"name":"DB_PASSWORD","value":"abc1"}', "a}b", "{"),
        *("Bearer abc12345", "ghp_0123456789abcdef01", "AKIA0123456789ABCDEF", "\npw: abc1", "&pw=abc1", "a,b", "]"),
        *('{"kind":"Secret","data":{"a":"b"}}', "/var/run/secrets/x", 'x "token" y', "--pw abc1", "sig=abcdefgh1"),
        *("identified by 'abc1'", "key: pw, value: abc1", "name=token value=abc1", "value: abc1\n  name: DB_PW"),
        *(
            "a: |\n  pw: abc1",
            "tokens: [abc1]",
            "KUBE_CONFIG=abc1",
            "Error: password: abc1",
            "KUBE_CONFIG",
            "to_ken=abc1",
        ),
        *("password 'abc1'", "?a=1&sig=abcdefgh1", "<b>", "- name: DB_PW\n  value: abc1", "\\", "api_key: abc1"),
    )
)
SCALARS = TEXTS | st.integers(0, 99_999) | st.booleans() | st.none()
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=14,
)
RULES = Rules(conceal=lambda value, field: "[hidden]")


def written(tree: Any, *, spaced: bool, escaped: bool) -> bytes:
    """As API servers write it, who escape `<`, `>` and `&`."""
    text = json.dumps(tree, ensure_ascii=False, separators=(", ", ": ") if spaced else (",", ":"))
    return (text.replace("&", r"\u0026").replace("<", r"\u003c") if escaped else text).encode()


FORMS = st.fixed_dictionaries({"spaced": st.booleans(), "escaped": st.booleans()})


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    search._harmless.clear()


@settings(max_examples=600, deadline=None)
@given(TREES, NAMES, FORMS)
def test_what_is_passed_over_stays(tree: Any, name: str, form: dict[str, bool]) -> None:
    data = written(tree, **form)
    whole = b'{"a":1,%s:%s}' % (json.dumps(name, ensure_ascii=False).encode(), data)
    for _ in range(2):  # once with nothing known, once with all
        if not may_concern(whole):
            assert walk(data, name, RULES) == data


@settings(max_examples=200, deadline=None)
@given(TREES, FORMS)
def test_what_is_passed_over_where_names_say_nothing_stays(tree: Any, form: dict[str, bool]) -> None:
    data = written(tree, **form)
    if not may_concern_values(data):
        assert walk(data, "data", Rules(RULES.conceal, judges=False, reads=False)) == data


@pytest.mark.parametrize("filler", ["x" * 2000, "x"], ids=["a long piece", "short pieces"])
def test_what_cannot_be_remembered_is_searched_each_time(filler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_MAX_KNOWN", 0)
    data = written(
        {"a": [{"password": "hunter2"}, {"filler": filler, "token": "hunter2"}]}, spaced=False, escaped=False
    )

    for _ in range(3):
        assert b"hunter2" not in rewrite(data, "spec", RULES, rewritten)


UNCOUNTED = {word: text.decode() for word, text in NOT_IN.items()}
PIECES = st.lists(
    st.sampled_from([*search._HINTS, *UNCOUNTED.values(), "PATH", "0", "f", "e", "A", "x", '"', " "]), max_size=6
)


@given(PIECES, st.sampled_from(search._HINTS))
def test_a_hint_is_found_wherever_it_stands(pieces: list[str], hint: str) -> None:
    text = "".join(pieces)
    hints = {word: text.lower().count(word) for word in search._HINTS}
    for word, around in UNCOUNTED.items():
        hints[word] -= text.lower().count(around)

    assert search._HINT.are_in(text.lower().encode()) == any(hints.values())
    assert search._HINT.are_in((text + hint.upper() + "0").lower().encode())


@settings(max_examples=600, deadline=None)
@given(TREES, NAMES, FORMS)
def test_a_patch_is_what_a_walk_makes(tree: Any, name: str, form: dict[str, bool]) -> None:
    data = written(tree, **form)
    for _ in range(2):
        assert rewrite(data, name, RULES, rewritten) == walk(data, name, RULES)


@pytest.mark.parametrize("value", ["hunter2{", "{hunter2", "hunt{er2", '"{hunter2"', "{hunter2{"])
def test_a_brace_does_not_part_a_value_from_the_name_behind_it(value: str) -> None:
    data = written({"env": [{"value": value, "name": "DB_PASSWORD"}, {"x": 1}]}, spaced=False, escaped=False)

    assert rewrite(data, "spec", RULES, rewritten) == walk(data, "spec", RULES) != data


def test_no_object_parts_a_value_from_the_name_behind_it() -> None:
    data = written([{"value": "hunter2", "type": {"name": "token"}, "name": "api_key"}], spaced=False, escaped=False)

    assert rewrite(data, "spec", RULES, rewritten) == walk(data, "spec", RULES) != data


@settings(max_examples=200, deadline=None)
@given(TREES, FORMS)
def test_a_walk_changes_no_form(tree: Any, form: dict[str, bool]) -> None:
    found = json.loads(walk(written(tree, **form), "x", RULES))
    assert_same_form(tree, found)


def assert_same_form(before: Any, after: Any) -> None:
    """The same tree but for removed members, and for texts in place of scalars (or of a Secret's values)."""
    if isinstance(before, dict) and isinstance(after, dict):
        assert after.keys() <= before.keys()
        removed = before.keys() - after.keys()
        assert all(key in ("managedFields", "last-applied") for key in removed)
        for key, value in after.items():
            assert_same_form(before[key], value)
    elif isinstance(before, list) and isinstance(after, list):
        assert len(before) == len(after)
        for one, other in zip(before, after, strict=True):
            assert_same_form(one, other)
    elif isinstance(after, str) and "[hidden]" in after:
        assert before is not None
    else:
        assert (before, type(before)) == (after, type(after)) or isinstance(before, str)
