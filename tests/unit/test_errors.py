"""What messages must not quote, and which of several errors is shown."""

from __future__ import annotations

import pytest

from clusterinfo.errors import FatalError, LostError, first_of, without_userinfo


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET https://admin:hunter2@proxy:3128/x failed", "GET https://***@proxy:3128/x failed"),
        ("http://token@host", "http://***@host"),
        ("http://me:hunter2@x@host/a", "http://***@host/a"),
        ("https://host/a@b and me@example.com", "https://host/a@b and me@example.com"),
    ],
)
def test_userinfo_is_never_quoted(text: str, shown: str) -> None:
    assert without_userinfo(text, "***@") == shown


def test_an_error_of_ours_is_shown_before_a_bug_and_either_before_what_is_passed_over() -> None:
    ours, bug, lost = FatalError("ours"), ValueError("bug"), LostError("lost")
    assert first_of(BaseExceptionGroup("", [bug, BaseExceptionGroup("", [ours])])) is ours
    assert first_of(BaseExceptionGroup("", [lost, bug]), passed_over=LostError) is bug
    assert first_of(BaseExceptionGroup("", [lost]), passed_over=LostError) is lost
