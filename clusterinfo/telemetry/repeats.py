"""What a collector that follows says again and again: each run discovers, lists what cannot be followed, and ends.

A line for each would be all there is in the log of a week. So what is as it was the time before is marked as no news.
Pure: told by observations.
"""

from __future__ import annotations

from typing import Any

import msgspec

from clusterinfo import observations as seen
from clusterinfo.observations import Observation, Observe


class Repeats:
    """An `Observe` that marks what it was told before, and hands everything on."""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._last: dict[tuple[str, ...], Any] = {(seen.WatchesCounted.__name__,): (0, 0)}

    def __call__(self, observation: Observation) -> None:
        if isinstance(observation, seen.Repeatable):
            about, said = _said(observation)
            if self._last.get(about) == said:
                observation = msgspec.structs.replace(observation, is_news=False)
            self._last[about] = said
        self._observe(observation)


def _said(observation: seen.Repeatable) -> tuple[tuple[str, ...], Any]:
    """What an observation is about, and what of it is news if it differs."""
    about: tuple[str, ...] = (type(observation).__name__,)
    said: Any = ()
    match observation:
        case seen.Discovered(units=units, excluded=excluded, failing=failing):
            said = units, excluded, failing
        case seen.ListEnded(resource=resource, reach=reach, outcome=outcome, error=error):
            about, said = (*about, resource, reach), (outcome, error)
        case seen.Produced(resource=resource, partition=partition):
            about = *about, resource, str(partition)
        case seen.SnapshotEnded(kinds=kinds, failed=failed, forbidden=forbidden):
            said = kinds, failed, forbidden
        case seen.WatchesCounted(followed=followed, failing=failing_watches):
            said = followed, failing_watches
        case seen.BatchStored(lane=lane, dead_letters=letters):  # without Kafka
            about, said = (*about, lane), letters
    return about, said
