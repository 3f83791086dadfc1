"""What makes stored rows unverified: messages lost before they were stored, and two clusters with one uid."""

from __future__ import annotations

import asyncio
import itertools

import asyncpg
import pytest
from msgspec.structs import replace

from clusterinfo.errors import TransientError
from clusterinfo.model import Record
from clusterinfo.observations import Warned
from clusterinfo.postgres.sink import PostgresSink
from tests.conftest import Database
from tests.integration.test_postgres_sink import MINUTE, Bench, bench
from tests.support.records import CLUSTER, NOON, Listing

__all__ = ["bench"]


async def store_after_a_gap(bench: Bench, *records: Record) -> None:
    bench.feed.next_offset += 100
    batch = replace(bench.feed.batch(*records), gap=True)
    await bench.sink.write(replace(batch, start=batch.start - 100))


async def test_a_gap_takes_verified_from_all_that_its_partition_carries(bench: Bench) -> None:
    pods, maps = Listing("100", resource="pods", kind="Pod"), Listing("100")
    await bench.store(pods.item("p", "1"), pods.completed(), maps.item("m", "2"), maps.completed())
    assert await bench.states() == {"pods": "verified", "configmaps": "verified"}
    after = Listing("200", NOON + MINUTE)
    await store_after_a_gap(bench, after.item("m", "2"), after.completed())
    assert await bench.states() == {"pods": "unverified", "configmaps": "verified"}, (
        "the list after the gap verifies its kind"
    )
    error = await bench.connection.fetchval("select last_error from freshness where resource = 'pods'")
    assert "were deleted from Kafka before they were stored" in error
    healing = Listing("200", NOON + 2 * MINUTE, resource="pods", kind="Pod")
    await bench.store(healing.item("p", "1"), healing.completed())
    assert await bench.states() == {"pods": "verified", "configmaps": "verified"}
    assert await bench.live() == {"m": "2", "p": "1"}, "nothing was deleted for what was lost"


async def test_a_gap_says_nothing_of_kinds_that_other_partitions_carry(bench: Bench) -> None:
    pods = Listing("100", resource="pods", kind="Pod")
    await bench.store(pods.item("p", "1"), pods.completed())
    other = replace_lane(bench, 1)
    assert await bench.sink.open(other.feed.lane) is None
    maps = Listing("100")
    await other.store(maps.item("m", "2"), maps.completed())
    await store_after_a_gap(other, Listing("200", NOON + MINUTE).item("m", "2"))
    assert await bench.states() == {"pods": "verified", "configmaps": "unverified"}


def replace_lane(bench: Bench, partition: int) -> Bench:
    """The same sink, fed by another partition."""
    other = Bench(bench.sink, bench.connection, bench.seen)
    other.feed.lane = type(other.feed.lane)("kafka-1", "cluster-info", partition, "cluster-info-consumer")
    return other


async def runs_of(bench: Bench, names: str) -> None:
    """One run of lists after another: cluster A holds object `a`, cluster B object `b`; both say the same uid."""
    for number, name in enumerate(names):
        listing = Listing(str(100 + 10 * number), NOON + number * MINUTE, cluster_name=name)
        item = listing.item(name.lower(), "7")
        await bench.store(listing.snapshot_started(), item, listing.completed())


async def names_of(bench: Bench) -> dict[str, str]:
    """Object -> label of the cluster it is in."""
    rows = await bench.connection.fetch("select name, cluster from resources")
    return {row["name"]: row["cluster"] for row in rows}


async def test_two_clusters_with_one_uid_are_separated_once_they_take_turns(bench: Bench) -> None:
    await runs_of(bench, "ABAB")
    warned = bench.last(Warned)
    assert "have the same uid" in warned.message
    assert "CLUSTER_NAME" in warned.remedy
    assert await bench.states() == {"configmaps": "unverified"}, "what they mixed is not believed"
    for number, name in enumerate("ABAB", start=10):
        listing = Listing(str(100 + 10 * number), NOON + number * MINUTE, cluster_name=name)
        await bench.store(listing.snapshot_started(), listing.item(name.lower(), "7"), listing.completed())
    assert await names_of(bench) == {"a": "A", "b": "B"}
    uids = await bench.connection.fetch("select uid, label from cluster order by id")
    assert [tuple(row) for row in uids] == [(CLUSTER, "A"), (f"{CLUSTER}/B", "B")]


async def test_of_three_clusters_with_one_uid_each_is_separated_for_good(bench: Bench) -> None:
    await runs_of(bench, "ABABCAC")
    assert await bench.connection.fetchval("select clones from cluster") == ["B", "C"]
    for number, name in enumerate("ABC", start=10):
        listing = Listing(str(100 + 10 * number), NOON + number * MINUTE, cluster_name=name)
        await bench.store(listing.snapshot_started(), listing.item(name.lower(), "7"), listing.completed())
    assert await names_of(bench) == {"a": "A", "b": "B", "c": "C"}


