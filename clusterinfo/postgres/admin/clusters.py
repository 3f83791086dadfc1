"""The clusters that are stored, for the person who lists, moves or renames them. Forgetting one: `forget.py`.

What a batch was admitted by must not change under it: whoever gives a cluster another owner waits until no batch is
under way, as forgetting does (`lock_forgotten`), and so the next batch of each topic is admitted by the new one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from clusterinfo.errors import ConfigError, TransientError
from clusterinfo.postgres.connection import Connection, Row
from clusterinfo.postgres.errors import FOREIGN, translate
from clusterinfo.postgres.merge.admission import lock_forgotten
from clusterinfo.postgres.sql import local_search_path, statements
from clusterinfo.spelling import did_you_mean
from clusterinfo.waiting import retried_within

T = TypeVar("T")

ALONE_WITHIN_S = 100.0
"""For a change beside which no batch may be under way: five times what it waits for a lock."""

PAUSE_S = 1.0
MOST_NAMED = 20
"""Clusters or kinds that an error names."""


@dataclass(frozen=True, slots=True)
class StoredCluster:
    """A cluster: as views show it, its identity, what its collector calls it, the topic it belongs to ("": none)."""

    cluster: str
    uid: str
    name: str
    topic: str
    server_version: str | None
    epoch: int
    first_seen: dt.datetime
    last_seen: dt.datetime
    contested_at: dt.datetime | None
    objects: int


@dataclass(frozen=True, slots=True)
class Moved:
    """A cluster that got another owner: who had it before, and how many dead letters of the new one wait."""

    cluster: str
    before: str
    waiting: int


async def stored_clusters(connection: Connection, schema: str) -> list[StoredCluster]:
    """All of them, by what views show them as. Raises as `translate` does."""
    try:
        async with connection.transaction(readonly=True):
            await begin(connection, schema)
            return [StoredCluster(*row) for row in await connection.fetch(statements()["show_clusters"])]
    except FOREIGN as error:
        raise translate(error, "reading the clusters") from error


async def move(connection: Connection, schema: str, name: str, topic: str) -> Moved:
    """Give a cluster (its label, name or uid) to a topic, "" for none. Raises ConfigError if there is none."""

    async def work() -> Moved:
        cluster = await find_cluster(connection, "NAME", name)
        await connection.execute(statements()["move_cluster"], cluster["id"], topic)
        waiting = await connection.fetchval(statements()["count_letters_of_topic"], topic) if topic else 0
        return Moved(cluster["label"], cluster["topic"], waiting)

    return await alone(connection, schema, f"moving {name}", work)


async def rename(connection: Connection, schema: str, name: str, label: str) -> str:
    """Show a cluster (its label, name or uid) as `label` until its collector gives it another name; return the old one.

    Raises ConfigError if there is no such cluster, or another one is shown so.
    """

    async def work() -> str:
        cluster = await find_cluster(connection, "NAME", name)
        owner = await connection.fetchval(statements()["find_label"], label)
        if owner not in (None, cluster["uid"]):
            raise ConfigError(f"NEW is {label!r}, which is how the cluster with uid {owner} is shown: give another one")
        await connection.execute(statements()["relabel_cluster"], cluster["id"], label)
        return str(cluster["label"])

    return await alone(connection, schema, f"renaming {name}", work)


async def find_cluster(connection: Connection, given_as: str, name: str) -> Row:
    """The one cluster of that label, uid or name. Raises ConfigError for none or several, naming `given_as`."""
    rows = await connection.fetch(statements()["find_clusters_called"], name)
    exact = [row for row in rows if row["exact"]] or rows
    if len(exact) == 1:
        return exact[0]
    if exact:
        choice = ", ".join(f"{row['label']} ({row['uid']})" for row in exact)
        raise ConfigError(f"{given_as} is {name!r}, which is the name of several: {choice}; give the uid of one")
    labels = [row["label"] for row in await connection.fetch(statements()["list_clusters"])]
    found = did_you_mean(name, labels) or f"stored are: {named(labels)}"
    raise ConfigError(f"{given_as} is {name!r}, but there is no such cluster; {found}")


def named(names: list[str]) -> str:
    """Some of them, for an error."""
    if not names:
        return "none"
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


async def begin(connection: Connection, schema: str) -> None:
    """What every transaction of a person begins with."""
    await connection.execute(
        f"{local_search_path(schema)}; set local lock_timeout = '20s'; "
        "set local statement_timeout = '60s'; set local idle_in_transaction_session_timeout = '60s'"
    )


async def alone(connection: Connection, schema: str, doing: str, work: Callable[[], Awaitable[T]]) -> T:
    """Do it in one transaction while no batch is under way; again, for a while, where a lock is not to be had.

    Raises as `translate` does.
    """

    async def attempt() -> T:
        try:
            async with connection.transaction():
                await begin(connection, schema)
                await lock_forgotten(connection)
                return await work()
        except FOREIGN as error:
            raise translate(error, doing) from error

    try:
        return await retried_within(ALONE_WITHIN_S, attempt, pause_s=PAUSE_S)
    except TimeoutError as error:
        raise error.__cause__ or TransientError(f"{doing}: {error}") from error
