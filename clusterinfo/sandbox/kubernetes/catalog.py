"""Which resources the simulated API serves: the built-in ones as a real server describes them, and those of CRDs.

`catalog.json` holds the built-in groups of a kube-apiserver 1.36 in the words of its aggregated discovery (apidiscovery
v2), in its order. All else - legacy documents, routes - is derived from that.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

JSON = dict[str, Any]

# One object, two addresses: what is stored under the second is served under the first too.
ALIASES = {("events.k8s.io", "events"): ("", "events")}

# Computed by the server at each request, so that their lists carry no resourceVersion.
UNVERSIONED = {("", "componentstatuses")}

# The order of verbs and the short set that a CustomResourceDefinition's resources have in discovery.
CUSTOM_VERBS = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]


@dataclass(frozen=True, slots=True)
class ApiResource:
    """One resource in one version, as a request addresses it. `custom`: it comes from a CRD."""

    group: str
    version: str
    resource: str
    kind: str
    namespaced: bool
    verbs: frozenset[str]
    custom: bool

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """`pods`, `deployments.apps`: as kubectl and `Faults` name it."""
        return f"{self.resource}.{self.group}" if self.group else self.resource

    @property
    def table(self) -> tuple[str, str]:
        """(group, resource) under which its objects are stored."""
        return ALIASES.get((self.group, self.resource), (self.group, self.resource))

    @property
    def unversioned(self) -> bool:
        return (self.group, self.resource) in UNVERSIONED


@dataclass(slots=True)
class ApiGroup:
    """A group in discovery's words: `versions` is the list of the aggregated document, preferred version first."""

    name: str
    versions: list[JSON]
    custom: bool = False


@dataclass(slots=True)
class Catalog:
    """The groups served, in discovery order."""

    groups: list[ApiGroup] = field(default_factory=list)
    _routes: dict[tuple[str, str, str], ApiResource] = field(default_factory=dict)

    @classmethod
    def builtin(cls) -> "Catalog":
        """What a fresh cluster serves."""
        text = resources.files(__package__).joinpath("catalog.json").read_text()
        catalog = cls([ApiGroup(group["metadata"].get("name", ""), group["versions"]) for group in json.loads(text)])
        catalog._index()
        return catalog

    def find(self, group: str, version: str, resource: str) -> ApiResource | None:
        """The resource served at that address, None where a real server answers 404."""
        return self._routes.get((group, version, resource))

    def group(self, name: str) -> ApiGroup | None:
        return next((group for group in self.groups if group.name == name), None)

    def preferred(self, qualified: str) -> ApiResource:
        """`pods` or `deployments.apps` in the version that its group prefers. Raises KeyError if nobody serves it."""
        resource, _, group = qualified.partition(".")
        found = self.group(group)
        for version in found.versions if found else []:
            if route := self._routes.get((group, version["version"], resource)):
                return route
        raise KeyError(f"{qualified} is not served; a custom one needs add_crd first")

    def add_custom(self, group: str, versions: list[str], entry: JSON) -> None:
        """Serve `entry` (a resource of the aggregated document) in `versions`, preferred first, at the group's end."""
        found = self.group(group)
        if found is None:
            found = ApiGroup(group, [], custom=True)
            self.groups.append(found)
        for version in versions:
            served = next((one for one in found.versions if one["version"] == version), None)
            if served is None:
                served = {"version": version, "resources": [], "freshness": "Current"}
                found.versions.append(served)
            kind = {"group": group, "version": version, "kind": entry["responseKind"]["kind"]}
            served["resources"].append({**entry, "responseKind": kind})
            served["resources"].sort(key=lambda one: str(one["resource"]))
        self._index()

    def remove_custom(self, group: str, resource: str) -> None:
        """Stop serving it; a version, or a group, with nothing left goes too."""
        found = self.group(group)
        if found is None or not found.custom:
            raise KeyError(f"no custom resources are served in {group}")
        for version in found.versions:
            version["resources"] = [one for one in version["resources"] if one["resource"] != resource]
        found.versions = [version for version in found.versions if version["resources"]]
        if not found.versions:
            self.groups.remove(found)
        self._index()

    def restrict_to(self, names: Collection[str]) -> None:
        """Stop serving whatever can be listed and is not among these qualified names."""
        for group in self.groups:
            for version in group.versions:
                version["resources"] = [one for one in version["resources"] if _is_served(one, group.name, names)]
            group.versions = [version for version in group.versions if version["resources"]]
        self.groups = [group for group in self.groups if group.versions]
        self._index()

    def _index(self) -> None:
        self._routes = {(one.group, one.version, one.resource): one for one in self._resources()}

    def _resources(self) -> Iterator[ApiResource]:
        for group in self.groups:
            for version in group.versions:
                for entry in version["resources"]:
                    yield ApiResource(
                        group=group.name,
                        version=version["version"],
                        resource=entry["resource"],
                        kind=entry["responseKind"]["kind"],
                        namespaced=entry["scope"] == "Namespaced",
                        verbs=frozenset(entry["verbs"]),
                        custom=group.custom,
                    )


def _is_served(entry: JSON, group: str, names: Collection[str]) -> bool:
    return "list" not in entry["verbs"] or f"{entry['resource']}.{group}".rstrip(".") in names
