"""What makes stored rows unverified: messages lost before they were stored, and two clusters with one uid."""

from __future__ import annotations

import asyncio
import itertools

import asyncpg
import pytest
from msgspec.structs import replace

from clusterinfo.model import Record
from clusterinfo.observations import Warned
from tests.integration.test_postgres_sink import MINUTE, Bench, bench
from tests.support.records import NOON, Listing

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


async def test_two_clusters_under_one_identity_are_reported_once_they_take_turns(bench: Bench) -> None:
    await runs_of(bench, "ABA")
    assert not any("have the same uid" in seen.message for seen in bench.seen if isinstance(seen, Warned))
    assert await bench.states() == {"configmaps": "verified"}
    await runs_of(bench, "ABAB")
    warned = bench.last(Warned)
    assert "clusters named 'A' and 'B' have the same uid" in warned.message
    assert "CLUSTER_ID" in warned.remedy
    assert await bench.states() == {"configmaps": "unverified"}, "its list was whole, and of which cluster?"
    assert "CLUSTER_ID" in await bench.connection.fetchval("select last_error from freshness")
    assert await bench.connection.fetchval("select count(*) from cluster") == 1, "nothing is split by guesswork"


async def test_once_they_are_known_to_be_two_neither_deletes_the_others_rows(bench: Bench) -> None:
    await runs_of(bench, "ABABAB")
    assert await bench.live() == {"a": "7", "b": "7"}
    assert await bench.states() == {"configmaps": "unverified"}


@pytest.mark.parametrize("stays", ["A", "B"])
async def test_what_two_clusters_mixed_is_corrected_once_one_has_an_identity_of_its_own(
    bench: Bench, stays: str
) -> None:
    """Cluster B is far ahead of A: its rows would outlive A's lists if they were believed."""
    versions = {"A": 100, "B": 9000}
    for number, name in enumerate("ABAB" + stays * 8):
        listing = Listing(str(versions[name] + number), NOON + number * MINUTE, cluster_name=name)
        await bench.store(listing.snapshot_started(), listing.item(name.lower(), "7"), listing.completed())
        if number == 5:
            assert await bench.states() == {"configmaps": "unverified"}, "for five more runs"
    assert await bench.live() == {stays.lower(): "7"}
    assert await bench.states() == {"configmaps": "verified"}
    assert await bench.connection.fetchval("select contested_at from cluster") is None


async def waiting(connection: asyncpg.Connection, number: int) -> None:
    """Until so many connections wait for a lock."""
    async with asyncio.timeout(60):
        while await connection.fetchval("select count(distinct pid) from pg_locks where not granted") < number:
            await asyncio.sleep(0.02)


async def test_a_name_given_back_is_one_cluster(bench: Bench) -> None:
    await runs_of(bench, "ABBA")
    assert await bench.connection.fetchval("select string_agg(label, ',') from cluster") == "A"
    assert await bench.states() == {"configmaps": "verified"}


async def test_whatever_order_snapshots_come_in_the_cluster_is_contested(bench: Bench) -> None:
    starts = [Listing("100", NOON + n * MINUTE, cluster_name=name).snapshot_started() for n, name in enumerate("ABAB")]
    orders = list(itertools.permutations(starts))
    for number, order in enumerate(orders):
        await bench.store(*(replace(record, cluster=f"uid-{number}") for record in order))
    assert await bench.connection.fetchval("select count(*) from cluster where contested_at is not null") == len(orders)
