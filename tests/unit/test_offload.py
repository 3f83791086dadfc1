"""Large things: worked out in one thread, and given back."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import ctypes
import subprocess
import sys
import threading

import pytest

from clusterinfo.memory import ASYNCIO_TLS_BUFFER_BYTES, KAFKA_BATCH_BYTES, give_large_blocks_back
from clusterinfo.offload import offload


async def test_what_is_offloaded_is_done_one_after_another_and_the_loop_goes_on() -> None:
    names, turned, inside = set[str](), threading.Event(), 0

    def work(number: int) -> int:
        nonlocal inside
        inside += 1
        assert inside == 1
        names.add(threading.current_thread().name)
        turned.clear()
        assert turned.wait(60), "the loop stalls"
        inside -= 1
        return number

    working = asyncio.gather(*(offload(work, number) for number in range(5)))
    while not working.done():
        turned.set()
        await asyncio.sleep(0)
    assert await working == [0, 1, 2, 3, 4]
    assert names == {"offload_0"}


async def test_what_it_raises_is_raised() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        await offload(int, "x")


FREED = """
from clusterinfo.memory import KAFKA_BATCH_BYTES, give_large_blocks_back
def resident(): return int(open("/proc/self/statm").read().split()[1]) * 4096
switched = {switched} and give_large_blocks_back(KAFKA_BATCH_BYTES)
blocks, small = [], []
bytearray(20_000_000)  # freed: from here on glibc would keep what is smaller
before = resident()
for _ in range(20):
    blocks.append(bytearray(b"x" * 1_000_000))
    small.append(bytearray(b"y" * 2000))
del blocks
print(resident() - before)
"""


def test_large_blocks_go_back_as_soon_as_they_are_freed() -> None:
    def left(switched: bool) -> int:
        done = subprocess.run(
            [sys.executable, "-c", FREED.format(switched=switched)], capture_output=True, check=True, timeout=60
        )
        return int(done.stdout)

    if not hasattr(ctypes.CDLL(None), "mallopt"):  # another C library: there is nothing to switch
        assert not give_large_blocks_back(KAFKA_BATCH_BYTES)
        return
    assert left(switched=True) < 2_000_000 < left(switched=False)


def test_what_asyncio_has_of_a_connection_over_tls_goes_back() -> None:
    assert asyncio.sslproto.SSLProtocol.max_size >= ASYNCIO_TLS_BUFFER_BYTES
