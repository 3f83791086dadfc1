"""Conditions of the merge that no history of the model can tell from their absence: one test for each."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from clusterinfo.errors import ConfigError, RestartError
from clusterinfo.model import Record, digest_hex, item_digest
from clusterinfo.observations import UnitVerified, Warned
from clusterinfo.postgres.merge.offsets import forget_offsets, stored_topics
from tests.conftest import Database
from tests.integration.test_postgres_sink import MINUTE, Bench, bench
from tests.support.records import LANE, NOON, Feed, Listing, page

__all__ = ["bench"]


async def _unit(bench: Bench, resource: str = "configmaps") -> Any:
    return await bench.connection.fetchrow("select * from unit where resource = $1", resource)


async def _progress(bench: Bench) -> list[str]:
    rows = await bench.connection.fetch(
        "select resource from list_progress p join unit u on u.id = p.unit_id order by 1"
    )
    return [row["resource"] for row in rows]


# --- lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("wrong", ["count", "digest"])
async def test_a_list_is_proven_by_its_count_and_its_digest(bench: Bench, wrong: str, at_once: bool) -> None:
    listing = Listing("100")
    item, completed = listing.item("a", "1"), listing.completed()
    body = {"count": 1, "digest": digest_hex(item_digest("ns", "a", "1"))} | {
        wrong: 2 if wrong == "count" else digest_hex(1)
    }
    for batch in (
        [[item, replace(completed, body=orjson.dumps(body))]]
        if at_once
        else [[item], [replace(completed, body=orjson.dumps(body))]]
    ):
        await bench.store(*batch)
    assert await bench.states() == {"configmaps": "unverified"}


async def test_a_tombstone_is_not_counted_as_deleted(bench: Bench) -> None:
    listing = Listing("100")
    await bench.store(listing.item("a", "1"), listing.completed())
    await bench.store(listing.deleted("a", "110"))
    await bench.store(Listing("120", NOON + MINUTE).completed())
    assert bench.last(UnitVerified).deleted == 0
    assert await bench.connection.fetchval("select count(*) from resource") == 0


async def test_a_failure_leaves_what_the_last_proven_list_said(bench: Bench) -> None:
    listing = Listing("100")
    await bench.store(listing.item("a", "1"), listing.completed())
    await bench.store(Listing("200", NOON + MINUTE).failed(500, "gone wrong"))
    floor = await bench.connection.fetchrow("select * from unit_floor")
    assert (floor["state"], floor["objects"], floor["verified_at"]) == ("failed", 1, NOON)


async def test_a_kind_that_only_ever_failed_was_never_verified(bench: Bench) -> None:
    await bench.store(Listing("200").failed(500, "gone wrong"))
    assert await bench.connection.fetchval("select verified_at from unit_floor") is None


# --- kinds -----------------------------------------------------------------------------------------------------------


async def test_what_a_record_does_not_say_of_its_kind_stays_known(bench: Bench) -> None:
    listing = Listing("100")
    await bench.store(listing.item("a", "1"))
    silent = replace(listing.deleted("a", "110"), kind="", api_version="v2")
    await bench.store(silent)
    await bench.store(replace(listing.deleted("a", "111"), kind="Map", api_version=""))
    unit = await _unit(bench)
    assert (unit["kind"], unit["api_version"], unit["namespaced"]) == ("Map", "v2", True)


@pytest.mark.parametrize("ordering", ["", "clock"])
async def test_a_list_under_way_goes_on_when_its_kind_is_described_anew(bench: Bench, ordering: str) -> None:
    listing = Listing("100", ordering=ordering)
    first, second = listing.item("a", "1"), replace(listing.item("b", "2"), api_version="v2")
    await bench.store(first)
    await bench.store(second, listing.completed())
    assert await bench.states() == {"configmaps": "verified"}


async def test_lists_of_other_kinds_go_on_when_one_is_ordered_by_the_clock(bench: Bench) -> None:
    maps, pods = Listing("100"), Listing("100", resource="pods")
    await bench.store(maps.item("a", "1"), pods.item("p", "1"))
    await bench.store(Listing("100", NOON + MINUTE, ordering="clock").item("a", "1"), pods.deleted("x", "1"))
    assert await _progress(bench) == ["configmaps", "pods"], "the new list of one, the old one of the other"
    assert [(await _unit(bench, resource))["by_clock"] for resource in ("configmaps", "pods")] == [True, False]


async def test_a_kind_stays_ordered_by_the_clock(bench: Bench) -> None:
    await bench.store(Listing("100", ordering="clock").item("a", "1"))
    await bench.store(replace(Listing("200", NOON + MINUTE).item("a", "1"), api_version="v2"))
    assert (await _unit(bench))["by_clock"]


async def test_a_kind_is_excluded_and_not_its_namesakes(bench: Bench) -> None:
    units = [Listing("100", resource=resource, group=group) for group in ("", "apps") for resource in ("pods", "sets")]
    other = Listing("100", resource="pods", cluster="other", cluster_name="other")
    for listing in (*units, other):
        await bench.store(listing.completed())
    ended = Listing("100", NOON + MINUTE).snapshot_completed({("apps", "pods"): "excluded"}, discovery_complete=False)
    await bench.store(replace(ended, observed_at=NOON + MINUTE))
    excluded = await bench.connection.fetch(
        "select c.name, api_group, resource from unit u join cluster c on c.id = u.cluster_id where state = 'excluded'"
    )
    assert [tuple(row) for row in excluded] == [("test", "apps", "pods")]


# --- clusters and snapshots ------------------------------------------------------------------------------------------


def _started(minute: int, version: str, **attributes: Any) -> Record:
    record = Listing("100", NOON + minute * MINUTE, **attributes).snapshot_started()
    return replace(record, body=orjson.dumps({"server_version": version} if version else {}))


async def test_the_newest_snapshot_that_knows_it_says_the_servers_version(bench: Bench) -> None:
    await bench.store(_started(1, "v1.36.0"), _started(0, "v1.35.0"), _started(2, ""))
    await bench.store(_started(0, "v1", cluster="other", cluster_name="other"))
    rows = await bench.connection.fetch("select name, server_version from cluster order by 1")
    assert [tuple(row) for row in rows] == [("other", "v1"), ("test", "v1.36.0")]


async def test_a_cluster_that_keeps_its_name_is_not_reported(bench: Bench) -> None:
    await bench.store(_started(0, ""), _started(1, ""))
    assert not [seen for seen in bench.seen if isinstance(seen, Warned)]


@pytest.mark.parametrize("ended", [False, True])
async def test_a_snapshot_began_in_the_past_whatever_its_clock_says(bench: Bench, ended: bool) -> None:
    """A clock that is a little ahead is believed, but for this."""
    listing = Listing("100", dt.datetime.now(dt.UTC) + 3 * MINUTE)
    await bench.store(listing.snapshot_completed({}) if ended else listing.snapshot_started())
    assert await bench.connection.fetchval("select started_at <= now() from snapshot")


# --- positions -------------------------------------------------------------------------------------------------------


async def test_lists_written_without_kafka_belong_to_no_group_and_no_topic(bench: Bench) -> None:
    listing = Listing("100")
    await bench.sink.write(page(listing, 0, listing.item("a", "1")))
    assert await bench.sink.open(replace_partition(1)) is None, "another group would be refused"
    assert await stored_topics(bench.connection, "clusterinfo") == [LANE.topic]
    assert await forget_offsets(bench.connection, "clusterinfo", listing.id) == 0
    with pytest.raises(ConfigError, match=f"belongs to consumer group '{LANE.group_id}'"):
        await bench.sink.open(type(LANE)(LANE.kafka_cluster, LANE.topic, 0, "another"))


def replace_partition(partition: int, topic: str = LANE.topic, kafka_cluster: str = LANE.kafka_cluster) -> Any:
    """Another lane of the same group."""
    return type(LANE)(kafka_cluster, topic, partition, LANE.group_id)


async def test_topics_are_told_in_order_each_once(bench: Bench) -> None:
    for lane in (replace_partition(0, "b"), replace_partition(0, "a"), replace_partition(1, "a")):
        await bench.sink.open(lane)
    assert await stored_topics(bench.connection, "clusterinfo") == ["a", "b", LANE.topic]
    with pytest.raises(ConfigError, match=r"topic 'a'"):
        await bench.sink.open(type(LANE)(LANE.kafka_cluster, "c", 0, "another"))


async def test_a_lane_is_told_where_it_stands_not_where_others_do(bench: Bench) -> None:
    others = [replace_partition(1), replace_partition(0, "other"), replace_partition(0, kafka_cluster="kafka-0")]
    for number, lane in enumerate(others, start=1):
        await bench.sink.open(lane)
        await bench.sink.write(Feed(lane, 1000 * number).batch(Listing("100").item("a", "1")))
    await bench.store(Listing("100").item("a", "1"))
    with pytest.raises(RestartError, match="stored up to offset 1, this batch begins at 7"):
        await bench.sink.write(Feed(LANE, 7).batch(Listing("100").item("a", "1")))


# --- two clusters under one identity, and gaps -----------------------------------------------------------------------


async def _in_turns(bench: Bench, names: str) -> None:
    for number, name in enumerate(names):
        listing = Listing(str(100 + number), NOON + number * MINUTE, cluster_name=name)
        await bench.store(listing.snapshot_started(), listing.item("a", "1"), listing.completed())


async def test_one_cluster_is_contested_and_no_other(bench: Bench) -> None:
    other = Listing("100", NOON, cluster="other", cluster_name="other")
    await bench.store(other.item("a", "1"), other.completed())
    await bench.store(Listing("200", NOON + MINUTE, cluster="other", cluster_name="other").item("b", "2"))
    later = [Listing("300", NOON + n * MINUTE, cluster="other", cluster_name="other") for n in range(10, 16)]
    await bench.store(*(listing.snapshot_started() for listing in later[:5]))
    await _in_turns(bench, "ABAB")
    await bench.store(later[5].snapshot_started())
    rows = await bench.connection.fetch(
        "select uid, contested_at is not null, f.state, (select min(live_at) from resource r where r.unit_id = u.id),"
        " (select count(*) from list_progress p where p.unit_id = u.id and not p.settled)"
        " from cluster c join unit u on u.cluster_id = c.id join unit_floor f on f.unit_id = u.id order by 1"
    )
    contested, untouched = ("unverified", True), ("verified", False)
    assert {row["uid"]: (row["state"], row[1]) for row in rows} == {Listing("1").cluster: contested, "other": untouched}
    assert [tuple(row)[3:] for row in rows if row["uid"] == "other"] == [(100, 1)]


async def test_an_alarm_leaves_what_has_failed_and_what_is_newer(bench: Bench) -> None:
    pods, newer = Listing("100", resource="pods"), Listing("100", NOON + 50 * MINUTE, resource="newer")
    await bench.store(pods.failed(500, "gone wrong"), newer.completed())
    await _in_turns(bench, "ABAB")
    rows = await bench.connection.fetch(
        "select resource, f.state, f.state_at from unit u join unit_floor f on f.unit_id = u.id order by 1"
    )
    assert [tuple(row) for row in rows] == [
        ("configmaps", "unverified", NOON + 3 * MINUTE),
        ("newer", "unverified", NOON + 50 * MINUTE),
        ("pods", "failed", NOON + 3 * MINUTE),
    ]


async def test_a_cluster_stays_contested_though_its_snapshots_were_pruned(bench: Bench) -> None:
    await _in_turns(bench, "ABAB")
    await bench.connection.execute("delete from snapshot")
    await bench.store(Listing("200", NOON + 4 * MINUTE, cluster_name="A").snapshot_started())
    assert await bench.connection.fetchval("select contested_at is not null from cluster")


async def _carried_elsewhere(bench: Bench) -> None:
    """A kind for each lane that is another in one respect."""
    others = {
        "partitions": replace_partition(1),
        "topics": replace_partition(0, "other"),
        "kafkas": replace_partition(0, kafka_cluster="kafka-0"),
    }
    for resource, lane in others.items():
        await bench.sink.open(lane)
        await bench.sink.write(Feed(lane).batch(Listing("100", resource=resource).completed()))


async def _after_a_gap(bench: Bench, minute: int) -> None:
    bench.feed.next_offset += 10
    batch = bench.feed.batch(Listing("300", NOON + minute * MINUTE, cluster="c", cluster_name="c").snapshot_started())
    await bench.sink.write(replace(batch, start=batch.start - 10, gap=True))


async def test_a_gap_leaves_what_other_lanes_carry_and_what_is_newer_or_has_failed(bench: Bench) -> None:
    await _carried_elsewhere(bench)
    newer, failed = Listing("200", NOON + 9 * MINUTE, resource="newer"), Listing("200", resource="failed")
    await bench.store(Listing("200").completed(), newer.completed(), failed.failed(500, "gone wrong"))
    await _after_a_gap(bench, 5)
    assert await bench.states() == {
        "configmaps": "unverified", "newer": "verified", "failed": "failed",
        "partitions": "verified", "topics": "verified", "kafkas": "verified",
    }  # fmt: skip


@pytest.mark.parametrize("resource", ["partitions", "topics", "kafkas"])
async def test_a_gap_waits_for_nothing_that_other_lanes_carry(bench: Bench, database: Database, resource: str) -> None:
    await _carried_elsewhere(bench)
    await bench.store(Listing("200").completed())
    blocker = await database.connect()
    async with blocker.transaction(), asyncio.timeout(5):
        await blocker.execute("select from unit where resource = $1 for update", resource)
        await _after_a_gap(bench, 5)
    await blocker.close()
