"""Clocks that are ahead: what a collector dates long after the database's present is dated by the database's clock.

The newest statement of a kind counts, and what was observed before a kind was gone is not there: a date far ahead would
silence whatever comes until then. Dates that are a little ahead, and all that lie in the past, are taken as they are.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import msgspec

from clusterinfo.model import Batch, Record
from clusterinfo.observations import Observation, Warned

MOST_AHEAD = dt.timedelta(minutes=5)
"""Clocks that nobody keeps are off by seconds a day; one set wrong is off by hours or years."""


class Clocks:
    """The collectors' clocks, as far as they were seen to be ahead: each is told of once, until it is right again."""

    def __init__(self, observe: Callable[[Observation], None]) -> None:
        self._observe = observe
        self._ahead: set[str] = set()

    async def dated(self, connection: Any, batch: Batch) -> Batch:
        """`batch` with nothing in it observed more than five minutes after the database's present."""
        if not batch.records:
            return batch
        now: dt.datetime = await connection.fetchval("select clock_timestamp()")
        limit = now + MOST_AHEAD
        if max(record.observed_at for record in batch.records) <= limit:
            if self._ahead:
                self._ahead -= {record.cluster for record in batch.records}
            return batch
        for record in batch.records:
            if record.observed_at > limit and record.cluster not in self._ahead:
                self._ahead.add(record.cluster)
                self._observe(_told(record, now))
        return msgspec.structs.replace(batch, records=[_dated(record, limit, now) for record in batch.records])


def _dated(record: Record, limit: dt.datetime, now: dt.datetime) -> Record:
    return msgspec.structs.replace(record, observed_at=now) if record.observed_at > limit else record


def _told(record: Record, now: dt.datetime) -> Warned:
    ahead = dt.timedelta(seconds=round((record.observed_at - now).total_seconds()))
    return Warned(
        message=f"cluster {record.cluster_name!r}: its collector's clock is {ahead} ahead of the database's, whose "
        "time is taken instead",
        remedy="set the clock of the collector's host, or of the database's",
    )
