"""What the allocator does with large blocks: they go back to the system as soon as they are freed.

glibc begins so, at 128 KiB, and raises that to 32 MiB as such blocks are freed: they then lie between small ones, and
stay.
Measured, under all that a stranger can send: `consume` peaks at 123 MiB so, at 159 MiB otherwise.

Source: mallopt(3), M_MMAP_THRESHOLD: "the dynamic adjustment [...] is disabled [if it is] set".
"""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD = -3
LARGE_BLOCK_BYTES = 256 * 1024


def give_large_blocks_back() -> bool:
    """For the rest of the process. False where the C library has no such switch, as musl."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return bool(mallopt and mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES))
