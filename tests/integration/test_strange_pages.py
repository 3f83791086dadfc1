"""Pages that are hard to read and servers that forget too fast, from a real socket into a real database.

The good objects of a page are stored whatever stands beside them; the bad one is stored repaired, or its list fails and
says why. What could not be proven deletes nothing, and is shown as what it is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from clusterinfo.commands.pipelines import collect, consume, legacy
from clusterinfo.exit_codes import EXIT_ATTENTION, EXIT_DONE
from clusterinfo.model import Pace
from clusterinfo.observations import ItemUnreadable, Observation, Warned
from clusterinfo.sandbox.kubernetes.server import SimulatedKubernetes
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.settings import load
from tests.conftest import Database
from tests.integration.brokers import Broker
from tests.support.front import Front

pytestmark = pytest.mark.embedded_only

NAMES = [f"cm-{number}" for number in range(7)]


class Collected:
    """A cluster whose ConfigMaps are collected straight into a database, a run at a time."""

    def __init__(
        self, api: SimulatedKubernetes, database: Database, connection: asyncpg.Connection, path: Path
    ) -> None:
        self.api, self.connection = api, connection
        self.seen: list[Observation] = []
        kubeconfig = api.write_kubeconfig(path / "kubeconfig")
        self._settings = database.settings(kubeconfig=kubeconfig, include=["configmaps", "namespaces"], page_size=5)

    async def run(self) -> int:
        self.seen.clear()
        return await legacy(self._settings, self.seen.append, asyncio.Event(), how=Pace.ONCE, do_migrate=False)

    def create(self, name: str, namespace: str = "default", extra: bytes = b"") -> None:
        body = {"metadata": {"name": name, "namespace": namespace}, "data": {"k": "v"}}
        self.api.cluster.create("configmaps", body, extra)

    async def live(self) -> dict[tuple[str, str], int]:
        """(namespace, name) -> fidelity of the ConfigMaps that are stored."""
        rows = await self.connection.fetch(
            "select r.* from resource r join unit u on u.id = r.unit_id where u.resource = 'configmaps' and not deleted"
        )
        return {(row["namespace"], row["name"]): row["fidelity"] for row in rows}

    async def freshness(self) -> dict[str, tuple[str, str | None]]:
        """Reach -> state and error of the ConfigMaps."""
        rows = await self.connection.fetch("select * from freshness where resource = 'configmaps' order by reach")
        return {row["reach"]: (row["state"], row["last_error"]) for row in rows}

    def observed(self, kind: type[Any]) -> list[Any]:
        return [seen for seen in self.seen if isinstance(seen, kind)]


class Fronted(Collected):
    """The same, with some answers made up: `front.answers`."""

    def __init__(
        self,
        api: SimulatedKubernetes,
        front: Front,
        database: Database,
        connection: asyncpg.Connection,
        path: Path,
    ) -> None:
        super().__init__(api, database, connection, path)
        self.front = front
        front.write_kubeconfig(path / "kubeconfig")


@pytest.fixture
async def collected(database: Database, connection: asyncpg.Connection, tmp_path: Path) -> AsyncIterator[Collected]:
    async with SimulatedKubernetes(SimulatedCluster(seed=1)) as api:
        yield Collected(api, database, connection, tmp_path)


STRANGE = {
    "nested 1,500 deep": (b'"x":' + b'{"a":' * 1500 + b"1" + b"}" * 1500, 3),
    "nested 100,000 deep": (b'"x":' + b"[" * 100_000 + b"]" * 100_000, 2),
    "half a surrogate pair": (rb'"x":"\ud800"', 2),
    "a member given twice": (b'"x":1,"x":2', 3),
    "bytes that are no UTF-8": (b'"x":"\xff"', 3),
    "a name that is no UTF-8": (b'"x\xff":1', 3),
    "a raw line break": (b'"x":"a\nb"', 2),
    "a number nobody can hold": (b'"x":1e999999', 2),
    "a token of JavaScript": (b'"x":[NaN,Infinity]', 2),
    "brackets within a string": (rb'"x":"]}\ud800,{"', 2),
}


@pytest.mark.parametrize("name", STRANGE)
async def test_a_strange_object_is_stored_and_costs_the_others_nothing(collected: Collected, name: str) -> None:
    extra, fidelity = STRANGE[name]
    for one in NAMES:
        collected.create(one)
    collected.create("cm-3-strange", extra=extra)

    assert await collected.run() == EXIT_DONE

    expected = {("default", one): 3 for one in NAMES} | {("default", "cm-3-strange"): fidelity}
    assert await collected.live() == expected
    assert await collected.freshness() == {"": ("verified", None)}
    assert await collected.connection.fetchval("select count(*) from dead_letter") == 0
    assert bool([warned for warned in collected.observed(Warned) if "repaired" in warned.message]) == ("UTF-8" in name)


async def test_a_strange_object_is_not_written_again_by_every_run(collected: Collected) -> None:
    for number, (extra, _) in enumerate(STRANGE.values()):
        collected.create(f"strange-{number}", extra=extra)
    await collected.run()
    before = await collected.connection.fetch("select name, valid_from, original, body from resource order by name")

    assert await collected.run() == EXIT_DONE

    after = await collected.connection.fetch("select name, valid_from, original, body from resource order by name")
    assert after == before
    assert await collected.connection.fetchval("select count(*) from resource_history") == 0


UNREADABLE = {
    "a second metadata without name": (b'"metadata":{}', "no name"),
    "a name that is no text": (b'"metadata":{"namespace":"default","name":"a\xff"}', "no Unicode text"),
    "a name with NUL": (rb'"metadata":{"namespace":"default","name":"a\u0000"}', "no Unicode text"),
    "members without values": (b'"x",,"y"', "no value"),
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_an_object_without_identity_fails_its_list_and_deletes_nothing(collected: Collected, name: str) -> None:
    extra, why = UNREADABLE[name]
    for one in ["cm-gone", *NAMES]:
        collected.create(one)
    assert await collected.run() == EXIT_DONE
    collected.api.cluster.delete("configmaps", "default", "cm-gone")
    collected.create("cm-new")
    collected.create("cm-3-strange", extra=extra)

    assert await collected.run() == EXIT_ATTENTION

    assert set(await collected.live()) == {("default", one) for one in ["cm-gone", "cm-new", *NAMES]}
    state, error = (await collected.freshness())[""]
    assert (state, why in str(error)) == ("failed", True)
    assert [why in one.reason for one in collected.observed(ItemUnreadable)] == [True]


async def test_a_page_whose_brackets_lie_fails_its_list_and_says_so(collected: Collected) -> None:
    for one in NAMES:
        collected.create(one)
    assert await collected.run() == EXIT_DONE
    collected.create("cm-3-strange", extra=b'"x":[}')

    async with asyncio.timeout(60):
        assert await collected.run() == EXIT_ATTENTION

    assert set(await collected.live()) == {("default", one) for one in NAMES}
    state, error = (await collected.freshness())[""]
    assert (state, "no list that can be read" in str(error)) == ("failed", True)


# --- lists that leave something out, and what is no list --------------------------------------------------------------

CONFIGMAPS_PATH = "/api/v1/configmaps"
EMPTY = {
    "items and more": '{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"999999"}}',
    "metadata": '{"kind":"ConfigMapList","apiVersion":"v1","items":[]}',
    "everything": '{"kind":"ConfigMapList","apiVersion":"v1"}',
    "items, beside what nobody can decode": (
        r'{"kind":"ConfigMapList","metadata":{"resourceVersion":"999999","continue":null,"x":"\ud800"}}'
    ),
}
NO_LIST = {
    "a Status": ('{"kind":"Status","metadata":{},"status":"Failure","reason":"Unauthorized"}', "kind is 'Status'"),
    "a page of a proxy": ("<html><body>sign in</body></html>", "JSON is malformed"),
    "an object": ('{"kind":"ConfigMap","metadata":{"resourceVersion":"5"}}', "kind is 'ConfigMap'"),
    "discovery": ('{"kind":"APIResourceList","resources":[]}', "kind is 'APIResourceList'"),
    "another kind's list": ('{"kind":"SecretList","metadata":{"resourceVersion":"999999"}}', "kind is 'SecretList'"),
    "an empty object": ("{}", "no kind"),
}


@pytest.fixture
async def fronted(database: Database, connection: asyncpg.Connection, tmp_path: Path) -> AsyncIterator[Fronted]:
    async with SimulatedKubernetes(SimulatedCluster(seed=1)) as api, Front(api) as front:
        yield Fronted(api, front, database, connection, tmp_path)


@pytest.mark.parametrize("left_out", EMPTY)
async def test_an_empty_list_that_leaves_something_out_is_empty(fronted: Fronted, left_out: str) -> None:
    for one in NAMES[:3]:
        fronted.create(one)
    assert await fronted.run() == EXIT_DONE
    fronted.front.answers[CONFIGMAPS_PATH] = 200, EMPTY[left_out]

    assert await fronted.run() == EXIT_DONE

    assert await fronted.live() == {}
    assert await fronted.freshness() == {"": ("verified", None)}


@pytest.mark.parametrize("what", NO_LIST)
async def test_what_is_no_list_fails_its_kind_and_deletes_nothing(fronted: Fronted, what: str) -> None:
    body, why = NO_LIST[what]
    for one in NAMES[:3]:
        fronted.create(one)
    assert await fronted.run() == EXIT_DONE
    fronted.front.answers[CONFIGMAPS_PATH] = 200, body

    async with asyncio.timeout(60):
        assert await fronted.run() == EXIT_ATTENTION

    assert set(await fronted.live()) == {("default", one) for one in NAMES[:3]}
    state, error = (await fronted.freshness())[""]
    assert (state, why in str(error)) == ("failed", True), error


# --- objects without a version, objects that are named twice, lists that run backwards --------------------------------


def listing(*items: dict[str, Any], **metadata: str) -> tuple[int, str]:
    """A whole list of ConfigMaps in the namespace default, as a server computes it for each request."""
    for item in items:
        item["metadata"] = {"namespace": "default", **item["metadata"]}
    return 200, json.dumps({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": list(items)})


async def test_an_object_without_a_version_has_one_for_each_content(fronted: Fronted) -> None:
    for content in ("one", "one", "two", "one"):
        answer = listing({"metadata": {"name": "a"}, "data": {"k": content}})
        fronted.front.answers[CONFIGMAPS_PATH] = answer
        assert await fronted.run() == EXIT_DONE

    rows = await fronted.connection.fetch(
        "select h.body #>> '{data,k}' as content, h.resource_version, h.valid_from, h.valid_to from resource_history h "
        "join unit u on u.id = h.unit_id where u.resource = 'configmaps' order by h.valid_to"
    )
    now = await fronted.connection.fetchrow("select resource_version, object #>> '{data,k}' as k from resources where name = 'a'")  # fmt: skip  # noqa: E501
    changes = await fronted.connection.fetch(
        "select change from resource_changes('-infinity', 'infinity') where name = 'a' order by at"
    )
    assert [row["content"] for row in rows] == ["one", "two"]
    assert (now["k"], now["resource_version"]) == ("one", rows[0]["resource_version"])
    assert rows[0]["resource_version"] != rows[1]["resource_version"]
    assert [row["change"] for row in changes] == ["created", "updated", "updated"]
    then = await fronted.connection.fetchval(
        "select object #>> '{data,k}' from resources_as_of($1) where name = 'a'", rows[1]["valid_from"]
    )
    assert then == "two"
    assert await fronted.freshness() == {"": ("verified", None)}


@pytest.mark.parametrize("version", [{}, {"resourceVersion": "999999"}], ids=["by the clock", "by version"])
async def test_an_object_that_a_list_names_twice_fails_it_by_name_and_deletes_nothing(
    fronted: Fronted, version: dict[str, str]
) -> None:
    """As two catalogs that offer one package: which of the two is to be the row?"""
    for one in NAMES[:3]:
        fronted.create(one)
    assert await fronted.run() == EXIT_DONE
    twice = [{"metadata": {"name": "etcd"}, "data": {"catalog": catalog}} for catalog in ("one", "two")]
    fronted.front.answers[CONFIGMAPS_PATH] = listing(*twice, **version)

    for _ in range(2):
        assert await fronted.run() == EXIT_ATTENTION

    assert await fronted.freshness() == {"": ("failed", "the list names default/etcd twice")}
    assert set(await fronted.live()) == {("default", one) for one in [*NAMES[:3], "etcd"]}
    stored = await fronted.connection.fetchval("select object #>> '{data,catalog}' from resources where name = 'etcd'")
    assert stored == "one", "always the first: it does not change with every run"


async def test_a_kind_whose_list_version_went_back_is_one_that_failed(collected: Collected) -> None:
    """Each run is a process of its own, which has not seen the version of the one before: the database has."""
    for one in NAMES:
        collected.create(one)
    collected.api.faults.list_version("configmaps", "1000000")
    assert await collected.run() == EXIT_DONE
    collected.api.faults.clear("configmaps")

    assert await collected.run() == EXIT_ATTENTION

    state, error = (await collected.freshness())[""]
    assert (state, "restored" in str(error)) == ("failed", True)
    assert set(await collected.live()) == {("default", one) for one in NAMES}


async def test_a_list_version_longer_than_an_integer_orders_by_time(collected: Collected) -> None:
    """Python refuses to read more than 4,300 digits as a number."""
    collected.api.faults.list_version("configmaps", "9" * 4301)
    for one in NAMES[:3]:
        collected.create(one)
    assert await collected.run() == EXIT_DONE
    collected.api.cluster.delete("configmaps", "default", NAMES[0])

    assert await collected.run() == EXIT_DONE

    assert set(await collected.live()) == {("default", one) for one in NAMES[1:3]}
    assert await collected.freshness() == {"": ("verified", None)}


# --- servers that forget too fast ------------------------------------------------------------------------------------


async def test_namespaces_prove_what_the_whole_list_cannot_and_the_next_whole_one_heals(collected: Collected) -> None:
    cluster = collected.api.cluster
    for namespace in ("blue", "green", "red"):
        cluster.create_namespace(namespace)
        for one in NAMES[:4]:
            collected.create(one, namespace)
    assert await collected.run() == EXIT_DONE
    assert await collected.freshness() == {"": ("verified", None)}
    everything = set(await collected.live())
    for one in NAMES[:4]:  # red goes, and in blue one object of four
        cluster.delete("configmaps", "red", one)
    cluster.delete("namespaces", "", "red")
    cluster.delete("configmaps", "blue", "cm-0")
    collected.api.faults.expire_token("configmaps", times=None)

    assert await collected.run() == EXIT_DONE

    assert set(await collected.live()) == everything - {("blue", "cm-0")}, "absence in red is proven by nobody yet"
    fresh = await collected.freshness()
    assert {reach for reach, (state, _) in fresh.items() if state == "verified"} == set(fresh) - {""}
    assert {"blue", "green", "default"} <= set(fresh)
    assert "red" not in fresh
    state, error = fresh[""]
    assert (state, "namespaces that are gone" in str(error)) == ("failed", True)

    collected.api.faults.clear("configmaps")
    assert await collected.run() == EXIT_DONE

    assert set(await collected.live()) == {key for key in everything if key[0] != "red"} - {("blue", "cm-0")}
    assert await collected.freshness() == {"": ("verified", None)}


async def test_a_namespace_that_is_recreated_between_is_proven_by_its_own_list(collected: Collected) -> None:
    cluster = collected.api.cluster
    cluster.create_namespace("blue")
    for one in NAMES:
        collected.create(one, "blue")
    assert await collected.run() == EXIT_DONE
    for one in NAMES:
        cluster.delete("configmaps", "blue", one)
    cluster.recreate("namespaces", "", "blue")
    for number in range(6):
        collected.create(f"other-{number}", "default")
    collected.api.faults.expire_token("configmaps", times=2)

    assert await collected.run() == EXIT_DONE

    assert set(await collected.live()) == {("default", f"other-{number}") for number in range(6)}


async def test_lists_of_single_namespaces_prove_as_much_through_kafka(
    collected: Collected, broker: Broker, kafka_env: dict[str, str], database: Database, tmp_path: Path
) -> None:
    collected.api.cluster.create_namespace("blue")
    for namespace in ("blue", "default"):
        for one in NAMES[:4]:
            collected.create(one, namespace)
    collected.api.faults.expire_token("configmaps", times=2)
    given = {"KUBECONFIG": str(tmp_path / "kubeconfig"), "INCLUDE": "configmaps", "PAGE_SIZE": "5"}
    settings = load(kafka_env | database.env | given)

    async with asyncio.timeout(60):
        assert await collect(settings, collected.seen.append, asyncio.Event(), how=Pace.ONCE) == EXIT_DONE
        stored = await consume(settings, collected.seen.append, asyncio.Event(), until_idle_s=0.5, do_migrate=False)

    assert stored == EXIT_DONE
    assert set(await collected.live()) == {(where, one) for where in ("blue", "default") for one in NAMES[:4]}
    states = {reach: state for reach, (state, _) in (await collected.freshness()).items()}
    assert states == {"": "failed"} | dict.fromkeys(
        ("blue", "default", "kube-node-lease", "kube-public", "kube-system"), "verified"
    )
