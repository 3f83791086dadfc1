"""The one thread for pure work that would keep the event loop waiting: to unpack, search or repair something large.

The interpreter changes threads every 5 ms, if nothing that is written in C takes longer at once. One thread, so that
large things are in memory one at a time, and what the allocator keeps for a thread is kept once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")

THREAD = ThreadPoolExecutor(1, "offload")


async def offload(function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """What `function` returns or raises, once its turn has come. It goes on if this is cancelled, and nobody waits."""
    return await asyncio.get_running_loop().run_in_executor(THREAD, lambda: function(*args, **kwargs))
