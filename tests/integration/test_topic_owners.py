"""A cluster belongs to the topic that spoke of it first: what another says of it is a dead letter, and does nothing."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace

from clusterinfo import wire
from clusterinfo.errors import RecordError
from clusterinfo.model import Batch, PartitionLane, Record
from clusterinfo.observations import BatchStored, ForeignRecords, Warned
from clusterinfo.postgres.admin.dead_letters import open_letter
from clusterinfo.postgres.admin.replay import replay
from tests.conftest import Database
from tests.integration.test_postgres_sink import Bench, bench
from tests.support.forgeries import FORGED, run, stored
from tests.support.records import CLUSTER, LANE, NOON, Feed, Listing, page

pytestmark = pytest.mark.embedded_only

__all__ = ["bench"]

THEIRS = PartitionLane(LANE.kafka_cluster, "theirs", 0, LANE.group_id)
STRANGER = "stranger"


async def say(bench: Bench, *records: Record, lane: PartitionLane = THEIRS) -> None:
    """A batch by another topic's partition, wherever that stands."""
    start = await bench.sink.open(lane) or 0
    await bench.sink.write(Feed(lane, start).batch(*records))


async def store_truth(bench: Bench) -> Listing:
    """What its own topic says of the cluster: two runs, so that there is history, and a list under way."""
    first = Listing("100")
    await bench.store(first.snapshot_started(), first.item("a", "1"), first.item("b", "2"), first.completed())
    second = Listing("200", NOON + dt.timedelta(seconds=30))
    items = [second.item("a", "150", "new")]
    await bench.store(second.snapshot_started(), *items, second.completed())
    await bench.store(second.snapshot_completed({("", "configmaps"): "completed"}, counts={("", "configmaps"): 1}))
    under_way = Listing("300", NOON + dt.timedelta(seconds=40))
    await bench.store(under_way.item("a", "150", "new"))
    return under_way


@pytest.mark.parametrize("what", FORGED)
async def test_what_another_topic_says_changes_nothing_and_is_kept(bench: Bench, what: str) -> None:
    await store_truth(bench)
    before = await stored(bench.connection)
    forged = FORGED[what](run())
    bench.seen.clear()
    await say(bench, *forged)
    assert await stored(bench.connection) == before
    assert await bench.connection.fetchval("select count(*) from cluster") == 1
    rows = await bench.connection.fetch("select topic, reason, value from dead_letter order by record_offset")
    assert [(row["topic"], row["value"]) for row in rows] == [("theirs", record.body) for record in forged]
    for row in rows:
        assert "belongs to topic 'cluster-info': nothing of it is taken from topic 'theirs'" in row["reason"]
        assert "clusterinfo clusters move" in row["reason"]
    aside = bench.last(ForeignRecords)
    assert aside == ForeignRecords(topic="theirs", cluster=CLUSTER, owner="cluster-info", records=len(forged))
    assert bench.last(BatchStored).dead_letters == len(forged)
    assert not [one for one in bench.seen if isinstance(one, Warned)], "nobody is told of a clock, or of a name"


@pytest.mark.parametrize("what", FORGED)
async def test_the_same_of_a_cluster_of_its_own_is_stored(bench: Bench, what: str) -> None:
    """So that nothing of the test before is refused for another reason."""
    forged = [replace(record, cluster=STRANGER) for record in FORGED[what](run())]
    await say(bench, *forged)
    assert await bench.connection.fetchval("select topic from cluster") == "theirs"
    reasons = {row["reason"] for row in await bench.connection.fetch("select reason from dead_letter")}
    assert not [reason for reason in reasons if "belongs to" in reason]


async def test_a_batch_of_both_stores_its_own_part(bench: Bench) -> None:
    await store_truth(bench)
    before = await stored(bench.connection)
    mine, forged = run(cluster=STRANGER, cluster_name="mine"), run()
    await say(bench, forged.completed(), mine.snapshot_started(), mine.item("m", "1"), forged.snapshot_started(),
              mine.completed())  # fmt: skip
    assert await stored(bench.connection) == before
    assert (await stored(bench.connection, STRANGER))["resource"]
    assert await bench.connection.fetchval("select count(*) from dead_letter") == 2
    assert await bench.connection.fetchval("select label from cluster where uid = $1", STRANGER) == "mine"


async def test_the_ids_of_anothers_list_and_snapshot_change_nothing_of_it(bench: Bench) -> None:
    """Of its own cluster, by its own topic, and under ids that nobody could guess."""
    under_way = await store_truth(bench)
    before = await stored(bench.connection)
    forged: list[Callable[[Listing], Sequence[Record]]] = [
        lambda own: [own.item("m", "1"), own.item("n", "1"), own.completed()],
        lambda own: [own.failed(500, "forged")],
        lambda own: [own.snapshot_started(), own.snapshot_completed({("", "pods"): "failed"})],
    ]
    for records in forged:
        own = run(cluster=STRANGER, cluster_name="mine", id=under_way.id)
        own.snapshot = await bench.connection.fetchval("select id::text from snapshot where completed_at is not null")
        await say(bench, *records(own))
    assert await stored(bench.connection) == before
    await bench.store(under_way.completed())
    state, rows = await bench.connection.fetchrow("select state, objects from freshness where cluster = 'test'")
    assert (state, rows) == ("verified", 1)


