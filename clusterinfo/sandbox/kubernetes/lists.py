"""One page of a list: which objects, under which list resourceVersion, how it continues, as bytes. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from clusterinfo.sandbox.kubernetes.catalog import JSON, ApiResource
from clusterinfo.sandbox.kubernetes.conversions import rest_in
from clusterinfo.sandbox.kubernetes.encoding import item_prefix
from clusterinfo.sandbox.kubernetes.selectors import matches
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.sandbox.kubernetes.statuses import (
    ApiFailure,
    bad_request,
    expired_continue,
    expired_version,
    too_large_version,
)
from clusterinfo.sandbox.kubernetes.tables import Stored, within
from clusterinfo.sandbox.kubernetes.tokens import INCONSISTENT, ContinueToken

CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A list request's parameters. `limit` 0: all. `exact`: resourceVersionMatch=Exact."""

    namespace: str | None
    limit: int
    token: str
    version: str
    exact: bool
    selector: str

    @classmethod
    def parse(cls, namespace: str | None, query: Mapping[str, str]) -> "ListQuery":
        """Raises ApiFailure (400) for what a server refuses."""
        limit, version = query.get("limit", "0") or "0", query.get("resourceVersion", "")
        if not re.fullmatch(r"-?\d+", limit):
            raise bad_request(f'strconv.ParseInt: parsing "{limit}": invalid syntax')
        token = query.get("continue", "")
        if token and version not in ("", "0"):
            raise bad_request("specifying resource version is not allowed when using continue")
        if version and not version.isdecimal():
            raise bad_request(f'invalid resource version "{version}"')
        exact = query.get("resourceVersionMatch") == "Exact"
        return cls(namespace, max(0, int(limit)), token, version, exact, query.get("labelSelector", ""))


@dataclass(frozen=True, slots=True)
class ListPage:
    """`metadata` is the list's own; `chunks` is the body, in pieces of about 256 KiB."""

    resource: ApiResource
    items: Sequence[Stored]
    metadata: JSON
    null_items: bool = False

    def chunks(self) -> Iterator[bytes]:
        kind = self.resource.kind + "List"
        rest, prefix, separator = rest_in(self.resource), item_prefix(self.resource), b""
        metadata = orjson.dumps(self.metadata, option=orjson.OPT_SORT_KEYS if self.resource.custom else 0)
        if self.resource.custom:
            pending = [b'{"apiVersion":"%s","items":' % self.resource.api_version.encode()]
        else:
            head = {"kind": kind, "apiVersion": self.resource.api_version}
            pending = [orjson.dumps(head)[:-1], b',"metadata":', metadata, b',"items":']
        pending.append(b"null" if self.null_items else b"[")
        size = 0
        for stored in self.items:
            body = rest(stored)
            pending += (separator, prefix, body)
            separator = b","
            size += len(body)
            if size >= CHUNK_BYTES:
                yield b"".join(pending)
                pending, size = [], 0
        pending.append(b"" if self.null_items else b"]")
        if self.resource.custom:
            pending += (b',"kind":"%s","metadata":' % kind.encode(), metadata)
        pending.append(b"}\n")
        yield b"".join(pending)


def list_page(cluster: SimulatedCluster, resource: ApiResource, query: ListQuery) -> ListPage:
    """What the server answers. Raises ApiFailure: 400, 410, or 504 for a resourceVersion of the future."""
    if resource.unversioned:
        return ListPage(resource, cluster.table(resource).ordered(), {})
    prefix = f"{query.namespace}/" if query.namespace else ""
    token = ContinueToken.decode(query.token) if query.token else None
    revision = _revision(cluster, query, token)
    items = cluster.table(resource).ordered_at(revision)
    low, high = within(items, prefix, token.start if token else "")
    # resourceVersion=0 is answered from the server's cache, whole, whatever the limit.
    limit = query.limit if query.version != "0" else 0
    chosen, position = _choose(items, low, high, limit, query.selector)
    metadata: JSON = {"resourceVersion": str(revision)}
    if position < high:
        start = chosen[-1].key.removeprefix(prefix) + "\0"
        consistent = token is not None and token.revision != INCONSISTENT
        metadata["continue"] = ContinueToken(revision, start).encode(slash=not consistent)
        if not query.selector:
            metadata["remainingItemCount"] = high - position
    elif resource.custom:
        metadata["continue"] = ""
    return ListPage(resource, chosen, metadata)


def _revision(cluster: SimulatedCluster, query: ListQuery, token: ContinueToken | None) -> int:
    """The revision the list is taken at."""
    if token is not None:
        if token.revision == INCONSISTENT:
            return cluster.revision
        if token.revision < cluster.compacted:
            raise expired_continue(ContinueToken(INCONSISTENT, token.start).encode(slash=False))
        return min(token.revision, cluster.revision)
    wanted = int(query.version or 0)
    if wanted > cluster.revision:
        raise too_large_version(wanted, cluster.revision)
    if query.exact and wanted:
        if wanted < cluster.compacted:
            raise ApiFailure(410, orjson.dumps(expired_version(wanted, cluster.compacted)) + b"\n")
        return wanted
    return cluster.revision


def _choose(items: Sequence[Stored], low: int, high: int, limit: int, selector: str) -> tuple[Sequence[Stored], int]:
    """Up to `limit` items (0: all) that match, and the position after the last one looked at."""
    if not selector:
        end = min(high, low + limit) if limit else high
        return items[low:end], end
    chosen: list[Stored] = []
    for position in range(low, high):
        if matches(items[position], selector):
            chosen.append(items[position])
            if len(chosen) == limit:
                return chosen, position + 1
    return chosen, high
