"""The judge: JSON as the standard library reads it, numbers as they were written. Shares no code with the package."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

DEEP = 40_000
"""Recursion that the judge may need and the judged must not have."""


class Number(tuple[str]):
    """A number, as it was written: equal to no text, and to no number written otherwise."""

    __slots__ = ()

    @property
    def text(self) -> str:
        """What was written."""
        return self[0]


class NoJsonError(Exception):
    """It is no JSON."""


@contextmanager
def deep() -> Iterator[None]:
    """Room to parse and compare what is nested thousands deep."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(DEEP)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _refuse(token: str) -> Any:
    raise NoJsonError(token)


def _number(text: str) -> Number:
    return Number((text,))


_AS_WRITTEN = json.JSONDecoder(parse_int=_number, parse_float=_number, parse_constant=_refuse)
_LENIENT = json.JSONDecoder(parse_int=_number, parse_float=_number, parse_constant=_number, strict=False)
_BY_VALUE = json.JSONDecoder(parse_int=Decimal, parse_float=Decimal, parse_constant=_refuse)


def tree(data: bytes) -> Any:
    """JSON as RFC 8259 has it, of a key given twice the last; raises NoJsonError for anything else."""
    return _parsed(data, _AS_WRITTEN)


def lenient_tree(data: bytes) -> Any:
    """The same for what is nearly JSON: a byte order mark, NaN, raw control characters, bytes that are no UTF-8."""
    return _parsed(data.removeprefix(b"\xef\xbb\xbf").decode(errors="replace").encode(), _LENIENT)


def values(data: bytes) -> Any:
    """The same with numbers by their value, for what a database wrote again."""
    return _parsed(data, _BY_VALUE)


def _parsed(data: bytes, decoder: json.JSONDecoder) -> Any:
    try:
        with deep():
            return decoder.decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise NoJsonError(str(error)) from error


def is_json(data: bytes) -> bool:
    """True if the judge takes it."""
    try:
        tree(data)
    except NoJsonError:
        return False
    return True


def same(one: Any, other: Any) -> bool:
    """Equal trees."""
    with deep():
        return bool(one == other)


def is_closed(data: bytes) -> bool:
    """True if whatever `data` opens, strings and brackets, it closes: it cannot damage what stands around it."""
    opened: list[str] = []
    text = in_escape = False
    for character in data.decode("latin-1"):
        if text:
            text = in_escape or character != '"'
            in_escape = character == "\\" and not in_escape
        elif character == '"':
            text = True
        elif character in "{[":
            opened.append("}" if character == "{" else "]")
        elif (character in "}]" and (not opened or opened.pop() != character)) or (character == "," and not opened):
            return False
    return not text and not opened


def has_half_a_pair(text: str) -> bool:
    """True if `text` is no Unicode text."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)
