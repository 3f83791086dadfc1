"""An object that a list names twice is noticed, in whatever order it comes, as far as keys can be remembered."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterinfo.kubernetes import listed_keys
from clusterinfo.kubernetes.listed_keys import ListedKeys


def added(*keys: str) -> tuple[list[bool], str]:
    listed = ListedKeys()
    return [listed.add(key) for key in keys], listed.defect


def truth(keys: list[str]) -> list[bool]:
    return [key not in keys[:at] for at, key in enumerate(keys)]


def numbered(count: int) -> list[str]:
    return [f"shop/cm-{number:05}" for number in range(count)]


@given(st.lists(st.text(st.sampled_from("ab-./1"), min_size=1, max_size=4), max_size=30))
def test_whatever_the_order_a_key_is_new_once(keys: list[str]) -> None:
    assert added(*keys) == (truth(keys), "")


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12), st.integers(0, 4))
def test_nothing_that_comes_twice_is_both_new_and_beyond_question(keys: list[str], kept: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listed_keys, "KEPT", kept)
        new, defect = added(*keys)
    assert defect or new == truth(keys)
    assert not any(was_new and not is_new for is_new, was_new in zip(new, truth(keys), strict=True)), "no false alarm"


def test_thousands_in_no_order_are_told_apart() -> None:
    keys = numbered(20_000)
    random.Random(1).shuffle(keys)
    assert added(*keys, keys[7], "shop/new", keys[19_000]) == ([True] * 20_000 + [False, True, False], "")


def test_the_order_is_that_of_keys_in_etcd(monkeypatch: pytest.MonkeyPatch) -> None:
    """`a-b/x` stands before `a/x`, since `-` comes before `/`: namespaces are not sorted by themselves."""
    monkeypatch.setattr(listed_keys, "KEPT", 1)
    assert added("a-b/x", "a/x", "a/x-1", "a/x1", "a1/x") == ([True] * 5, "")
    assert added("a/x", "a-b/x", "a/x-1")[1] != ""


def test_a_long_list_in_order_is_forgotten_and_needs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed_keys, "KEPT", 100)
    listed = ListedKeys()
    most = 0
    for key in numbered(1000):
        assert listed.add(key)
        most = max(most, sum(map(len, listed._parts)))
    assert (most, listed._parts, listed.defect) == (100, [], "")
    assert not listed.add("shop/cm-00999"), "in a row it is noticed all the same"


@pytest.mark.parametrize("breaks_at", [50, 150], ids=["before it is too long", "after"])
def test_a_long_list_in_no_order_may_not_complete(monkeypatch: pytest.MonkeyPatch, breaks_at: int) -> None:
    monkeypatch.setattr(listed_keys, "KEPT", 100)
    keys = numbered(200)
    keys.insert(breaks_at, "shop/a")
    new, defect = added(*keys)
    assert all(new)
    assert "more than 100 in no order; set NAMESPACES" in defect
    assert "\n" not in defect
