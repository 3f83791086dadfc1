"""Faults of PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg

from clusterinfo.sandbox.processes import give, unprivileged_account
from tests.faults.matrix_rig import Log, Rig

AWAY_S = 3.0
LOCKED_S, LOCKED_SMALL_S = 23.0, 3.0
"""The program waits 20 s for a lock."""
SILENT_S = 3.0
SLOW_S, SLOW_SMALL_S = 10.0, 4.0
LATENCY_S = 0.02
"""Each way. A batch of this pipeline takes some 20 round trips, and 60 ms without this."""
ROUND_TRIPS = 10
"""Of a batch, at least."""
FULL_S = 3.0
MET_TIMEOUT_S = 120.0
DISK_MIB = 256
"""The table takes some of it: 2 MiB more each round."""
MOVE_ATTEMPTS = 5
BODY_BYTES = 200_000
NEW_OBJECTS = 10


async def restart(rig: Rig) -> None:
    """The server is stopped as by `pg_ctl -m immediate`, and started 0.5 s later.

    In the small version 3 s later: of one short absence an idle pipeline may notice nothing.
    """
    await rig.stop_postgres()
    await asyncio.sleep(AWAY_S if rig.is_small else 0.5)
    await rig.start_postgres()
    rig.is_over()


async def lock_held(rig: Rig) -> None:
    """Another session holds the rows of `unit` locked for 23 s, longer than lock_timeout."""
    async with rig.world.database() as connection, connection.transaction():
        await connection.execute("select from unit order by id for update")  # in the order in which all lock them
        await asyncio.sleep(LOCKED_SMALL_S if rig.is_small else LOCKED_S)
    rig.is_over()


async def slow(rig: Rig) -> None:
    """For 10 s every round trip to the database takes 40 ms, and a batch some ten times as long as else."""
    log, rig.postgres.latency_s = Log(rig.world), LATENCY_S
    await asyncio.sleep(SLOW_SMALL_S if rig.is_small else SLOW_S)
    batch_s = log.batch_seconds()
    await rig.postgres.restore()
    rig.is_over()
    if batch_s < ROUND_TRIPS * 2 * LATENCY_S:
        rig.problems.append(f"a batch took {batch_s:.3f} s, which is not slow")


async def half_open(rig: Rig) -> None:
    """For 3 s nothing that is sent on any connection arrives, and those connections never come back.

    In the small version they are reset at the end, as by a firewall that has forgotten them.
    """
    rig.postgres.go_silent()
    await asyncio.sleep(SILENT_S)
    await rig.postgres.restore()
    if rig.is_small:
        rig.postgres.cut()
    rig.is_over()


# --- disk full -------------------------------------------------------------------------------------------------------


async def disk_full(rig: Rig) -> None:
    """For 3 s or more table `resource` cannot grow: its tablespace, on a disk of its own, is full.

    The disk is a tmpfs; history and WAL stay where they are. That is what a full disk looks like to a transaction
    (53100); a full disk under the WAL is a crash, which `restart` is. Where nothing may be mounted, a trigger raises
    53100 in its stead.
    """
    async with _small_disk() as disk, rig.world.database() as connection:
        await (_raised(rig, connection) if disk is None else _filled(rig, connection, disk))


async def _filled(rig: Rig, connection: asyncpg.Connection, disk: Path) -> None:
    await connection.execute(f"create tablespace small location '{disk}'")
    try:
        await _move(connection, "small")
        balloon = disk / "balloon"
        _fill(balloon)
        with _grown(rig):
            await _stays_full(rig)
        balloon.unlink()
        rig.is_over()
    finally:
        await _move(connection, "pg_default")
        await connection.execute("drop tablespace small")


async def _raised(rig: Rig, connection: asyncpg.Connection) -> None:
    await connection.execute(
        "create function no_space() returns trigger language plpgsql as "
        "$$ begin raise exception 'No space left on device' using errcode = '53100'; end $$;"
        "create trigger no_space before insert or update on resource for each statement execute function no_space()"
    )
    try:
        with _grown(rig):
            await _stays_full(rig)
    finally:
        await connection.execute("drop function no_space cascade")
    rig.is_over()


@contextlib.asynccontextmanager
async def _small_disk() -> AsyncIterator[Path | None]:
    """A directory that PostgreSQL owns on a tmpfs of its own; None where we may not mount one."""
    directory = Path(tempfile.mkdtemp(prefix="clusterinfo-disk-"))
    argv = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=755", "clusterinfo-disk", str(directory)]
    try:
        if subprocess.run(argv, capture_output=True, check=False).returncode:
            yield None
            return
        try:
            data = directory / "data"
            data.mkdir(mode=0o700)
            account = unprivileged_account()
            directory.chmod(0o755)
            give(data, account)
            yield data
        finally:
            subprocess.run(["umount", str(directory)], check=True)
    finally:
        shutil.rmtree(directory)


async def _move(connection: asyncpg.Connection, tablespace: str) -> None:
    """The table waits for the programs' transactions, and they for it."""
    for attempt in range(1, MOVE_ATTEMPTS + 1):
        try:
            await connection.execute(f"alter table resource set tablespace {tablespace}")
            return
        except asyncpg.DeadlockDetectedError:
            if attempt == MOVE_ATTEMPTS:
                raise


async def _stays_full(rig: Rig) -> None:
    """3 s, and until some program has met it."""
    log = Log(rig.world)
    async with asyncio.timeout(MET_TIMEOUT_S):
        await asyncio.sleep(FULL_S)
        while not log.costs()["retries"]:
            await asyncio.sleep(0.5)


def _fill(balloon: Path) -> None:
    with contextlib.suppress(OSError), balloon.open("wb", buffering=0) as file:
        while file.write(bytes(64 * 1024)):
            pass


@contextlib.contextmanager
def _grown(rig: Rig) -> Iterator[None]:
    """For the length of the block there are objects that need more room than the table has left."""
    cluster = rig.world.api.cluster
    names = [f"large-{cluster.revision}-{number}" for number in range(NEW_OBJECTS)]
    for name in names:
        noise = cluster.random.randbytes(BODY_BYTES).hex()
        cluster.create("configmaps", {"metadata": {"name": name, "namespace": "default"}, "data": {"noise": noise}})
    yield
    live = cluster.table(cluster.catalog.preferred("configmaps")).live
    for name in names:
        if f"default/{name}" in live:  # the churn may have been quicker
            cluster.delete("configmaps", "default", name)
