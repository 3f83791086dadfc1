"""Snapshot: a run of lists over one cluster: which lanes it has and, at its end, how they fared."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from clusterinfo.budget import ByteBudget
from clusterinfo.kubernetes.client import ClusterIdentity
from clusterinfo.kubernetes.discovery import Discovery
from clusterinfo.kubernetes.list_source import ListOptions, ListSource, PageReader, new_id, utc_now
from clusterinfo.kubernetes.normalize import Redaction
from clusterinfo.kubernetes.unit_source import SEVERITY, KindSource
from clusterinfo.model import (
    Batch,
    GroupVersionResource,
    Lane,
    ListLane,
    Outcome,
    Position,
    Receipt,
    Record,
    RecordType,
    Unit,
)
from clusterinfo.observations import (
    Discovered,
    Observe,
)
from clusterinfo.settings import Settings
from clusterinfo.statements import WHOLE_GROUP, SnapshotCompleted, SnapshotStarted, UnitOutcome, encode


class StatementSource:
    """A lane of one statement: a `pump.Source`."""

    def __init__(self, lane: ListLane, record: Record) -> None:
        self.lane = lane
        self._batch: Batch | None = Batch(
            lane=lane, start=0, end=1, records=[record], size_bytes=len(record.body), list=record.list
        )

    async def open(self, lane: Lane, position: Position) -> None:
        """Nothing to open."""

    async def read(self) -> Batch | None:
        """The statement, until it is acked; then None."""
        return self._batch

    async def restart(self) -> None:
        """Nothing to forget: what is not acked is still to be said."""

    async def ack(self, receipt: Receipt) -> None:
        """It is said."""
        self._batch = None

    async def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True)
class PlannedList:
    """One list of a snapshot: its lane, what it lists, and `open`, which makes its source, once."""

    lane: ListLane
    gvr: GroupVersionResource
    open: Callable[[], ListSource | KindSource]


class Snapshot:
    """A run of lists over everything discovery found: `started`, the lists of `plan`, `completed`.

    `started()` is stored before the first list and `completed()` after the last. Kinds of a namespace are listed once
    for each of `NAMESPACES`, kinds of the cluster always whole. Give successive runs of one process the same `newest`
    dict (empty at first): a list that is older than the one before it fails.
    """

    def __init__(
        self,
        cluster: ClusterIdentity,
        discovery: Discovery,
        pages: PageReader,
        settings: Settings,
        *,
        budget: ByteBudget,
        observe: Observe,
        newest: dict[ListLane, int] | None = None,
        now: Callable[[], dt.datetime] = utc_now,
    ) -> None:
        key = settings.secret("redaction_key")
        self.discovery = discovery
        self.id = new_id()
        self.lane = ListLane(Unit(cluster.id, "", ""))
        self.sources: dict[ListLane, ListSource | KindSource] = {}
        """The sources opened so far."""
        self._cluster = cluster
        self._pages = pages
        self._namespaces = list(dict.fromkeys(settings.namespaces))
        self._budget = budget
        self._observe = observe
        self._options = ListOptions(
            cluster=cluster,
            snapshot=self.id,
            epoch=settings.cluster_epoch,
            page_size=settings.page_size,
            page_bytes=settings.page_bytes,
            redaction=Redaction(key.encode() if key else None, configmap_values=settings.redact_configmaps),
            newest={} if newest is None else newest,
            now=now,
        )
        observe(
            Discovered(
                cluster=cluster.name,
                units=len(discovery.resources),
                excluded=len(discovery.excluded),
                failing=discovery.failing,
            )
        )

    def lanes(self) -> list[PlannedList]:
        """The lists of this run, in the order of discovery."""
        return [self._plan(gvr, reach) for gvr in self.discovery.resources for reach in self._reaches(gvr)]

    def started(self) -> StatementSource:
        """The statement that opens the run: `{server_version, cluster_name, identity_known}`."""
        cluster = self._cluster
        started = SnapshotStarted(cluster.server_version, cluster.name, cluster.identity_known)
        return self._say(RecordType.SNAPSHOT_STARTED, encode(started))

    def completed(self) -> StatementSource:
        """The statement that closes the run; a list that did not end counts as failed.

        `{discovery_complete, units: [{group, resource, outcome}]}`: a unit listed in several reaches is named once,
        with the worst of their outcomes. Of a group that was left out and did not answer the resource is `*`.
        """
        units = [UnitOutcome(group, resource, outcome) for (group, resource), outcome in self.outcomes().items()]
        units += [UnitOutcome(gvr.group, gvr.resource, Outcome.EXCLUDED) for gvr in self.discovery.excluded]
        units += [UnitOutcome(group, WHOLE_GROUP, Outcome.EXCLUDED) for group in self.discovery.unseen]
        completed = SnapshotCompleted(self.discovery.complete, units)
        return self._say(RecordType.SNAPSHOT_COMPLETED, encode(completed))

    def outcomes(self) -> dict[tuple[str, str], Outcome]:
        """(group, resource) -> how that kind fared so far."""
        found: dict[tuple[str, str], Outcome] = {}
        for planned in self.lanes():
            source = self.sources.get(planned.lane)
            outcome = (source.outcome if source else None) or Outcome.FAILED
            unit = (planned.gvr.group, planned.gvr.resource)
            found[unit] = max(outcome, found.get(unit, outcome), key=SEVERITY.index)
        return found

    def _reaches(self, gvr: GroupVersionResource) -> list[str]:
        return self._namespaces if gvr.namespaced and self._namespaces else [""]

    def _plan(self, gvr: GroupVersionResource, reach: str) -> PlannedList:
        lane = ListLane(Unit(self._cluster.id, gvr.group, gvr.resource), reach)
        return PlannedList(lane, gvr, lambda: self._open(lane, gvr))

    def _open(self, lane: ListLane, gvr: GroupVersionResource) -> ListSource | KindSource:
        whole = gvr.namespaced and not lane.reach
        source = KindSource(lane, gvr, self._open_list) if whole else self._open_list(lane, gvr)
        self.sources[lane] = source
        return source

    def _open_list(self, lane: ListLane, gvr: GroupVersionResource) -> ListSource:
        return ListSource(lane, gvr, self._pages, self._options, budget=self._budget, observe=self._observe)

    def _say(self, kind: RecordType, body: bytes) -> StatementSource:
        return StatementSource(self.lane, self._options.record(kind, body, self.lane.unit))
