"""What a rule may be given, stated once for both that draw it: hypothesis, which shrinks, and a plain generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from hypothesis import strategies as st


class Draw(Protocol):
    """A set of values to draw from."""

    def of(self, random: Random) -> Any:
        """One of them."""

    def strategy(self) -> st.SearchStrategy[Any]:
        """The same for hypothesis."""


@dataclass(frozen=True)
class Among:
    """One of these; what stands there twice is drawn twice as often."""

    values: Sequence[Any]

    def of(self, random: Random) -> Any:
        return random.choice(self.values)

    def strategy(self) -> st.SearchStrategy[Any]:
        return st.sampled_from(self.values)


@dataclass(frozen=True)
class Whole:
    """A whole number, ends included."""

    least: int
    most: int

    def of(self, random: Random) -> Any:
        return random.randint(self.least, self.most)

    def strategy(self) -> st.SearchStrategy[Any]:
        return st.integers(self.least, self.most)


@dataclass(frozen=True)
class Many:
    """So many of another draw."""

    each: Draw
    least: int
    most: int

    def of(self, random: Random) -> Any:
        return tuple(self.each.of(random) for _ in range(random.randint(self.least, self.most)))

    def strategy(self) -> st.SearchStrategy[Any]:
        return st.lists(self.each.strategy(), min_size=self.least, max_size=self.most).map(tuple)


@dataclass(frozen=True)
class Maybe:
    """Another draw, or None."""

    each: Draw
    chance: float = 0.5

    def of(self, random: Random) -> Any:
        return self.each.of(random) if random.random() < self.chance else None

    def strategy(self) -> st.SearchStrategy[Any]:
        return st.none() | self.each.strategy()


@dataclass(frozen=True)
class Made:
    """An object made of draws."""

    kind: type
    fields: Mapping[str, Draw]

    def of(self, random: Random) -> Any:
        return self.kind(**drawn(self.fields, random))

    def strategy(self) -> st.SearchStrategy[Any]:
        return st.builds(self.kind, **strategies(self.fields))


def drawn(fields: Mapping[str, Draw], random: Random) -> dict[str, Any]:
    """A value for each name."""
    return {name: draw.of(random) for name, draw in fields.items()}


def strategies(fields: Mapping[str, Draw]) -> dict[str, st.SearchStrategy[Any]]:
    """A strategy for each name."""
    return {name: draw.strategy() for name, draw in fields.items()}
