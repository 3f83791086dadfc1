"""`REDACT` and `REDACT_NOT`: rules of the user's own, as `resource.group:/json/pointer`. Pure.

The kind is a pattern as in INCLUDE (`clouds.shop.example.com`, `*.example.com`, `*`), the rest a JSON Pointer (RFC 6901),
in which `*` stands for any one name or position: `pods:/spec/containers/*/args/*`. It names a value with all below it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

Segments = tuple[str, ...]


class Path(NamedTuple):
    """One rule: a pattern of kinds, and the names on the way to the value."""

    kinds: str
    segments: Segments


def parse_path(text: str) -> Path:
    """`resource.group:/json/pointer` -> its parts. Raises ValueError with what is allowed."""
    kinds, colon, pointer = text.partition(":")
    if not kinds or not colon or not pointer.startswith("/") or pointer == "/":
        raise ValueError(
            f"allowed is resource.group:/json/pointer, such as clouds.example.com:/spec/pin; {text!r} is none"
        )
    return Path(kinds, tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/")))


def reaches_secrets(path: Path) -> bool:
    """True for an exception that would let values of Secrets leave the cluster."""
    names = ("data", "stringData")
    return path.kinds in ("secrets", "*", "secret*") and (path.segments[0] in (*names, "*"))


class Wanted(NamedTuple):
    """What is left of each path on the way down: for the value itself `()`."""

    redact: tuple[Segments, ...] = ()
    keep: tuple[Segments, ...] = ()

    def below(self, name: str) -> Wanted:
        """What is left one level down, at the member or position `name`."""
        return Wanted(_below(self.redact, name), _below(self.keep, name))

    @property
    def redacts(self) -> bool:
        """True at a value that REDACT names, or below it."""
        return () in self.redact

    @property
    def keeps(self) -> bool:
        """True at a value that REDACT_NOT names, or below it."""
        return () in self.keep


NONE = Wanted()


def _below(paths: Iterable[Segments], name: str) -> tuple[Segments, ...]:
    return tuple({path[1:] for path in paths if not path or path[0] in ("*", name)})
