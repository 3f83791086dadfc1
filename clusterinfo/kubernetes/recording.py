"""What lists and watches observed and state, as Records.

Pure: no I/O, no clock, no environment; identifiers and times are passed in.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

from clusterinfo.kubernetes.list_state import ListState
from clusterinfo.kubernetes.normalize import NORMALIZATION, NormalizedObject
from clusterinfo.model import Batch, GroupVersionResource, ListLane, Record, RecordType, WatchLane
from clusterinfo.statements import (
    ListCompleted,
    ListFailed,
    SnapshotCompleted,
    SnapshotStarted,
    WatchEnded,
    WatchProgress,
    encode,
)

_TYPES: Final = {
    ListCompleted: RecordType.LIST_COMPLETED,
    ListFailed: RecordType.LIST_FAILED,
    SnapshotStarted: RecordType.SNAPSHOT_STARTED,
    SnapshotCompleted: RecordType.SNAPSHOT_COMPLETED,
    WatchProgress: RecordType.WATCH_PROGRESS,
    WatchEnded: RecordType.WATCH_ENDED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """Makes the records of one run of lists over one cluster."""

    cluster: str
    """Identity of the cluster."""
    cluster_name: str
    snapshot: str
    """UUIDv7 of the run."""
    epoch: int = 0

    def observed(self, item: NormalizedObject, listed: ListState, observed_at: dt.datetime) -> Record:
        """An object that a page of `listed` held."""
        return self._of(
            item,
            listed.gvr,
            observed_at,
            snapshot=self.snapshot,
            list=listed.id,
            reach=listed.lane.reach,
            list_version=listed.version or "",
            ordering=listed.ordering,
        )

    def watched(
        self, item: NormalizedObject, lane: WatchLane, gvr: GroupVersionResource, *, deleted: bool, at: dt.datetime
    ) -> Record:
        """An object as an event showed it; of a deletion its version is that of the deletion. The sink numbers it."""
        return self._of(
            item,
            gvr,
            at,
            type=RecordType.DELETED if deleted else RecordType.OBSERVED,
            reach=lane.reach,
            list_version=item.resource_version,
            session=lane.session,
        )

    def _of(
        self,
        item: NormalizedObject,
        gvr: GroupVersionResource,
        at: dt.datetime,
        *,
        reach: str,
        list_version: str,
        type: RecordType = RecordType.OBSERVED,  # noqa: A002 - the record's own names
        snapshot: str = "",
        list: str = "",  # noqa: A002
        ordering: str = "",
        session: str = "",
    ) -> Record:
        """What an object says of itself, and what is said of it."""
        return Record(
            type=type,
            cluster=self.cluster,
            cluster_name=self.cluster_name,
            observed_at=at,
            body=item.body,
            epoch=self.epoch,
            group=gvr.group,
            resource=gvr.resource,
            namespace=item.namespace,
            name=item.name,
            snapshot=snapshot,
            list=list,
            reach=reach,
            api_version=item.api_version,
            kind=item.kind,
            uid=item.uid,
            resource_version=item.resource_version,
            list_version=list_version,
            ordering=ordering,
            content_hash=item.content_hash,
            normalization=NORMALIZATION,
            session=session,
            manager=item.written.manager,
            operation=item.written.operation,
            subresource=item.written.subresource,
            managed_at=item.written.at(),
        )

    def watches(self, statement: WatchProgress | WatchEnded, session: str, partition: int, at: dt.datetime) -> Record:
        """What `session` says of its watches on `partition`. The sink numbers it."""
        return Record(
            type=_TYPES[type(statement)],
            cluster=self.cluster,
            cluster_name=self.cluster_name,
            observed_at=at,
            body=encode(statement),
            epoch=self.epoch,
            session=session,
            partition=partition,
        )

    def list_ended(self, statement: ListCompleted | ListFailed, listed: ListState, observed_at: dt.datetime) -> Record:
        """How `listed` ended."""
        gvr = listed.gvr
        return Record(
            type=_TYPES[type(statement)],
            cluster=self.cluster,
            cluster_name=self.cluster_name,
            observed_at=observed_at,
            body=encode(statement),
            epoch=self.epoch,
            group=gvr.group,
            resource=gvr.resource,
            snapshot=self.snapshot,
            list=listed.id,
            reach=listed.lane.reach,
            api_version=gvr.api_version,
            kind=gvr.kind,
            list_version=listed.version or "",
            ordering=listed.ordering,
            normalization=NORMALIZATION,
        )

    def run(self, statement: SnapshotStarted | SnapshotCompleted, observed_at: dt.datetime) -> Record:
        """That the run began, or how it ended."""
        return Record(
            type=_TYPES[type(statement)],
            cluster=self.cluster,
            cluster_name=self.cluster_name,
            observed_at=observed_at,
            body=encode(statement),
            epoch=self.epoch,
            snapshot=self.snapshot,
        )


def batch_of(record: Record, lane: ListLane) -> Batch:
    """A batch of one record that is its whole lane."""
    return Batch(lane=lane, start=0, end=1, records=[record], size_bytes=len(record.body), list=record.list)
