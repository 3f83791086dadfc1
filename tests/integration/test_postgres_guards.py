"""Conditions of the merge that no history of the model can tell from their absence: one test for each."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import asyncpg
import orjson
import pytest
from msgspec.structs import replace

from clusterinfo.errors import ConfigError, RestartError
from clusterinfo.model import Batch, ListLane, Record, digest_hex, item_digest
from clusterinfo.observations import BatchStored, UnitVerified, Warned
from clusterinfo.postgres.merge import pace
from clusterinfo.postgres.merge.bodies import SANITISED
from clusterinfo.postgres.merge.offsets import forget_offsets, stored_topics
from clusterinfo.postgres.sql import statements
from tests.conftest import Database
from tests.integration.test_postgres_sink import MINUTE, Bench, bench
from tests.support.records import LANE, NOON, Feed, Listing, page, uuid7

pytestmark = pytest.mark.embedded_only

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


async def test_a_list_that_failed_leaves_another_of_its_kind_under_way(bench: Bench) -> None:
    under_way, failed = Listing("100"), Listing("110", NOON + MINUTE)
    await bench.store(under_way.item("a", "1"), failed.item("a", "1"))
    await bench.store(failed.failed(500, "gone wrong"))
    rows = await bench.connection.fetch("select list::text from list_progress")
    assert [row["list"] for row in rows] == [under_way.id]


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


# --- objects that a batch shows more than once -----------------------------------------------------------------------


async def test_what_became_of_objects_shown_more_than_once_is_reported(bench: Bench) -> None:
    first = Listing("100")
    await bench.store(first.item("changed", "1", 1), first.item("same", "2", 1), first.deleted("back", "3"))
    second = Listing("200", NOON + MINUTE)
    again = [second.item("changed", "11", 2), replace(second.item("changed", "12", 3), list_version="201")]
    same = [second.item("same", "2", 1), second.item("same", "2", 1)]
    back = [second.item("back", "13", 1), second.item("back", "13", 1)]
    gone = [second.item("gone", "14", 1), second.deleted("gone", "215")]
    await bench.store(*again, *same, *back, *gone)
    stored = bench.last(BatchStored)
    assert (stored.rows_written, stored.rows_unchanged, stored.history_rows) == (3, 1, 3), (
        "changed, back and a tombstone; same; changed as it was and in between, gone as it was"
    )
    bodies = await bench.connection.fetch(
        "select name, deleted, body is null from resource where name <> 'same' order by 1"
    )
    assert [tuple(row) for row in bodies] == [("back", False, False), ("changed", False, False), ("gone", True, True)]


@pytest.mark.parametrize("times", [1, 2])
async def test_an_object_is_first_observed_when_its_uid_was(bench: Bench, times: int) -> None:
    """Whichever record of it comes first; one that a batch shows twice takes another way."""
    listing = Listing("100", NOON + MINUTE)
    await bench.store(listing.item("a", "1", 1), listing.item("b", "1", 1))
    slow = Listing("200", NOON)
    await bench.store(*[slow.item("a", "2", 2)] * times, *[slow.item("b", "2", 1)] * times)
    new = Listing("300", NOON + 2 * MINUTE)
    await bench.store(*[new.item("a", "3", 3, uid="another")] * times)
    rows = await bench.connection.fetch("select name, first_observed_at, last_observed_at from resource order by 1")
    assert [tuple(row) for row in rows] == [("a", *[NOON + 2 * MINUTE] * 2), ("b", NOON, NOON + MINUTE)]
    past = await bench.connection.fetch("select resource_version, first_observed_at from resource_history order by 1")
    assert [tuple(row) for row in past] == [("1", NOON), ("2", NOON)]


@pytest.mark.parametrize("times", [1, 2])
async def test_a_list_of_another_namespace_hides_nothing(bench: Bench, times: int) -> None:
    await bench.store(Listing("300", reach="elsewhere").completed())
    await bench.store(*[Listing("200").item("a", "1")] * times)
    assert await bench.live() == {"a": "1"}


@pytest.mark.parametrize("times", [1, 2])
async def test_of_two_versions_as_of_one_moment_the_first_stays(bench: Bench, times: int) -> None:
    listing = Listing("100")
    await bench.store(listing.item("a", "100"))
    await bench.store(*[listing.item("a", "99", 2)] * times)
    await bench.store(*[listing.deleted("a", "100")] * times)
    assert await bench.live() == {"a": "100"}


@pytest.mark.parametrize("times", [1, 2])
async def test_an_older_sighting_in_better_shape_is_of_an_object(bench: Bench, times: int) -> None:
    """A deletion has no shape, and no body to be bettered."""
    await bench.store(Listing("200").item("a", "5"), Listing("200").deleted("b", "200"))
    better = Listing("100", normalization=2)
    deletion = replace(better.deleted("a", "100"), resource_version="5")
    await bench.store(*[deletion] * times, *[better.item("b", "200")] * times)
    assert await bench.live() == {"a": "5"}
    assert await bench.connection.fetchval("select max(normalization) from resource") == 1


@pytest.mark.parametrize("times", [1, 2])
async def test_an_older_sighting_in_no_better_shape_is_no_sighting(bench: Bench, times: int) -> None:
    await bench.store(Listing("200").item("a", "5"))
    await bench.store(*[Listing("100", NOON + MINUTE).item("a", "5")] * times)
    row = await bench.connection.fetchrow("select live_at, last_observed_at from resource")
    assert tuple(row) == (200, NOON)


@pytest.mark.parametrize("times", [1, 2])
async def test_history_keeps_the_bytes_as_they_came(bench: Bench, times: int) -> None:
    """Of what PostgreSQL cannot hold, although another version meets it in its row."""
    listing = Listing("100")
    refused = listing.item("a", "1", "\0")
    await bench.store(refused)
    await bench.store(*[Listing("200", NOON + MINUTE).item("a", "2")] * times)
    past = await bench.connection.fetchrow("select fidelity, original, body is null from resource_history")
    assert tuple(past) == (SANITISED, refused.body, False)


@pytest.mark.parametrize("times", [1, 2])
async def test_history_keeps_who_wrote_each_version(bench: Bench, times: int) -> None:
    """Whether one version meets the row or several; of a deletion nobody is known, and of what it ends its writer."""
    written: dict[str, Any] = {
        "manager": "kubectl-edit",
        "operation": "Update",
        "subresource": "scale",
        "managed_at": NOON - MINUTE,
    }
    await bench.store(Listing("100").item("a", "1", 1, **written))
    later = Listing("200", NOON + MINUTE).item("a", "2", 2, manager="controller")
    await bench.store(*[later] * times)
    deleted = Listing("300", NOON + 2 * MINUTE).deleted("a", "300")
    await bench.store(*[replace(deleted, manager="controller")] * times)
    columns = "manager, operation, subresource, managed_at"
    past = await bench.connection.fetch(f"select {columns} from resource_history order by valid_to")
    assert [tuple(row) for row in past] == [tuple(written.values()), ("controller", None, None, None)]
    row = await bench.connection.fetchrow(f"select {columns}, deleted from resource")
    assert tuple(row) == (None, None, None, None, True)


async def test_the_row_shows_who_wrote_the_version_it_is(bench: Bench) -> None:
    """Also where only that differs from the version before; another list of the same version changes nothing."""
    for number, writer in enumerate(("first", "second", "second")):
        version = str(min(number, 1) + 1)
        await bench.store(Listing(str(100 + number), NOON + number * MINUTE).item("a", version, manager=writer))
        assert await bench.connection.fetchval("select manager from resource") == writer
    assert await bench.connection.fetchval("select count(*) from resource_history") == 0


async def test_only_lists_that_should_have_named_it_show_that_an_object_was_gone(bench: Bench) -> None:
    first, last = Listing("100"), Listing("200", NOON + 5 * MINUTE)
    between = [
        Listing("150", NOON + MINUTE, reach="elsewhere").completed(),
        Listing("150", NOON + MINUTE, resource="pods").completed(),
    ]
    await bench.store(first.item("a", "1"), *between, last.item("a", "2", uid="another"))
    assert await bench.connection.fetchval("select valid_to from resource_history") == NOON + 5 * MINUTE


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_object_that_a_slow_list_showed_was_there_until_then(bench: Bench, at_once: bool) -> None:
    """A newer list that does not name it began meanwhile."""
    shown = replace(Listing("100").item("a", "1"), observed_at=NOON + 5 * MINUTE)
    between = replace(Listing("150", NOON + MINUTE).completed(), observed_at=NOON + 6 * MINUTE)
    again = Listing("200", NOON + 10 * MINUTE).item("a", "2", uid="another")
    for batch in [[shown, between, again]] if at_once else [[shown], [between], [again]]:
        await bench.store(*batch)
    past = await bench.connection.fetchrow("select valid_from, valid_to from resource_history")
    assert tuple(past) == (NOON + 5 * MINUTE, NOON + 5 * MINUTE)


@pytest.mark.parametrize("then", ["deleted", "deleted as another", "changed"])
async def test_what_a_batch_says_of_an_object_goes_before_a_list_that_does_not_name_it(bench: Bench, then: str) -> None:
    """Unless it came back as another; whether the version before is of the same batch or stored already."""
    first, last = Listing("100"), Listing("200", NOON + 10 * MINUTE)
    uid = "another" if then == "deleted as another" else ""
    followed = [last.item(n, "2", 2) if then == "changed" else last.deleted(n, "200", uid=uid) for n in "ab"]
    await bench.store(first.item("b", "1"))
    await bench.store(first.item("a", "1"), Listing("150", NOON + MINUTE).completed(), *followed)
    past = await bench.connection.fetch("select name, deleted, valid_to from resource_history order by 1")
    assert [tuple(row) for row in past] == [(name, then != "changed", NOON + 10 * MINUTE) for name in "ab"]


@pytest.mark.parametrize("times", [1, 2])
async def test_what_a_slow_list_shows_later_counts_from_what_was_known(bench: Bench, times: int) -> None:
    """Dates never go back, whichever list comes first."""
    slow = Listing("100", NOON + 5 * MINUTE)
    await bench.store(*[slow.item(name, "1", 1) for name in "abcd"])
    quick = Listing("200", NOON + MINUTE)
    await bench.store(
        *[quick.item("a", "2", 2)] * times, *[quick.item("b", "2", 1)] * times, *[quick.item("c", "1", 1)] * times,
        *[replace(quick.deleted("d", "200"), observed_at=NOON + MINUTE)] * times,
    )  # fmt: skip
    rows = await bench.connection.fetch("select valid_from, last_observed_at from positioned()")
    assert {tuple(row) for row in rows} == {(NOON + 5 * MINUTE, NOON + 5 * MINUTE)}
    past = await bench.connection.fetch("select valid_from, valid_to from resource_history")
    assert {tuple(row) for row in past} == {(NOON + 5 * MINUTE, NOON + 5 * MINUTE)}


# --- kinds -----------------------------------------------------------------------------------------------------------


async def test_what_a_record_does_not_say_of_its_kind_stays_known(bench: Bench) -> None:
    listing = Listing("100")
    await bench.store(listing.item("a", "1"))
    silent = replace(listing.deleted("a", "110"), kind="", api_version="v2")
    await bench.store(silent)
    assert (await _unit(bench))["kind"] == "ConfigMap"
    await bench.store(replace(listing.deleted("a", "111"), kind="Map", api_version=""))
    unit = await _unit(bench)
    assert (unit["kind"], unit["api_version"], unit["namespaced"]) == ("Map", "v2", True)


@pytest.mark.parametrize("ordering", ["", "clock"], ids=["version", "clock"])
async def test_a_list_under_way_goes_on_when_its_kind_is_described_anew(bench: Bench, ordering: str) -> None:
    listing = Listing("100", ordering=ordering)
    first, second = listing.item("a", "1"), replace(listing.item("b", "2"), api_version="v2")
    await bench.store(first)
    await bench.store(second, replace(listing.completed(), api_version="v2"))
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
    other = Listing("100", resource="pods", group="apps", cluster="other", cluster_name="other")
    for listing in (*units, other):
        await bench.store(listing.completed())
    ended = Listing("100", NOON + MINUTE).snapshot_completed({("apps", "pods"): "excluded"}, discovery_complete=False)
    await bench.store(replace(ended, observed_at=NOON + MINUTE))
    excluded = await bench.connection.fetch(
        "select c.name, api_group, resource from unit u join cluster c on c.id = u.cluster_id where state = 'excluded'"
    )
    assert [tuple(row) for row in excluded] == [("test", "apps", "pods")]


async def test_kinds_of_a_group_fail_and_not_their_namesakes(bench: Bench) -> None:
    """Of the group apps, what the snapshot does not name; `jobs` is excluded, in the other cluster all is well."""
    names = ("daemonsets", "deployments", "jobs")
    units = [Listing("100", resource=resource, group=group) for group in ("", "apps") for resource in names]
    other = Listing("100", resource="deployments", group="apps", cluster="other", cluster_name="other")
    for listing in (*units, other):
        await bench.store(listing.completed())
    excluded = Listing("100", NOON + MINUTE).snapshot_completed(
        {("apps", "jobs"): "excluded"}, discovery_complete=False
    )
    named = {("apps", "*"): "failed", ("apps", "daemonsets"): "completed", ("", "deployments"): "completed"}
    ended = Listing("100", NOON + 2 * MINUTE).snapshot_completed(named, discovery_complete=False)
    await bench.store(excluded)
    await bench.store(ended)
    failed = await bench.connection.fetch(
        "select c.name, api_group, resource from unit u join cluster c on c.id = u.cluster_id "
        "join unit_floor f on f.unit_id = u.id where f.state = 'failed'"
    )
    assert [tuple(row) for row in failed] == [("test", "apps", "deployments")]


async def test_an_older_snapshot_fails_nothing_that_was_stated_since(bench: Bench) -> None:
    await bench.store(Listing("100", NOON + 5 * MINUTE, group="apps").completed())
    ended = Listing("100", NOON + 3 * MINUTE).snapshot_completed({("apps", "*"): "failed"}, discovery_complete=False)
    await bench.store(ended)
    assert await bench.states() == {"configmaps": "verified"}


async def test_a_kind_is_gone_and_not_its_namesakes(bench: Bench) -> None:
    units = [Listing("100", resource=resource, group=group) for group in ("", "apps") for resource in ("pods", "sets")]
    other = Listing("100", resource="pods", group="apps", cluster="other", cluster_name="other")
    for listing in (*units, other):
        await bench.store(listing.completed())
    await bench.store(Listing("200", NOON + 9 * MINUTE, resource="pods").completed())
    named = {(listing.group, listing.resource): "completed" for listing in units if listing.group != "apps"}
    await bench.store(Listing("100", NOON + MINUTE).snapshot_completed(named | {("apps", "sets"): "completed"}))
    gone = await bench.connection.fetch(
        "select c.name, api_group, resource from unit u join cluster c on c.id = u.cluster_id where state = 'gone'"
    )
    assert [tuple(row) for row in gone] == [("test", "apps", "pods")]


async def test_an_older_discovery_ends_nothing_that_was_stated_since(bench: Bench) -> None:
    await bench.store(Listing("100", NOON + 5 * MINUTE).completed())
    maps = Listing("100", NOON + 5 * MINUTE).snapshot_completed(
        {("", "pods"): "excluded", ("", "configmaps"): "completed"}
    )
    await bench.store(maps)
    await bench.store(Listing("100", NOON + MINUTE).snapshot_completed({}))
    assert [(await _unit(bench, resource))["state"] for resource in ("configmaps", "pods")] == [None, "excluded"]


async def test_an_older_discovery_lets_nothing_come_back(bench: Bench) -> None:
    await bench.store(Listing("100").item("a", "1"))
    for minute in (9, 5):
        await bench.store(Listing("100", NOON + minute * MINUTE).snapshot_completed({}))
    await bench.store(Listing("100", NOON + 7 * MINUTE).item("a", "1"))
    assert await bench.live() == {}
    assert (await _unit(bench))["gone_before"] == NOON + 9 * MINUTE


async def test_a_kind_first_heard_of_late_was_gone(bench: Bench) -> None:
    await bench.store(Listing("100", NOON + 5 * MINUTE).snapshot_completed({}))
    await bench.store(Listing("100").item("a", "1"))
    assert await bench.live() == {}
    assert (await _unit(bench))["state"] == "gone"


async def test_an_older_snapshot_excludes_nothing_that_was_stated_since(bench: Bench) -> None:
    await bench.store(Listing("100").completed(), Listing("100", NOON + 5 * MINUTE, resource="pods").completed())
    await bench.store(Listing("100", resource="sets").completed())
    await bench.store(
        Listing("100", NOON + 5 * MINUTE).snapshot_completed(
            {("", "configmaps"): "completed", ("", "pods"): "completed"}
        )
    )
    outcomes = {("", name): "excluded" for name in ("configmaps", "pods", "sets")}
    await bench.store(Listing("100", NOON + 3 * MINUTE).snapshot_completed(outcomes, discovery_complete=False))
    states = [(await _unit(bench, resource))["state"] for resource in ("configmaps", "pods", "sets")]
    assert states == ["excluded", None, "gone"]


# --- epochs ----------------------------------------------------------------------------------------------------------


async def _raised(bench: Bench, *, says_so: bool = True, resource: str = "configmaps") -> None:
    """An object that was seen under epoch 1, which a snapshot may have said."""
    listing = Listing("100", epoch=1, resource=resource)
    await bench.store(Listing("50", resource="configmaps").completed(), listing.item("a", "1"))
    if says_so:
        await bench.store(listing.snapshot_started())


@pytest.mark.parametrize(("reach", "state"), [("", "failed"), ("ns", "failed"), ("elsewhere", "verified")])
async def test_an_object_of_a_higher_epoch_refutes_lists_that_should_show_it(
    bench: Bench, reach: str, state: str
) -> None:
    await _raised(bench)
    await bench.store(Listing("200", NOON + MINUTE, reach=reach).completed())
    assert await bench.connection.fetchval("select state from unit_floor where reach = $1", reach) == state


async def test_an_object_seen_since_a_list_began_refutes_nothing(bench: Bench) -> None:
    await _raised(bench)
    early = Listing("200", NOON - MINUTE)
    await bench.store(replace(early.completed(), observed_at=NOON + MINUTE))
    assert await bench.states() == {"configmaps": "verified"}


async def test_an_object_of_another_kind_refutes_nothing(bench: Bench) -> None:
    await _raised(bench, resource="pods")
    await bench.store(Listing("200", NOON + MINUTE).completed())
    assert (await bench.states())["configmaps"] == "verified"


async def test_an_epoch_that_no_snapshot_has_refutes_nothing(bench: Bench) -> None:
    await _raised(bench, says_so=False)
    await bench.store(Listing("200", NOON + MINUTE).completed())
    assert await bench.states() == {"configmaps": "verified"}


async def test_a_newer_object_of_the_same_epoch_refutes_nothing(bench: Bench) -> None:
    newer = Listing("900")
    await bench.store(newer.item("a", "900"), _started(0, "", epoch=1))
    await bench.store(Listing("200", NOON + MINUTE).completed())
    assert await bench.states() == {"configmaps": "verified"}


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_list_of_another_namespace_refutes_nothing(bench: Bench, at_once: bool) -> None:
    lists = [Listing("200", reach="one").completed(), Listing("150", NOON + MINUTE, reach="two").completed()]
    for batch in [lists] if at_once else [[one] for one in lists]:
        await bench.store(*batch)
    assert await bench.states() == {"configmaps": "verified"}
    assert await bench.connection.fetchval("select count(*) from unit_floor where state = 'verified'") == 2


async def test_a_restored_cluster_is_told_the_newest_that_was_proven(bench: Bench) -> None:
    await bench.store(Listing("200").completed())
    await bench.store(Listing("300", NOON + MINUTE, reach="ns").completed())
    await bench.store(Listing("100", NOON + 2 * MINUTE, reach="ns").completed())
    assert "proven at 300 before" in await bench.connection.fetchval(
        "select last_error from unit_floor where reach = 'ns'"
    )


async def test_one_kind_stands_still_and_no_other(bench: Bench) -> None:
    first, pods = Listing("100"), Listing("100", resource="pods")
    await bench.store(first.item("a", "1"), first.completed(), pods.item("p", "1"), pods.completed())
    await bench.store(Listing("100", resource="sets").item("s", "1"))
    second = Listing("100", NOON + MINUTE)
    await bench.store(second.item("a", "2"), second.completed())
    assert await _progress(bench) == ["pods", "sets"], "what was under way of the others"
    assert [(await _unit(bench, resource))["by_clock"] for resource in ("configmaps", "pods")] == [True, False]


async def test_a_list_under_way_does_not_show_that_versions_stand_still(bench: Bench) -> None:
    """What has arrived of it has another digest than the whole has."""
    first, again = Listing("100"), Listing("100", NOON + MINUTE)
    names = [("a", "1"), ("b", "2")]
    await bench.store(*[first.item(*name) for name in names], first.completed())
    items = [again.item(*name) for name in names]
    await bench.store(items[0])
    await bench.store(Listing("100", resource="pods").completed())
    assert not (await _unit(bench))["by_clock"]
    await bench.store(items[1], again.completed())
    assert await bench.states() == {"configmaps": "verified", "pods": "verified"}


@pytest.mark.parametrize("at_once", [True, False])
async def test_one_version_shows_one_state_to_lists_of_every_reach(bench: Bench, at_once: bool) -> None:
    everything, some = Listing("100"), Listing("100", NOON + MINUTE, reach="ns")
    lists = [
        [everything.item("a", "1"), everything.item("b", "2", namespace="other"), everything.completed()],
        [some.item("a", "1"), some.completed()],
    ]
    for batch in [lists[0] + lists[1]] if at_once else lists:
        await bench.store(*batch)
    assert not (await _unit(bench))["by_clock"]


# --- clusters and snapshots ------------------------------------------------------------------------------------------


def _started(minute: int, version: str, **attributes: Any) -> Record:
    record = Listing("100", NOON + minute * MINUTE, **attributes).snapshot_started()
    return replace(record, body=orjson.dumps({"server_version": version} if version else {}))


async def test_the_newest_snapshot_that_knows_it_says_the_servers_version(bench: Bench) -> None:
    await bench.store(_started(1, "v1.36.0"), _started(0, "v1.35.0"), _started(2, ""))
    await bench.store(_started(9, "v1", cluster="other", cluster_name="other"))
    rows = await bench.connection.fetch("select name, server_version from cluster order by 1")
    assert [tuple(row) for row in rows] == [("other", "v1"), ("test", "v1.36.0")]


async def test_a_new_cluster_has_a_version_though_an_object_of_its_first_run_came_before(bench: Bench) -> None:
    """By another partition. Its list began after that run had."""
    first = Listing("100", NOON + MINUTE, snapshot=uuid7(NOON))
    await bench.store(first.item("a", "1"))
    await bench.store(_started(0, "v1.36.0", snapshot=first.snapshot))
    assert await bench.connection.fetchval("select server_version from cluster") == "v1.36.0"


async def test_a_snapshot_says_how_often_its_collector_lists(bench: Bench) -> None:
    listing = Listing("100")
    await bench.store(listing.snapshot_started(), listing.snapshot_completed({}, interval_s=300))
    assert await bench.connection.fetchval("select interval_s from snapshot") == 300


async def test_a_position_says_when_it_moved_and_what_it_shows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = Listing("100")
    await bench.store(listing.item("a", "1"))
    row = await bench.connection.fetchrow("select now() - moved_at < '1 minute' as moved, * from kafka_offset")
    assert (row["moved"], row["observed_at"], row["rate"]) == (True, NOON, None)
    monkeypatch.setattr(pace, "SHORTEST_S", 0)
    await bench.store(listing.item("b", "2"))
    assert await bench.connection.fetchval("select rate from kafka_offset") > 0


async def test_a_cluster_that_keeps_its_name_is_not_reported(bench: Bench) -> None:
    await bench.store(_started(0, ""), _started(1, ""))
    assert not [seen for seen in bench.seen if isinstance(seen, Warned)]


async def test_an_older_snapshot_lowers_what_was_first_and_nothing_else(bench: Bench) -> None:
    await bench.store(_started(5, "", epoch=3))
    await bench.store(_started(3, "", epoch=4))
    await bench.store(_started(1, "", epoch=1))
    row = await bench.connection.fetchrow("select first_seen, last_seen, epoch from cluster")
    assert tuple(row) == (NOON + MINUTE, NOON + 5 * MINUTE, 4)


async def test_a_snapshot_written_without_kafka_has_no_position(bench: Bench) -> None:
    started = Listing("100").snapshot_started()
    await bench.sink.write(Batch(lane=ListLane(started.unit), start=0, end=1, records=[started]))
    assert await bench.connection.fetchval("select count(*) from kafka_offset where kafka_cluster = ''") == 0
    assert await bench.connection.fetchval("select count(*) from snapshot") == 1


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


async def test_of_two_groups_that_come_first_at_once_one_is_refused(
    connection: asyncpg.Connection, database: Database
) -> None:
    """The second does not see the first before it waits for it."""
    claim, one, another = statements()["claim_partition"], await database.connect(), await database.connect()
    try:
        async with asyncio.timeout(60):
            async with one.transaction():
                assert await one.fetchrow(claim, "kafka", "topic", 0, "one")
                waiting = asyncio.create_task(another.fetchrow(claim, "kafka", "topic", 0, "another"))
                while not await connection.fetchval("select count(*) from pg_locks where not granted"):
                    await asyncio.sleep(0.01)
            assert await waiting is None
    finally:
        await one.close()
        await another.close()


async def test_topics_are_told_in_order_each_once(bench: Bench) -> None:
    for lane in (replace_partition(0, "b"), replace_partition(0, "a"), replace_partition(1, "a")):
        await bench.sink.open(lane)
    assert await stored_topics(bench.connection, "clusterinfo") == ["a", "b", LANE.topic]
    assert await forget_offsets(bench.connection, "clusterinfo", "b") == 1
    assert await stored_topics(bench.connection, "clusterinfo") == ["a", LANE.topic]
    with pytest.raises(ConfigError, match=r"topic 'a'"):
        await bench.sink.open(type(LANE)(LANE.kafka_cluster, "c", 0, "another"))


async def test_a_lane_is_told_where_it_stands_not_where_others_do(bench: Bench) -> None:
    mine = replace_partition(1)
    others = [replace_partition(1, "another"), replace_partition(1, kafka_cluster="kafka-0")]
    for number, lane in enumerate([mine, *others]):
        await bench.sink.open(lane)
        await bench.sink.write(Feed(lane, 1000 * number).batch(Listing("100").item("a", "1")))
    with pytest.raises(RestartError, match="stored up to offset 1, this batch begins at 7"):
        await bench.sink.write(Feed(mine, 7).batch(Listing("100").item("a", "1")))


# --- what a name means ------------------------------------------------------------------------------------------------


async def test_nothing_of_the_schema_stands_in_for_what_is_postgresqls(bench: Bench) -> None:
    await bench.connection.execute(
        "create function clusterinfo.clock_timestamp() returns timestamptz return timestamptz 'epoch';"
        "create function clusterinfo.now() returns timestamptz return timestamptz 'epoch'"
    )
    await bench.store(replace(Listing("100").item("a", "1"), observed_at=NOON + dt.timedelta(days=3650)))
    assert await bench.connection.fetchval("select last_observed_at > '2001-01-01' from resource")


async def test_every_function_finds_pg_catalog_first_whoever_calls_it(connection: asyncpg.Connection) -> None:
    """Bound when it was made, or with a path of its own, or using nothing but what pg_catalog has.

    For each of the latter SET would cost half of what it does; the program's path begins with pg_catalog, and whoever
    has another one in a session of their own sees what they asked for.
    """
    rows = await connection.fetch(
        "select proname, prosqlbody is not null as is_bound, proconfig from pg_proc"
        " where pronamespace = 'clusterinfo'::regnamespace"
    )
    of_pg_catalog = {"moment", "owner_of", "quantity", "whole_bytes"}
    unbound = {row["proname"]: row["proconfig"] for row in rows if not row["is_bound"]}
    assert of_pg_catalog <= unbound.keys()
    paths = {name: path for name, path in unbound.items() if name not in of_pg_catalog}
    assert len(rows) > 15
    assert paths
    assert all(path and path[0].startswith("search_path=pg_catalog") for path in paths.values()), paths


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
    fresh = Listing("100", NOON, cluster="fresh", cluster_name="fresh")
    await bench.store(later[5].snapshot_started())
    await bench.store(fresh.snapshot_started())
    assert await bench.connection.fetch("select from cluster where uid = 'fresh' and contested_at is null")
    rows = await bench.connection.fetch(
        "select uid, contested_at is not null, f.state, (select min(live_at) from resource r where r.unit_id = u.id),"
        " (select count(*) from list_progress p where p.unit_id = u.id and not p.settled)"
        " from cluster c join unit u on u.cluster_id = c.id join unit_floor f on f.unit_id = u.id order by 1"
    )
    contested, untouched = ("unverified", True), ("verified", False)
    assert {row["uid"]: (row["state"], row[1]) for row in rows} == {Listing("1").cluster: contested, "other": untouched}
    assert [tuple(row)[3:] for row in rows if row["uid"] == "other"] == [(100, 1)]


async def test_names_come_in_turns_whichever_is_stored_first(bench: Bench) -> None:
    for minute in (2, 0, 3, 1):
        start = Listing("100", NOON + minute * MINUTE, cluster_name="AB"[minute % 2]).snapshot_started()
        await bench.store(start)
    assert await bench.connection.fetchval("select contested_at is not null from cluster")


async def test_the_last_turn_that_was_seen_counts_though_it_is_none_any_more(bench: Bench) -> None:
    """X before Y is no turn once X goes on; that of Q is older."""
    await _in_turns(bench, "PQXYPQXY")
    assert await bench.connection.fetchval("select contested_at from cluster") == NOON + 6 * MINUTE
    await bench.store(Listing("200", NOON + 8 * MINUTE, cluster_name="X").snapshot_started())
    assert await bench.connection.fetchval("select contested_at from cluster") == NOON + 6 * MINUTE


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
    """A kind for each lane that is another in one respect; that of another topic had a cluster of its own, once."""
    others = {
        "partitions": replace_partition(1),
        "topics": replace_partition(0, "other"),
        "kafkas": replace_partition(0, kafka_cluster="kafka-0"),
    }
    for resource, lane in others.items():
        await bench.sink.open(lane)
        await bench.sink.write(Feed(lane).batch(Listing("100", resource=resource, cluster=lane.topic).completed()))
    await bench.connection.execute("update cluster set topic = $1", LANE.topic)


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
    async with blocker.transaction(), asyncio.timeout(20):
        await blocker.execute("select from unit where resource = $1 for update", resource)
        await _after_a_gap(bench, 5)
    await blocker.close()
