"""What takes long for a large message is done in a thread, so that the event loop goes on meanwhile. Pure work only.

What `json_repair.py` and `bodies.py` search at once is bounded for that. A body is small as a rule; then all of it is
done at once, for a thread costs more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from clusterinfo.model import Record
from clusterinfo.offload import offload

LARGE_BYTES = 64 * 1024
"""To repair that much takes 10 ms at most."""

P = ParamSpec("P")
Result = TypeVar("Result")


def is_large(records: Iterable[Record]) -> bool:
    """Whether the body of any of them is."""
    return max((len(record.body) for record in records), default=0) > LARGE_BYTES


async def worked_out(large: bool, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """What `function` returns; in the thread if it is about something large."""
    return await offload(function, *args, **kwargs) if large else function(*args, **kwargs)
