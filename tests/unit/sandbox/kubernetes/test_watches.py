"""Watches of the simulated API: what changed since a revision, what there is, and when they end."""

import asyncio
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest

from clusterinfo.sandbox.kubernetes import SimulatedCluster
from clusterinfo.sandbox.kubernetes.tables import Change, Subscription, Table
from tests.support.members import until

if TYPE_CHECKING:
    from .conftest import Client

PATH = "/api/v1/configmaps"


def configmap(name: str, namespace: str = "default") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "data": {"key": name}}


def summary(events: list[Any]) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"].get("name", "")) for event in events]


def configmaps(cluster: SimulatedCluster) -> Table:
    return cluster.table(cluster.catalog.preferred("configmaps"))


async def test_changes_since_a_revision_and_from_now_on(client: "Client") -> None:
    cluster = client.api.cluster
    cluster.create("configmaps", configmap("before"))
    revision = cluster.revision
    cluster.create("configmaps", configmap("a"))
    cluster.create("secrets", configmap("not-asked-for"))
    watching = asyncio.create_task(client.watch(PATH, 3, resourceVersion=str(revision)))
    await until(lambda: bool(configmaps(cluster).subscriptions))
    cluster.recreate("configmaps", "default", "a")
    events = await watching
    assert summary(events) == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "a")]
    assert events[0]["object"]["metadata"]["uid"] == events[1]["object"]["metadata"]["uid"]
    assert events[0]["object"]["metadata"]["uid"] != events[2]["object"]["metadata"]["uid"]
    assert list(events[0]["object"]) == ["kind", "apiVersion", "metadata", "data"]


async def test_without_a_revision_it_begins_with_what_there_is(client: "Client") -> None:
    client.api.cluster.create("configmaps", configmap("a"))
    client.api.cluster.create("configmaps", configmap("b", "other"))
    assert summary(await client.watch(PATH, timeoutSeconds="1")) == [("ADDED", "a"), ("ADDED", "b")]
    path = "/api/v1/namespaces/other/configmaps"
    assert summary(await client.watch(path, resourceVersion="0", timeoutSeconds="1")) == [("ADDED", "b")]


async def test_bookmarks_tell_the_revision(client: "Client") -> None:
    cluster = client.api.cluster
    events = await client.watch(PATH, 3, resourceVersion=str(cluster.revision), allowWatchBookmarks="true")
    assert [event["type"] for event in events] == ["BOOKMARK"] * 3
    assert events[-1]["object"]["metadata"]["resourceVersion"] == str(cluster.revision)


async def test_expired_revision_is_an_error_event(client: "Client") -> None:
    cluster = client.api.cluster
    revision = cluster.revision
    cluster.compact()
    [event] = await client.watch(PATH, resourceVersion=str(revision))
    assert event["type"] == "ERROR"
    assert event["object"]["code"] == 410


async def test_a_watch_that_is_dropped_or_left_is_forgotten(client: "Client") -> None:
    cluster = client.api.cluster
    table = configmaps(cluster)
    watching = asyncio.create_task(client.watch(PATH, resourceVersion=str(cluster.revision)))
    await until(lambda: len(table.subscriptions) == 1)
    client.api.cluster.drop_watches("configmaps")
    assert await watching == []
    leaving = asyncio.create_task(client.watch(PATH, resourceVersion=str(cluster.revision)))
    await until(lambda: len(table.subscriptions) == 1)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await until(lambda: not table.subscriptions)


async def test_what_goes_wrong_with_a_watch_on_purpose(client: "Client") -> None:
    cluster, faults = client.api.cluster, client.api.faults
    revision = str(cluster.revision)
    cluster.create("configmaps", configmap("a"))
    cluster.create("configmaps", configmap("b"))
    faults.say_on_watch("configmaps", '{"type":"NOISE"}')
    faults.silence_watch("configmaps", 0.2)
    began = time.monotonic()
    events = await client.watch(PATH, 2, resourceVersion=revision)
    assert [event["type"] for event in events] == ["NOISE", "ADDED"]
    assert time.monotonic() - began >= 0.2
    faults.cut_watch("configmaps")
    with pytest.raises((aiohttp.ClientPayloadError, orjson.JSONDecodeError)):
        await client.watch(PATH, resourceVersion=revision)
    faults.forbid("configmaps", verb="watch")
    assert (await client.ask(PATH, watch="1", resourceVersion=revision))[0] == 403
    assert (await client.ask(PATH))[0] == 200


async def test_a_bookmark_does_not_overtake_what_changes_at_the_last_moment(
    client: "Client", monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, get = client.api.cluster, Subscription.get

    async def interrupted(self: Subscription) -> Change | None:
        try:
            return await get(self)
        except asyncio.CancelledError:
            monkeypatch.undo()
            cluster.create("configmaps", configmap("late"))
            raise

    monkeypatch.setattr(Subscription, "get", interrupted)
    revision = str(cluster.revision)
    [event] = await client.watch(PATH, 1, resourceVersion=revision, allowWatchBookmarks="true")
    assert event["type"] == "ADDED"