async def test_a_name_that_is_taken_stays_with_whom_it_is(bench: Bench) -> None:
    await store_truth(bench)
    before = await stored(bench.connection)
    for name in ("test", f"test-{STRANGER[:8]}", CLUSTER):
        await say(bench, run(cluster=STRANGER, cluster_name=name).snapshot_started())
    assert await stored(bench.connection) == before


async def write_at_once(bench: Bench, database: Database, batches: Sequence[Batch]) -> None:
    """All are admitted before the first of them knows its cluster."""
    blocker = await database.connect()
    async with blocker.transaction():
        await blocker.execute("lock table cluster in exclusive mode")
        writing = [asyncio.create_task(bench.sink.write(batch)) for batch in batches]
        async with asyncio.timeout(60):
            while await blocker.fetchval("select count(*) from pg_locks where not granted") < len(batches):
                await asyncio.sleep(0.02)
    await asyncio.gather(*writing)
    await blocker.close()


async def test_of_two_topics_that_come_first_at_once_one_is_the_owner(bench: Bench, database: Database) -> None:
    batches = []
    for lane in (LANE, THEIRS):
        await bench.sink.open(lane)
        listing = run(cluster_name=lane.topic)
        batches.append(Feed(lane).batch(listing.snapshot_started(), listing.item(lane.topic, "1"), listing.completed()))
    await write_at_once(bench, database, batches)
    owner, label = await bench.connection.fetchrow("select topic, label from cluster")
    assert label == owner
    assert await bench.live() == {owner: "1"}
    rows = await bench.connection.fetch("select topic, count(*) from dead_letter group by 1")
    assert [tuple(row) for row in rows] == [({"cluster-info": "theirs", "theirs": "cluster-info"}[owner], 3)]


async def test_who_writes_without_kafka_asks_no_topic(bench: Bench) -> None:
    """With the database's own password it could do anything; the owner stays who it is."""
    await store_truth(bench)
    listing = run()
    await bench.sink.write(page(listing, 0, listing.item("a", "2"), listing.completed()))
    assert await bench.live() == {"a": "2"}
    assert await bench.connection.fetchval("select topic from cluster") == LANE.topic
    assert await bench.connection.fetchval("select count(*) from dead_letter") == 0


async def test_what_is_written_directly_belongs_to_the_first_topic_that_speaks_of_it(bench: Bench) -> None:
    first, second = Listing("100"), run()
    await bench.sink.write(page(first, 0, first.item("a", "1"), first.completed()))
    assert await bench.connection.fetchval("select topic from cluster") == ""
    await bench.store(second.completed())
    assert await bench.live() == {}
    assert await bench.connection.fetchval("select topic from cluster") == LANE.topic
    await say(bench, run().item("b", "900"))
    assert await bench.live() == {}
    assert "belongs to topic 'cluster-info'" in await bench.connection.fetchval("select reason from dead_letter")


async def test_of_two_topics_that_speak_of_what_was_written_directly_one_is_the_owner(
    bench: Bench, database: Database
) -> None:
    """Each was admitted while it belonged to nobody; a cluster of which neither speaks still does."""
    first, other = Listing("100"), run(cluster=STRANGER)
    await bench.sink.write(page(first, 0, first.item("a", "1"), first.completed()))
    await bench.sink.write(page(other, 0, other.item("a", "1"), other.completed()))
    for lane in (LANE, THEIRS):
        await bench.sink.open(lane)
    await write_at_once(bench, database, [Feed(lane).batch(run().item(lane.topic, "1")) for lane in (LANE, THEIRS)])
    owner = await bench.connection.fetchval("select topic from cluster where uid = $1", CLUSTER)
    assert await bench.connection.fetchval("select topic from cluster where uid = $1", STRANGER) == ""
    assert (await bench.live()).keys() == {"a", owner}
    assert await bench.connection.fetchval("select count(*) from dead_letter where topic <> $1", owner) == 1


async def test_what_is_refused_makes_nobody_an_owner(bench: Bench) -> None:
    """A record that leaps ahead in epoch is a dead letter: its topic has not spoken of the cluster."""
    first = Listing("100")
    await bench.sink.write(page(first, 0, first.item("a", "1"), first.completed()))
    await say(bench, run(epoch=2**31 - 1).item("b", "900"))
    assert await bench.connection.fetchval("select topic from cluster") == ""
    assert await bench.connection.fetchval("select count(*) from dead_letter") == 1


async def test_a_dead_letter_is_replayed_for_its_own_topic_alone(bench: Bench) -> None:
    await store_truth(bench)
    before = await stored(bench.connection)
    await say(bench, run().item("a", "800", "forged"))
    letter = await open_letter(bench.connection, await bench.connection.fetchval("select id from dead_letter"))
    record = wire.decode(letter.key, letter.value, letter.headers)
    with pytest.raises(RecordError, match="belongs to topic 'cluster-info'"):
        await replay(bench.sink, letter.id, record, letter.topic)
    assert await stored(bench.connection) == before
    await bench.connection.execute("update cluster set topic = 'theirs'")
    assert await replay(bench.sink, letter.id, record, letter.topic)
    assert await bench.live() == {"a": "800"}


async def test_a_gap_marks_nothing_that_the_topic_lost(bench: Bench) -> None:
    """Of a cluster that was moved away from it."""
    await store_truth(bench)
    await bench.connection.execute("update cluster set topic = 'theirs'")
    bench.feed.next_offset += 10
    batch = bench.feed.batch(run(cluster=STRANGER, resource="pods").item("m", "1"))
    await bench.sink.write(replace(batch, start=batch.start - 10, gap=True))
    assert (await bench.states())["configmaps"] == "verified"
