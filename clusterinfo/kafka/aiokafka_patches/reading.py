"""Reader of Kafka's batches, in place of aiokafka's: it reads nothing that is too large, and gets past what is broken.

aiokafka's own makes whatever a batch claims: two million headers of a byte, 64 messages of any size in one call. At a
header name that is no UTF-8 it raises, and it never comes to the messages behind it. Here a message of too many headers
is handed out without the rest of them, and what is no message as an empty one, each with an `Unread` in `checksum`,
which this format leaves empty. A batch that unpacks to more than 640 KiB is unpacked in a thread, which whoever reads
waits for (`PausedError`). What a call may read in all is its `Allowance`, and the unpacked batches of all partitions
are held within one bound. `install()` puts the reader in place.

No issue is known. It can go when aiokafka bounds what it makes of a batch and of a call, and gets past what it cannot
read.

Source: https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

import asyncio
import struct
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch

from clusterinfo.kafka.aiokafka_patches import codecs
from clusterinfo.kafka.aiokafka_patches.message import (
    Alike,
    Allowance,
    Item,
    Message,
    TooLargeError,
    read_item,
    read_message,
    read_varint,
)
from clusterinfo.offload import offload

UNPACKED_BYTES = 16 * 1024 * 1024
"""Of unpacked batches held at once; one that is needed and not held any more is unpacked again."""

INLINE_BYTES = 640 * 1024
"""What is unpacked on the event loop, as the batches of collectors are (512 KiB): 1.5 ms, and six partitions may have
one in the same turn."""
_inline_buffer = bytearray(INLINE_BYTES)
"""Overwritten by each batch that is unpacked on the event loop; never used in a thread."""

_LENGTH = struct.Struct(">8xi")
_RECORDS = struct.Struct(">57xi")
_AFTER_LENGTH = 12
_MAGIC_AT = 16
_HEADER_BYTES = 61  # of a batch; its records follow
_LEGACY_BYTES = 26  # the least that a batch of format 0 or 1 takes
_CODECS = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}


class UnreadableError(CorruptRecordException):  # type: ignore[misc]
    """A batch of which nothing can be read, although it arrived as it was sent; `end`: the offset behind it."""

    def __init__(self, reason: str, end: int) -> None:
        super().__init__(reason)
        self.end = end


class PausedError(KafkaError):  # type: ignore[misc]
    """Nothing is wrong, but this takes a while: await `end`, then read on."""

    def __init__(self, batch: Batch | None = None) -> None:
        super().__init__("a batch that takes a while")
        self._batch = batch

    async def end(self) -> None:
        """What was in the way is done, beside the event loop; or it has had a turn."""
        if self._batch is None:
            await asyncio.sleep(0)
        else:
            await self._batch.unpack_beside()


_allowance: ContextVar[Allowance | None] = ContextVar("allowance", default=None)


@contextmanager
def at_most(size_bytes: int, start: int, most: int = 0, alike: Alike | None = None) -> Iterator[None]:
    """What is awaited inside reads messages of that many bytes at most. Raises TooLargeError for more, PausedError.

    `most`: how many it takes, if that is known; it must take them all. `alike`: of what was read of the partition
    before, so that a page which goes on need not be learnt again.
    """
    token = _allowance.set(Allowance(size_bytes, start, most, alike))
    try:
        yield
    finally:
        _allowance.reset(token)


def install() -> None:
    """Make aiokafka's consumers read with it. Calling it again changes nothing."""
    fetcher.MemoryRecords = Batches
    fetcher.PartitionRecords = Messages


