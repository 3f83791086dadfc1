"""What a history is made of, in values: what changes, what is listed, what is delivered."""

from __future__ import annotations

from dataclasses import dataclass

from tests.model.schedule import Crash
from tests.model.state import OPAQUE, STANDING, Kind

MOST_PARTITIONS = 3

KINDS = (
    Kind("", "configmaps"),
    Kind("apps", "deployments"),
    Kind("example.com", "widgets", OPAQUE),
    Kind("metrics.example.com", "readings", STANDING),
)
NAMESPACES, NAMES = ("n1", "n2"), ("a", "b", "c")


@dataclass(frozen=True)
class Job:
    """What one sink is to do: so many messages of a partition, after claiming it again if `claims`."""

    partition: int
    size: int
    claims: bool


@dataclass(frozen=True)
class Plan:
    """A delivery."""

    first: Job
    second: Job | None
    runs: tuple[int, ...]
    crash: Crash | None


@dataclass(frozen=True)
class Change:
    """Something that happens to one object."""

    kind: int
    namespace: str
    name: str
    what: str
    content: int | str
    watched: bool


@dataclass(frozen=True)
class Wish:
    """A list that is to be made, and what becomes of it."""

    cluster: int
    kind: int
    reach: str
    rules: int
    stubs: int
    slow: bool
    fate: str
    where: int
