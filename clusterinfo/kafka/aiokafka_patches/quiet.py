"""aiokafka's log held back: it reports on its own what it then also raises, or retries without end.

No issue is known: 700 lines were logged in two outages of 3 s. It can go when aiokafka raises why it cannot connect and
does not log it as well. What every first start and every rebalance brings, and aiokafka itself ends, it logs as an
error or a warning: these lines are dropped, as long as it does so. A coordinator that stays away is reported by us.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Final

from aiokafka.errors import GroupCoordinatorNotAvailableError, GroupLoadInProgressError, RebalanceInProgressError

EXPECTED: Final[dict[str, tuple[type[Exception], ...]]] = {
    "Group Coordinator Request failed: %s": (GroupCoordinatorNotAvailableError, GroupLoadInProgressError),
    "Heartbeat failed for group %s because it is rebalancing": (),
    "OffsetCommit failed for group %s due to group error (%s), will rejoin": (RebalanceInProgressError,),
}
"""Message as aiokafka's coordinator has it -> the error it is about, last of its arguments (nothing: any)."""

_levels: list[int] = []  # one for each block of `quiet` that is entered: the level before the first


def install() -> None:
    """Drop what is expected. Calling it again changes nothing."""
    logging.getLogger("aiokafka.consumer.group_coordinator").addFilter(is_unexpected)


def is_unexpected(record: logging.LogRecord) -> bool:
    """False for what a first start or a rebalance brings."""
    errors = EXPECTED.get(str(record.msg))
    if errors is None:
        return True
    arguments = record.args if isinstance(record.args, tuple) else ()
    return bool(errors) and not (arguments and isinstance(arguments[-1], errors))


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