class Messages(fetcher.PartitionRecords):  # type: ignore[misc]
    """The messages of one answer. Unlike aiokafka's it does not keep the last one that it handed out, nor transactions,
    and it makes no ConsumerRecord of them.

    After an error there are no more, and the rest is fetched again; what was too large, or took a while, may be tried
    again.
    """

    next_fetch_offset: int

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._records_iterator = None  # aiokafka's refers to its owner: an answer would go with a collection only
        self._batch: Batch | LegacyBatch | None = None
        self._has_failed = False

    def __iter__(self) -> Iterator[Message | Item]:
        """Over those of one call, which are read at once if it says how many it takes."""
        allowance = _allowance.get()
        return iter(self._read(allowance, allowance.most)) if allowance and allowance.most else self

    def __next__(self) -> Message | Item:
        for message in self._read(_allowance.get(), 1):
            return message
        raise StopIteration

    def _read(self, allowance: Allowance | None, most: int) -> list[Message | Item]:
        """The next `most` messages, or all there are."""
        found: list[Message | Item] = []
        start = self.next_fetch_offset
        try:
            while len(found) < most and (batch := self._next_batch()):
                if not batch.read(found, most, self.next_fetch_offset, allowance):
                    break
                self.next_fetch_offset = batch.next_offset
                self._batch = None
        except TooLargeError:
            raise
        except PausedError:
            if not (found or (allowance and allowance.given) or self.next_fetch_offset > start):
                raise
            # Those that the call has are not lost, and what holds none is passed; the rest is fetched again.
        except BaseException:
            self._has_failed = True
            raise
        finally:
            if found:  # after an error, too: whoever goes on elsewhere fetches again
                self.next_fetch_offset = max(self.next_fetch_offset, found[-1].offset + 1)
        if allowance:
            allowance.given += len(found)
        return found

    def _next_batch(self) -> Batch | LegacyBatch | None:
        """The one that is read, or the next; None if there are no more."""
        if self._has_failed:
            return None
        if self._batch is None and self._records.has_next():
            self._batch = self._checked()
        return self._batch

    def _checked(self) -> Batch | LegacyBatch:
        batch: Batch | LegacyBatch = self._records.next_batch()
        if self._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {self._tp}")
        return batch


class Batches:
    """The batches of one answer for one partition, for `aiokafka.consumer.fetcher`; the last may be cut short."""

    def __init__(self, data: bytes) -> None:
        self._view = memoryview(data)
        self._pos = 0

    def size_in_bytes(self) -> int:
        return len(self._view)

    def has_next(self) -> bool:
        left = len(self._view) - self._pos
        return left > _MAGIC_AT and left >= self._next_bytes()

    def next_batch(self) -> Batch | LegacyBatch | None:
        """None after the last. Raises CorruptRecordException for what is no batch."""
        if not self.has_next():
            return None
        size_bytes, magic = self._next_bytes(), self._view[self._pos + _MAGIC_AT]
        if size_bytes < (_HEADER_BYTES if magic >= 2 else _LEGACY_BYTES):
            raise CorruptRecordException(f"a batch of {size_bytes} bytes is none")
        found = self._view[self._pos : self._pos + size_bytes]
        self._pos += size_bytes
        return Batch(found) if magic >= 2 else LegacyBatch(bytes(found), magic)

    def _next_bytes(self) -> int:
        length: int = _LENGTH.unpack_from(self._view, self._pos)[0]
        return length + _AFTER_LENGTH


class LegacyBatch:
    """A batch of format 0 or 1, left to aiokafka's reader."""

    def __init__(self, data: bytes, magic: int) -> None:
        try:
            self._batch = LegacyRecordBatch(data, magic)
        except Exception as error:  # noqa: BLE001 - aiokafka raises SystemError, or whatever it is, for lengths that are none
            raise CorruptRecordException(f"a batch of format {magic} cannot be read: {error}") from None
        self._messages = map(_of_legacy, self._batch)
        self.next_offset: int = self._batch.next_offset

    def validate_crc(self) -> bool:
        return bool(self._batch.validate_crc())

    def read(self, found: list[Message | Item], most: int, start: int, _: Allowance | None) -> bool:
        """As `Batch.read`."""
        for message in self._messages:
            if message.offset >= start:
                found.append(message)
            if len(found) >= most:
                return False
        return True


def _of_legacy(record: Any) -> Message:
    """A message of format 0 or 1, which has no headers; its checksum is a number, and has been compared."""
    key, value = record.key, record.value
    return Message(record.offset, key, value, [], None, len(key or b"") + len(value or b""))


