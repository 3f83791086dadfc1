"""Discovery documents -> the kinds to list. Pure: no I/O, no clock, no environment.

Three document forms are read: the aggregated one (`apidiscovery.k8s.io` v2 and v2beta1, one answer each for /api and
/apis) and the legacy one (`APIVersions`, `APIGroupList` and one `APIResourceList` a group and version). All become the
same `ApiGroup`s, and `choose` makes one decision over them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeVar

import msgspec

from clusterinfo.errors import FatalError
from clusterinfo.model import GroupVersionResource

T = TypeVar("T")

AGGREGATED_KIND = "APIGroupDiscoveryList"
ANY_RESOURCE = "\0"
"""A resource name only a wildcard matches."""


@dataclass(frozen=True, slots=True)
class ApiVersion:
    """One version of a group; `failing` if the server says that it could not ask the group's own server."""

    version: str
    resources: tuple[GroupVersionResource, ...] = ()
    failing: bool = False


@dataclass(frozen=True, slots=True)
class ApiGroup:
    """A group ("" for core) and its versions, the preferred one first."""

    name: str
    versions: tuple[ApiVersion, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """`INCLUDE` and `EXCLUDE`: which kinds are listed.

    A pattern has shell wildcards (`*`, `?`, `[...]`) and is compared, case-sensitively, with the whole of
    `resource.group`: `deployments.apps`, `*.metrics.k8s.io`. A pattern without a dot names kinds of the core group
    only (`pods`, `persistentvolume*`), except `*`, which matches every kind. A kind is listed if a pattern of `include`
    matches it (or `include` is empty) and none of `exclude` does: `exclude` wins.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def wants(self, group: str, resource: str) -> bool:
        """True if the kind is to be listed."""
        if self.include and not _any_matches(self.include, group, resource):
            return False
        return not _any_matches(self.exclude, group, resource)

    def may_want(self, group: str) -> bool:
        """False if no kind of `group`, whatever its name, would be listed."""
        return not _any_matches(self.exclude, group, ANY_RESOURCE)


@dataclass(frozen=True, slots=True)
class Discovery:
    """What discovery found: the kinds to list, those left out on purpose, and the groups that did not answer."""

    resources: tuple[GroupVersionResource, ...]
    excluded: tuple[GroupVersionResource, ...] = ()
    failing: tuple[str, ...] = ()
    """Groups whose list of kinds is unknown or old; a group that is wholly left out does not count."""
    unseen: tuple[str, ...] = ()
    """Groups that are wholly left out and did not answer: which kinds they serve is unknown, none of them is gone."""
    unmatched: tuple[str, ...] = ()
    """Patterns of INCLUDE by which nothing is listed."""

    @property
    def complete(self) -> bool:
        """True if a kind that is not named here does not exist: only then may it count as gone."""
        return not self.failing


def _any_matches(patterns: Iterable[str], group: str, resource: str) -> bool:
    return any(matches(pattern, group, resource) for pattern in patterns)


def matches(pattern: str, group: str, resource: str) -> bool:
    """True if `pattern` (see `Selection`) matches the kind."""
    if pattern == "*":
        return True
    if "." not in pattern:
        return not group and fnmatchcase(resource, pattern)
    return bool(group) and fnmatchcase(f"{resource}.{group}", pattern)


def choose(groups: Sequence[ApiGroup], selection: Selection) -> Discovery:
    """Decide which kinds are listed: every kind with the verb `list`, once, in the first version that serves it."""
    listable = [gvr for group in groups for gvr in _once_each(group)]
    wanted = tuple(gvr for gvr in listable if selection.wants(gvr.group, gvr.resource))
    failing = sorted({group.name for group in groups if _fails(group)})
    return Discovery(
        resources=wanted,
        excluded=tuple(gvr for gvr in listable if not selection.wants(gvr.group, gvr.resource)),
        failing=tuple(name for name in failing if selection.may_want(name)),
        unseen=tuple(name for name in failing if not selection.may_want(name)),
        unmatched=tuple(p for p in selection.include if not any(matches(p, g.group, g.resource) for g in wanted)),
    )


def _fails(group: ApiGroup) -> bool:
    return any(version.failing for version in group.versions)


def _once_each(group: ApiGroup) -> list[GroupVersionResource]:
    """A group's listable resources, each in the first version (preferred first) that serves it."""
    found: dict[str, GroupVersionResource] = {}
    for version in group.versions:
        for gvr in version.resources:
            if "list" in gvr.verbs and "/" not in gvr.resource:
                found.setdefault(gvr.resource, gvr)
    return list(found.values())


# --- the aggregated form ---------------------------------------------------------------------------------------------


class _ResponseKind(msgspec.Struct, gc=False):
    kind: str = ""


class _AggregatedResource(msgspec.Struct, gc=False):
    resource: str
    scope: str = ""
    verbs: list[str] | None = None
    response_kind: _ResponseKind | None = msgspec.field(name="responseKind", default=None)


class _AggregatedVersion(msgspec.Struct, gc=False):
    version: str
    resources: list[_AggregatedResource] | None = None
    freshness: str = ""


class _Name(msgspec.Struct, gc=False):
    name: str = ""


class _AggregatedGroup(msgspec.Struct, gc=False):
    metadata: _Name = msgspec.field(default_factory=_Name)
    versions: list[_AggregatedVersion] | None = None


class _AggregatedDocument(msgspec.Struct, gc=False):
    kind: str = ""
    items: list[_AggregatedGroup] | None = None


class _Kind(msgspec.Struct, gc=False):
    kind: str = ""


def is_aggregated(document: bytes) -> bool:
    """True if the server answered in the aggregated form; it may answer in the legacy form to the same question."""
    return _decode(document, _Kind).kind == AGGREGATED_KIND


def aggregated_groups(document: bytes) -> list[ApiGroup]:
    """The groups of one aggregated answer (of /api or of /apis). Raises FatalError if it is no such document.

    `freshness: Stale` says that the aggregator could not reach the group's own server: the kinds it knew of are listed
    all the same and the group counts as failing. Source: KEP-3352, aggregated discovery.
    """
    return [
        ApiGroup(group.metadata.name, tuple(_aggregated_version(group.metadata.name, v) for v in group.versions or []))
        for group in _decode(document, _AggregatedDocument).items or []
    ]


def _aggregated_version(group: str, version: _AggregatedVersion) -> ApiVersion:
    resources = tuple(
        GroupVersionResource(
            group=group,
            version=version.version,
            resource=r.resource,
            kind=r.response_kind.kind if r.response_kind else "",
            namespaced=r.scope == "Namespaced",
            verbs=tuple(r.verbs or ()),
        )
        for r in version.resources or []
    )
    return ApiVersion(version.version, resources, failing=version.freshness == "Stale")


# --- the legacy form -------------------------------------------------------------------------------------------------


class _LegacyCore(msgspec.Struct, gc=False):
    versions: list[str] | None = None


class _LegacyVersion(msgspec.Struct, gc=False):
    version: str


class _LegacyGroup(msgspec.Struct, gc=False):
    name: str
    versions: list[_LegacyVersion] | None = None
    preferred: _LegacyVersion | None = msgspec.field(name="preferredVersion", default=None)

    def ordered(self) -> list[str]:
        """The versions, the preferred one first, the others in the server's order."""
        versions = [v.version for v in self.versions or []]
        first = [self.preferred.version] if self.preferred and self.preferred.version else []
        return first + [v for v in versions if v not in first]


class _LegacyGroups(msgspec.Struct, gc=False):
    groups: list[_LegacyGroup] | None = None


class _LegacyResource(msgspec.Struct, gc=False):
    name: str
    namespaced: bool = False
    kind: str = ""
    verbs: list[str] | None = None


class _LegacyResources(msgspec.Struct, gc=False):
    resources: list[_LegacyResource] | None = None


@dataclass(frozen=True, slots=True)
class LegacyIndex:
    """The group versions that legacy discovery has to ask for, one request each; "" is core."""

    versions: dict[str, list[str]] = field(default_factory=dict)

    def group_versions(self) -> list[tuple[str, str]]:
        """(group, version) of every `APIResourceList` to fetch."""
        return [(group, version) for group, versions in self.versions.items() for version in versions]


def legacy_index(core: bytes, groups: bytes) -> LegacyIndex:
    """The answers of /api and /apis -> what to ask next. Raises FatalError if they are no such documents."""
    index = {"": _decode(core, _LegacyCore).versions or []}
    index.update({group.name: group.ordered() for group in _decode(groups, _LegacyGroups).groups or []})
    return LegacyIndex(index)


def legacy_groups(index: LegacyIndex, documents: Mapping[tuple[str, str], bytes | None]) -> list[ApiGroup]:
    """The `APIResourceList`s, None for those that did not answer -> groups. Raises FatalError on other documents."""
    return [
        ApiGroup(group, tuple(_legacy_version(group, v, documents.get((group, v))) for v in versions))
        for group, versions in index.versions.items()
    ]


def _legacy_version(group: str, version: str, document: bytes | None) -> ApiVersion:
    if document is None:
        return ApiVersion(version, failing=True)
    resources = _decode(document, _LegacyResources).resources or []
    return ApiVersion(
        version,
        tuple(
            GroupVersionResource(group, version, r.name, r.kind, r.namespaced, tuple(r.verbs or ())) for r in resources
        ),
    )


def _decode(document: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(document, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FatalError(f"the server's discovery document is not what Kubernetes serves: {error}") from error
