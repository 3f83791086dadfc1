"""aiokafka's log held back: it reports on its own what it then also raises, or retries without end.

No issue is known: 700 lines were logged in two outages of 3 s. It can go when aiokafka raises why it cannot connect and
does not log it as well.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

_levels: list[int] = []  # one for each block of `quiet` that is entered: the level before the first


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """aiokafka logs nothing meanwhile: what goes wrong in the block is raised, in one line of ours.

    Blocks may overlap, in any order: it logs again, at the level before the first, after the last.
    """
    logger = logging.getLogger("aiokafka")
    _levels.append(_levels[0] if _levels else logger.level)
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        level = _levels.pop()
        if not _levels:
            logger.setLevel(level)
