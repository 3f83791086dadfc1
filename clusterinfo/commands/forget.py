"""`clusterinfo forget`: delete what is stored of a cluster, or of one kind of it."""

from __future__ import annotations

from clusterinfo.commands.output import Output, Result, show
from clusterinfo.exit_codes import EXIT_DONE
from clusterinfo.observations import Noted, Observe
from clusterinfo.postgres.admin.forget import delete_hidden, hide
from clusterinfo.postgres.migrations import open_migrated_pool
from clusterinfo.postgres.pool import ACQUIRE_FIRST_S
from clusterinfo.settings import Settings


async def forget(settings: Settings, observe: Observe, cluster: str, kind: str | None, *, output: Output) -> int:
    """Delete all that is stored of a cluster (its name or uid), or of one kind of it. Safe beside running consumers."""
    async with open_migrated_pool(settings) as pool, pool.acquire(timeout=ACQUIRE_FIRST_S) as connection:
        await hide(connection, settings.db_schema, cluster, kind)
        deleted = await delete_hidden(connection, settings.db_schema)
    what = f"{kind} of cluster {cluster}" if kind else f"cluster {cluster}"
    counts = f"{deleted.units:,} kinds, {deleted.objects:,} objects, {deleted.versions:,} versions in history"
    data = {"cluster": cluster, "resource": kind, "kinds": deleted.units}
    data |= {"objects": deleted.objects, "versions": deleted.versions}
    show(Result.done(f"forgot {what}: {counts}", data, cluster), output)
    observe(Noted(message="a collector that still lists it brings it back with its next run"))
    return EXIT_DONE
