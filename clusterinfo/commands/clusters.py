"""`clusterinfo clusters`: which clusters are stored, which topic each belongs to, what each is called."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence

from clusterinfo.commands.output import Column, Output, Result, Table, ago, show
from clusterinfo.errors import ConfigError
from clusterinfo.exit_codes import EXIT_DONE
from clusterinfo.observations import Noted, Observe
from clusterinfo.postgres.admin import clusters
from clusterinfo.postgres.admin.clusters import StoredCluster
from clusterinfo.postgres.migrations import open_migrated_pool
from clusterinfo.postgres.pool import ACQUIRE_FIRST_S, present
from clusterinfo.settings import MAX_CLUSTER_ID_CHARS, Settings
from clusterinfo.topic_names import is_topic_name


async def list_clusters(settings: Settings, _: Observe, *, output: Output) -> int:
    """Print the clusters."""
    async with open_migrated_pool(settings) as pool, pool.acquire(timeout=ACQUIRE_FIRST_S) as connection:
        found = await clusters.stored_clusters(connection, settings.db_schema)
        now = await present(connection)
    table = Table(_columns(now), found, "no clusters")
    show(Result.listed(table, dataclasses.asdict, lambda one: one.cluster), output)
    return EXIT_DONE


async def move_cluster(settings: Settings, observe: Observe, name: str, topic: str, *, output: Output) -> int:
    """Give a cluster to a topic ("": to the next that speaks of it). Safe beside running consumers."""
    if topic and not is_topic_name(topic):
        raise ConfigError(
            f"--topic is {topic!r}: allowed is the name of one topic, or '' for the next that speaks of the cluster"
        )
    async with open_migrated_pool(settings) as pool, pool.acquire(timeout=ACQUIRE_FIRST_S) as connection:
        moved = await clusters.move(connection, settings.db_schema, name, topic)
    sentence = f"cluster {moved.cluster} belongs to {_owner(topic)} now, before to {_owner(moved.before)}"
    show(Result.done(sentence, dataclasses.asdict(moved) | {"topic": topic}, moved.cluster), output)
    if moved.waiting:
        message = f"{moved.waiting} dead letters of topic {topic} wait: `clusterinfo dead-letters replay --all`"
        observe(Noted(message=f"{message} stores those that were refused for their topic"))
    return EXIT_DONE


async def rename_cluster(settings: Settings, observe: Observe, name: str, label: str, *, output: Output) -> int:
    """Show a cluster under another name."""
    if not label or label != label.strip() or not label.isprintable() or len(label) > MAX_CLUSTER_ID_CHARS:
        raise ConfigError(
            f"NEW is {label!r}: allowed are 1 to {MAX_CLUSTER_ID_CHARS} printable characters, without whitespace at "
            "either end"
        )
    async with open_migrated_pool(settings) as pool, pool.acquire(timeout=ACQUIRE_FIRST_S) as connection:
        before = await clusters.rename(connection, settings.db_schema, name, label)
    show(Result.done(f"cluster {before} is shown as {label} now", {"cluster": label, "before": before}, label), output)
    observe(Noted(message="until its collector gives it another name: CLUSTER_NAME there is what stays"))
    return EXIT_DONE


def _owner(topic: str) -> str:
    return f"topic {topic}" if topic else "no topic"


def _columns(now: dt.datetime) -> Sequence[Column[StoredCluster]]:
    return (
        Column("CLUSTER", lambda one: one.cluster),
        Column("TOPIC", lambda one: one.topic),
        Column("VERSION", lambda one: one.server_version),
        Column("OBJECTS", lambda one: one.objects),
        Column("LAST SEEN", lambda one: ago(one.last_seen, now)),
        Column("AGE", lambda one: ago(one.first_seen, now), is_wide=True),
        Column("EPOCH", lambda one: one.epoch, is_wide=True),
        Column("ID", lambda one: one.uid, is_wide=True),
        Column("REMARKS", _remarks, nothing=""),
    )


def _remarks(one: StoredCluster) -> str:
    said = "" if one.name == one.cluster else f"its collector calls it {one.name}"
    return "; ".join(filter(None, (said, "two clusters have this id: not verified" if one.contested_at else "")))