class Batch:
    """A batch of format 2. Its header and its checksum are left to aiokafka's reader."""

    def __init__(self, view: memoryview) -> None:
        self._header = header = DefaultRecordBatch(view)
        self._view = view
        self.is_control_batch: bool = header.is_control_batch
        self.is_transactional: bool = header.is_transactional
        self.producer_id: int = header.producer_id
        self.base_offset: int = header.base_offset
        self.next_offset: int = header.next_offset
        self._codec: int = header.compression_type
        self._left: int = _RECORDS.unpack_from(view)[0]
        self._pos = 0
        self._expected = self.base_offset  # offset of the next message, or before it
        self.unpacked: bytes | None = None
        self._failure: UnreadableError | None = None

    def validate_crc(self) -> bool:
        return bool(self._header.validate_crc())

    def read(self, found: list[Message | Item], most: int, start: int, allowance: Allowance | None) -> bool:
        """Append its next messages from offset `start` on, until there are `most`; True once there are no more."""
        if self.is_control_batch:
            return True
        data = self._unpack(inline=allowance is not None) if self.unpacked is None else self.unpacked
        items_from = max(start, allowance.start) if allowance and allowance.most else self.next_offset
        while self._left > 0:
            if len(found) >= most:
                return False
            if allowance and self._expected >= items_from and (item := self._item(data, allowance)):
                found.append(item)
                continue
            begin, end = self._bounds(data)
            offset, pos = self._offset(data, begin, end)
            if allowance and self.base_offset <= offset < allowance.start < self.next_offset:
                self._move(offset, end)
                if not allowance.pass_over():
                    raise PausedError
                continue
            message = read_message(data, pos, end, offset, allowance, alike=allowance.alike if allowance else None)
            self._move(offset, end)
            if offset >= start:
                found.append(message)
        if self._pos != len(data):
            if found:  # which are not lost: the next call says what is behind them
                return False
            raise self._unreadable(f"{len(data) - self._pos} bytes after its last message")
        self.unpacked = None
        return True

    def _item(self, data: bytes, allowance: Allowance) -> Item | None:
        """The next message, if it is an item of the page of those before it; it is not read otherwise."""
        if allowance.alike.page is None:
            return None
        item = read_item(data, self._pos, self.base_offset, allowance.alike)
        if item and item.size_bytes <= allowance.left_bytes and self._expected <= item.offset < self.next_offset:
            allowance.left_bytes -= item.size_bytes
            self._move(item.offset, item.end)
            return item
        return None

    def _move(self, offset: int, end: int) -> None:
        self._expected = offset + 1
        self._pos = end
        self._left -= 1

    def _bounds(self, data: bytes) -> tuple[int, int]:
        """Where the next message begins and ends."""
        try:
            length, start = read_varint(data, self._pos, len(data))
        except ValueError as error:
            raise self._unreadable(str(error)) from error
        if not 0 <= length <= len(data) - start:
            raise self._unreadable(f"a message of {length} bytes where {len(data) - start} are left")
        return start, start + length

    def _offset(self, data: bytes, start: int, end: int) -> tuple[int, int]:
        """The next message's offset, and where its key begins; -1 if it is none that can be."""
        try:
            _, pos = read_varint(data, start + 1, end)  # after a byte of attributes, its time
            delta, pos = read_varint(data, pos, end)
        except ValueError:
            return self._expected, -1
        offset = self.base_offset + delta
        return (offset, pos) if self._expected <= offset < self.next_offset else (self._expected, -1)

    async def unpack_beside(self) -> None:
        """Unpack it in a thread, one batch at a time, in the room of others. What is wrong with it is raised later.

        It must be read before the event loop has another turn, or another one takes its room.
        """
        async with _unpacking.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            _release(self, codecs.LIMIT_BYTES)
            try:
                self._keep(await offload(self._unpacked, codecs.LIMIT_BYTES))
            except UnreadableError as error:
                self._failure = error

    def _unpack(self, *, inline: bool) -> bytes:
        """Its messages, unpacked. Raises PausedError if they are more than may be here, or seem to be broken."""
        if self._failure:
            raise self._failure
        try:
            unpacked = self._unpacked(INLINE_BYTES, _inline_buffer) if inline else self._unpacked(codecs.LIMIT_BYTES)
            return self._keep(unpacked)
        except UnreadableError:
            if inline:
                raise PausedError(self) from None
            raise

    def _keep(self, data: bytes) -> bytes:
        """Others that are unpacked are released, so that all of them keep to the bound."""
        self.unpacked = data
        _release(self, len(data))
        _held[next(_numbers)] = self
        return data

    def _unpacked(self, limit_bytes: int, buffer: bytearray | None = None) -> bytes:
        packed = self._view[_HEADER_BYTES:]
        if not self._codec:
            return bytes(packed)
        if self._codec not in _CODECS:
            raise self._unreadable(f"its compression is {self._codec}, which is none")
        try:
            return codecs.decompress(_CODECS[self._codec], packed, limit_bytes, buffer)
        except CorruptRecordException as error:
            raise self._unreadable(str(error)) from error

    def _unreadable(self, reason: str) -> UnreadableError:
        return UnreadableError(f"a batch of it cannot be read: {reason}", self.next_offset)


_unpacking: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()
_held: weakref.WeakValueDictionary[int, Batch] = weakref.WeakValueDictionary()
_numbers = count()


def _release(batch: Batch, size_bytes: int) -> None:
    """Release the batches that were unpacked first until `batch` fits in."""
    held_bytes = size_bytes
    for number, other in reversed(list(_held.items())):
        if other.unpacked is not None and other is not batch:
            held_bytes += len(other.unpacked)
            if held_bytes <= UNPACKED_BYTES:
                continue
            held_bytes -= len(other.unpacked)
            other.unpacked = None
        del _held[number]
