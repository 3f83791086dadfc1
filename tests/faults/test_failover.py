"""A database that lost its last seconds, as a replica that was promoted may have: exactly they are replayed."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from clusterinfo.sandbox.postgres import EmbeddedPostgres
from clusterinfo.sandbox.processes import give, unprivileged_account
from tests.faults import audit, topic
from tests.faults.pipeline import World, pipeline

pytestmark = pytest.mark.timeout(600)  # a machine that is busy takes several times as long

LOST_AT_LEAST = 500  # messages: two or three runs of lists
SENT_TIMEOUT_S = 150.0


@dataclass(frozen=True, slots=True)
class Moment:
    """How far a database was: partition -> next offset, and the last line of its audit."""

    offsets: dict[int, int]
    line: int


async def now(world: World) -> Moment:
    """The present moment; the world must be at rest."""
    await world.caught_up()
    async with world.database() as connection:
        rows = await connection.fetch("select partition, coalesce(next_offset, 0) from kafka_offset")
        return Moment(dict(rows), await connection.fetchval("select max(id) from audit.position"))


async def sent_more(world: World, since: Moment, messages: int) -> None:
    """Wait until so many more messages are in Kafka."""
    async with asyncio.timeout(SENT_TIMEOUT_S):
        while sum((await topic.ends(world.broker.bootstrap, world.topic, world.partitions)).values()) < messages + sum(
            since.offsets.values()
        ):
            await asyncio.sleep(0.2)


async def put_aside(postgres: EmbeddedPostgres, aside: Path) -> None:
    """Copy the data as they are now, and go on."""
    await postgres.stop("fast")
    shutil.copytree(postgres.data, aside, symlinks=True)
    await postgres.start()


async def set_back(postgres: EmbeddedPostgres, aside: Path) -> None:
    """Die, and come back with what was put aside."""
    await postgres.stop("immediate")
    shutil.rmtree(postgres.data)
    shutil.copytree(aside, postgres.data, symlinks=True)
    for path in (postgres.data, *postgres.data.rglob("*")):
        give(path, unprivileged_account())
    await postgres.start()


async def test_a_failover_that_loses_the_last_seconds_replays_exactly_them(tmp_path: Path) -> None:
    async with pipeline(consumers=2, prepare=audit.install) as world:
        await world.converged()
        async with world.collector.paused():
            kept = await now(world)
            await put_aside(world.postgres, tmp_path / "aside")
        world.churn.odd = 1
        world.churn.start()
        await sent_more(world, kept, LOST_AT_LEAST)
        await world.converged()
        async with world.collector.paused():
            lost = await now(world)
            assert sum(lost.offsets.values()) >= sum(kept.offsets.values()) + LOST_AT_LEAST
            await set_back(world.postgres, tmp_path / "aside")
        await world.converged()
        async with world.collector.paused():
            await judge(world, kept, await now(world))
        assert [list(consumer.endings) for consumer in world.consumers] == [[], []], "nobody had to be started again"


async def judge(world: World, kept: Moment, present: Moment) -> None:
    """The audit was set back with the rest: what follows in it is a claim and every offset since, each once."""
    sent = await topic.messages(world.broker.bootstrap, world.topic, world.partitions)
    async with world.database() as connection:
        ends = await topic.ends(world.broker.bootstrap, world.topic, world.partitions)
        assert await audit.wrong_offsets(connection, ends) == []
        assert await audit.miscounted_lists(connection, topic.completions(sent)) == []
        assert await audit.lost_versions(connection, sent) == []
        assert await audit.duplicate_history(connection) == []
        rows = await connection.fetch(
            "select partition, old_offset, next_offset, generation > old_generation as is_claim from audit.position "
            "where id > $1 order by id",
            kept.line,
        )
    for partition, offset in kept.offsets.items():
        written = [row for row in rows if row["partition"] == partition]
        if present.offsets[partition] == offset:  # no kind is on it that has objects or was listed since
            assert written == []
            continue
        claim, *moves = written
        assert (claim["is_claim"], claim["next_offset"]) == (True, offset)
        stored = [(row["old_offset"], row["next_offset"]) for row in moves if not row["is_claim"]]
        assert [before for before, _ in stored] == [offset, *(after for _, after in stored[:-1])]
        assert stored[-1][1] == present.offsets[partition]
