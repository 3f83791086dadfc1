"""What messages must not quote, and which of several errors is shown."""

from __future__ import annotations

import pytest

from clusterinfo.errors import FatalError, LostError, first_of, one_line, without_userinfo


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET https://admin:hunter2@proxy:3128/x failed", "GET https://***@proxy:3128/x failed"),
        ("http://t0ken@host", "http://***@host"),
        ("http://jane@host", "http://jane@host"),
        ("http://me:hunter2@x@host/a", "http://***@host/a"),
        ("postgres://app:p/ss#word@db:5432/x", "postgres://***@db:5432/x"),
        ("postgres://app:p?ss@db/x", "postgres://***@db/x"),
        ("postgres://app:p//ss@db/x", "postgres://***@db/x"),
        (r"postgres://app:p\ness@db/x", "postgres://***@db/x"),
        (r'said "{\"url\":\"db:\/\/u:p\/w@h\/x\"}"', r'said "{\"url\":\"db:\/\/***@h\/x\"}"'),
        ("//me:hunter2@proxy:3128", "//***@proxy:3128"),
        ("http://me:hunter2@h, http://me:hun/ter2@h", "http://***@h, http://***@h"),
        ('"http://me:hunter2@h","me@example.com"', '"http://***@h","me@example.com"'),
        ("https://host/a@b and me@example.com", "https://host/a@b and me@example.com"),
        ("https://host:8443/a@b", "https://host:8443/a@b"),
        ("http://a.example.com,admin@example.com", "http://a.example.com,admin@example.com"),
        ("https://host/x failed\nme@example.com", "https://host/x failed\nme@example.com"),
        ("ssh://git@github.com/a", "ssh://git@github.com/a"),
    ],
)
def test_userinfo_is_never_quoted(text: str, shown: str) -> None:
    assert without_userinfo(text, "***@") == shown


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (OSError(" no\n\tway "), "no way"),
        ("no\r\nway", "no way"),
        (TimeoutError(), "TimeoutError"),
        (ValueError(" \n"), "ValueError"),
        ("", ""),
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 9092)"), "connection refused"),
        (OSError("cannot reach https://me:hunter2@proxy:3128"), "cannot reach https://proxy:3128"),
        ("x" * 300, "x" * 300),
        ("x" * 301, "x" * 297 + "..."),
        ("x" * 280 + " https://me:hunter2hunter2hunter2@host", "x" * 280 + " https://host"),
    ],
)
def test_an_error_is_one_line(given: BaseException | str, line: str) -> None:
    assert one_line(given) == line


def test_an_error_of_ours_is_shown_before_a_bug_and_either_before_what_is_passed_over() -> None:
    ours, bug, lost = FatalError("ours"), ValueError("bug"), LostError("lost")
    assert first_of(BaseExceptionGroup("", [bug, BaseExceptionGroup("", [ours])])) is ours
    assert first_of(BaseExceptionGroup("", [lost, bug]), passed_over=LostError) is bug
    assert first_of(BaseExceptionGroup("", [lost]), passed_over=LostError) is lost
