"""PostgreSQL away, Kafka away, both away: for seconds and for minutes."""

from __future__ import annotations

import asyncio

from tests.faults.matrix_rig import Rig

SECONDS_S = 3.0
MINUTES_S, MINUTES_SMALL_S = 150.0, 8.0
"""Longer than every deadline of the program, and than its longest wait between two attempts."""


async def both_away(rig: Rig) -> None:
    """Kafka is killed and PostgreSQL stopped immediately; both are away for 3 s."""
    await _both(rig, SECONDS_S)


async def both_away_for_minutes(rig: Rig) -> None:
    """Kafka is killed and PostgreSQL stopped immediately; both are away for 150 s."""
    await _both(rig, _minutes_s(rig))


async def postgres_away_for_minutes(rig: Rig) -> None:
    """The server is stopped as by `pg_ctl -m immediate`, and away for 150 s."""
    await rig.stop_postgres()
    await asyncio.sleep(_minutes_s(rig))
    await rig.start_postgres()
    rig.is_over()


async def kafka_away_for_minutes(rig: Rig) -> None:
    """The broker is stopped with SIGTERM, and away for 150 s."""
    await rig.stop_kafka("clean")
    await asyncio.sleep(_minutes_s(rig))
    await rig.start_kafka()
    rig.is_over()


async def _both(rig: Rig, away_s: float) -> None:
    await asyncio.gather(rig.stop_postgres(), rig.stop_kafka("hard"))
    await asyncio.sleep(away_s)
    await asyncio.gather(rig.start_postgres(), rig.start_kafka())
    rig.is_over()


def _minutes_s(rig: Rig) -> float:
    return MINUTES_SMALL_S if rig.is_small else MINUTES_S
