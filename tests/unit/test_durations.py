"""Durations, written and read by people."""

from __future__ import annotations

from typing import Any

import pytest

from clusterinfo.durations import parse_duration, short_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("1.5h", 5400),
        ("1m30s", 90),
        ("1h 2m 3s", 3723),
        ("90d", 7776000),
        (3, 3.0),
    ],
)
def test_durations(text: Any, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["5", "m", "-1s", "5 minutes", "", "1e3s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="ms, s, m, h or d"):
        parse_duration(text)


def test_durations_are_short() -> None:
    seconds = (-1, 0, 70, 119.9, 120, 7199, 7200, 172_799, 200_000)
    assert [*map(short_duration, seconds)] == ["0s", "0s", "70s", "119s", "2m", "119m", "2h", "47h", "2d"]
