"""A TCP proxy that breaks connections on purpose: cut, refused, half-open, slow.

It looks at no byte it carries. Both sides of a half-open connection stay open and hear nothing of each other any more,
as when a firewall forgets a connection or a machine loses its power: no end of stream is passed on, what is sent is
swallowed, and it never comes back. Only new connections are well again after `restore`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from types import TracebackType
from typing import Self

from clusterinfo.sandbox.processes import free_port

CHUNK_BYTES = 64 * 1024
CONNECT_TIMEOUT_S = 60.0
RESET = struct.pack("ii", 1, 0)  # socket(7), SO_LINGER: on, for 0 s; closing then resets the connection


class Proxy:
    """`async with Proxy(host, port) as proxy:` passes connections to `proxy.port` on to the target.

    Attributes: `host`, `port` (where it listens); `latency_s`, added to every chunk each way; `bytes_per_s`, of each
    direction of each connection, None for no limit; `accepted`, connections so far.
    """

    def __init__(self, target_host: str, target_port: int, *, port: int = 0) -> None:
        """`port`: where to listen, 0 for any that is free; it stays the same however often connections are refused."""
        self.host = "127.0.0.1"
        self.port = port or free_port()
        self.latency_s = 0.0
        self.bytes_per_s: float | None = None
        self.accepted = 0
        self._target = target_host, target_port
        self._listener: asyncio.Server | None = None
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._is_silent = False

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._deafen()
        self.cut()
        tasks = list(self._connections.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def cut(self) -> None:
        """Reset every connection, half-open ones too; new ones are as before."""
        for connection in self._connections:
            connection.abort()

    def bury(self) -> None:
        """Reset those that are half-open: neither side would ever release some of them."""
        for connection in self._connections:
            if connection.is_silent:
                connection.abort()

    def refuse(self) -> None:
        """Reset every connection and refuse new ones."""
        self._deafen()
        self.cut()

    def lead_to(self, host: str, port: int) -> None:
        """From now on new connections go there; those that are open stay where they are."""
        self._target = host, port

    def go_silent(self) -> None:
        """Make every connection half-open, and those to come: accepted, and never answered."""
        self._is_silent = True
        for connection in self._connections:
            connection.is_silent = True

    async def restore(self) -> None:
        """New connections pass at full speed. Those that are half-open stay so until whoever holds one releases it."""
        self._is_silent = False
        self.latency_s, self.bytes_per_s = 0.0, None
        if self._listener is None:
            await self._listen()

    async def pause_for(self, size_bytes: int) -> None:
        """Take as long as a chunk of that size is to take."""
        seconds = self.latency_s + (size_bytes / self.bytes_per_s if self.bytes_per_s else 0.0)
        if seconds:
            await asyncio.sleep(seconds)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, self.host, self.port)

    def _deafen(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = _Connection(self, reader, writer, is_silent=self._is_silent)
        self._connections[connection] = task = asyncio.create_task(connection.carry(*self._target))
        task.add_done_callback(lambda _: self._connections.pop(connection))


class _Connection:
    """A client's connection and ours to the target; `is_silent`: half-open."""

    def __init__(
        self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_silent: bool
    ) -> None:
        self.is_silent = is_silent
        self._proxy = proxy
        self._client = reader, writer
        self._writers = [writer]

    async def carry(self, host: str, port: int) -> None:
        """Until both directions have ended, or one of them broke."""
        try:
            if self.is_silent:
                return await self._copy(self._client[0], self._client[1])
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                upstream = await asyncio.open_connection(host, port)
            self._writers.append(upstream[1])
            await asyncio.gather(self._copy(self._client[0], upstream[1]), self._copy(upstream[0], self._client[1]))
        except OSError:  # TimeoutError is one. The target is away: so are we
            self.abort()
        finally:
            for writer in self._writers:
                writer.close()

    def abort(self) -> None:
        """Reset both sides."""
        for writer in self._writers:
            if not writer.is_closing():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction, until its end; a reset is passed on, unless nothing is passed on any more."""
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                await self._proxy.pause_for(len(chunk))
                if not self.is_silent:
                    writer.write(chunk)
                    await writer.drain()
            if not self.is_silent and not writer.is_closing():
                writer.write_eof()
        except OSError:
            if not self.is_silent:
                self.abort()
