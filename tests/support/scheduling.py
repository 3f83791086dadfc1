"""Which tests go to the same worker when several run side by side (pytest-xdist): those that share a module's fixture.

Every other test goes alone to whoever is free, so that the longest file holds nobody up. pytest-xdist's own `loadgroup`
would want a mark beside each such fixture, and pytest 9.2 drops it on the way.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[2]


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Files whose fixtures are their module's stay together; they come first, the longest in front."""

    def _split_scope(self, nodeid: str) -> str:
        """What `nodeid` must stay together with: its file, or nothing else."""
        file = nodeid.partition("::")[0]
        return file if _shares_fixtures(file) else nodeid


@cache
def _shares_fixtures(file: str) -> bool:
    return 'scope="module"' in (ROOT / file).read_text()
