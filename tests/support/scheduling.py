"""Which tests go to the same worker when several run side by side (pytest-xdist): those that share costly fixtures.

Every other test goes alone to whoever is free, so that the longest file holds nobody up. pytest-xdist's own `loadgroup`
would want a mark beside each such fixture, and groups nothing under pytest 9.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[2]
OWN_SERVERS = ("tests/apache", "tests/security")
"""Folders whose session has an Apache Kafka of its own: seconds to start, half a gigabyte."""
OWN_PROGRAMS = ("tests/integration/test_previous.py",)
"""Files whose programs are another release's: whoever runs them imports it first."""
LONG = ("tests/integration", "tests/contract")
"""Folders of tests that take seconds; those of milliseconds come last, and fill up whatever the others leave."""


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Files whose fixtures are their module's stay together, and whole folders; what has most tests comes first."""

    def _split_scope(self, nodeid: str) -> str:
        """What `nodeid` must stay together with: its folder, its file, or nothing else."""
        file = nodeid.partition("::")[0]
        if (folder := str(Path(file).parent)) in OWN_SERVERS:
            return folder
        return file if file in OWN_PROGRAMS or _shares_fixtures(file) else nodeid


def longest_first(items: Iterable[Any]) -> list[Any]:
    """Collected tests, those of LONG in front; else whoever gets one of a minute at the end is waited for."""
    ranks = {folder: rank for rank, folder in enumerate(LONG)}
    return sorted(items, key=lambda item: ranks.get(str(Path(item.nodeid.partition("::")[0]).parent), len(LONG)))


@cache
def _shares_fixtures(file: str) -> bool:
    return 'scope="module"' in (ROOT / file).read_text()
