"""Pace: how fast a partition is stored, for whoever asks how long it takes until all of it is. Pure."""

from __future__ import annotations

import datetime as dt
from collections import deque

from clusterinfo.model import Batch

WINDOW_S = 120.0
"""The rate is that of the last two minutes of work."""
PAUSE_S = 30.0
"""From one batch to the next: there was nothing to store. Half of what a statement may take."""
SHORTEST_S = 1.0
"""What is measured over less says more of one batch than of the next."""


class Pace:
    """Of one partition, as long as it is ours.

    Attributes: `rate`, messages stored a second when something was, None until that is known; `observed_at`, when the
    last record stored had been observed.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self.observed_at: dt.datetime | None = None
        self._samples = deque[tuple[float, int]]()
        """(Second, offset), the oldest first, one a second at most."""
        self._last_s = 0.0

    def note(self, batch: Batch, now_s: float) -> None:
        """`batch` is about to be stored: what stands before it is."""
        if batch.records:
            self.observed_at = batch.records[-1].observed_at
        if now_s - self._last_s > PAUSE_S:
            self._samples.clear()
        if not self._samples or now_s - self._samples[-1][0] >= SHORTEST_S:
            self._samples.append((now_s, batch.start))
        while now_s - self._samples[0][0] > WINDOW_S:
            self._samples.popleft()
        self._last_s = now_s
        began_s, first = self._samples[0]
        if now_s - began_s >= SHORTEST_S:
            self.rate = (batch.start - first) / (now_s - began_s)
