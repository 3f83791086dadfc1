"""What the allocator does with what is freed: what is large goes back to the system at once, of the rest 1 MiB stays.

glibc gives back what has over 128 KiB, and raises that to 32 MiB as such blocks are freed: they then lie between small
ones, and stay. Measured, under all that a stranger can send: `consume` peaks at 123 MiB so, at 159 MiB otherwise. Of
small ones it gives back what is over 128 KiB at the heap's end.

What comes again at once is not given back: Kafka's batches that are unpacked on the event loop, and the bodies of
a batch that is stored. Otherwise each object costs two pages to be faulted in, a fifth of the processor time of one
that has not changed.

Source: mallopt(3), M_MMAP_THRESHOLD: "the dynamic adjustment [...] is disabled [if it is] set", and M_TRIM_THRESHOLD.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
LARGE_BLOCK_BYTES = 768 * 1024
KEPT_BYTES = 1 * 1024 * 1024


def give_large_blocks_back() -> bool:
    """For the rest of the process. False where the C library has no such switch, as musl."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return bool(mallopt and mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES) and mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))
