"""Reader of Kafka's batches, in place of aiokafka's: it reads nothing that is too large, and gets past what is broken.

aiokafka's own makes whatever a batch says: two million headers of a byte, 64 messages of any size in one call. At a
header name that is no UTF-8 it raises, and it never comes to the messages behind it. Here a message of too many headers
is handed out without the rest of them, and what is no message as an empty one, each with an `Unread` in `checksum`,
which this format leaves empty and aiokafka passes on. What a call may read in all is its `Allowance`, and the unpacked
batches of all partitions are held within one bound. `install()` puts the reader in place.

Source: https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

import struct
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple, Self

from aiokafka import ConsumerRecord
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch

from clusterinfo.kafka.aiokafka_patches import codecs
from clusterinfo.wire import MAX_HEADERS, MAX_HEADERS_BYTES

UNPACKED_BYTES = 16 * 1024 * 1024
"""Of unpacked batches held at once; one that is needed and not held any more is unpacked again."""

_LENGTH = struct.Struct(">8xi")
_RECORDS = struct.Struct(">57xi")
_AFTER_LENGTH = 12
_MAGIC_AT = 16
_HEADER_BYTES = 61  # of a batch; its records follow
_LEGACY_BYTES = 26  # the least that a batch of format 0 or 1 takes
_LONG = 0x81  # bits of a length that is no number from 0 to 63, in one byte
_CACHED = 1024  # names of less than 64 bytes remembered
_CODECS = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}


class Unread(NamedTuple):
    """Why a message was not read whole, and how many bytes of its headers were left out."""

    reason: str
    omitted_bytes: int = 0


class UnreadableError(CorruptRecordException):  # type: ignore[misc]
    """A batch of which nothing can be read, although it arrived as it was sent; `end`: the offset behind it."""

    def __init__(self, reason: str, end: int) -> None:
        super().__init__(reason)
        self.end = end


class TooLargeError(KafkaError):  # type: ignore[misc]
    """The next message, of `size_bytes`, is beyond what this call may read."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"a message of {size_bytes} bytes is more than may be read at once")
        self.size_bytes = size_bytes


class Allowance:
    """What a call may still read, in bytes; the messages before offset `start` are passed over."""

    def __init__(self, size_bytes: int, start: int) -> None:
        self.left_bytes = size_bytes
        self.start = start

    def take(self, size_bytes: int) -> None:
        """Raises TooLargeError if that is not left."""
        if size_bytes > self.left_bytes:
            raise TooLargeError(size_bytes)
        self.left_bytes -= size_bytes


_allowance: ContextVar[Allowance | None] = ContextVar("allowance", default=None)


@contextmanager
def at_most(size_bytes: int, start: int) -> Iterator[None]:
    """What is awaited inside reads messages of that many bytes at most. Raises TooLargeError for more."""
    token = _allowance.set(Allowance(size_bytes, start))
    try:
        yield
    finally:
        _allowance.reset(token)


def install() -> None:
    """Make aiokafka's consumers read with it. Calling it again changes nothing."""
    fetcher.MemoryRecords = Batches
    fetcher.PartitionRecords = Messages


