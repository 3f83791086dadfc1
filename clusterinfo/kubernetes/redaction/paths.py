"""`REDACT` and `REDACT_NOT`: rules of the user's own, as `resource.group:/json/pointer`. Pure.

The kind is a pattern as in INCLUDE (`clouds.shop.example.com`, `*.example.com`, `*`), the rest a JSON Pointer (RFC
6901), in which `*` stands for any one name or position: `pods:/spec/containers/*/args/*`. It
names a value with all below it.
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
    """`resource.group:/json/pointer`, as `settings.py` has checked it, -> its parts."""
    kinds, _, pointer = text.partition(":")
    return Path(kinds, tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/")))


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
