"""Discovery documents -> the kinds to list. Pure: no I/O, no clock, no environment.

Three document forms are read: the aggregated one (`apidiscovery.k8s.io` v2 and v2beta1, one answer each for /api and
/apis) and the legacy one (`APIVersions`, `APIGroupList` and one `APIResourceList` a group and version). All become the
same `ApiGroup`s, and `choose` makes one decision over them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, TypeVar

import msgspec

from clusterinfo.errors import TransientError
from clusterinfo.model import GroupVersionResource
from clusterinfo.settings import DEFAULT_EXCLUDE
from clusterinfo.spelling import did_you_mean

T = TypeVar("T")

AGGREGATED_KIND = "APIGroupDiscoveryList"
SCOPES = ("Namespaced", "Cluster")
UNANSWERED = "its server did not answer"
UNREADABLE = "what it serves cannot be read"
NAME_CHARS = 253
"""Of a group, a resource or a kind: "a DNS subdomain name", as the names of CRDs, which hold all of it."""
SECRETS = "secrets"
ANY_RESOURCE = "\0"
"""A resource name only a wildcard matches."""


@dataclass(frozen=True, slots=True)
class ApiVersion:
    """One version of a group; `failing` if what it serves is not wholly known: `reason` says why, as a clause."""

    version: str
    resources: tuple[GroupVersionResource, ...] = ()
    failing: bool = False
    reason: str = ""


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
    matches it (or `include` is empty) and none of `exclude` does: `exclude` wins. What `include` has with a wildcard
    never means Secrets: nobody who writes `s*` has them in mind, so they have to be named in full.

    `redaction`: what else names kinds, REDACT and REDACT_NOT: (variable, entry), which decide nothing here.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    redaction: tuple[tuple[str, str], ...] = ()

    def wants(self, group: str, resource: str) -> bool:
        """True if the kind is to be listed."""
        if self.include and not any(includes(pattern, group, resource) for pattern in self.include):
            return False
        return not _any_matches(self.exclude, group, resource)

    def may_want(self, group: str) -> bool:
        """False if no kind of `group`, whatever its name, would be listed."""
        return not _any_matches(self.exclude, group, ANY_RESOURCE)


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A pattern of a `variable` by which no kind that is served is meant; `question`: which one may be, or ""."""

    variable: str
    pattern: str
    question: str = ""

    def message(self, kind: str) -> str:
        """For a person. `kind`: what it was looked for among."""
        return f"{self.variable} names {self.pattern!r}, which matches no {kind}"