async def test_what_is_stored_while_clusters_are_separated_is_not_mixed_in(bench: Bench, database: Database) -> None:
    """Another partition carries the lists; cluster B is far ahead of A."""
    await runs_of(bench, "ABA")
    ahead = Listing("9000", NOON + 5 * MINUTE, cluster_name="B")
    async with PostgresSink.connect(database.settings(), bench.seen.append) as sink:
        other = Bench(sink, bench.connection, bench.seen)
        other.feed.lane = replace_lane(bench, 1).feed.lane
        await sink.open(other.feed.lane)
        batch = other.feed.batch(ahead.item("b", "8000"), ahead.completed())
        blocker = await database.connect()
        async with blocker.transaction():
            await blocker.execute("select from resource for update")
            telling = asyncio.create_task(bench.store(ahead.snapshot_started()))
            await waiting(blocker, 1)
            storing = asyncio.create_task(sink.write(batch))
            await waiting(blocker, 2)
        await blocker.close()
        await telling
        with pytest.raises(TransientError, match="were separated meanwhile"):
            await storing
        await sink.write(batch)
    last = Listing("200", NOON + 6 * MINUTE, cluster_name="A")
    await bench.store(last.item("a", "7"), last.completed())
    assert await names_of(bench) == {"a": "A", "b": "B"}
    assert [row["state"] for row in await bench.connection.fetch("select state from freshness")] == ["verified"] * 2


async def waiting(connection: asyncpg.Connection, number: int) -> None:
    """Until so many connections wait for a lock."""
    async with asyncio.timeout(20):
        while await connection.fetchval("select count(distinct pid) from pg_locks where not granted") < number:
            await asyncio.sleep(0.02)


async def test_a_list_cut_in_two_by_the_split_proves_nothing(bench: Bench) -> None:
    await runs_of(bench, "ABA")
    split = Listing("200", NOON + 5 * MINUTE, cluster_name="B")
    await bench.store(split.snapshot_started(), split.item("b1", "1"))
    await bench.store(split.item("b2", "2"), split.completed())
    states = await bench.connection.fetch("select state from unit")
    assert [row["state"] for row in states] == ["unverified", "unverified"]
    assert "a" in await bench.live()


async def test_a_name_given_back_is_one_cluster(bench: Bench) -> None:
    await runs_of(bench, "ABBA")
    assert await bench.connection.fetchval("select string_agg(label, ',') from cluster") == "A"


async def test_whatever_order_snapshots_come_in_the_same_clusters_are_separated(bench: Bench) -> None:
    starts = [Listing("100", NOON + n * MINUTE, cluster_name=name).snapshot_started() for n, name in enumerate("ABAB")]
    found = set()
    for number, order in enumerate(itertools.permutations(starts)):
        uid = f"uid-{number}"
        await bench.store(*(replace(record, cluster=uid) for record in order))
        clones = await bench.connection.fetchval("select clones from cluster where uid = $1", uid)
        found.add(tuple(clones))
    assert found == {("B",)}


async def runs_by_identity(bench: Bench, identities: str, first: int = 0) -> None:
    """Of clusters called `kubernetes`: N, whose uid may not be read, holds `n`; U, whose uid is known, holds `u`."""
    for number, which in enumerate(identities, start=first):
        identity, version = ("kubernetes", 9000) if which == "N" else (CLUSTER, 100)
        listing = Listing(str(version + number), NOON + number * MINUTE, cluster=identity, cluster_name="kubernetes")
        await bench.store(listing.snapshot_started(), listing.item(which.lower(), "7"), listing.completed())


@pytest.mark.parametrize("turns", ["NUNU", "UNUN"])
async def test_two_clusters_of_one_name_of_which_one_has_no_uid_are_separated(bench: Bench, turns: str) -> None:
    await runs_by_identity(bench, turns)
    await runs_by_identity(bench, "NUNU", first=10)
    rows = await bench.connection.fetch("select c.uid, r.name from resources r join cluster c on c.label = r.cluster")
    assert {tuple(row) for row in rows} == {("kubernetes", "n"), (CLUSTER, "u")}
    assert [row["state"] for row in await bench.connection.fetch("select state from freshness")] == ["verified"] * 2
    assert any(isinstance(seen, Warned) and "kubernetes" in seen.message for seen in bench.seen)


async def test_a_name_that_gains_its_uid_and_loses_it_is_one_cluster(bench: Bench) -> None:
    await runs_by_identity(bench, "NNUUN")
    assert await bench.connection.fetchval("select count(*) from cluster") == 1


async def test_late_runs_under_the_name_part_nothing(bench: Bench) -> None:
    await runs_by_identity(bench, "NNUU")
    await runs_by_identity(bench, "NNUUU")
    assert await bench.connection.fetchval("select string_agg(former_uid, ',') from cluster") == "kubernetes"
