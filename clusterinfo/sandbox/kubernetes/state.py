"""SimulatedCluster: everything the simulated API serves, and the ways to change it. No I/O, one event loop."""

import datetime as dt
import random
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from clusterinfo.sandbox.kubernetes.catalog import CUSTOM_VERBS, JSON, ApiResource, Catalog
from clusterinfo.sandbox.kubernetes.encoding import Encoder, managed_fields, timestamp
from clusterinfo.sandbox.kubernetes.tables import Stored, Table

SYSTEM_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")

# Built-in kinds that count the changes of their spec in metadata.generation.
WITH_GENERATION = {
    "pods", "deployments.apps", "replicasets.apps", "statefulsets.apps", "daemonsets.apps", "jobs.batch",
    "cronjobs.batch", "ingresses.networking.k8s.io", "endpointslices.discovery.k8s.io",
    "customresourcedefinitions.apiextensions.k8s.io",
}  # fmt: skip

# Changes kept for consistent lists and watches before the oldest half is compacted away (etcd: 5 minutes).
HISTORY_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class Identity:
    """What identifies an object in the API. `namespace` is "" for a cluster-scoped kind."""

    group: str
    resource: str
    namespace: str
    name: str
    uid: str
    resource_version: str


class SimulatedCluster:
    """A Kubernetes cluster's objects. Resources are named as kubectl does: `pods`, `deployments.apps`.

    `revision`: the present one, that of the last change. `compacted`: lists and watches of older revisions get 410.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        history_limit: int = HISTORY_LIMIT,
    ) -> None:
        """`seed` decides all uids; a cluster holds its four system namespaces from the start."""
        self.catalog = Catalog.builtin()
        self.revision = 1
        self.compacted = 0
        self.clock = clock
        self.random = random.Random(seed)  # noqa: S311 - reproducible, nothing secret
        self._history_limit = history_limit
        self._history = 0
        self._tables: dict[tuple[str, str], Table] = {}
        self._encoder = Encoder()
        self._canaries: dict[str, set[str]] = {}
        for name in SYSTEM_NAMESPACES:
            self.create_namespace(name)

    # Reading

    def table(self, resource: ApiResource) -> Table:
        """The table behind a served resource."""
        return self._tables.setdefault(resource.table, Table())

    def tables(self) -> list[Table]:
        return list(self._tables.values())

    def resources(self) -> list[str]:
        """The names of the resources that have objects, sorted."""
        names = [f"{resource}.{group}" if group else resource for group, resource in sorted(self._tables)]
        return [name for name in names if self.count(name)]

    def get(self, resource: str, namespace: str, name: str) -> JSON:
        """The whole object as the API shows it. Raises KeyError if there is none."""
        served = self.catalog.preferred(resource)
        stored = self.table(served).live[_key(namespace, name)]
        body: JSON = orjson.loads(b"{" + stored.rest())
        return {"apiVersion": served.api_version, "kind": served.kind, **body}

    def uid(self) -> str:
        """The cluster's identity: the uid of kube-system."""
        return self.table(self.catalog.preferred("namespaces")).live["kube-system"].uid

    def count(self, resource: str | None = None) -> int:
        """How many objects there are, of one resource or in all."""
        if resource is not None:
            return len(self.table(self.catalog.preferred(resource)).live)
        return sum(len(table.live) for table in self._tables.values())

    def identities(self) -> Iterator[Identity]:
        """Everything there is, each object once, by resource and key: the truth that a copy is checked against."""
        for (group, resource), table in sorted(self._tables.items(), key=lambda item: item[0]):
            for one in table.ordered():
                yield Identity(group, resource, one.namespace, one.name, one.uid, str(one.revision))

    def canaries(self, place: str | None = None) -> frozenset[str]:
        """Every secret text planted, verbatim as it stands in an object (so in base64 in a Secret).

        `place`: only those planted there: `secret`, `env`, `url`, `custom`, `configmap`, `csr`.
        """
        if place is not None:
            return frozenset(self._canaries.get(place, ()))
        return frozenset().union(*self._canaries.values())

    def plant(self, place: str, *values: str) -> None:
        """Remember that these secret texts were put into objects."""
        self._canaries.setdefault(place, set()).update(values)

    # Changing

    def create(self, resource: str, body: Mapping[str, Any], extra: bytes = b"") -> Identity:
        """Create an object from a manifest: `metadata.name` (and `namespace`) given, the server's fields added.

        What metadata already has of uid, creationTimestamp, generation and managedFields is kept. `extra`: further
        members as raw JSON text, well-formed or not (`b'"spec":{"x":"\\\\ud800"}'`), for what no encoder would write.
        Raises KeyError for a resource that is not served, ValueError if the object exists or its namespace is missing.
        """
        served = self.catalog.preferred(resource)
        metadata: JSON = dict(body["metadata"])
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        if served.namespaced != bool(namespace):
            raise ValueError(
                f"{resource} {name}: metadata.namespace is {namespace!r}, namespaced is {served.namespaced}"
            )
        table = self.table(served)
        if _key(namespace, name) in table.live:
            raise ValueError(f"{resource} {_key(namespace, name)} exists already")
        now = self._now()
        metadata.setdefault("uid", self.new_uid())
        metadata.setdefault("creationTimestamp", now)
        if served.custom or resource in WITH_GENERATION:
            metadata.setdefault("generation", 1)
        complete = {**body, "metadata": metadata}
        metadata.setdefault(
            "managedFields", managed_fields(complete, served.api_version, metadata["creationTimestamp"])
        )
        return self._store(served, complete, extra)

    def create_namespace(self, name: str, **labels: str) -> Identity:
        metadata = {"name": name, "labels": {"kubernetes.io/metadata.name": name, **labels}}
        body = {"metadata": metadata, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
        return self.create("namespaces", body)

    def update(self, resource: str, namespace: str, name: str, patch: Mapping[str, Any] | None = None) -> Identity:
        """Apply a JSON merge patch (RFC 7386: null removes, lists are replaced); no patch: touch one annotation.

        Raises KeyError if there is no such object.
        """
        served = self.catalog.preferred(resource)
        body = self.get(resource, namespace, name)
        if patch is None:
            patch = {"metadata": {"annotations": {"sandbox.clusterinfo.io/touched": str(self.revision + 1)}}}
        merged = merge_patch(body, patch)
        if "spec" in patch and "generation" in merged["metadata"]:
            merged["metadata"]["generation"] += 1
        return self._store(served, merged)

    def replace(self, resource: str, body: Mapping[str, Any]) -> Identity:
        """Put `body` in the place of an object, whose uid and creation stay. Raises KeyError if there is none."""
        served = self.catalog.preferred(resource)
        metadata: JSON = dict(body["metadata"])
        present = self.get(resource, metadata.get("namespace", ""), metadata["name"])["metadata"]
        metadata |= {key: present[key] for key in ("uid", "creationTimestamp", "managedFields") if key in present}
        return self._store(served, {**body, "metadata": metadata})

    def delete(self, resource: str, namespace: str, name: str) -> int:
        """Delete an object; the revision of the deletion. Raises KeyError if there is no such object."""
        table = self.table(self.catalog.preferred(resource))
        key = _key(namespace, name)
        if key not in table.live:
            raise KeyError(f"{resource} {key}")
        revision = self._next_revision()
        table.remove(key, revision)
        return revision

    def recreate(self, resource: str, namespace: str, name: str) -> Identity:
        """Delete an object and create one of the same name and content: another uid, another creation time."""
        body = self.get(resource, namespace, name)
        self.delete(resource, namespace, name)
        dropped = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation")
        metadata = {key: value for key, value in body["metadata"].items() if key not in dropped}
        return self.create(resource, {**body, "metadata": metadata})

    def compact(self) -> int:
        """Compact the past away: the continue tokens and resourceVersions given out expire. The new oldest revision."""
        return self._compact_to(self._next_revision())

    def tick(self, revisions: int = 1) -> int:
        """Let the revision advance as if objects that nobody can see had changed; the new revision."""
        self.revision += revisions
        return self.revision

    def new_uid(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def drop_watches(self, resource: str) -> None:
        """End all open watches of a resource, as a restarting server does."""
        self.table(self.catalog.preferred(resource)).close_subscriptions()

    # Custom resources

    def add_crd(
        self,
        plural: str,
        group: str,
        kind: str,
        *,
        versions: tuple[str, ...] = ("v1",),
        namespaced: bool = True,
        short_names: tuple[str, ...] = (),
    ) -> Identity:
        """Serve a custom resource in `versions` (preferred first) and create its CustomResourceDefinition."""
        names = {"plural": plural, "singular": kind.lower(), "shortNames": list(short_names), "kind": kind}
        names["listKind"] = kind + "List"
        entry: JSON = {
            "resource": plural,
            "responseKind": {"kind": kind},
            "scope": "Namespaced" if namespaced else "Cluster",
            "singularResource": kind.lower(),
            "verbs": CUSTOM_VERBS,
        }
        if short_names:
            entry["shortNames"] = list(short_names)
        self.catalog.add_custom(group, list(versions), entry)
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        spec = {"group": group, "names": names, "scope": entry["scope"], "conversion": {"strategy": "None"}}
        spec["versions"] = [
            {"name": version, "served": True, "storage": version == versions[0], "schema": schema}
            for version in versions
        ]
        status = {
            "conditions": [_condition("NamesAccepted", self._now()), _condition("Established", self._now())],
            "acceptedNames": names,
            "storedVersions": [versions[0]],
        }
        body = {"metadata": {"name": f"{plural}.{group}"}, "spec": spec, "status": status}
        return self.create("customresourcedefinitions.apiextensions.k8s.io", body)

    def remove_crd(self, plural: str, group: str) -> None:
        """Delete a CustomResourceDefinition: its objects first, then it is no longer served."""
        resource = f"{plural}.{group}"
        served = self.catalog.preferred(resource)
        for one in list(self.table(served).ordered()):
            self.delete(resource, one.namespace, one.name)
        self.delete("customresourcedefinitions.apiextensions.k8s.io", "", resource)
        self.table(served).close_subscriptions()
        del self._tables[served.table]
        self.catalog.remove_custom(group, plural)

    # Within

    def _store(self, served: ApiResource, body: JSON, extra: bytes = b"") -> Identity:
        revision = self._next_revision()
        metadata = {**body["metadata"], "resourceVersion": str(revision)}
        pieces, version_at = self._encoder.encode({**body, "metadata": metadata}, served.kind, served.custom, extra)
        namespace, name, uid = metadata.get("namespace", ""), metadata["name"], metadata["uid"]
        self.table(served).put(Stored(_key(namespace, name), namespace, name, uid, revision, pieces, version_at))
        group, resource = served.table
        return Identity(group, resource, namespace, name, uid, str(revision))

    def _next_revision(self) -> int:
        self._history += 1
        if self._history > self._history_limit:
            self._compact_to(self.revision - self._history_limit // 2)
        self.revision += 1
        return self.revision

    def _compact_to(self, revision: int) -> int:
        self.compacted = max(self.compacted, revision)
        for table in self._tables.values():
            table.trim(self.compacted)
        self._history = self.revision - self.compacted
        return self.compacted

    def _now(self) -> str:
        return timestamp(self.clock())


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def _key(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def _condition(kind: str, time: str) -> JSON:
    return {"type": kind, "status": "True", "lastTransitionTime": time, "reason": "Accepted", "message": "accepted"}