@dataclass(frozen=True, slots=True)
class Discovery:
    """What discovery found: the kinds to list, those left out on purpose, and the groups not wholly known."""

    resources: tuple[GroupVersionResource, ...]
    excluded: tuple[GroupVersionResource, ...] = ()
    failing: tuple[str, ...] = ()
    """Groups whose list of kinds is unknown or old; a group that is wholly left out does not count."""
    unseen: tuple[str, ...] = ()
    """The same of groups that are wholly left out: which kinds they serve is unknown, none of them is gone."""
    unmatched: tuple[Unmatched, ...] = ()
    """Patterns of INCLUDE by which nothing is listed, and of EXCLUDE by which nothing is left out, and entries of
    REDACT and REDACT_NOT for kinds that there are not. Without the default's and those that may mean a kind of a
    failing group.
    """
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Group -> why it is in `failing` or `unseen`."""

    @property
    def complete(self) -> bool:
        """True if a kind that is not named here does not exist: only then may it count as gone."""
        return not self.failing

    @property
    def is_misspelt(self) -> bool:
        """True if nothing is left to list, since what INCLUDE names is not served: no kind was left out on purpose."""
        return not self.resources and any(one.variable == "INCLUDE" for one in self.unmatched)


def _any_matches(patterns: Iterable[str], group: str, resource: str) -> bool:
    return any(matches(pattern, group, resource) for pattern in patterns)


def includes(pattern: str, group: str, resource: str) -> bool:
    """True if `pattern` of INCLUDE means the kind: as `matches`, but Secrets only where it is their name."""
    if not group and resource == SECRETS:
        return pattern == SECRETS
    return matches(pattern, group, resource)


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
    reasons = {group.name: why for group in groups if (why := _why_failing(group))}
    failing = sorted(reasons)
    return Discovery(
        resources=wanted,
        excluded=tuple(gvr for gvr in listable if not selection.wants(gvr.group, gvr.resource)),
        failing=tuple(name for name in failing if selection.may_want(name)),
        unseen=tuple(name for name in failing if not selection.may_want(name)),
        unmatched=(
            *_not_included(selection, wanted, listable, failing),
            *_not_excluded(selection, listable, failing),
            *_not_redacted(selection, listable, failing),
        ),
        reasons=reasons,
    )


def _not_included(
    selection: Selection,
    wanted: Sequence[GroupVersionResource],
    listable: Sequence[GroupVersionResource],
    failing: Sequence[str],
) -> Iterable[Unmatched]:
    for pattern in selection.include:
        if not any(includes(pattern, gvr.group, gvr.resource) for gvr in wanted) and not _is_of(pattern, failing):
            yield Unmatched("INCLUDE", pattern, did_you_mean(pattern, (gvr.dotted for gvr in listable)))


def _not_excluded(
    selection: Selection, listable: Sequence[GroupVersionResource], failing: Sequence[str]
) -> Iterable[Unmatched]:
    for pattern in selection.exclude:
        known = pattern in DEFAULT_EXCLUDE or any(matches(pattern, gvr.group, gvr.resource) for gvr in listable)
        if not known and not _is_of(pattern, failing):
            yield Unmatched("EXCLUDE", pattern, did_you_mean(pattern, (gvr.dotted for gvr in listable)))


def _not_redacted(
    selection: Selection, listable: Sequence[GroupVersionResource], failing: Sequence[str]
) -> Iterable[Unmatched]:
    for variable, entry in selection.redaction:
        pattern, colon, pointer = entry.partition(":")
        if not any(matches(pattern, gvr.group, gvr.resource) for gvr in listable) and not _is_of(pattern, failing):
            question = did_you_mean(pattern, (gvr.dotted for gvr in listable))
            yield Unmatched(variable, entry, question.replace("?", f"{colon}{pointer}?"))


def _is_of(pattern: str, groups: Iterable[str]) -> bool:
    """True if `pattern` may mean a kind of one of `groups`, whatever they serve."""
    return any(fnmatchcase(group, pattern.partition(".")[2]) for group in groups)


def _why_failing(group: ApiGroup) -> str:
    """Of its first version that fails; "" if none does."""
    return next((version.reason or UNANSWERED for version in group.versions if version.failing), "")


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
    kind: str | None = None


class _AggregatedResource(msgspec.Struct, gc=False):
    resource: Annotated[str, msgspec.Meta(min_length=1)]
    scope: str | None = None
    verbs: list[str] | None = None
    response_kind: _ResponseKind | None = msgspec.field(name="responseKind", default=None)


class _AggregatedVersion(msgspec.Struct, gc=False):
    version: str
    resources: list[msgspec.Raw] | None = None
    freshness: str | None = None


class _Name(msgspec.Struct, gc=False):
    name: str = ""


class _AggregatedGroup(msgspec.Struct, gc=False):
    metadata: _Name | None = None
    versions: list[msgspec.Raw] | None = None


class _AggregatedDocument(msgspec.Struct, gc=False):
    kind: str = ""
    items: list[msgspec.Raw] | None = None


class _Kind(msgspec.Struct, gc=False):
    kind: str = ""


def is_aggregated(document: bytes) -> bool:
    """True if the server answered in the aggregated form; it may answer in the legacy form to the same question."""
    return _decode(document, _Kind).kind == AGGREGATED_KIND


def aggregated_groups(document: bytes) -> list[ApiGroup]:
    """The groups of one aggregated answer (of /api or of /apis). Raises TransientError if it is none.

    `freshness: Stale` says that the aggregator could not reach the group's own server: the kinds it knew of are listed
    all the same and the group counts as failing. Source: KEP-3352, aggregated discovery. So does a group of which a
    part cannot be read, and what can be read of it is listed.
    """
    items = _decode(document, _AggregatedDocument).items or []
    return [_aggregated_group(number, raw) for number, raw in enumerate(items)]


def _aggregated_group(number: int, raw: msgspec.Raw) -> ApiGroup:
    try:
        group = _read(raw, _AggregatedGroup)
    except ValueError as error:
        return ApiGroup(_name_in(raw) or _unnamed(number), (_unreadable("", error),))
    name = group.metadata.name if group.metadata else ""
    return ApiGroup(name, tuple(_aggregated_version(name, version) for version in group.versions or []))


def _name_in(raw: msgspec.Raw) -> str:
    """The name of a group the rest of which cannot be read; "" if that cannot either."""
    try:
        metadata = _read(raw, dict[str, msgspec.Raw])["metadata"]
        return _read(metadata, _Name).name
    except (ValueError, KeyError):
        return ""


def _aggregated_version(group: str, raw: msgspec.Raw) -> ApiVersion:
    try:
        version = _read(raw, _AggregatedVersion)
    except ValueError as error:
        return _unreadable("", error)
    resources, defect = _each(version.resources, lambda one: _aggregated_resource(group, version.version, one))
    stale = version.freshness == "Stale"
    return ApiVersion(version.version, resources, failing=stale or bool(defect), reason=UNANSWERED if stale else defect)


def _aggregated_resource(group: str, version: str, raw: msgspec.Raw) -> GroupVersionResource:
    """Raises ValueError if it cannot be read; the scope is of interest where the resource can be listed."""
    found = _read(raw, _AggregatedResource)
    _refuse_long(group, found.resource, found.response_kind.kind if found.response_kind else None)
    if found.scope not in SCOPES and "list" in (found.verbs or ()):
        given = repr(found.scope[:100]) if found.scope else "no scope"
        raise ValueError(f"resource {found.resource[:100]!r} has {given}, expected scope {' or '.join(SCOPES)}")
    return GroupVersionResource(
        group=group,
        version=version,
        resource=found.resource,
        kind=(found.response_kind.kind or "") if found.response_kind else "",
        namespaced=found.scope == "Namespaced",
        verbs=tuple(found.verbs or ()),
    )


# --- the legacy form -------------------------------------------------------------------------------------------------


class _LegacyCore(msgspec.Struct, gc=False):
    versions: list[str] | None = None


class _LegacyVersion(msgspec.Struct, gc=False):
    version: str


class _LegacyGroup(msgspec.Struct, gc=False):
    name: Annotated[str, msgspec.Meta(min_length=1)]
    versions: list[_LegacyVersion] | None = None
    preferred: _LegacyVersion | None = msgspec.field(name="preferredVersion", default=None)

    def ordered(self) -> list[str]:
        """The versions, the preferred one first, the others in the server's order."""
        versions = [v.version for v in self.versions or []]
        first = [self.preferred.version] if self.preferred and self.preferred.version else []
        return first + [v for v in versions if v not in first]


