"""What flags and the environment together ask for."""

from __future__ import annotations

import os

import pytest

from clusterinfo.cli import _paced
from clusterinfo.errors import ConfigError
from clusterinfo.model import Pace


@pytest.mark.parametrize(
    ("flags", "variable", "how", "interval_s"),
    [
        ((False, None, False), None, Pace.FOLLOW, 300),
        ((False, None, False), "", Pace.FOLLOW, 300),
        ((False, None, True), None, Pace.FOLLOW, 300),
        ((False, None, False), "5m", Pace.LISTS, 300),
        ((False, None, True), "30s", Pace.FOLLOW, 30),
        ((False, "7s", False), None, Pace.LISTS, 7),
        ((False, "7s", False), "30s", Pace.LISTS, 7),
        ((True, None, False), None, Pace.ONCE, 300),
        ((True, None, False), "15m", Pace.ONCE, 900),
    ],
)
def test_a_cluster_is_followed_unless_something_says_otherwise(
    flags: tuple[bool, str | None, bool],
    variable: str | None,
    how: Pace,
    interval_s: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", {} if variable is None else {"COLLECT_INTERVAL": variable})
    settings, pace = _paced(*flags)
    assert (pace, settings.collect_interval) == (how, interval_s)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((True, "5m", False), "--once and --interval contradict each other: give one of them"),
        ((True, None, True), "--once and --watch contradict each other: give one of them"),
        (
            (False, "5m", True),
            "--interval and --watch contradict each other: give one of them "
            "(with --watch, COLLECT_INTERVAL is how often what cannot be followed is listed)",
        ),
        ((True, "5m", True), "--once and --interval and --watch contradict each other: give one of them"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(flags: tuple[bool, str | None, bool], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        _paced(*flags)
    assert str(refused.value) == says
