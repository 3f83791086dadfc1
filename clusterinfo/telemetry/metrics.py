"""Observation -> Prometheus metric. Names follow Prometheus' conventions; docs/MONITORING.md has them.

Source: prometheus.io/docs/practices/naming, "a metric name [...] should have a suffix describing the unit, in plural
form" and "an accumulating count has total as a suffix".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from clusterinfo import __version__
from clusterinfo import observations as seen
from clusterinfo.observations import Observation

LIST_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""A small kind takes milliseconds, 100,000 pods a minute."""

BATCH_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""A batch's stage: unchanged records take milliseconds, the statement timeout is 60 s."""


DELAY_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300)
"""From a change's sight to its row: 50 ms where all is well, minutes after an outage."""


class Metrics:
    """Prometheus metrics of one process, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.build_info = self._gauge("build_info", "1; the label says which version runs", "version")
        self.build_info.labels(__version__).set(1)
        self.listed_objects = self._counter("listed_objects", "Objects listed", "resource")
        self.listed_bytes = self._counter("listed_bytes", "Bytes of pages downloaded", "resource")
        self.list_seconds = Histogram(
            "clusterinfo_list_seconds",
            "Seconds to list a kind; outcome is completed, failed or forbidden",
            ["resource", "outcome"],
            registry=self.registry,
            buckets=LIST_BUCKETS_S,
        )
        self.watched_events = self._counter("watched_events", "Changes that came by a watch", "resource")
        self.watches_lost = self._counter(
            "watches_lost", "Watches that could not be continued, so that the kind was listed again", "resource"
        )
        self.watches = self._gauge("watches", "Kinds and reaches that are followed by a watch")
        self.watches_failing = self._gauge(
            "watches_failing", "Watches reported as failing or lost that have not recovered: 0 where all is well"
        )
        self.last_snapshot = self._gauge(
            "last_snapshot_timestamp_seconds", "When the last run of lists ended (Unix time)", "cluster"
        )
        self.interval = self._gauge("collect_interval_seconds", "Seconds from one run of lists to the next", "cluster")
        self.leader = self._gauge(
            "leader", "1 for the collector that leads, 0 for one that stands by", "cluster", "lease"
        )
        self.produced_records = self._counter("produced_records", "Records sent to Kafka", "topic")
        self.produced_bytes = self._counter("produced_bytes", "Bytes of values sent to Kafka", "topic")
        self.lag = self._gauge(
            "lag_records", "Records of an assigned partition that are in Kafka and not stored", "topic", "partition"
        )
        self.assigned = self._gauge(
            "assigned_partitions", "Partitions that the consumer group has assigned to this process"
        )
        self.batches = self._counter("batches", "Batches stored")
        self.records = self._counter(
            "records",
            "Records stored, by result: written, unchanged, ignored (older), deleted (absent)",
            "result",
        )
        self.stored_bytes = self._counter("stored_bytes", "Bytes of values in stored batches")
        self.batch_seconds = Histogram(
            "clusterinfo_batch_seconds",
            "Seconds of a batch's stages: copy, merge, commit",
            ["stage"],
            registry=self.registry,
            buckets=BATCH_BUCKETS_S,
        )
        self.delay_seconds = Histogram(
            "clusterinfo_delay_seconds",
            "Seconds from when a watch saw a change to its commit, by the collector's and the consumer's clocks",
            ["resource"],
            registry=self.registry,
            buckets=DELAY_BUCKETS_S,
        )
        self.drift = self._counter(
            "drift", "Objects of kinds that were followed which a list had to correct: 0 where all is well", "resource"
        )
        self.dead_letters = self._counter("dead_letters", "Records stored as dead letters")
        self.dead_letters_dropped = self._counter(
            "dead_letters_dropped", "Dead letters deleted, the oldest, because there were more than may be kept"
        )
        self.foreign_records = self._counter(
            "foreign_records", "Dead letters whose cluster belongs to another topic", "topic"
        )
        self.offset_gaps = self._counter("offset_gaps", "Times Kafka had deleted messages before they were stored")
        self.retries = self._counter("retries", "Steps that failed and were tried again", "step")
        self.errors = self._counter(
            "errors",
            "Errors, by what they made the program do: retry, restart, release, dead_letter, unreadable, fail_kind",
            "class",
        )
        self.last_verified = self._gauge(
            "last_verified_timestamp_seconds",
            "When a kind was last proven by this process (Unix time)",
            "cluster",
            "resource",
        )

    def observe(self, observation: Observation) -> None:
        """Count one observation; those without metrics pass."""
        if count := _COUNTERS.get(type(observation)):
            count(self, observation)
        if error_class := _ERROR_CLASSES.get(type(observation)):
            self.errors.labels(error_class).inc(getattr(observation, "letters", 1))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"clusterinfo_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"clusterinfo_{name}", text, labels, registry=self.registry)


def _count_page(metrics: Metrics, page: seen.PageListed) -> None:
    metrics.listed_objects.labels(page.resource).inc(page.items)
    metrics.listed_bytes.labels(page.resource).inc(page.size_bytes)


def _count_run(metrics: Metrics, run: seen.SnapshotEnded) -> None:
    metrics.last_snapshot.labels(run.cluster).set(time.time())
    if run.interval_s is not None:
        metrics.interval.labels(run.cluster).set(run.interval_s)


def _lead_no_more(metrics: Metrics, one: seen.StandsBy | seen.LeadershipLost | seen.LeadershipGivenUp) -> None:
    metrics.leader.labels(one.cluster, one.lease).set(0)


def _count_produced(metrics: Metrics, produced: seen.Produced | seen.Streamed) -> None:
    metrics.produced_records.labels(produced.topic).inc(produced.records)
    metrics.produced_bytes.labels(produced.topic).inc(produced.size_bytes)


def _count_batch(metrics: Metrics, batch: seen.BatchStored) -> None:
    metrics.batches.inc()
    metrics.stored_bytes.inc(batch.size_bytes)
    results = {
        "written": batch.rows_written,
        "unchanged": batch.rows_unchanged,
        "ignored": batch.rows_ignored,
        "deleted": batch.rows_deleted,
    }
    for result, rows in results.items():
        metrics.records.labels(result).inc(rows)
    for stage, seconds in {"copy": batch.copy_s, "merge": batch.merge_s, "commit": batch.commit_s}.items():
        metrics.batch_seconds.labels(stage).observe(seconds)


def _count_watches(metrics: Metrics, counted: seen.WatchesCounted) -> None:
    metrics.watches.set(counted.followed)
    metrics.watches_failing.set(counted.failing)


def _count_changes(metrics: Metrics, changes: seen.ChangesStored) -> None:
    delays = metrics.delay_seconds.labels(changes.resource)
    for delay_s in changes.delays_s:
        delays.observe(delay_s)


def _count_followed(metrics: Metrics, followed: seen.UnitsFollowed) -> None:
    for resource in followed.resources:
        metrics.last_verified.labels(followed.cluster, resource).set(time.time())


def _count_verified(metrics: Metrics, verified: seen.UnitVerified) -> None:
    metrics.last_verified.labels(verified.cluster, verified.resource).set(time.time())


_COUNTERS: dict[type[Observation], Callable[[Metrics, Any], None]] = {
    seen.PageListed: _count_page,
    seen.ListEnded: lambda m, o: m.list_seconds.labels(o.resource, o.outcome).observe(o.seconds),
    seen.EventsRead: lambda m, o: m.watched_events.labels(o.resource).inc(o.events),
    seen.WatchLost: lambda m, o: m.watches_lost.labels(o.resource).inc(),
    seen.WatchesCounted: _count_watches,
    seen.SnapshotEnded: _count_run,
    seen.Leads: lambda m, o: m.leader.labels(o.cluster, o.lease).set(1),
    seen.StandsBy: _lead_no_more,
    seen.LeadershipLost: _lead_no_more,
    seen.LeadershipGivenUp: _lead_no_more,
    seen.Produced: _count_produced,
    seen.Streamed: _count_produced,
    seen.PartitionsAssigned: lambda m, _: m.lag.clear(),
    seen.Holding: lambda m, o: m.assigned.set(o.partitions),
    seen.Lagging: lambda m, o: m.lag.labels(o.topic, str(o.partition)).set(o.records),
    seen.BatchStored: _count_batch,
    seen.ChangesStored: _count_changes,
    seen.Drifted: lambda m, o: m.drift.labels(o.resource).inc(o.objects),
    seen.UnitsFollowed: _count_followed,
    seen.DeadLettered: lambda m, o: m.dead_letters.inc(o.letters),
    seen.DeadLettersDropped: lambda m, o: m.dead_letters_dropped.inc(o.letters),
    seen.ForeignRecords: lambda m, o: m.foreign_records.labels(o.topic).inc(o.records),
    seen.OffsetGap: lambda m, _: m.offset_gaps.inc(),
    seen.Retrying: lambda m, o: m.retries.labels(o.step).inc(),
    seen.UnitVerified: _count_verified,
}

_ERROR_CLASSES: dict[type[Observation], str] = {
    seen.Retrying: "retry",
    seen.LaneRestarted: "restart",
    seen.WatchInterrupted: "retry",
    seen.WatchLost: "restart",
    seen.ListRestarted: "restart",
    seen.RunFailed: "restart",
    seen.LaneLost: "release",
    seen.DeadLettered: "dead_letter",
    seen.ItemUnreadable: "unreadable",
    seen.UnitFailed: "fail_kind",
}
