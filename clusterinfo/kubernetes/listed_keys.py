"""Whether a list names an object twice, found out in bounded memory.

Pure: no I/O, no clock, no environment. Two items of one namespace and name become one row: one would be lost, and count
and digest would agree. To find that out takes every key, unless they come in order: etcd lists by key, so that what
comes twice comes twice in a row. But nobody promises that: aggregated APIs list in any order, and kine, on which k3s
runs, by what changed last.

So the first million keys of a list are remembered, as hashes of 64 bits in sorted arrays: 8.3 bytes a key, 4.2 MB for
500,000 (a set would take 70 bytes a key), for each of the COLLECT_CONCURRENCY lists under way. Beyond that their order
has to do: a longer list in the order of etcd needs no memory, one in another order may not complete. Of 500,000 keys
two share a hash in one of 100 million lists, which then fails once.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left

KEPT = 1_000_000
PARTS = 256
"""Arrays that the hashes are spread over: what an insertion moves stays below 32 KiB."""
_64_BITS = (1 << 64) - 1


class ListedKeys:
    """The keys of one list, in the order in which they came."""

    def __init__(self) -> None:
        self.defect = ""
        """Why it is unknown whether an object is named twice; "" if it can."""
        self._last = ""
        """The greatest key: the one before, as long as they are in order."""
        self._is_in_order = True
        self._count = 0
        self._parts: list[array[int]] = []
        """The hashes of all keys; empty once they are too many."""

    def add(self, key: str) -> bool:
        """Take note of `namespace/name`, as etcd has it; False if the list has named it before. Costs 1.7 µs."""
        if key == self._last:
            return False
        if key > self._last:
            self._last = key
        else:
            self._is_in_order = False
        if self._count < KEPT:
            return self._remember(hash(key) & _64_BITS)
        self._parts.clear()
        if not self._is_in_order:
            self.defect = self.defect or (
                f"whether the list names an object twice cannot be told: it has more than {KEPT} in no order; set "
                "NAMESPACES, so that each has a list"
            )
        return True

    def _remember(self, number: int) -> bool:
        if not self._parts:
            self._parts += [array("Q") for _ in range(PARTS)]
        part = self._parts[number % PARTS]
        at = bisect_left(part, number)
        if at < len(part) and part[at] == number:
            return False
        part.insert(at, number)
        self._count += 1
        return True
