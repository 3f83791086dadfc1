"""Fixtures of the tests that need what Debian brings. Not among `testpaths`: .ci/run installs it."""

from __future__ import annotations

from tests.integration.conftest import broker, kafka_env

__all__ = ["broker", "kafka_env"]
