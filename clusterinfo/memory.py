"""What the allocator does with what is freed: large blocks go back to the system at once, of the rest 1 MiB stays.

glibc gives back blocks from 128 KiB on, and raises that to 32 MiB as such blocks are freed: they then lie between small
ones, and stay. Measured, under all that a stranger can send: `consume` peaks at 123 MiB so, at 159 MiB otherwise. Of
small ones it gives back what is over 128 KiB at the heap's end.

The bodies of a batch are small, and stay: the next batch needs as much at once, and to fault in two pages for each
object would be a fifth of the processor time of one that has not changed.

Source: mallopt(3), M_MMAP_THRESHOLD: "the dynamic adjustment [...] is disabled [if it is] set", and M_TRIM_THRESHOLD.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
ASYNCIO_TLS_BUFFER_BYTES = 256 * 1024
"""asyncio's own buffer of a connection over TLS, in whose place the client of Kubernetes puts a small one: 300 watches
that are opened at once leave 21 MiB if theirs go back when they are freed, else 66 to 91."""
KAFKA_BATCH_BYTES = 768 * 1024
"""More than a batch of Kafka's that is unpacked on the event loop, or a piece of COPY."""
_KEPT_BYTES = 1024 * 1024


def give_large_blocks_back(large_bytes: int) -> bool:
    """For the rest of the process. False where the C library has no such switch, as musl."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return bool(mallopt and mallopt(_M_MMAP_THRESHOLD, large_bytes) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))