class _LegacyGroups(msgspec.Struct, gc=False):
    groups: list[msgspec.Raw] | None = None


class _LegacyResource(msgspec.Struct, gc=False):
    name: Annotated[str, msgspec.Meta(min_length=1)]
    namespaced: bool | None = False
    kind: str | None = ""
    verbs: list[str] | None = None


class _LegacyResources(msgspec.Struct, gc=False):
    kind: str = ""
    resources: list[msgspec.Raw] | None = None


@dataclass(frozen=True, slots=True)
class LegacyIndex:
    """The group versions that legacy discovery has to ask for, one request each; "" is core."""

    versions: dict[str, list[str]] = field(default_factory=dict)
    unreadable: tuple[ApiGroup, ...] = ()
    """Groups of which not even the versions are known."""

    def group_versions(self) -> list[tuple[str, str]]:
        """(group, version) of every `APIResourceList` to fetch."""
        return [(group, version) for group, versions in self.versions.items() for version in versions]


def legacy_index(core: bytes, groups: bytes) -> LegacyIndex:
    """The answers of /api and /apis -> what to ask next. Raises TransientError if they are none, as of a proxy."""
    index = {"": _decode(core, _LegacyCore).versions or []}
    unreadable = []
    for number, raw in enumerate(_decode(groups, _LegacyGroups).groups or []):
        try:
            group = _read(raw, _LegacyGroup)
        except ValueError as error:
            unreadable.append(ApiGroup(_legacy_name_in(raw) or _unnamed(number), (_unreadable("", error),)))
        else:
            index[group.name] = group.ordered()
    return LegacyIndex(index, tuple(unreadable))


def _legacy_name_in(raw: msgspec.Raw) -> str:
    try:
        return _read(raw, _Name).name
    except ValueError:
        return ""


def legacy_groups(index: LegacyIndex, documents: Mapping[tuple[str, str], bytes | str]) -> list[ApiGroup]:
    """The `APIResourceList`s -> groups; of one that did not come the reason, as text. What cannot be read fails."""
    return [
        *(
            ApiGroup(group, tuple(_legacy_version(group, v, documents.get((group, v), UNANSWERED)) for v in versions))
            for group, versions in index.versions.items()
        ),
        *index.unreadable,
    ]


