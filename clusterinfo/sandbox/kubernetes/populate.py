"""Fills a SimulatedCluster with realistic objects, and changes them at random; both reproducible by their seed."""

import random
from collections.abc import Callable, Collection, Mapping

from clusterinfo.sandbox.kubernetes import manifests
from clusterinfo.sandbox.kubernetes.catalog import JSON
from clusterinfo.sandbox.kubernetes.manifests import World
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster

Make = Callable[[World, int], JSON]

# Resource, its share of the objects, how it is made; most wanted first. Shares as in clusters of ordinary web services.
KINDS: tuple[tuple[str, float, Make], ...] = (
    ("namespaces", 0.6, manifests.namespace),
    ("nodes", 1.0, manifests.node),
    ("pods", 40.0, manifests.pod),
    ("configmaps", 8.0, manifests.configmap),
    ("secrets", 8.0, manifests.secret),
    ("services", 5.0, manifests.service),
    ("deployments.apps", 4.0, manifests.deployment),
    ("replicasets.apps", 9.0, manifests.replicaset),
    ("ingresses.networking.k8s.io", 1.5, manifests.ingress),
    ("persistentvolumes", 1.5, manifests.persistentvolume),
    ("persistentvolumeclaims", 1.5, manifests.persistentvolumeclaim),
    ("widgets.shop.example.com", 2.0, manifests.widget),
    ("jobs.batch", 2.0, manifests.job),
    ("cronjobs.batch", 0.5, manifests.cronjob),
    ("statefulsets.apps", 0.8, manifests.statefulset),
    ("daemonsets.apps", 0.2, manifests.daemonset),
    ("events", 6.0, manifests.event),
    ("leases.coordination.k8s.io", 1.0, manifests.lease),
    ("serviceaccounts", 2.0, manifests.serviceaccount),
    ("horizontalpodautoscalers.autoscaling", 0.5, manifests.autoscaler),
    ("endpointslices.discovery.k8s.io", 4.0, manifests.endpointslice),
    ("clusterroles.rbac.authorization.k8s.io", 0.7, manifests.clusterrole),
    ("storageclasses.storage.k8s.io", 0.1, manifests.storageclass),
    ("certificatesigningrequests.certificates.k8s.io", 0.1, manifests.signing_request),
)
GADGET_GROUP = "lab.example.com"
GADGET_SHARE = 0.5


def plan(objects: int, kinds: int | None) -> dict[str, int]:
    """How many objects of each resource: in proportion to the shares, one at least, `objects` in all.

    More `kinds` than the generator knows are further custom resources, `gadget00s.lab.example.com` and so on. Raises
    ValueError if there are fewer objects than kinds.
    """
    wanted = len(KINDS) if kinds is None else kinds
    shares = {resource: share for resource, share, _ in KINDS[:wanted]}
    shares |= {f"gadget{n:02d}s.{GADGET_GROUP}": GADGET_SHARE for n in range(wanted - len(KINDS))}
    if not 0 < len(shares) <= objects:
        raise ValueError(f"{objects} objects of {len(shares)} kinds: expected at least one of each kind")
    total = sum(shares.values())
    spare = objects - len(shares)
    counts = {resource: 1 + int(spare * share / total) for resource, share in shares.items()}
    largest = max(counts, key=lambda resource: counts[resource])
    counts[largest] += objects - sum(counts.values())
    return counts


def populate(
    cluster: SimulatedCluster, objects: int = 5000, kinds: int | None = None, seed: int = 0, *, noise: int = 0
) -> dict[str, int]:
    """Add `objects` realistic objects of `kinds` kinds (None: all known ones); how many of each resource.

    `noise`: random hexadecimal digits in an annotation of each. Pages compress 11 times without, as no real ones do, 7
    times with 1,024.

    CustomResourceDefinitions of new custom kinds come on top. Afterwards the past is compacted away, as in a cluster
    that has run for a while. Raises ValueError if an object of that name exists.
    """
    counts = plan(objects, kinds)
    makers: Mapping[str, Make] = {resource: make for resource, _, make in KINDS}
    short = {resource.partition(".")[0]: count for resource, count in counts.items()}
    world = World(random.Random(seed), cluster.clock(), counts | short, cluster.plant)  # noqa: S311 - reproducible
    for resource, count in counts.items():
        _serve(cluster, resource)
        make = makers.get(resource, manifests.gadget)
        for index in range(count):
            body = make(world, index)
            body["metadata"].setdefault("creationTimestamp", world.ago(60))
            if noise:
                body["metadata"].setdefault("annotations", {})["example.com/noise"] = world.hexadecimal(noise)
            cluster.create(resource, body)
    cluster.compact()
    return counts


def serve_few(cluster: SimulatedCluster, empty: Collection[str]) -> None:
    """Serve what there are objects of, and the kinds named in `empty`, in place of the 60 of a real cluster."""
    cluster.catalog.restrict_to({*cluster.resources(), *empty})


def churn(cluster: SimulatedCluster, changes: int = 100, seed: int = 0) -> dict[str, int]:
    """Change that many objects picked at random: half updates, the rest deletions, recreations and creations (copies).

    Nodes, namespaces and definitions stay. Returns how often each was done.
    """
    rng = random.Random(seed)  # noqa: S311 - reproducible
    fixed = {"namespaces", "nodes", "customresourcedefinitions"}
    resources = [name for name in cluster.resources() if name.partition(".")[0] not in fixed]
    done = dict.fromkeys(("update", "delete", "recreate", "create"), 0)
    for number in range(changes):
        resource = rng.choices(resources, [cluster.count(name) for name in resources])[0]
        stored = cluster.table(cluster.catalog.preferred(resource)).pick(rng.random())
        operation = rng.choices(list(done), (5, 2, 1, 2))[0]
        if operation == "create":
            body = cluster.get(resource, stored.namespace, stored.name)
            metadata = {key: body["metadata"][key] for key in ("labels", "annotations") if key in body["metadata"]}
            metadata |= {"name": f"{stored.name[:40]}-c{seed}-{number}"}
            metadata |= {"namespace": stored.namespace} if stored.namespace else {}
            cluster.create(resource, {**body, "metadata": metadata})
        else:
            getattr(cluster, operation)(resource, stored.namespace, stored.name)
        done[operation] += 1
    return done


def _serve(cluster: SimulatedCluster, resource: str) -> None:
    """Make sure that a custom resource of ours is served."""
    plural, _, group = resource.partition(".")
    try:
        cluster.catalog.preferred(resource)
    except KeyError:
        singular = plural.removesuffix("s")
        versions = ("v1", "v1beta1") if plural == "widgets" else ("v1",)
        short_names = ("wd",) if plural == "widgets" else ()
        cluster.add_crd(plural, group, singular.capitalize(), versions=versions, short_names=short_names)