class Message(NamedTuple):
    """What aiokafka's consumer wants to know of a message; of its time nobody does."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: Unread | None


class Messages(fetcher.PartitionRecords):  # type: ignore[misc]
    """The messages of one answer. Unlike aiokafka's it does not keep the last one that it handed out, nor transactions.

    After an error there are no more, and the rest is fetched again; a message that was too large may be tried again.
    """

    next_fetch_offset: int
    _batch: Batch | LegacyRecordBatch | None = None
    _messages: Iterator[Any] = iter(())
    _has_failed = False

    def __next__(self) -> ConsumerRecord:
        if self._has_failed:
            raise StopIteration
        try:
            return self._next()
        except (StopIteration, TooLargeError):
            raise
        except BaseException:
            self._has_failed = True
            raise

    def _next(self) -> ConsumerRecord:
        while self._batch is not None or self._records.has_next():
            if self._batch is None:
                self._batch = self._checked()
                self._messages = iter(() if self._batch.is_control_batch else self._batch)
            for message in self._messages:
                if message.offset >= self.next_fetch_offset:
                    self.next_fetch_offset = message.offset + 1
                    return self._consumer_record(self._tp, message)
            self.next_fetch_offset = self._batch.next_offset
            self._batch = None
        raise StopIteration

    def _checked(self) -> Batch | LegacyRecordBatch:
        batch = self._records.next_batch()
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

    def next_batch(self) -> Batch | LegacyRecordBatch | None:
        """None after the last. Raises CorruptRecordException for what is no batch."""
        if not self.has_next():
            return None
        size_bytes, magic = self._next_bytes(), self._view[self._pos + _MAGIC_AT]
        if size_bytes < (_HEADER_BYTES if magic >= 2 else _LEGACY_BYTES):
            raise CorruptRecordException(f"a batch of {size_bytes} bytes is none")
        found = self._view[self._pos : self._pos + size_bytes]
        self._pos += size_bytes
        return Batch(found) if magic >= 2 else LegacyRecordBatch(bytes(found), magic)

    def _next_bytes(self) -> int:
        length: int = _LENGTH.unpack_from(self._view, self._pos)[0]
        return length + _AFTER_LENGTH


class Batch:
    """A batch of format 2, an iterator of its messages. Its header and its checksum are left to aiokafka's reader."""

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

    def validate_crc(self) -> bool:
        return bool(self._header.validate_crc())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message:
        allowance = _allowance.get()
        data = self._unpack() if self.unpacked is None else self.unpacked
        while self._left > 0:
            start, end = self._bounds(data)
            offset, pos = self._offset(data, start, end)
            if not (allowance and self.base_offset <= offset < allowance.start < self.next_offset):
                message = _message(data, pos, end, offset, allowance)
                self._move(offset, end)
                return message
            self._move(offset, end)
        if self._pos != len(data):
            raise self._unreadable(f"{len(data) - self._pos} bytes after its last message")
        self.unpacked = None
        raise StopIteration

    def _move(self, offset: int, end: int) -> None:
        self._expected = offset + 1
        self._pos = end
        self._left -= 1

    def _bounds(self, data: bytes) -> tuple[int, int]:
        """Where the next message begins and ends."""
        try:
            length, start = _varint(data, self._pos, len(data))
        except ValueError as error:
            raise self._unreadable(str(error)) from error
        if not 0 <= length <= len(data) - start:
            raise self._unreadable(f"a message of {length} bytes where {len(data) - start} are left")
        return start, start + length

    def _offset(self, data: bytes, start: int, end: int) -> tuple[int, int]:
        """The next message's offset, and where its key begins; -1 if it is none that can be."""
        try:
            _, pos = _varint(data, start + 1, end)  # after a byte of attributes, its time
            delta, pos = _varint(data, pos, end)
        except ValueError:
            return self._expected, -1
        offset = self.base_offset + delta
        return (offset, pos) if self._expected <= offset < self.next_offset else (self._expected, -1)

    def _unpack(self) -> bytes:
        """Its messages, unpacked; others that were are let go, so that all of them keep to the bound."""
        packed = self._view[_HEADER_BYTES:]
        try:
            data = codecs.DECODERS[_CODECS[self._codec]](packed) if self._codec else bytes(packed)
        except KeyError as error:
            raise self._unreadable(f"its compression is {self._codec}, which is none") from error
        except CorruptRecordException as error:
            raise self._unreadable(str(error)) from error
        self.unpacked = data
        _hold(self, len(data))
        return data

    def _unreadable(self, reason: str) -> UnreadableError:
        return UnreadableError(f"a batch of it cannot be read: {reason}", self.next_offset)


_held: weakref.WeakValueDictionary[int, Batch] = weakref.WeakValueDictionary()
_numbers = count()


