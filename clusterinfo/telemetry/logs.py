"""Observation -> log line and health; serves `/metrics`, `/healthz`, `/readyz`.

Logs go to stderr, as JSON with `level`, `msg`, `timestamp` first. Libraries' own records take the same road, warnings
and up, each logger at most 5 lines in 10 s.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import structlog
from aiohttp import web
from prometheus_client.aiohttp import make_aiohttp_handler

from clusterinfo import observations as seen
from clusterinfo.errors import ConfigError, without_userinfo
from clusterinfo.observations import Observation, Observe
from clusterinfo.settings import Settings
from clusterinfo.telemetry.metrics import Metrics
from clusterinfo.telemetry.probes import STEP

FOREIGN_LINES, FOREIGN_WINDOW_S = 5, 10.0
_FIRST_KEYS = ("level", "msg", "timestamp")

# --- log lines -------------------------------------------------------------------------------------------------------

MESSAGES: dict[type[Observation], tuple[str, str]] = {
    seen.Connected: ("debug", "Connected"),
    seen.Discovered: ("info", "Discovered what the cluster serves"),
    seen.PageListed: ("debug", "Page listed"),
    seen.ListEnded: ("info", "List ended"),
    seen.ListRestarted: ("warning", "List begins again"),
    seen.SnapshotEnded: ("info", "Snapshot ended"),
    seen.RunFailed: ("warning", "A run of lists failed and begins again"),
    seen.Produced: ("info", "Cluster info sent to Kafka"),
    seen.Stubbed: ("warning", "Object too large for the broker: a stub was sent"),
    seen.ItemSetAside: ("error", "Item of a page could not be read: its list does not complete"),
    seen.PartitionsAssigned: ("info", "Partitions assigned"),
    seen.LaneClaimed: ("info", "Partition claimed"),
    seen.OffsetGap: ("error", "Records are missing: Kafka no longer holds them"),
    seen.Lagging: ("debug", "Records of a partition that are not stored yet"),
    seen.BatchStored: ("info", "Batch stored"),
    seen.DeadLettered: ("error", "Record set aside as a dead letter"),
    seen.UnitVerified: ("debug", "List proven"),
    seen.UnitFailed: ("warning", "Kind is not verified"),
    seen.UnitGone: ("info", "Kind is gone: the cluster no longer serves it"),
    seen.Retrying: ("warning", "Step failed, trying again"),
    seen.Recovered: ("info", "Step succeeded again"),
    seen.LaneRestarted: ("warning", "Lane begins again"),
    seen.LaneLost: ("info", "Lane let go"),
    seen.LaneEnded: ("debug", "Lane ended"),
    seen.Stuck: ("error", "Nothing comes from Kafka, which has more, and other consumers did not help"),
    seen.Freed: ("info", "What was stuck goes on"),
}
"""Observation -> level and message; `Warned` and `Noted` bring their own."""


def configure_logging(level: str, log_format: str) -> None:
    """Send everything that is logged in this process to stderr, in one format."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("msg"),
        _redact,
    ]
    renderer: Any = _render_json if log_format == "json" else _console()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
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
    """The one line that says why the program ends."""
    structlog.stdlib.get_logger("clusterinfo").error(message)


def _render_json(_: Any, __: str, event: dict[str, Any]) -> str:
    first = {key: event.pop(key) for key in _FIRST_KEYS if key in event}
    return orjson.dumps(first | event, default=str).decode()


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
    """One log line for one observation."""
    logger = structlog.stdlib.get_logger("clusterinfo")
    match observation:
        case seen.Warned(message=message, remedy=remedy):
            logger.warning(message, **({"remedy": remedy} if remedy else {}))
        case seen.Noted(message=message):
            logger.info(message)
        case seen.Produced():
            logger.info(MESSAGES[seen.Produced][1], **_produced(observation))
        case _:
            level, message = MESSAGES[type(observation)]
            getattr(logger, level)(message, **dataclasses.asdict(observation))


def _produced(observation: seen.Produced) -> dict[str, Any]:
    fields = dataclasses.asdict(observation)
    return fields | {"size": fields.pop("size_bytes")}


# --- health ----------------------------------------------------------------------------------------------------------

RUN = "run of lists"
SILENT_S = 600.0
"""Twice the longest deadline of any step of a run (a page, a batch: 300 s each): by then one must have ended."""


def _is_of_asking(observation: Observation) -> bool:
    """True for what is said beside the work, and so says nothing about it."""
    return isinstance(observation, seen.Retrying | seen.Recovered) and observation.step == STEP


