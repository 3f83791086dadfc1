"""The harness itself: it converges, it restarts what ends, and its judge sees what is wrong."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.faults.pipeline import ODD, pipeline

pytestmark = pytest.mark.timeout(600)  # a machine that is busy takes several times as long


async def test_a_pipeline_settles_after_churn_and_its_programs_are_started_again() -> None:
    async with pipeline(consumers=2, partitions=4) as world:
        await world.converged()
        world.churn.odd = 2
        world.churn.start()
        before = [kept.pid for kept in world.programs]
        for kept in world.programs:
            kept.signal(signal.SIGKILL)
        await asyncio.sleep(3)
        assert not {kept.pid for kept in world.programs} & set(before)
        await world.converged()
        async with world.collector.paused():
            assert await world.caught_up() == dict.fromkeys(range(4), 0)
            assert await world.problems() == []
        assert await world.leaks() == []
        assert list(world.endings()) == []
        async with world.database() as connection:
            assert await connection.fetchval("select count(*) from resource where starts_with(name, $1)", ODD) == 2
            assert await connection.fetchval("select count(*) from resource_history") > 20


async def test_what_is_wrong_is_seen() -> None:
    async with pipeline(consumers=1, partitions=1) as world:
        await world.converged()
        await world.collector.stop()
        world.churn.step(1)
        assert len(await world.problems()) == 1
        world.collector.start()
        await world.converged()
        async with world.collector.paused(), world.database() as connection:
            await world.caught_up()
            await connection.execute(
                "update resource set body = jsonb_set(body, '{spec}', '1') where name = 'kube-system'"
            )
            assert [problem for problem in await world.problems() if "kube-system" in problem]
