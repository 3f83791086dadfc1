"""Where observations meet: metrics, health and the given observers; `endpoints.py` serves what they know."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from clusterinfo import observations as seen
from clusterinfo.errors import ConfigError
from clusterinfo.observations import Observation, Observe
from clusterinfo.settings import Settings
from clusterinfo.telemetry.health import Health
from clusterinfo.telemetry.metrics import Metrics


class Telemetry:
    """Everything that observes a run: give its `observe` to the parts that work."""

    def __init__(self, *observers: Observe) -> None:
        self.metrics = Metrics()
        self.health = Health()
        self._observers = (self.metrics.observe, self.health.observe, *observers)

    def observe(self, observation: Observation) -> None:
        """Pass one observation to every observer."""
        for observer in self._observers:
            observer(observation)

    @asynccontextmanager
    async def served(self, settings: Settings, *, wanted: bool) -> AsyncIterator[None]:
        """Serve the endpoints at METRICS_ADDRESS while the block runs, if `wanted`: a run that ends by itself has none.

        A default address that is in use is a warning; an explicit one a ConfigError.
        """
        self.health.list_within_s = settings.list_timeout
        explicit = settings.was_set("metrics_address")
        if not settings.metrics_address or not wanted:
            yield
            return
        async with AsyncExitStack() as serving:
            await self._listen(serving, settings.metrics_address, explicit)
            yield

    async def _listen(self, serving: AsyncExitStack, address: str, explicit: bool) -> None:
        from clusterinfo.telemetry.endpoints import listening

        try:
            await serving.enter_async_context(listening(self.metrics, self.health, *parse_address(address)))
        except OSError as error:
            message = f"METRICS_ADDRESS is {address!r}, where nothing can be served: {error.strerror or error}"
            if explicit:
                raise ConfigError(f"{message}; use another address, or an empty one to switch it off") from error
            self.observe(seen.Warned(message=message, remedy="set METRICS_ADDRESS, empty to switch it off"))


def parse_address(address: str) -> tuple[str | None, int]:
    """`:8080`, `127.0.0.1:8080` or `[::1]:8080` -> host (None: all) and port. Raises ConfigError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"METRICS_ADDRESS is {address!r}: allowed is host:port or :port, or nothing to switch it off")
    return host.strip("[]") or None, int(port)
