"""`clusterinfo clusters`: which clusters are stored, which topic each belongs to, what each is called."""

from __future__ import annotations

import dataclasses
import sys

import orjson
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clusterinfo.commands.dead_letter_report import PIPED_WIDTH, printable
from clusterinfo.errors import ConfigError
from clusterinfo.exit_codes import EXIT_DONE
from clusterinfo.observations import Noted, Observe
from clusterinfo.postgres.admin import clusters
from clusterinfo.postgres.admin.clusters import StoredCluster
from clusterinfo.postgres.migrations import open_migrated_pool
from clusterinfo.postgres.pool import ACQUIRE_FIRST_S
from clusterinfo.settings import MAX_CLUSTER_ID_CHARS, Settings
from clusterinfo.topic_names import is_topic_name


async def list_clusters(settings: Settings, _: Observe, *, as_json: bool) -> int:
    """Print the clusters: a table, or a JSON object a line."""
    async with open_migrated_pool(settings) as pool, pool.acquire(timeout=ACQUIRE_FIRST_S) as connection:
        found = await clusters.stored_clusters(connection, settings.db_schema)
    if as_json:
        for cluster in found:
            typer.echo(orjson.dumps(dataclasses.asdict(cluster), option=orjson.OPT_UTC_Z).decode())
    else:
        _print_table(found)
    return EXIT_DONE


async def move_cluster(settings: Settings, observe: Observe, name: str, topic: str) -> int:
    """Give a cluster to a topic ("": to the next that speaks of it). Safe beside running consumers."""
    if topic and not is_topic_name(topic):
        raise ConfigError(
            f"--topic is {topic!r}: allowed is the name of one topic, or '' for the next that speaks of the cluster"
        )
    async with open_migrated_pool(settings) as pool, pool.acquire(timeout=ACQUIRE_FIRST_S) as connection:
        moved = await clusters.move(connection, settings.db_schema, name, topic)
    typer.echo(f"cluster {moved.cluster} belongs to {_owner(topic)} now, before to {_owner(moved.before)}")
    if moved.waiting:
        message = f"{moved.waiting} dead letters of topic {topic} wait: `clusterinfo dead-letters replay --all`"
        observe(Noted(message=f"{message} stores those that were refused for their topic"))
    return EXIT_DONE


async def rename_cluster(settings: Settings, observe: Observe, name: str, label: str) -> int:
    """Show a cluster under another name."""
    if not label or label != label.strip() or not label.isprintable() or len(label) > MAX_CLUSTER_ID_CHARS:
        raise ConfigError(
            f"NEW is {label!r}: allowed are 1 to {MAX_CLUSTER_ID_CHARS} printable characters, without whitespace at "
            "either end"
        )
    async with open_migrated_pool(settings) as pool, pool.acquire(timeout=ACQUIRE_FIRST_S) as connection:
        before = await clusters.rename(connection, settings.db_schema, name, label)
    typer.echo(f"cluster {before} is shown as {label} now")
    observe(Noted(message="until its collector gives it another name: CLUSTER_NAME there is what stays"))
    return EXIT_DONE


def _owner(topic: str) -> str:
    return f"topic {topic}" if topic else "no topic"


def _print_table(found: list[StoredCluster]) -> None:
    """One line a cluster; only the headings if there are none."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("cluster", "id", "topic", "version", "objects", "last seen", "remarks"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "objects" else "left")
    for one in found:
        cells = (
            one.cluster,
            one.uid,
            one.topic or "none: written directly",
            one.server_version or "",
            f"{one.objects:,}",
            f"{one.last_seen:%Y-%m-%d %H:%M:%SZ}",
            _remarks(one),
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    Console(width=None if sys.stdout.isatty() else PIPED_WIDTH).print(table)


def _remarks(one: StoredCluster) -> str:
    said = "" if one.name == one.cluster else f"its collector calls it {one.name}"
    return "; ".join(filter(None, (said, "two clusters have this id: not verified" if one.contested_at else "")))
