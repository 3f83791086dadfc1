"""Is each failpoint where its name says? The process is stopped there and looked at from outside, then killed.

What is outside: the database, its locks and sessions; the socket between; Kafka, its group and its committed offsets.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from tests.faults import topic
from tests.faults.failpoints import Armed, Arsenal, Hit
from tests.faults.pipeline import World, pipeline

pytestmark = pytest.mark.timeout(600)  # a machine that is busy takes several times as long

HIT_TIMEOUT_S = 120.0
ARRIVED_S = 0.5
"""What a process sent before it was stopped has arrived, and the others have seen that nothing is armed."""
PARTITIONS = 2
SESSION_TIMEOUT_S = 1.0


@dataclass(slots=True)
class Range:
    """A world to arm."""

    world: World
    arsenal: Arsenal

    async def stopped_at(self, point: str) -> Hit:
        """Wait until one process is stopped at `point`; nothing is armed any more then."""
        self.arsenal.arm({point: Armed(1.0, "stop")})
        async with asyncio.timeout(HIT_TIMEOUT_S):
            while not (hits := self.arsenal.look()):
                await asyncio.sleep(0.02)
        self.arsenal.disarm()
        await asyncio.sleep(ARRIVED_S)
        for other in (hits := hits + self.arsenal.look())[1:]:
            self.kill(other)
        assert {hit.point for hit in hits} == {point}
        return hits[0]

    async def steady(self) -> None:
        """Wait until the members have what they share and all is stored, then let things change again."""
        await self.world.converged()
        self.world.churn.start()

    def kill(self, hit: Hit) -> None:
        [kept] = [kept for kept in self.world.programs if kept.pid == hit.pid]
        kept.signal(signal.SIGKILL)


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Range]:
    """One world for all points, in which something always changes: what a kill leaves is what the next one meets."""
    arsenal = Arsenal(tmp_path_factory.mktemp("failpoints"))
    async with pipeline(
        consumers=2, partitions=PARTITIONS, session_timeout_s=SESSION_TIMEOUT_S, env=arsenal.env
    ) as world:
        world.churn.odd = 2
        world.churn.start()
        yield Range(world, arsenal)
        await world.converged()


@pytest.fixture
async def armed(shared: Range) -> AsyncIterator[Range]:
    """The world, with nothing armed and nobody stopped before and after the test."""
    yield shared
    shared.arsenal.disarm()
    for kept in shared.world.programs:
        kept.signal(signal.SIGCONT)
    shared.arsenal.look()


@pytest.fixture
async def database(armed: Range) -> AsyncIterator[asyncpg.Connection]:
    async with armed.world.database() as connection:
        yield connection


async def position(database: asyncpg.Connection, partition: int) -> tuple[int, int]:
    """(generation, next offset) of a partition, as everybody sees it."""
    row = await database.fetchrow("select generation, next_offset from kafka_offset where partition = $1", partition)
    return (row["generation"], row["next_offset"] or 0) if row else (0, 0)


async def session(database: asyncpg.Connection, backend: int) -> asyncpg.Record:
    return await database.fetchrow("select state, query, client_port from pg_stat_activity where pid = $1", backend)


async def written(database: asyncpg.Connection, backend: int) -> set[str]:
    """The tables that a session has written to in its open transaction."""
    rows = await database.fetch(
        "select distinct relation::regclass::text as name from pg_locks "
        "where pid = $1 and mode = 'RowExclusiveLock' and relation is not null",
        backend,
    )
    return {row["name"].rpartition(".")[2] for row in rows}


def unread_bytes(local_port: int, remote_port: int) -> int:
    """What the kernel holds for a TCP connection, and its process has not read. proc(5), /proc/net/tcp, rx_queue."""
    ends = [f":{local_port:04X}", f":{remote_port:04X}"]
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    [queues] = [line[4] for line in lines if [address[-5:] for address in line[1:3]] == ends]
    return int(queues.partition(":")[2], 16)


async def is_free(database: asyncpg.Connection, partition: int) -> bool:
    """True if no transaction is under way that stores a batch of the partition.

    Sessions prove nothing: the same process may have another partition, and be stopped in the middle of storing that.
    """
    query = "select true from kafka_offset where partition = $1 for update skip locked"
    return await database.fetchval(query, partition) is True


async def is_open_and_unstored(armed: Range, database: asyncpg.Connection, hit: Hit) -> asyncpg.Record:
    """The session of `hit` waits within a transaction of which nobody sees anything; its last statement is read."""
    found = await session(database, hit.detail["backend"])
    assert found["state"] == "idle in transaction"
    assert unread_bytes(found["client_port"], armed.world.postgres.port) == 0
    assert not await is_free(database, hit.detail["partition"])
    assert (await position(database, hit.detail["partition"]))[1] == hit.detail["start"]
    return found


async def test_after_fetch(armed: Range, database: asyncpg.Connection) -> None:
    hit = await armed.stopped_at("after_fetch")
    assert hit.detail["end"] > hit.detail["start"]
    assert (await position(database, hit.detail["partition"]))[1] == hit.detail["start"]
    assert await is_free(database, hit.detail["partition"])
    armed.kill(hit)


async def test_after_admit(armed: Range, database: asyncpg.Connection) -> None:
    hit = await armed.stopped_at("after_admit")
    found = await is_open_and_unstored(armed, database, hit)
    assert "insert into kafka_offset" in found["query"]
    tables = await written(database, hit.detail["backend"])
    assert "kafka_offset" in tables
    assert not tables & {"unit", "resource", "resource_history", "list_progress"}
    armed.kill(hit)


async def test_after_merge(armed: Range, database: asyncpg.Connection) -> None:
    hit = await armed.stopped_at("after_merge")
    found = await is_open_and_unstored(armed, database, hit)
    before = "-- What becomes of each object", "-- Which bodies are wanted", "savepoint"  # COPY is to follow these
    assert found["query"].startswith(before)
    tables = await written(database, hit.detail["backend"])
    assert {"kafka_offset", "resource", "resource_history"} <= tables
    armed.kill(hit)


async def test_mid_copy(armed: Range, database: asyncpg.Connection) -> None:
    hit = await armed.stopped_at("mid_copy")
    found = await session(database, hit.detail["backend"])
    assert found["query"].startswith("COPY ")
    progress = "select tuples_processed from pg_stat_progress_copy where pid = $1"
    rows = await database.fetchval(progress, hit.detail["backend"])
    if rows is None:  # what had come held a number that is refused: COPY ended, and the process has not heard of it
        assert found["state"] == "idle in transaction (aborted)"
    else:
        assert (found["state"], rows < hit.detail["rows"]) == ("active", True)
    assert not await is_free(database, hit.detail["partition"])
    assert (await position(database, hit.detail["partition"]))[1] == hit.detail["start"]
    armed.kill(hit)


async def test_after_copy(armed: Range, database: asyncpg.Connection) -> None:
    hit = await armed.stopped_at("after_copy")
    found = await is_open_and_unstored(armed, database, hit)
    assert found["query"].startswith("COPY ") or "release" in found["query"]
    assert "resource" in await written(database, hit.detail["backend"])
    armed.kill(hit)


async def test_after_refusal(armed: Range, database: asyncpg.Connection) -> None:
    hit = await armed.stopped_at("after_refusal")
    found = await is_open_and_unstored(armed, database, hit)
    assert "rollback to" in found["query"]
    assert hit.detail["line"] >= 1
    assert "value overflows numeric format" in armed.world.postgres.log.read_text()
    armed.kill(hit)


async def test_before_commit(armed: Range, database: asyncpg.Connection) -> None:
    hit = await armed.stopped_at("before_commit")
    await is_open_and_unstored(armed, database, hit)
    assert "kafka_offset" in await written(database, hit.detail["backend"])
    armed.kill(hit)
    await asyncio.sleep(0.5)
    assert (await position(database, hit.detail["partition"]))[1] == hit.detail["start"]


async def test_commit_sent_no_reply(armed: Range, database: asyncpg.Connection) -> None:
    hit = await armed.stopped_at("commit_sent_no_reply")
    async with asyncio.timeout(60):
        while (found := await session(database, hit.detail["backend"]))["state"] != "idle":
            await asyncio.sleep(0.02)
    assert found["query"].partition("; ")[0] == "commit"
    assert unread_bytes(found["client_port"], armed.world.postgres.port) > 0
    assert (await position(database, hit.detail["partition"]))[1] == hit.detail["end"]
    armed.kill(hit)


async def test_after_commit(armed: Range, database: asyncpg.Connection) -> None:
    hit = await armed.stopped_at("after_commit")
    assert await is_free(database, hit.detail["partition"])
    assert (await position(database, hit.detail["partition"]))[1] == hit.detail["end"]
    assert (await committed(armed.world))[hit.detail["partition"]] < hit.detail["end"]
    armed.kill(hit)


async def test_before_kafka_commit(armed: Range, database: asyncpg.Connection) -> None:
    committed_again = False
    while not committed_again:  # a member that took a partition over shows what Kafka has already: kill the next one
        await armed.steady()
        hit = await armed.stopped_at("before_kafka_commit")
        seen, claimed = await committed(armed.world), {int(n): at for n, at in hit.detail["positions"].items()}
        assert claimed
        for partition, offset in claimed.items():
            assert (await position(database, partition))[1] >= offset
        committed_again = any(offset > seen[partition] for partition, offset in claimed.items())
        armed.kill(hit)


async def test_mid_revoke(armed: Range) -> None:
    await armed.steady()
    armed.arsenal.arm({"mid_revoke": Armed(1.0, "stop")})
    armed.world.consumers[0].signal(signal.SIGKILL)
    hit = await armed.stopped_at("mid_revoke")
    assert hit.detail["partitions"]
    assert await group_state(armed.world) == "PreparingRebalance"
    armed.kill(hit)


async def test_mid_claim(armed: Range, database: asyncpg.Connection) -> None:
    await armed.steady()
    armed.arsenal.arm({"mid_claim": Armed(1.0, "stop")})
    armed.world.consumers[0].signal(signal.SIGKILL)
    hit = await armed.stopped_at("mid_claim")
    found = await session(database, hit.detail["backend"])
    assert found["state"] == "idle in transaction"
    assert "kafka_offset" in await written(database, hit.detail["backend"])
    assert await position(database, hit.detail["partition"]) == (hit.detail["generation"] - 1, hit.detail["offset"])
    armed.kill(hit)


async def test_mid_page(armed: Range) -> None:
    hit = await armed.stopped_at("mid_page")
    sent = await of_list(armed.world, hit.detail["list"])
    assert [message.type for message in sent][-hit.detail["sent"] :] == [topic.OBSERVED] * hit.detail["sent"]
    assert 0 < hit.detail["sent"] < hit.detail["of"]
    armed.kill(hit)
    await asyncio.sleep(0.5)
    assert await of_list(armed.world, hit.detail["list"]) == sent


async def test_after_last_item_before_completion(armed: Range) -> None:
    hit = await armed.stopped_at("after_last_item_before_completion")
    sent = await of_list(armed.world, hit.detail["list"])
    assert hit.detail["sent"] == hit.detail["of"] - 1
    assert len(sent) >= hit.detail["sent"]
    assert {message.type for message in sent} == {topic.OBSERVED}
    armed.kill(hit)
    await asyncio.sleep(0.5)
    assert await of_list(armed.world, hit.detail["list"]) == sent


async def of_list(world: World, list_id: str) -> list[topic.Message]:
    """What Kafka holds of a list."""
    found = await topic.messages(world.broker.bootstrap, world.topic, world.partitions)
    return [message for message in found if message.list == list_id]


async def committed(world: World) -> dict[int, int]:
    return await topic.committed(world.broker.bootstrap, world.topic, world.group, world.partitions)


async def group_state(world: World) -> str:
    """As the coordinator has it: Stable, PreparingRebalance, CompletingRebalance, Empty."""
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=world.broker.bootstrap)
    await admin.start()
    try:
        [answer] = await admin.describe_consumer_groups([world.group])
        return str(answer.groups[0][2])
    finally:
        await admin.close()