class Health:
    """Ready once connected, while no step is failing; alive while the event loop answers, no lane is stuck and a run of
    lists moves.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_connected = False
        self.failing: dict[tuple[str, str], str] = {}
        """(lane, step) -> why it failed last."""
        self.stuck: set[str] = set()
        """Lanes for which nothing but another process is left to try."""
        self._clock = clock
        self._runs: set[str] = set()
        """Clusters whose lists are under way."""
        self._moved_s = clock()

    @property
    def doubts(self) -> list[str]:
        """Why this process does not do its work now; empty for one that is ready."""
        lines = [f"{lane}, {step}: {without_userinfo(error, '***@')}" for (lane, step), error in self.failing.items()]
        return lines if self.is_connected else ["not connected yet", *lines]

    @property
    def complaints(self) -> list[str]:
        """Why this process should be replaced by another; empty for one that is alive."""
        lines = [f"{lane}: nothing comes from Kafka, which has more" for lane in sorted(self.stuck)]
        silent_s = self._clock() - self._moved_s
        if self._runs and silent_s > SILENT_S:
            lines += [f"{cluster}: its run of lists has stood still for {silent_s:.0f} s" for cluster in self._runs]
        return lines

    def observe(self, observation: Observation) -> None:
        """Learn from what was done, what failed, and what succeeded again."""
        if not _is_of_asking(observation):
            self._moved_s = self._clock()
        self._observe_steps(observation)
        self._observe_runs(observation)

    def _observe_steps(self, observation: Observation) -> None:
        match observation:
            case seen.Retrying(lane=lane, step=step, error=error):
                self.failing[lane, step] = error
            case seen.Recovered(lane=lane, step=step):
                self.failing.pop((lane, step), None)
            case seen.Stuck(lane=lane):
                self.stuck.add(lane)
            case seen.Freed(lane=lane):
                self.stuck.discard(lane)
            case seen.LaneEnded(lane=lane):
                self.failing = {key: error for key, error in self.failing.items() if key[0] != lane}

    def _observe_runs(self, observation: Observation) -> None:
        match observation:
            case seen.Connected():
                self.is_connected = True
            case seen.Discovered(cluster=cluster):
                self._runs.add(cluster)
            case seen.SnapshotEnded(cluster=cluster):
                self._runs.discard(cluster)
                self.failing.pop((cluster, RUN), None)
            case seen.RunFailed(cluster=cluster, error=error):
                self._runs.discard(cluster)
                self.failing[cluster, RUN] = error


class Telemetry:
    """Everything that looks at a run: give its `observe` to the parts that work."""

    def __init__(self, *observers: Observe) -> None:
        self.metrics = Metrics()
        self.health = Health()
        self._observers = (self.metrics.observe, self.health.observe, *observers)

    def observe(self, observation: Observation) -> None:
        """Pass one observation to all who look."""
        for observer in self._observers:
            observer(observation)

    @asynccontextmanager
    async def served(self, settings: Settings, *, wanted: bool) -> AsyncIterator[None]:
        """Serve the endpoints at METRICS_ADDRESS while the block runs, if `wanted`: a run that ends by itself has none.

        A default address that is in use is a warning; an explicit one a ConfigError.
        """
        explicit = settings.was_set("metrics_address")
        if not settings.metrics_address or not wanted:
            yield
            return
        runner = web.AppRunner(self._app(), access_log=None, handle_signals=False, shutdown_timeout=1)
        await runner.setup()
        try:
            await self._listen(runner, settings.metrics_address, explicit)
            yield
        finally:
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner, address: str, explicit: bool) -> None:
        host, port = parse_address(address)
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            message = f"METRICS_ADDRESS is {address!r}, where nothing can be served: {error.strerror or error}"
            if explicit:
                raise ConfigError(f"{message}; use another address, or an empty one to switch it off") from error
            self.observe(seen.Warned(message=message, remedy="set METRICS_ADDRESS, empty to switch it off"))

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/metrics", make_aiohttp_handler(self.metrics.registry))
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        return app

    async def _healthz(self, _: web.Request) -> web.Response:
        lines = self.health.complaints
        return web.Response(status=503 if lines else 200, text="\n".join(lines or ["ok"]) + "\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        lines = self.health.doubts
        return web.Response(status=503 if lines else 200, text="\n".join(lines or ["ok"]) + "\n")


def parse_address(address: str) -> tuple[str | None, int]:
    """`:8080`, `127.0.0.1:8080` or `[::1]:8080` -> host (None: all) and port. Raises ConfigError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"METRICS_ADDRESS is {address!r}: allowed is host:port or :port, or nothing to switch it off")
    return host.strip("[]") or None, int(port)
