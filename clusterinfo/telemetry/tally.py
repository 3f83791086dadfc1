"""How far a run is, in words: what is listed, when the next run of lists is, what is stored and what waits.

Pure: told by observations, the clock is passed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from clusterinfo import observations as seen
from clusterinfo.durations import short_duration
from clusterinfo.model import partition_name
from clusterinfo.observations import Observation

RATE_OVER_S = 15.0
"""Seconds that a rate is taken over: several batches, and a change shows soon."""

Clock = Callable[[], float]
"""Seconds since any moment."""


class Tally:
    """What a command does: lists, if it discovers anything; else stores, once it has partitions."""

    def __init__(self, now: Clock) -> None:
        self._listing, self._storing = Listing(now), Storing(now)

    def note(self, observation: Observation) -> None:
        """Take account of it."""
        self._listing.note(observation)
        self._storing.note(observation)

    @property
    def bar(self) -> tuple[int, int] | None:
        """(done, all); None where no end is in sight."""
        return self._listing.bar if self._listing.cluster else self._storing.bar

    def words(self) -> str:
        """A line, as of now."""
        return (self._listing.words() if self._listing.cluster else self._storing.words()) or "connecting"


class Listing:
    """A run of lists, or the time until the next; what is followed meanwhile."""

    def __init__(self, now: Clock) -> None:
        self.cluster = ""
        self._now = now
        self._kinds = self._listed = self._objects = self._size_bytes = 0
        self._next_at_s: float | None = None
        self._followed = set[str]()
        self._changes = 0
        self._ran = False
        """Whether all was listed once: what is followed then matters more than what is listed."""

    def note(self, observation: Observation) -> None:
        match observation:
            case seen.Discovered(cluster=cluster, units=units):
                self.cluster, self._kinds, self._next_at_s = cluster, units, None
                self._listed = self._objects = self._size_bytes = 0
            case seen.PageListed(items=items, size_bytes=size_bytes):
                self._objects += items
                self._size_bytes += size_bytes
            case seen.ListEnded():
                self._listed += 1
            case seen.RunScheduled(cluster=cluster, wait_s=wait_s) | seen.RunFailed(cluster=cluster, wait_s=wait_s):
                self.cluster, self._next_at_s, self._ran = cluster, self._now() + wait_s, True
            case _:
                self._follow(observation)

    def _follow(self, observation: Observation) -> None:
        match observation:
            case seen.WatchOpened(resource=resource) | seen.WatchRecovered(resource=resource):
                self._followed.add(resource)
            case seen.WatchLost(resource=resource) | seen.WatchFailing(resource=resource):
                self._followed.discard(resource)
            case seen.EventsRead(events=events):
                self._changes += events

    @property
    def bar(self) -> tuple[int, int] | None:
        return None if self._next_at_s is not None or self._follows else (self._listed, self._kinds)

    @property
    def _follows(self) -> bool:
        return self._ran and bool(self._followed)

    def words(self) -> str:
        if self._follows:
            return f"{self.cluster}: {len(self._followed)} kinds followed, {self._changes:,} changes"
        if self._next_at_s is not None:
            return f"{self.cluster}: next run of lists in {short_duration(self._next_at_s - self._now())}"
        size = f"{self._objects:,} objects, {self._size_bytes / 1048576:.1f} MiB"
        return f"listing {self.cluster}: {self._listed}/{self._kinds} kinds, {size}"


class Storing:
    """A member of the consumer group: its partitions, how many of their records are not stored, how fast they are."""

    def __init__(self, now: Clock) -> None:
        self._now = now
        self._partitions: tuple[str, ...] | None = None
        self._lag: dict[str, int] = {}
        self._stored = 0
        """Records since nothing was left to store."""
        self._batches = deque[tuple[float, int]]()
        self._since_s = now()

    def note(self, observation: Observation) -> None:
        match observation:
            case seen.PartitionsAssigned(partitions=partitions):
                self._partitions = partitions
                self._lag = {name: lag for name, lag in self._lag.items() if name in partitions}
            case seen.Lagging(topic=topic, partition=partition, records=records):
                self._lag[partition_name(topic, partition)] = records
            case seen.BatchStored(lane=lane, records=records):
                if lane in self._lag:
                    self._lag[lane] = max(0, self._lag[lane] - records)
                self._batches.append((self._now(), records))
                self._stored = self._stored + records if self.lag else 0

    @property
    def lag(self) -> int:
        """Records of the partitions that are in Kafka and not stored."""
        return sum(self._lag.values())

    @property
    def bar(self) -> tuple[int, int] | None:
        return (self._stored, self._stored + self.lag) if self.lag else None

    def rate(self) -> float:
        """Records stored in a second."""
        since_s = max(self._since_s, self._now() - RATE_OVER_S)
        while self._batches and self._batches[0][0] < since_s:
            self._batches.popleft()
        return sum(records for _, records in self._batches) / max(1.0, self._now() - since_s)

    def words(self) -> str:
        if self._partitions is None:
            return ""
        if not self._partitions:
            return "no partition: other consumers have them all"
        rate, count = self.rate(), len(self._partitions)
        lag = f"lag {self.lag:,}" if self._lag else "lag unknown yet"
        said = [f"{count} partition" if count == 1 else f"{count} partitions", lag, f"{rate:,.0f}/s"]
        if self.lag and rate:
            said.append(f"{short_duration(self.lag / rate)} to the end")
        return ", ".join(said)
