"""Faults of the Kubernetes API. While a kind cannot be listed, objects of it are deleted: their rows must stay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg

from clusterinfo.sandbox.kubernetes import Faults
from clusterinfo.sandbox.kubernetes.state import Identity
from tests.faults.matrix_rig import LOOK_S, Rig
from tests.support import checker

FAULT_S = 4.0
"""Five failures of a page in a row take 3 to 4 s, and make its list fail."""
VICTIMS = 3

Strike = Callable[[Faults], None]


async def failing(rig: Rig, resource: str, strike: Strike, seconds: float = FAULT_S) -> None:
    """`strike` makes it impossible to list `resource`, for some time; what is deleted meanwhile must stay stored."""
    api, cluster = rig.world.api, rig.world.api.cluster
    async with rig.world.database() as connection:
        victims = await find_victims(rig, connection, resource)
        strike(api.faults)
        for victim in victims:  # no list begins between the fault and these: nothing was awaited
            cluster.delete(resource, victim.namespace, victim.name)
        await asyncio.sleep(seconds)
        live = {one.uid for one in await checker.live(connection)}
    rig.problems += [f"deleted while {resource} could not be listed: {one}" for one in victims if one.uid not in live]
    api.faults.clear()
    rig.is_over()


async def find_victims(rig: Rig, connection: asyncpg.Connection, resource: str) -> list[Identity]:
    """Objects of `resource` that are there and stored; made, if the churn has left none."""
    cluster = rig.world.api.cluster
    name, _, group = resource.partition(".")
    while True:
        stored = {one.uid for one in await checker.live(connection) if (one.group, one.resource) == (group, name)}
        if victims := [one for one in cluster.identities() if one.uid in stored][:VICTIMS]:
            return victims
        metadata = {"name": f"victim-{cluster.revision}", "namespace": "default"}
        cluster.create(resource, {"metadata": metadata})
        await asyncio.sleep(LOOK_S)


def fill_pages(rig: Rig) -> None:
    """Have pods for three pages: the churn may have left fewer than one holds."""
    cluster = rig.world.api.cluster
    pods = cluster.table(cluster.catalog.preferred("pods"))
    while (count := cluster.count("pods")) < 3 * int(rig.world.env["PAGE_SIZE"]):
        stored = pods.pick(cluster.random.random())
        body = cluster.get("pods", stored.namespace, stored.name)
        metadata = {"name": f"more-{cluster.revision}-{count}", "namespace": stored.namespace}
        cluster.create("pods", {**body, "metadata": metadata})


async def too_many_requests(rig: Rig) -> None:
    """For 4 s every list is answered 429 with Retry-After: 1."""
    await failing(rig, "pods", lambda faults: faults.throttle("*", retry_after_s=1, times=None))


async def status_500(rig: Rig) -> None:
    """For 4 s every list is answered 500."""
    await failing(rig, "pods", lambda faults: faults.fail("*", 500, verb="list"))


async def status_503(rig: Rig) -> None:
    """For 4 s every list is answered 503."""
    await failing(rig, "pods", lambda faults: faults.fail("*", 503, verb="list"))


async def status_504(rig: Rig) -> None:
    """For 4 s every list is answered 504."""
    await failing(rig, "pods", lambda faults: faults.fail("*", 504, verb="list"))


async def cut_body(rig: Rig) -> None:
    """For 4 s every list is cut off half way."""
    await failing(rig, "pods", lambda faults: faults.cut_body("*", times=None))


async def wrong_version(rig: Rig) -> None:
    """For 4 s the second page of pods is of another resourceVersion."""
    fill_pages(rig)
    await failing(rig, "pods", lambda faults: faults.wrong_resource_version("pods", page=2))


async def expired_token(rig: Rig) -> None:
    """For 4 s every continue token of pods has expired.

    Namespace by namespace a list needs no token: the kind may well be listed meanwhile, and deletions be proven.
    """
    fill_pages(rig)
    rig.world.api.faults.expire_token("pods", after_page=1, times=None)
    await asyncio.sleep(FAULT_S)
    rig.world.api.faults.clear()
    rig.is_over()


async def stale_discovery(rig: Rig) -> None:
    """For 4 s group apps is stale in discovery, and answers 503."""
    await failing(rig, "deployments.apps", lambda faults: faults.stale_discovery("apps", lists=True))


async def forbidden_now_and_then(rig: Rig) -> None:
    """Twice for 1.5 s pods may not be listed (403)."""
    for _ in range(2):
        await failing(rig, "pods", lambda faults: faults.forbid("pods"), 1.5)
        await asyncio.sleep(1)
    rig.is_over()
