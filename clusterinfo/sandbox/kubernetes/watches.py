"""The events of one watch, as lines of JSON, in the order and the words of a real server."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import orjson

from clusterinfo.sandbox.kubernetes.catalog import JSON, ApiResource
from clusterinfo.sandbox.kubernetes.conversions import rest_in
from clusterinfo.sandbox.kubernetes.encoding import object_prefix
from clusterinfo.sandbox.kubernetes.state import SimulatedCluster
from clusterinfo.sandbox.kubernetes.statuses import bad_request, expired_version
from clusterinfo.sandbox.kubernetes.tables import Change, Stored, Subscription

DEFAULT_TIMEOUT_S = 1800.0  # --min-request-timeout's default; the real server picks between once and twice this
INITIAL_EVENTS_END = {"k8s.io/initial-events-end": "true"}
TRUE = ("1", "true", "True")


@dataclass(frozen=True, slots=True)
class WatchQuery:
    """A watch request's parameters. `version` "" or "0": begin with what there is."""

    namespace: str | None
    version: str
    bookmarks: bool
    initial_events: bool
    timeout_s: float

    @classmethod
    def parse(cls, namespace: str | None, query: Mapping[str, str]) -> "WatchQuery":
        """Raises ApiFailure (400) for what a server refuses."""
        version = query.get("resourceVersion", "")
        if version and not version.isdecimal():
            raise bad_request(f'invalid resource version "{version}"')
        timeout_s = query.get("timeoutSeconds", "")
        return cls(
            namespace,
            version,
            query.get("allowWatchBookmarks") in TRUE,
            query.get("sendInitialEvents") in TRUE,
            float(timeout_s) if timeout_s.isdecimal() and timeout_s != "0" else DEFAULT_TIMEOUT_S,
        )


def is_watch(query: Mapping[str, str]) -> bool:
    return query.get("watch") in TRUE


async def watch_events(
    cluster: SimulatedCluster, resource: ApiResource, query: WatchQuery, bookmark_interval_s: float
) -> AsyncGenerator[bytes, None]:
    """Lines until the watch's time is up, its subscription is closed, or its revision has expired (one ERROR).

    Waits on changes for `bookmark_interval_s` at most, then sends a BOOKMARK if they were asked for.
    """
    writer = _Writer(resource)
    table = cluster.table(resource)
    subscription = table.subscribe()
    try:
        start = int(query.version or 0)
        if 0 < start < cluster.compacted:
            yield writer.line("ERROR", expired_version(start, cluster.compacted))
            return
        # Everything up to the first await is one moment: nothing changes between the state and the subscription.
        seen = max(start, cluster.revision)
        initial = list(table.ordered()) if start == 0 or query.initial_events else []
        backlog = [] if initial or start == 0 else table.changes_after(start)
        for stored in initial:
            if _within(stored, query.namespace):
                yield writer.event("ADDED", stored)
        for change in backlog:
            if _within(change.after, query.namespace):
                yield writer.event(change.type, change.after)
        if query.initial_events and query.bookmarks:
            yield writer.bookmark(seen, INITIAL_EVENTS_END)
        async for line in _live(
            cluster, subscription, writer, query=query, seen=seen, bookmark_interval_s=bookmark_interval_s
        ):
            yield line
    finally:
        table.subscriptions.discard(subscription)


async def _live(
    cluster: SimulatedCluster,
    subscription: Subscription,
    writer: "_Writer",
    *,
    query: WatchQuery,
    seen: int,
    bookmark_interval_s: float,
) -> AsyncGenerator[bytes, None]:
    end = time.monotonic() + query.timeout_s
    bookmark_at = time.monotonic() + bookmark_interval_s
    while (now := time.monotonic()) < end:
        change: Change | None = None
        timed_out = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(bookmark_at, end) - now):
                change = await subscription.get()
                timed_out = False
        if timed_out:
            if not subscription.is_empty:
                continue  # it came at the last moment: a bookmark would say that it was sent
            if query.bookmarks and seen <= cluster.revision:
                yield writer.bookmark(cluster.revision)
            bookmark_at = time.monotonic() + bookmark_interval_s
        elif change is None:
            return
        elif change.revision > seen and _within(change.after, query.namespace):
            yield writer.event(change.type, change.after)


class _Writer:
    """Events of one resource in one version."""

    def __init__(self, resource: ApiResource) -> None:
        self._prefix = object_prefix(resource)
        self._rest = rest_in(resource)
        self._head: JSON = {"kind": resource.kind, "apiVersion": resource.api_version}
        if resource.custom:
            self._head = {"apiVersion": resource.api_version, "kind": resource.kind}

    def event(self, kind: str, stored: Stored) -> bytes:
        return b'{"type":"%s","object":%s%s}\n' % (kind.encode(), self._prefix, self._rest(stored))

    def bookmark(self, revision: int, annotations: Mapping[str, str] | None = None) -> bytes:
        metadata = ({"annotations": dict(annotations)} if annotations else {}) | {"resourceVersion": str(revision)}
        return self.line("BOOKMARK", self._head | {"metadata": metadata})

    def line(self, kind: str, body: JSON) -> bytes:
        return orjson.dumps({"type": kind, "object": body}) + b"\n"


def _within(stored: Stored, namespace: str | None) -> bool:
    return not namespace or stored.namespace == namespace
