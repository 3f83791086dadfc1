"""Which scene or test misses each guard of the merge: the table of `mutations.py`."""

from __future__ import annotations

from collections.abc import Mapping

SINK = "tests/integration/test_postgres_sink.py::"

MISSED_BY: Mapping[str, Mapping[str, tuple[str, ...]]] = {}
"""Statement -> scene or test -> the guards that it misses."""

UNMISSED: Mapping[str, Mapping[str, str]] = {}
"""Statement -> guard -> why nothing that is stored differs without it."""
