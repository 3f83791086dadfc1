"""The proxy does to connections what the tests of faults believe it does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.proxy import Proxy

SILENCE_S = 0.2
"""How long nothing must come before it is believed that nothing will; an answer takes a millisecond."""


class Echo:
    """A server that sends back what it gets; `open` connections it believes in."""

    def __init__(self) -> None:
        self.open = 0
        self.heard = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while chunk := await reader.read(1024):
                self.heard += chunk
                writer.write(chunk)
        except OSError:
            pass  # reset: what the tests do to it
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Proxy, Echo]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    try:
        async with Proxy(*server.sockets[0].getsockname()) as proxy:
            yield proxy, echo
    finally:
        server.close()


@asynccontextmanager
async def client(proxy: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def echoed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: bytes = b"hello") -> bytes:
    writer.write(text)
    async with asyncio.timeout(60):
        return await reader.readexactly(len(text))


async def is_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether what is sent there gets neither an answer nor an end."""
    writer.write(b"anyone?")
    try:
        async with asyncio.timeout(SILENCE_S):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


async def until_nobody_is_left(echo: Echo) -> None:
    async with asyncio.timeout(60):
        while echo.open:
            await asyncio.sleep(0.01)


async def test_bytes_and_the_end_of_a_stream_pass_both_ways() -> None:
    async with proxied() as (proxy, echo), client(proxy) as (reader, writer):
        text = bytes(range(256)) * 1000
        assert await echoed(reader, writer, text) == text
        writer.write_eof()
        assert await reader.read() == b""
        await until_nobody_is_left(echo)
        assert proxy.accepted == 1


async def test_cut_resets_what_is_open_and_lets_new_connections_in() -> None:
    async with proxied() as (proxy, echo), client(proxy) as (reader, writer):
        assert await echoed(reader, writer)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        await until_nobody_is_left(echo)
        async with client(proxy) as again:
            assert await echoed(*again)


async def test_refused_until_healed_on_the_same_port() -> None:
    async with proxied() as (proxy, _), client(proxy) as (reader, writer):
        assert await echoed(reader, writer)
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(proxy.host, proxy.port)
        await proxy.restore()
        async with client(proxy) as again:
            assert await echoed(*again)


async def test_a_half_open_connection_never_comes_back_and_neither_side_learns_of_it() -> None:
    async with proxied() as (proxy, echo), client(proxy) as old:
        assert await echoed(*old) == b"hello"
        proxy.go_silent()
        async with client(proxy) as new:
            assert await is_silent(*old)
            assert await is_silent(*new)
            await proxy.restore()
            assert await is_silent(*old)
            assert await is_silent(*new)
        old[1].transport.abort()
        async with client(proxy) as well:
            assert await echoed(*well, b", again") == b", again"
            assert echo.heard == b"hello, again"
            assert echo.open == 2  # the server still believes in the old one
            proxy.bury()
            assert await echoed(*well) == b"hello"
            assert echo.open == 1


async def test_latency_counts_each_way_and_ends_with_healing() -> None:
    async with proxied() as (proxy, _), client(proxy) as (reader, writer):
        proxy.latency_s = 0.15
        began = time.monotonic()
        await echoed(reader, writer)
        assert time.monotonic() - began >= 0.3
        await proxy.restore()
        assert proxy.latency_s == 0


async def test_throttled_bytes_take_their_time() -> None:
    async with proxied() as (proxy, _), client(proxy) as (reader, writer):
        proxy.bytes_per_s = 10_000
        began = time.monotonic()
        await echoed(reader, writer, b"x" * 2_000)
        assert time.monotonic() - began >= 0.2


async def test_while_the_target_is_away_connections_end_at_once() -> None:
    async with proxied() as (proxy, _):
        pass
    async with Proxy("127.0.0.1", proxy.port) as lonely, client(lonely) as (reader, _):
        async with asyncio.timeout(60):
            with pytest.raises(ConnectionResetError):
                await reader.read(1)


async def test_nothing_is_left_of_it_however_busy_it_was() -> None:
    before = asyncio.all_tasks()
    async with proxied() as (proxy, _), client(proxy) as passing, client(proxy) as slow:
        assert await echoed(*passing)
        proxy.bytes_per_s = 1
        slow[1].write(b"x" * 1000)
        await asyncio.sleep(0.05)
        proxy.go_silent()
        async with client(proxy) as silent:
            assert await is_silent(*silent)
    await asyncio.sleep(0)
    assert proxy.open_connections == 0
    assert asyncio.all_tasks() - before == set()
