"""Which partition a unit goes to, and how long what a session says there is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from clusterinfo.errors import RestartError
from clusterinfo.kafka.producer import KafkaSink, partition_for
from clusterinfo.kafka.topics import Topic
from clusterinfo.model import Batch, Record, Unit, WatchLane
from clusterinfo.observations import unobserved
from clusterinfo.settings import Settings
from tests.support.records import MINUTE, NOON, Listing, uuid7, watched


# Computed by org.apache.kafka.common.utils.Utils of kafka-clients 4.1.0: toPositive(murmur2(text)) % 12
@pytest.mark.parametrize(
    ("unit", "partition"),
    [
        (Unit("5f0c9f2e-7d2c-4b0e-9a55-0a6a9d6a1b11", "", "pods"), 3),
        (Unit("5f0c9f2e-7d2c-4b0e-9a55-0a6a9d6a1b11", "apps", "deployments"), 10),
        (Unit("prod-eu", "", "secrets"), 9),
        (Unit("größe", "example.com", "widgets"), 4),
        (Unit("a", "b", "c"), 10),
        (Unit("c1", "", ""), 2),
    ],
)
def test_a_unit_has_the_partition_that_java_would_give_it(unit: Unit, partition: int) -> None:
    assert partition_for(unit, 12) == partition


def lane(session: str) -> WatchLane:
    return WatchLane(Unit("c", "", "pods"), "", session)


async def test_the_outboxes_of_lost_sessions_go_and_their_numbers_are_given_to_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink = KafkaSink(Settings(kafka_partition=0), Topic("k", "t", 1, 1_000_000), unobserved)
    held = asyncio.Event()

    async def send(_: int, records: Sequence[Record]) -> int:
        if records[0].session == sessions[1]:
            await held.wait()
        return len(records)

    monkeypatch.setattr(sink, "_send_first", send)
    sessions = [uuid7(NOON + n * MINUTE) for n in range(9)]
    puts = []
    for n, session in enumerate(sessions):
        record = watched(Listing("1", resource="pods").item("a", "1"), 1, session)
        batch = Batch(lane=lane(session), start=0, end=1, records=[record])
        puts.append(asyncio.create_task(sink.write(batch)))
        for _ in range(50):
            await asyncio.sleep(0)
        if n == 5:
            assert {key[0] for key in sink._outboxes} == set(sessions[1:6]), "one of them has something to send"
            held.set()
    await asyncio.gather(*puts)
    assert {key[0] for key in sink._outboxes} == set(sessions[-2:])
    assert not [one for one in asyncio.all_tasks() if one.get_name().startswith("outbox")][2:]
    with pytest.raises(RestartError, match="is over"):
        sink.next_number(lane(sessions[3]))
    assert sink.next_number(lane(sessions[-1])) == 2
    await sink._close()
