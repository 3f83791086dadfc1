"""By what the lists of a kind are ordered: by their versions, or by the clock, that is by when they began.

Pure: no I/O, no clock, no environment. A list's resourceVersion orders what it shows as long as it is etcd's revision:
an integer that grows with every change. Of an aggregated API nobody knows what it is; one that is no integer up to 2^62
orders nothing; and two lists of one version that differ show that it stalls while objects change. A kind that was
once ordered by the clock stays so: versions that failed once prove nothing afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from clusterinfo.model import CLOCK, ListLane, Unit, version_number
from clusterinfo.statements import ListCompleted


@dataclass(frozen=True, slots=True)
class _Last:
    """The newest completed list of a lane."""

    version: int
    completed: ListCompleted


class ListMemory:
    """What a process remembers of its lists: by what each kind is ordered, and at which version each was last whole."""

    def __init__(self) -> None:
        self._by_clock: set[Unit] = set()
        self._last: dict[ListLane, _Last] = {}

    def ordering(self, unit: Unit) -> str:
        """As its records say it: `CLOCK`, or "" by version."""
        return CLOCK if unit in self._by_clock else ""

    def newest(self, lane: ListLane) -> int:
        """The version at which this list was last seen whole: one that goes backwards fails. 0: never, or no matter."""
        last = self._last.get(lane)
        return last.version if last and lane.unit not in self._by_clock else 0

    def order_by_clock(self, units: Iterable[Unit]) -> None:
        """From their next list on, and for good."""
        self._by_clock.update(units)

    def remember(self, lane: ListLane, version: str, ordering: str, completed: ListCompleted | None) -> str:
        """A list has ended, with that statement if it was completed.

        Returns why its kind is ordered by the clock from its next list on, if this list shows that it has to be; else
        "". The statement of this list has been sent by then, under the wrong ordering.
        """
        if ordering == CLOCK:
            self._by_clock.add(lane.unit)
        number = version_number(version)
        if ordering == CLOCK or completed is None or number is None:
            return ""
        last = self._last.get(lane)
        if last and last.version == number and last.completed != completed:
            self._by_clock.add(lane.unit)
            return f"two of its lists are of resourceVersion {number} and differ"
        if last is None or number >= last.version:
            self._last[lane] = _Last(number, completed)
        return ""
