"""Replicas of a collector as programs: one follows and the others stand by, through everything that ends a leader."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from typing import Any

import aiohttp
import asyncpg
import pytest

from clusterinfo.sandbox.processes import free_port
from tests.conftest import Database
from tests.integration.lists import configmap
from tests.integration.test_troubleshooting import ENTRIES
from tests.support import checker
from tests.support.programs import QUIET, Api, Program, run, running, simulated_api, tuned

pytestmark = pytest.mark.embedded_only

LEASE = {"LEADER_ELECTION": "true", "LEADER_ELECTION_LEASE": "default/lead"}
KINDS = ("configmaps", "pods", "services")
LASTS_S = 6
TUNED = tuned({
    "clusterinfo.kubernetes.election.LEASE_S": LASTS_S,
    "clusterinfo.kubernetes.election.RENEW_WITHIN_S": 4,
    "clusterinfo.kubernetes.leadership.RETRY_S": 0.8,
    "clusterinfo.kubernetes.following.PROGRESS_S": 1,
})  # fmt: skip
"""All that is waited for takes two fifths of its time, or less."""


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with simulated_api(60, 10) as served:
        yield served


async def until(holds: Callable[[], Awaitable[object]], within_s: float = 150) -> None:
    async with asyncio.timeout(within_s):
        while not await holds():
            await asyncio.sleep(0.1)


async def change(api: Api) -> None:
    """One new ConfigMap after another for as long as nobody cancels it. None has two versions of which a list that
    overtakes what is watched could hide one.
    """
    for number in count():
        await api.control("create", resource="configmaps", body=configmap(f"new-{number}", namespace="default"))
        await asyncio.sleep(0.3)


class Replicas:
    """Collectors, by name, and the database that they fill."""

    def __init__(self, api: Api, connection: asyncpg.Connection) -> None:
        self.api = api
        self.connection = connection
        self.ports: dict[str, int] = {}

    def env(self, name: str) -> dict[str, str]:
        self.ports[name] = free_port()
        return LEASE | TUNED | {"METRICS_ADDRESS": f"127.0.0.1:{self.ports[name]}", "INCLUDE": ",".join(KINDS)}

    async def answers(self, name: str) -> dict[str, Any]:
        """Status of the two probes, and whether it leads."""
        found: dict[str, Any] = {}
        async with aiohttp.ClientSession() as session:
            for path in ("healthz", "readyz", "metrics"):
                async with session.get(f"http://127.0.0.1:{self.ports[name]}/{path}") as response:
                    found[path] = response.status if path != "metrics" else await response.text()
        leads = re.search(r'^clusterinfo_leader\{.*lease="default/lead"\} (.*)$', found.pop("metrics"), re.MULTILINE)
        assert leads
        return found | {"leads": float(leads[1])}

    async def holder(self) -> str:
        lease = await self.api.get("/apis/coordination.k8s.io/v1/namespaces/default/leases/lead")
        return str(lease["spec"].get("holderIdentity"))

    async def following(self) -> set[str]:
        rows = await self.connection.fetch("select resource from freshness where following and state = 'verified'")
        return {row["resource"] for row in rows}

    async def until_followed(self) -> None:
        async def followed() -> bool:
            return await self.following() == set(KINDS)

        await until(followed)

    async def missed(self, since: dt.datetime) -> list[asyncpg.Record]:
        """When ConfigMaps were not observed since then, once that is heard."""
        now = dt.datetime.now(dt.UTC)

        async def heard() -> object:
            query = "select max(heard) > $1 from followed() where resource = 'configmaps' and begins_at is not null"
            return await self.connection.fetchval(query, now)

        await until(heard)
        query = "select begins_at, ends_at from not_observed($1, $2) where resource = 'configmaps'"
        return list(await self.connection.fetch(query, since, now))


async def test_a_leader_that_stops_is_killed_or_shut_out_is_followed_by_another(
    api: Api, database: Database, kafka_env: dict[str, str]
) -> None:
    env = api.env | database.env | kafka_env
    replicas = Replicas(api, await database.connect())
    async with running("consume", env=env | QUIET), running("collect", env=env | replicas.env("first")) as first:
        await first.wait_for_output("Leads: ")
        async with running("collect", env=env | replicas.env("second")) as second:
            await second.wait_for_output("Stands by: ")
            await replicas.until_followed()
            began = dt.datetime.now(dt.UTC)
            changing = asyncio.create_task(change(api))
            await stands_by(replicas, second)
            await is_stopped(replicas, first, second, began)
            async with running("collect", env=env | replicas.env("third")) as third:
                await third.wait_for_output("Stands by: ")
                await is_killed(replicas, second, third, began)
                await is_shut_out(replicas, third)
                changing.cancel()
                truth = await checker.truth(api.url, api.token)

                async def equal() -> bool:
                    return not await checker.differs(
                        {one: body for one, body in truth.items() if one.resource in KINDS}, database.dsn
                    )

                await until(equal)
                third.signal(signal.SIGTERM)
                (await third.ended()).expect(0)
    assert await checker.wrong_history(replicas.connection) == []
    await replicas.connection.close()


async def stands_by(replicas: Replicas, second: Program) -> None:
    assert await replicas.answers("first") == {"healthz": 200, "readyz": 200, "leads": 1}
    assert await replicas.answers("second") == {"healthz": 200, "readyz": 200, "leads": 0}
    assert second.stderr().count("Stands by: ") == 1
    assert "Discovered" not in second.stderr()


async def is_stopped(replicas: Replicas, first: Program, second: Program, began: dt.datetime) -> None:
    """It follows until the next one does: nothing is missed."""
    before = await replicas.holder()
    first.signal(signal.SIGTERM)
    ended = (await first.ended()).expect(0)
    assert ended.logged("Lease given up")
    assert "Snapshot ended" in second.stderr(), "the first ended before the second had listed everything"
    assert await replicas.holder() != before
    assert await replicas.missed(began) == []
    assert (await replicas.answers("second"))["leads"] == 1


async def is_killed(replicas: Replicas, second: Program, third: Program, began: dt.datetime) -> None:
    """What nobody saw is said not to be observed."""
    second.kill()
    await third.wait_for_output("Leads: ")
    await replicas.until_followed()
    missed = await replicas.missed(began)
    assert len(missed) == 1
    assert missed[0]["ends_at"] - missed[0]["begins_at"] > dt.timedelta(seconds=LASTS_S - 2)


async def is_shut_out(replicas: Replicas, third: Program) -> None:
    """It says that nothing is followed any more, stands by, and leads again when it may."""
    await replicas.api.control("forbid", resource="leases.coordination.k8s.io", verb="update")
    await third.wait_for_output("Leads no more")

    async def nothing_followed() -> bool:
        query = (
            "select count(*) filter (where c.is_open) from watch_session s join coverage c on c.session_id = s.id "
            "where s.session = (select max(session::text)::uuid from watch_session)"
        )
        return int(await replicas.connection.fetchval(query)) == 0

    await until(nothing_followed)
    answers = await replicas.answers("third")
    assert (answers["healthz"], answers["leads"]) == (200, 0)
    entry = ENTRIES["Collectors stand by and none leads"]
    for said in ("Leads no more, and stands by", "Step failed, trying again", "renew"):
        assert f"`{said}`" in entry
        assert said in third.stderr()
    await replicas.api.control("clear")

    async def leads() -> bool:
        return bool((await replicas.answers("third"))["leads"])

    await until(leads)
    await replicas.until_followed()


@pytest.mark.parametrize(
    ("args", "env", "says"),
    [
        (["--leader-election"], {}, "set LEADER_ELECTION_LEASE to the NAMESPACE/NAME"),
        (["--leader-election", "--once"], {}, "--once and --leader-election contradict each other"),
        ([], LEASE | {"LEADER_ELECTION_LEASE": "lead"}, "LEADER_ELECTION_LEASE is 'lead': allowed is NAMESPACE/NAME"),
        ([], LEASE | {"LEADER_ELECTION_LEASE": "nowhere/lead"}, "the Lease nowhere/lead cannot be used (404"),
    ],
    ids=["outside a cluster", "once", "no name", "no namespace"],
)
async def test_a_lease_that_cannot_be_is_refused_in_one_line(
    api: Api, kafka_env: dict[str, str], args: list[str], env: dict[str, str], says: str
) -> None:
    ended = (await run("collect", *args, env=api.env | kafka_env | QUIET | env)).expect(2)
    assert says in ended.errors()[-1]
    assert len(ended.errors()) == 1
