"""What the generator makes: as many objects as asked for, the same for the same seed, with secrets where asked for."""

import datetime as dt

import orjson
import pytest

from clusterinfo.sandbox.kubernetes import CANARY_MARKS, SimulatedCluster
from clusterinfo.sandbox.kubernetes.populate import KINDS, churn, plan, populate, serve_few

NOW = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)


def populated(objects: int, kinds: int | None = None, seed: int = 0) -> SimulatedCluster:
    cluster = SimulatedCluster(seed=seed, clock=lambda: NOW)
    populate(cluster, objects, kinds, seed)
    return cluster


def content(cluster: SimulatedCluster) -> list[bytes]:
    return [stored.rest() for table in cluster.tables() for stored in table.ordered()]


@pytest.mark.parametrize(("objects", "kinds"), [(24, None), (1000, 12), (5000, None), (777, 40), (1, 1)])
def test_plan_adds_up(objects: int, kinds: int | None) -> None:
    counts = plan(objects, kinds)
    assert sum(counts.values()) == objects
    assert len(counts) == (len(KINDS) if kinds is None else kinds)
    assert min(counts.values()) >= 1


def test_fewer_objects_than_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one of each"):
        plan(3, 12)


def test_seed_decides_everything() -> None:
    assert content(populated(150, seed=5)) == content(populated(150, seed=5))
    assert content(populated(150, seed=5)) != content(populated(150, seed=6))


def test_every_object_is_json_with_managed_fields_and_its_own_uid() -> None:
    cluster = populated(300, kinds=30)
    assert cluster.count() == 300 + 4 + 1 + 6  # system namespaces, definitions of widgets and six gadgets
    objects = [orjson.loads(b"{" + rest) for rest in content(cluster)]
    assert all(one["metadata"]["managedFields"] for one in objects)
    assert len({one["metadata"]["uid"] for one in objects}) == len(objects)
    assert len({one["metadata"]["resourceVersion"] for one in objects}) == len(objects)


def test_pods_are_as_large_as_real_ones() -> None:
    cluster = populated(300)
    pods = [stored.rest() for stored in cluster.table(cluster.catalog.preferred("pods")).ordered()]
    assert 6_000 < sum(map(len, pods)) / len(pods) < 12_000
    managed = [len(orjson.dumps(orjson.loads(b"{" + pod)["metadata"]["managedFields"])) / len(pod) for pod in pods]
    assert 0.4 < sum(managed) / len(managed) < 0.5


def test_canaries_are_all_there_and_nothing_else_looks_like_one() -> None:
    cluster = populated(300)
    everything = b"\n".join(content(cluster))
    canaries = cluster.canaries()
    assert len(canaries) > 50
    standing = {text for text in canaries if text.encode() in everything}
    # Secrets hold the base64 form alone; every other place the plain one.
    assert cluster.canaries("env") | cluster.canaries("url") | cluster.canaries("custom") <= standing
    assert all(any(mark in text.encode() for mark in CANARY_MARKS) for text in canaries)
    without = everything
    for text in sorted(standing, key=len, reverse=True):
        without = without.replace(text.encode(), b"")
    assert not any(mark in without for mark in CANARY_MARKS)


def test_owners_exist() -> None:
    cluster = populated(300)
    uids = {one.uid for one in cluster.identities()}
    for rest in content(cluster):
        for reference in orjson.loads(b"{" + rest)["metadata"].get("ownerReferences", []):
            assert reference["uid"] in uids


def test_churn_changes_that_much_and_is_reproducible() -> None:
    first, second = populated(200, seed=2), populated(200, seed=2)
    done = churn(first, 100, seed=9)
    assert sum(done.values()) == 100
    assert churn(second, 100, seed=9) == done
    assert content(first) == content(second)
    assert first.count() == second.count() == 200 + 5 + done["create"] - done["delete"]


def test_few_kinds_may_be_served() -> None:
    """Those with objects, those named, and whatever cannot be listed."""
    cluster = SimulatedCluster(seed=1)
    populate(cluster, 60, 12)
    full = cluster.resources()
    serve_few(cluster, ["events", "leases.coordination.k8s.io"])
    served = {one.qualified for one in cluster.catalog._resources() if "list" in one.verbs}
    assert served == {*full, "events", "leases.coordination.k8s.io"}
    assert cluster.resources() == full
    assert cluster.catalog.preferred("selfsubjectaccessreviews.authorization.k8s.io")
    assert not cluster.catalog.group("flowcontrol.apiserver.k8s.io")