def _legacy_version(group: str, version: str, document: bytes | str) -> ApiVersion:
    if isinstance(document, str):
        return ApiVersion(version, failing=True, reason=document)
    try:
        raws = _legacy_resources(document)
    except ValueError as error:
        return _unreadable(version, error)
    resources, defect = _each(raws, lambda one: _legacy_resource(group, version, one))
    return ApiVersion(version, resources, failing=bool(defect), reason=defect)


def _legacy_resources(document: bytes) -> list[msgspec.Raw]:
    """Raises ValueError for what is none: taken for an empty one, its group's kinds would count as gone."""
    found = _read(document, _LegacyResources)
    if found.resources is None and found.kind != "APIResourceList":
        raise ValueError(f"its kind is {found.kind[:100]!r}, expected APIResourceList")
    return found.resources or []


def _legacy_resource(group: str, version: str, raw: msgspec.Raw) -> GroupVersionResource:
    """Raises ValueError if it cannot be read."""
    found = _read(raw, _LegacyResource)
    _refuse_long(group, found.name, found.kind)
    verbs = tuple(found.verbs or ())
    return GroupVersionResource(group, version, found.name, found.kind or "", bool(found.namespaced), verbs)


# --- who serves what -------------------------------------------------------------------------------------------------


class _ListMeta(msgspec.Struct, gc=False):
    continue_token: str | None = msgspec.field(name="continue", default=None)


class _ServiceReference(msgspec.Struct, gc=False):
    """That there is one is all that matters."""


class _ApiServiceSpec(msgspec.Struct, gc=False):
    group: str = ""
    version: str = ""
    service: _ServiceReference | None = None


class _ApiService(msgspec.Struct, gc=False):
    spec: _ApiServiceSpec = msgspec.field(default_factory=_ApiServiceSpec)


class _ApiServices(msgspec.Struct, gc=False):
    metadata: _ListMeta | None = None
    items: list[_ApiService] | None = None


def api_services(document: bytes) -> tuple[set[tuple[str, str]], str]:
    """A page of APIServices -> (group, version) of those that have another server, and the next continue token.

    "Service is a reference to the service for this API server. [...] If the Service is nil, that means the handling for
    the API groupversion is handled locally on this server." (apiregistration.k8s.io/v1, APIServiceSpec) Raises
    TransientError for what is no such page.
    """
    page = _decode(document, _ApiServices)
    specs = [item.spec for item in page.items or ()]
    token = (page.metadata.continue_token if page.metadata else "") or ""
    return {(spec.group, spec.version) for spec in specs if spec.service}, token


# --- which namespaces there are --------------------------------------------------------------------------------------


class _Named(msgspec.Struct, gc=False):
    metadata: _Name = msgspec.field(default_factory=_Name)


class _NamedItems(msgspec.Struct, gc=False):
    items: list[_Named] | None = None


def names_of(document: bytes) -> list[str]:
    """The names of a list's items. Raises TransientError for what is no list."""
    return [item.metadata.name for item in _decode(document, _NamedItems).items or ()]


# --- what cannot be read ---------------------------------------------------------------------------------------------


def _each(
    raws: Iterable[msgspec.Raw] | None, read: Callable[[msgspec.Raw], GroupVersionResource]
) -> tuple[tuple[GroupVersionResource, ...], str]:
    """The resources that can be read, and why the first of the others cannot: it costs nothing but itself."""
    found, defect = [], ""
    for raw in raws or ():
        try:
            found.append(read(raw))
        except ValueError as error:
            defect = defect or f"{UNREADABLE}: {error}"
    return tuple(found), defect


def _unreadable(version: str, error: ValueError) -> ApiVersion:
    return ApiVersion(version, failing=True, reason=f"{UNREADABLE}: {error}")


def _unnamed(number: int) -> str:
    return f"(number {number + 1} of /apis)"


def _refuse_long(*names: str | None) -> None:
    for name in names:
        if name and len(name) > NAME_CHARS:
            raise ValueError(f"a name of {len(name)} characters, Kubernetes allows {NAME_CHARS}: {name[:60]}...")


def _read(document: msgspec.Raw | bytes, shape: type[T]) -> T:
    """Raises ValueError, of which msgspec's and Unicode's errors are."""
    try:
        return msgspec.json.decode(document, type=shape)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _decode(document: bytes, shape: type[T]) -> T:
    try:
        return _read(document, shape)
    except ValueError as error:
        raise TransientError(f"the server's discovery document is not what Kubernetes serves: {error}") from error