def _hold(batch: Batch, size_bytes: int) -> None:
    """Let the batches that were unpacked first go until `batch` fits in."""
    held_bytes = size_bytes
    for number, other in reversed(list(_held.items())):
        if other.unpacked is not None and other is not batch:
            held_bytes += len(other.unpacked)
            if held_bytes <= UNPACKED_BYTES:
                continue
            held_bytes -= len(other.unpacked)
            other.unpacked = None
        del _held[number]
    _held[next(_numbers)] = batch


# --- one message -----------------------------------------------------------------------------------------------------


def _message(data: bytes, pos: int, end: int, offset: int, allowance: Allowance | None) -> Message:
    """The message whose key begins at `pos`. Raises TooLargeError."""
    try:
        if pos < 0:
            raise ValueError("its offset is none of its batch")
        if allowance:
            allowance.take(end - pos)
        key, pos = _span(data, pos, end)
        value, pos = _span(data, pos, end)
        number, pos = _varint(data, pos, end)
        unread = _too_much(number, end - pos)
        headers, kept_bytes = _headers(data, pos, end, number, is_whole=unread is None)
    except ValueError as error:
        return Message(offset, -1, 0, None, None, [], Unread(f"it is no message of Kafka's format: {error}"))
    if unread:
        unread = unread._replace(omitted_bytes=end - pos - kept_bytes)
    return Message(offset, -1, 0, key, value, headers, unread)


def _varint(data: bytes, pos: int, end: int) -> tuple[int, int]:
    """The zigzag number at `pos`, and where it ends. Raises ValueError if it ends beyond `end`, or has over 64 bits."""
    if pos < end and (number := data[pos]) < 0x80:
        return (number >> 1) ^ -(number & 1), pos + 1
    shift = number = 0
    while pos < end:
        byte = data[pos]
        pos += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), pos
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
    raise ValueError("it is cut short")


def _span(data: bytes, pos: int, end: int) -> tuple[bytes | None, int]:
    """The bytes at `pos` that have their length in front (None: null), and where they end."""
    if pos < end and not (length := data[pos]) & _LONG:
        pos += 1
        length >>= 1
    else:
        length, pos = _varint(data, pos, end)
        if length < 0:
            return None, pos
    after = pos + length
    if after > end:
        raise ValueError("it is cut short")
    return data[pos:after], after


def _too_much(number: int, size_bytes: int) -> Unread | None:
    if number < 0:
        raise ValueError(f"{number} headers")
    if number > MAX_HEADERS or size_bytes > MAX_HEADERS_BYTES:
        return Unread(
            f"it has {number} headers of {size_bytes} bytes, more than {MAX_HEADERS} headers or {MAX_HEADERS_BYTES} "
            "bytes: not read"
        )
    return None


@lru_cache(_CACHED)
def _name(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _long_name(data: bytes, pos: int, end: int) -> tuple[str, int]:
    raw, pos = _span(data, pos, end)
    if raw is None:
        raise ValueError("a header without a name")
    return raw.decode("utf-8", "surrogateescape"), pos


def _headers(
    data: bytes, pos: int, end: int, number: int, *, is_whole: bool
) -> tuple[list[tuple[str, bytes | None]], int]:
    """The headers at `pos`, and the bytes they take. Unless `is_whole`, only the first ones, within the bounds."""
    begin, limit = pos, min(end, pos + MAX_HEADERS_BYTES)
    headers: list[tuple[str, bytes | None]] = []
    try:
        for _ in range(min(number, MAX_HEADERS)):
            # As `_span`, twice, which would take two thirds of the time that a message takes.
            if pos < limit and not (size := data[pos]) & _LONG:
                at = pos + 1 + (size >> 1)
                name = _name(data[pos + 1 : at])
            else:
                name, at = _long_name(data, pos, limit)
            if at < limit and not (size := data[at]) & _LONG:
                begins = at + 1
                at = begins + (size >> 1)
                value: bytes | None = data[begins:at]
            else:
                value, at = _span(data, at, limit)
            if at > limit:
                raise ValueError("it is cut short")
            headers.append((name, value))
            pos = at
    except ValueError:
        if is_whole:
            raise
    if is_whole and pos != end:
        raise ValueError(f"{end - pos} bytes after its last header")
    return headers, pos - begin
