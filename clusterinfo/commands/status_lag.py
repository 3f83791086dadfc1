"""What waits in Kafka, by partition and all together, and how long it takes until it is stored. Pure: no I/O."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from clusterinfo.durations import short_duration
from clusterinfo.model import partition_name

STALLED_S = 60.0
"""A batch takes a second or two; a statement is ended after a minute."""
MOVING_S = 30.0
"""A partition of which something was stored so long ago is being stored."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of a topic: up to where it is stored, where it ends (None: Kafka was not asked).

    `moved_at`: when something of it was last stored; `waiting_since`: when the first message that waits was sent, or
    what was stored before it observed; `rate`: messages of it stored a second. None: not known.
    """

    topic: str
    partition: int
    stored: int
    end: int | None
    moved_at: dt.datetime | None = None
    waiting_since: dt.datetime | None = None
    rate: float | None = None

    def __str__(self) -> str:
        return partition_name(self.topic, self.partition)

    @property
    def lag(self) -> int | None:
        return None if self.end is None else max(0, self.end - self.stored)


@dataclass(frozen=True, slots=True)
class Lag:
    """What waits in Kafka: messages, and how many are stored a second (None: nothing of it is being stored, or it has
    begun just now), in how many seconds all of it is at that rate, how many the oldest has waited, and for how many
    nothing of it was stored (None: none of it ever).
    """

    messages: int
    rate: float | None = None
    catch_up_s: float | None = None
    behind_s: float | None = None
    idle_s: float | None = None

    @classmethod
    def of(cls, partitions: list[Partition], now: dt.datetime) -> Lag:
        """Of all partitions together."""
        late = [row for row in partitions if row.lag]
        messages = sum(row.lag or 0 for row in late)
        moved = [age_s(row.moved_at, now) for row in late if row.moved_at]
        waits = [age_s(row.waiting_since, now) for row in late if row.waiting_since]
        moving = [row for row in late if row.moved_at and age_s(row.moved_at, now) <= MOVING_S]
        rate = sum(row.rate or 0.0 for row in moving)
        return cls(
            messages,
            rate or None,
            messages / rate if rate else None,
            max(waits) if waits else None,
            min(moved) if moved else None,
        )

    def __str__(self) -> str:
        """`37,728 messages waiting, 900/s stored, caught up in 42s, 70s behind`."""
        if not self.messages:
            return "none"
        parts = [waiting(self.messages)]
        if self.rate:
            parts += [f"{self.rate:,.0f}/s stored", f"caught up in {short_duration(self.catch_up_s or 0)}"]
        elif idle := idle_for(self):
            parts.append(idle)
        if self.behind_s is not None:
            parts.append(f"{short_duration(self.behind_s)} behind")
        return ", ".join(parts)


def waiting(messages: int) -> str:
    """`37,728 messages waiting`."""
    return f"{messages:,} message{'' if messages == 1 else 's'} waiting"


def idle_for(lag: Lag) -> str:
    """`nothing stored for 70s`; "" if something is being stored."""
    if lag.idle_s is None:
        return "nothing of it was ever stored"
    return f"nothing stored for {short_duration(lag.idle_s)}" if lag.idle_s > MOVING_S else ""


def is_stalled(row: Partition, now: dt.datetime) -> bool:
    """Its messages have waited for a minute, and nothing of it was stored for as long."""
    waits = row.waiting_since is not None and age_s(row.waiting_since, now) >= STALLED_S
    return waits and (row.moved_at is None or age_s(row.moved_at, now) >= STALLED_S)


def age_s(then: dt.datetime, now: dt.datetime) -> float:
    """Seconds from then to now; 0 if a clock is ahead."""
    return max(0.0, (now - then).total_seconds())
