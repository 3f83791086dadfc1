"""The patches in place, as in every process that makes a client."""

from __future__ import annotations

import clusterinfo.kafka.client  # noqa: F401
