"""Observation -> log line. Logs go to stderr, as JSON with `level`, `msg`, `timestamp` first.

Records of libraries take the same way, warnings and up, at most 5 lines in 10 s from each logger.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import msgspec
import orjson

from clusterinfo import observations as seen
from clusterinfo.errors import without_userinfo
from clusterinfo.observations import Observation
from clusterinfo.telemetry.without_rich import structlog

FOREIGN_LINES, FOREIGN_WINDOW_S = 5, 10.0
_FIRST_KEYS = ("level", "msg", "timestamp")
_DIGITS = 3
"""Of seconds behind the point."""

MESSAGES: dict[type[Observation], tuple[str, str]] = {
    seen.Started: ("info", "Started"),
    seen.Stopped: ("info", "Stopped"),
    seen.Connected: ("info", "Connected"),
    seen.Leads: ("info", "Leads: lists and follows from now on"),
    seen.StandsBy: ("info", "Stands by: nothing is listed until this replica leads"),
    seen.LeadershipLost: ("warning", "Leads no more, and stands by"),
    seen.LeadershipGivenUp: ("info", "Lease given up: another replica may lead"),
    seen.Discovered: ("info", "Discovered what the cluster serves"),
    seen.PageListed: ("debug", "Page listed"),
    seen.ListEnded: ("info", "List ended"),
    seen.ListRestarted: ("warning", "List starts again"),
    seen.ListAbandoned: ("debug", "List abandoned"),
    seen.WatchOpened: ("debug", "Watch opened"),
    seen.WatchInterrupted: ("debug", "Watch broke off and is opened again"),
    seen.WatchLost: ("warning", "Watch cannot be continued: the kind is listed again"),
    seen.WatchFailing: ("warning", "Watch cannot be opened: tried again, and the kind listed meanwhile"),
    seen.WatchRecovered: ("info", "Watch works again"),
    seen.WatchesCounted: ("info", "Following: what changes is sent as it happens"),
    seen.EventsRead: ("debug", "Changes watched"),
    seen.SnapshotEnded: ("info", "Snapshot ended"),
    seen.RunFailed: ("warning", "Run of lists failed and starts again"),
    seen.RunScheduled: ("debug", "Next run of lists scheduled"),
    seen.Produced: ("info", "Cluster info sent to Kafka"),
    seen.Streamed: ("debug", "Changes sent to Kafka"),
    seen.Stubbed: ("warning", "Object too large for the broker: a stub was sent"),
    seen.ItemUnreadable: ("error", "Item of a page could not be read: its list does not complete"),
    seen.AssignmentAwaited: ("info", "Waiting for partitions: joining the consumer group"),
    seen.PartitionsRevoked: ("info", "Partitions revoked: the consumer group rebalances"),
    seen.PartitionsAssigned: ("info", "Partitions assigned"),
    seen.LaneClaimed: ("info", "Partition claimed"),
    seen.OffsetGap: ("error", "Records are missing: Kafka no longer holds them"),
    seen.Holding: ("debug", "Partitions that are held"),
    seen.Lagging: ("debug", "Records of a partition that are not stored yet"),
    seen.BatchStored: ("info", "Batch stored"),
    seen.AllStored: ("info", "All is stored"),
    seen.ChangesStored: ("debug", "Watched changes stored"),
    seen.Drifted: ("warning", "A list corrected what was followed: changes were missed, and nobody noticed"),
    seen.UnitsFollowed: ("debug", "Kinds are followed"),
    seen.DeadLettered: ("error", "Record stored as a dead letter"),
    seen.DeadLettersDropped: ("error", "The oldest dead letters were deleted: there are more than may be kept"),
    seen.ForeignRecords: ("warning", "Records dead-lettered: their cluster belongs to another topic"),
    seen.UnitVerified: ("debug", "List proven"),
    seen.UnitFailed: ("warning", "Kind is not verified"),
    seen.UnitGone: ("info", "Kind is gone: the cluster no longer serves it"),
    seen.Retrying: ("warning", "Step failed, trying again"),
    seen.Recovered: ("info", "Step succeeded again"),
    seen.LaneRestarted: ("warning", "Lane starts again"),
    seen.LaneLost: ("info", "Lane released"),
    seen.LaneEnded: ("debug", "Lane ended"),
    seen.Stuck: ("error", "Kafka has more messages but none arrive, and building the consumer again did not help"),
    seen.Freed: ("info", "Messages come from Kafka again"),
}
"""Observation -> level and message; `Warned` and `Noted` bring their own."""
NO_PARTITION = "No partition assigned: other consumers have them all"


def configure_logging(level: str, log_format: str) -> None:
    """Send everything that is logged in this process to stderr, in one format."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("msg"),
        _redact,
    ]
    renderers: list[Any] = [_render_json] if log_format == "json" else [_without_empty, _console()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    handler.addFilter(_ForeignLimit())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("clusterinfo").setLevel(level.upper())
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def log_error(message: str) -> None:
    """The one line about why the program ends."""
    structlog.stdlib.get_logger("clusterinfo").error(message)


def _render_json(_: Any, __: str, event: dict[str, Any]) -> str:
    first = {key: event.pop(key) for key in _FIRST_KEYS if key in event}
    return orjson.dumps(first | event, default=str).decode()


def _without_empty(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    """Fields that hold something, and tuples as a person writes them."""
    shown = {key: ", ".join(map(str, value)) if isinstance(value, tuple) else value for key, value in event.items()}
    return {key: value for key, value in shown.items() if value not in ("", None)}


def _console() -> Any:
    return structlog.dev.ConsoleRenderer(event_key="msg", colors=sys.stderr.isatty())


def _redact(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    return {key: without_userinfo(value, "***@") if isinstance(value, str) else value for key, value in event.items()}


class _ForeignLimit(logging.Filter):
    """At most 5 lines in 10 s from each logger that is not ours: aiokafka writes hundreds in an outage of seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("clusterinfo"):
            return True
        record.exc_info = None if record.levelno < logging.CRITICAL else record.exc_info
        since, count = self._windows.get(record.name, (record.created, 0))
        if record.created - since > FOREIGN_WINDOW_S:
            since, count = record.created, 0
        self._windows[record.name] = (since, count + 1)
        return count < FOREIGN_LINES


def log_observation(observation: Observation) -> None:
    """One log line for one observation. Once a collector is connected, all its lines name its cluster."""
    logger = structlog.stdlib.get_logger("clusterinfo")
    match observation:
        case seen.Connected(cluster=cluster, cluster_id=cluster_id):
            if cluster_id:
                structlog.contextvars.bind_contextvars(cluster=cluster, cluster_id=cluster_id)
            logger.info(MESSAGES[seen.Connected][1])
        case seen.PartitionsAssigned(partitions=()):
            logger.info(NO_PARTITION, partitions=())
        case seen.Warned(message=message, remedy=remedy):
            logger.warning(message, **({"remedy": remedy} if remedy else {}))
        case seen.Noted(message=message):
            logger.info(message)
        case _:
            level, message = MESSAGES[type(observation)]
            is_news = not isinstance(observation, seen.Repeatable) or observation.is_news
            getattr(logger, level if is_news else "debug")(message, **_fields(observation))


def _fields(observation: Observation) -> dict[str, Any]:
    """What a line says of it: seconds to the millisecond, a cluster by its name and id."""
    fields = {
        name: round(value, _DIGITS) if isinstance(value, float) else value
        for name, value in msgspec.structs.asdict(observation).items()
        if name != "is_news"
    }
    if "cluster_name" in fields:
        identity = fields["cluster"]
        fields |= {"cluster": fields.pop("cluster_name") or identity, "cluster_id": identity}
    if isinstance(observation, seen.Produced):
        fields["size"] = fields.pop("size_bytes")
    return fields
