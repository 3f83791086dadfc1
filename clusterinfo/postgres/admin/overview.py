"""The state of the database: clusters, how far each kind can be trusted, stored offsets, dead letters."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from clusterinfo.postgres.connection import Connection
from clusterinfo.postgres.errors import FOREIGN, translate
from clusterinfo.postgres.sql import local_search_path, statements


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """A cluster and its last run of lists that ended (None: none did)."""

    cluster: str
    uid: str
    server_version: str | None
    last_seen: dt.datetime
    last_run_at: dt.datetime | None
    last_run_s: float | None
    last_run_objects: int | None
    knows_all_kinds: bool | None
    """False: the discovery of a group failed, so that kinds may be missing."""
    interval_s: float | None
    """From one run of its collector to the next, as that says; None: it does not."""
    objects_last_hour: int


@dataclass(frozen=True, slots=True)
class KindRow:
    """A kind within one reach, as the view `freshness` shows it."""

    cluster: str
    api_group: str
    resource: str
    reach: str
    state: str
    objects: int | None
    verified_at: dt.datetime | None
    age_s: float | None
    last_error: str | None
    following: bool = False
    followed_s: float | None = None
    """How long ago it was last known to be followed; None: not within a day."""

    @property
    def old_s(self) -> float | None:
        """How long ago its rows were last known to be right, by a list or a watch; None: they never were."""
        return min((s for s in (self.age_s, self.followed_s) if s is not None), default=None)


@dataclass(frozen=True, slots=True)
class OffsetRow:
    """Up to where a partition is stored."""

    kafka_cluster: str
    topic: str
    partition: int
    group_id: str
    next_offset: int
    moved_at: dt.datetime | None = None
    """When something of it was last stored."""
    observed_at: dt.datetime | None = None
    """When what was last stored of it had been observed."""
    rate: float | None = None
    """Messages stored a second while it was last stored."""


@dataclass(frozen=True, slots=True)
class Overview:
    """All of it, as of one moment."""

    clusters: list[ClusterRow]
    kinds: list[KindRow]
    offsets: list[OffsetRow]
    dead_letters: int
    now: dt.datetime
    """The database's present."""


async def read_overview(connection: Connection, schema: str) -> Overview:
    """Read everything in one transaction that sees one moment. Raises as `translate` does."""
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.execute(f"{local_search_path(schema)}; set local statement_timeout = '30s'")
            return Overview(
                clusters=[ClusterRow(*row) for row in await connection.fetch(statements()["overview_clusters"])],
                kinds=[KindRow(*row) for row in await connection.fetch(statements()["overview_kinds"])],
                offsets=[OffsetRow(*row) for row in await connection.fetch(statements()["overview_offsets"])],
                dead_letters=await connection.fetchval(statements()["overview_dead_letters"]),
                now=await connection.fetchval("select now()"),
            )
    except FOREIGN as error:
        raise translate(error, "reading the state of the database") from error
