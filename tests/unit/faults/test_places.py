"""Failpoints hang on functions of the product by name: a name that is gone is noticed here, not in an hour of kills."""

from __future__ import annotations

import inspect

import pytest

from tests.faults.failpoints import POINTS, Armed, Failpoints, parse, text_of
from tests.faults.program import Places


def test_every_function_that_a_failpoint_hangs_on_is_there() -> None:
    taken = Places(Failpoints("", "")).taken()
    assert [name for owner, name in taken if not hasattr(owner, name)] == []


def test_every_point_is_passed_somewhere() -> None:
    """Each is named where one of those functions is replaced."""
    source = inspect.getsource(Places)
    assert [point for point in POINTS if f'"{point}"' not in source] == []


def test_what_is_armed_is_read_as_it_was_written() -> None:
    armed = {"after_merge": Armed(0.05, "kill"), "mid_claim": Armed(1.0, "stop")}
    assert parse(text_of(armed)) == armed
    assert parse("") == {}


@pytest.mark.parametrize("text", ["after_merg:1:kill", "after_merge:1:bite"])
def test_a_point_or_an_action_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="allowed are after_fetch"):
        parse(text)
