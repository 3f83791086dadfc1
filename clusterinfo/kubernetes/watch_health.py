"""WatchHealth: whether the watches of one kind within one reach work, one after another; a failure is reported once.

A kind's watch is opened again and again, and another one begins with each of its lists: what fails for an hour is one
failure, reported when it has lasted a minute, and again when it is over. It works as soon as its server answers; but
where nothing came of the last answer (cut or silent before the first line), or the watch could not be continued, only
once there is a line, or an end in order.

It reads no clock and does no I/O: both are passed in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from clusterinfo.errors import one_line
from clusterinfo.observations import Observe, WatchFailing, WatchInterrupted, WatchLost, WatchRecovered

FAILING_AFTER_S: Final = 60.0
"""An API server that is started again is back sooner."""


class WatchHealth:
    """`error` is why the last watch did not work, "" while it works."""

    def __init__(
        self, resource: str, reach: str, observe: Observe, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.error = ""
        self._where: Final = {"resource": resource, "reach": reach}
        self._observe = observe
        self._clock = clock
        self._since_s = 0.0
        self._is_reported = False
        self._is_empty = False
        """The watch was answered, and nothing came yet."""
        self._needs_a_line = False
        """An answer alone is no sign of life."""

    @property
    def failing_s(self) -> float:
        """Seconds since it works no more; 0 while it does."""
        return self._clock() - self._since_s if self.error else 0.0

    @property
    def is_failing(self) -> bool:
        """True while there is a failure that was reported."""
        return self._is_reported

    def answered(self) -> None:
        """The server answered 200."""
        self._is_empty = True
        if not self._needs_a_line:
            self._recover()

    def heard(self) -> None:
        """The server said something, or ended the watch in order."""
        self._is_empty = False
        self._recover()

    def interrupted(self, error: str, wait_s: float) -> None:
        """A watch broke off, or could not be opened; it is opened again after `wait_s`."""
        self._fail(error)
        self._observe(WatchInterrupted(**self._where, error=error, wait_s=round(wait_s, 3)))
        if self.failing_s >= FAILING_AFTER_S and not self._is_reported:
            self._is_reported = True
            self._observe(WatchFailing(**self._where, error=error, seconds=round(self.failing_s, 3)))

    def lost(self, reason: str) -> None:
        """A watch cannot be continued."""
        self._fail(reason)
        self._needs_a_line = True
        if not self._is_reported:
            self._is_reported = True
            self._observe(WatchLost(**self._where, reason=reason))

    def forget(self) -> None:
        """There is nothing to be watched for now."""
        self.error, self._is_reported, self._needs_a_line = "", False, False

    def _fail(self, error: str) -> None:
        self._needs_a_line = self._needs_a_line or self._is_empty
        self._is_empty = False
        if not self.error:
            self._since_s = self._clock()
        self.error = one_line(error) or "unknown reason"

    def _recover(self) -> None:
        if self._is_reported:
            self._observe(WatchRecovered(**self._where, seconds=round(self.failing_s, 3)))
        self.forget()
