"""Deletion by absence: rows go into history because a proven list, or a whole discovery, no longer names them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.sql import statements


@dataclass(frozen=True, slots=True)
class Absence:
    """What is no longer named: rows of a unit below (epoch, live_at) in a reach, or not observed since a moment."""

    unit_id: int
    reach: str = ""
    epoch: int = 0
    live_at: int = -1
    unseen_since: dt.datetime | None = None


async def bury(connection: Connection, absences: Sequence[Absence], proven: Sequence[str]) -> list[int]:
    """Move these rows into history; return how many objects each absence took away.

    `proven`: the lists that this batch proves, which show since when an object was gone.
    """
    rows = await connection.fetch(
        statements()["bury"],
        [absence.unit_id for absence in absences],
        [absence.reach for absence in absences],
        [absence.epoch for absence in absences],
        [absence.live_at for absence in absences],
        [absence.unseen_since for absence in absences],
        proven,
    )
    deleted = {row["place"]: row["deleted"] for row in rows}
    return [deleted.get(place, 0) for place in range(1, len(absences) + 1)]
