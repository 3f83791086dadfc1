"""One message of format 2, read within bounds; what is no message is one without content, with the reason.

The headers of a harmless message are read by aiokafka's compiled reader, which takes 3 µs for 19 of them where Python
takes 13: it gets them as a batch of their own, so that it can neither make more than their bytes nor read beyond them.
Whatever it refuses is read here, which finds what is wrong with it. Messages of one page begin with the same headers,
which are compared, not read (`Alike`). An item of such a page becomes a record as soon as it is read (`Item`): its key
tells its subject, which tells where its other values stand. Whatever stands elsewhere is read as any other message, as
is what has no uid of 36 characters: some aggregated APIs give none.
For why and until when, see `reading`.

Source: https://kafka.apache.org/documentation/#record
"""

from __future__ import annotations

import struct
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple

import msgspec
from aiokafka.errors import KafkaError
from aiokafka.record.default_records import DefaultRecordBatch

from clusterinfo.errors import RecordError
from clusterinfo.model import Record
from clusterinfo.wire import MAX_HEADERS, MAX_HEADERS_BYTES, OWN, Own, Page

Headers = list[tuple[str, bytes | None]]

_LONG = 0x81  # bits of a length that is no number from 0 to 63, in one byte
_MOST_BYTES = 1024  # of the subject of an item
_BATCH_OF_ONE = struct.pack(">16xB40xi", 2, 1)  # a batch's header, of which only the format and the number matter here
_NOTHING_BUT_HEADERS = b"\0\0\0\1\1"  # a message's attributes, time and offset, its key and its value: both null
PASSED_AT_ONCE = 1000
"""Messages: 2 ms. Kafka takes a million of eight bytes as one batch."""
_OWN_OF_ALL = 5  # headers: id, subject, uid, version and hash; what lacks one is read as any other message
_MOST_ALIKE_BYTES = 4096  # of a message's key and headers: what a lane keeps of one
_CACHED = 1024  # lengths of headers whose beginning is remembered, and of those who wrote what
_MOST_WHO_BYTES = 512  # of the headers that name one of them


def _length(number: int) -> bytes:
    """A length from 0 to 8,191, as it stands in front."""
    number *= 2
    return bytes((number,)) if number < 0x80 else bytes((number & 0x7F | 0x80, number >> 7))


_LENGTHS = [_length(number) for number in range(_MOST_BYTES)]
_ID, _SUBJECT, _UID, _VERSION, _HASH, _MANAGER, _OPERATION, _SUBRESOURCE, _MANAGED_AT = (
    _length(len(name)) + name.encode() for name in OWN
)
UID_BYTES, HASH_BYTES = len("2da1cbcb-68a2-4a3c-9d2f-a90b5a02a3f2"), len("0123456789abcdef0123456789abcdef")
_TIME_BYTES = len("2026-11-22T12:00:00.000000Z")
_UID, _HASH, _MANAGED_AT = _UID + _length(UID_BYTES), _HASH + _length(HASH_BYTES), _MANAGED_AT + _length(_TIME_BYTES)
_VERSION_AFTER, _WHO_AFTER = UID_BYTES + len(_VERSION), len(_HASH) + HASH_BYTES
_MANAGED_AT_BYTES = len(_MANAGED_AT) + _TIME_BYTES


class Unread(NamedTuple):
    """Why a message was not read whole, and how many bytes of its headers were left out."""

    reason: str
    omitted_bytes: int = 0


class TooLargeError(KafkaError):  # type: ignore[misc]
    """The next message, of `size_bytes`, is beyond what this call may read."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"a message of {size_bytes} bytes is more than may be read at once")
        self.size_bytes = size_bytes


class Allowance:
    """What a call may still read, in bytes; the messages before offset `start` are passed over.

    `most`: messages that it takes, 0 if that is not known; `given`: those that it has read; `alike`: of the messages
    that the calls before it have read.
    """

    def __init__(self, size_bytes: int, start: int, most: int = 0, alike: Alike | None = None) -> None:
        self.alike = alike or Alike()
        self.left_bytes = size_bytes
        self.start = start
        self.most = most
        self.given = 0
        self._passed = 0

    def take(self, size_bytes: int) -> None:
        """Raises TooLargeError if that is not left."""
        if size_bytes > self.left_bytes:
            raise TooLargeError(size_bytes)
        self.left_bytes -= size_bytes

    def pass_over(self) -> bool:
        """A message is; False if the call has passed over enough for one turn of the event loop."""
        self._passed += 1
        return self._passed < PASSED_AT_ONCE


class Message(NamedTuple):
    """What is wanted of a message; nobody here needs its time."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    checksum: Unread | None
    size_bytes: int = 0
    """Of its key, its value and its headers, as far as they were read, and their lengths."""


class Item(msgspec.Struct, frozen=True, gc=False):
    """A message that is an item of a page, and was read as such; `end`: where it ends in its batch."""

    offset: int
    size_bytes: int
    record: Record
    end: int


class Alike:
    """The first headers of the items of a page, which two messages in a row had in common.

    Attributes: `page`, None until there are two such; of its items `encoded_to_id`, what stands between their headers'
    number and the id, whose length is `id_at` bytes behind that number's place; `number`, how many they have at least.
    """

    def __init__(self) -> None:
        self.page: Page | None = None
        self.encoded_to_id, self.id_at, self.number = b"", 0, 0
        self._last: Headers = []

    def learn(self, encoded: bytes, headers: Headers, key: bytes | None, value: bytes | None) -> None:
        """Take in a message that was read in full: key, value, headers; these `encoded`, without their number."""
        if self.page and encoded.startswith(self.encoded_to_id):  # an unusual one, but of this page
            return
        last, self._last, self.page = self._last, [], None
        if len(key or b"") + len(encoded) > _MOST_ALIKE_BYTES:
            return
        self._last = headers
        number = sum(1 for _ in takewhile(_are_equal, zip(headers, last, strict=False)))
        shared, own = headers[:number], headers[number:]
        if not own or own[0][0] != OWN[0] or number + len(OWN) >= MAX_HEADERS:
            return
        if page := Page.of(key, value, shared, own):
            end = 0
            for _ in shared:
                _, end = _header(encoded, end, len(encoded))
            self.page, self.encoded_to_id = page, encoded[:end] + _ID
            self.id_at, self.number = 1 + len(self.encoded_to_id), number + _OWN_OF_ALL


def _are_equal(pair: tuple[object, object]) -> bool:
    return pair[0] == pair[1]


def read_item(data: bytes, begin: int, base_offset: int, alike: Alike) -> Item | None:
    """The item of `alike.page` whose length is at `begin`; None for any other message, and whatever is unusual."""
    page = alike.page
    assert page is not None
    try:
        length, pos = _number(data, begin)
        end = pos + length
        _, pos = _number(data, pos + 1)  # after a byte of attributes, its time
        delta, key_at = _number(data, pos)
        length, pos = _number(data, key_at)
        namespace, name, subject = page.identity(data[pos : pos + length])
        length, value_at = _number(data, pos + length)
        headers_at = value_at + length
        own = _own_values(data, headers_at, end, subject, alike)
        record = page.item(namespace, name, data[value_at:headers_at], own, base_offset + delta)
    except (ValueError, IndexError, msgspec.DecodeError, RecordError):
        return None
    return Item(base_offset + delta, end - key_at, record, end)


def _own_values(data: bytes, pos: int, end: int, subject: bytes, alike: Alike) -> Own:
    """What the headers of an item, from their number at `pos` up to `end`, say beside those of its page.

    They are, each with its name and length in front: number | those of the page | id | subject | uid, of 36 bytes |
    version | hash, of 32 | who wrote it, 0 to 3 | when, of 27, or nothing. Raises ValueError or IndexError if these are
    not all that it has, or unusual.
    """
    begin = pos + alike.id_at
    if not data.startswith(alike.encoded_to_id, pos + 1) or end > len(data) or end - pos > MAX_HEADERS_BYTES:
        raise ValueError("headers of another page, or too many")
    id_bytes, id_at = _number(data, begin)
    said = _SUBJECT + _LENGTHS[len(subject)] + subject + _UID
    uid_at = id_at + id_bytes + len(said)
    length_at = uid_at + _VERSION_AFTER
    version_at = length_at + 1
    hash_at = version_at + (data[length_at] >> 1)
    if not (
        data.startswith(said, id_at + id_bytes)
        and data.startswith(_VERSION, uid_at + UID_BYTES)
        and data.startswith(_HASH, hash_at)
        and not data[length_at] & _LONG
    ):
        raise ValueError("other headers, or in another order")
    who_at, who_end = hash_at + _WHO_AFTER, end
    version, content_hash, managed_at = data[version_at:hash_at], data[who_at - HASH_BYTES : who_at], b""
    if data.startswith(_MANAGED_AT, end - _MANAGED_AT_BYTES):
        managed_at, who_end = data[end - _TIME_BYTES : end], end - _MANAGED_AT_BYTES
    if not 0 <= who_end - who_at <= _MOST_WHO_BYTES or data.find(b"\0", begin, end) >= 0:
        raise ValueError("names of who wrote it that are longer than usual, or an empty value")
    who, of_who = _who(data[who_at:who_end])
    if data[pos] != 2 * (alike.number + of_who + bool(managed_at)):
        raise ValueError("another number of headers")
    return data[uid_at : uid_at + UID_BYTES], version, content_hash, who, managed_at


def _value(data: bytes, pos: int, name: bytes) -> tuple[bytes, int]:
    """The value at `pos` that has `name` in front of it, and where it ends; b"" if another name is there."""
    if not data.startswith(name, pos):
        return b"", pos
    length, begin = _number(data, pos + len(name))
    return data[begin : begin + length], begin + length


@lru_cache(_CACHED)
def _who(headers: bytes) -> tuple[tuple[str, str, str], int]:
    """What these headers say of who wrote a version, and how many they are. Raises ValueError, IndexError."""
    manager, pos = _value(headers, 0, _MANAGER)
    operation, pos = _value(headers, pos, _OPERATION)
    subresource, pos = _value(headers, pos, _SUBRESOURCE)
    if pos != len(headers):
        raise ValueError("other headers")
    number = bool(manager) + bool(operation) + bool(subresource)
    return (manager.decode(), operation.decode(), subresource.decode()), number


def _number(data: bytes, pos: int) -> tuple[int, int]:
    """The number from 0 to 2^20 at `pos`, and where it ends. Raises ValueError for any other, IndexError."""
    number, after = data[pos], pos + 1
    if number > 0x7F:
        high, after = data[after], after + 1
        number = number & 0x7F | (high & 0x7F) << 7
        if high > 0x7F:
            high, after = data[after], after + 1
            number |= high << 14
            if high > 0x7F:
                raise ValueError("a larger number")
    if number & 1:
        raise ValueError("a negative number")
    return number >> 1, after


def read_message(
    data: bytes, pos: int, end: int, offset: int, allowance: Allowance | None, *, alike: Alike | None = None
) -> Message:
    """The message whose key begins at `pos` (-1: it is none) and that ends at `end`. Raises TooLargeError.

    `alike`: of the messages before it.
    """
    key_at = pos
    try:
        if pos < 0:
            raise ValueError("its offset is none of its batch")
        if allowance:
            allowance.take(end - pos)
        key, pos = _span(data, pos, end)
        value, headers_at = _span(data, pos, end)
        number, pos = read_varint(data, headers_at, end)
        if unread := _too_much(number, end - pos):
            headers, kept_bytes = _first_headers(data, pos, min(end, pos + MAX_HEADERS_BYTES), min(number, MAX_HEADERS))
            unread = unread._replace(omitted_bytes=end - pos - kept_bytes)
        elif (found := _compiled_headers(data[headers_at:end])) is not None:
            headers = found
            if alike:
                alike.learn(data[pos:end], headers, key, value)
        else:
            headers = _all_headers(data, pos, end, number)
    except ValueError as error:
        return Message(offset, None, None, [], Unread(f"it is no message of Kafka's format: {error}"))
    size_bytes = end - key_at - (unread.omitted_bytes if unread else 0)
    return Message(offset, key, value, headers, unread, size_bytes)


def read_varint(data: bytes, pos: int, end: int) -> tuple[int, int]:
    """The zigzag number at `pos`, and where it ends. Raises ValueError if it ends beyond `end`, or has over 64 bits."""
    if pos < end and (number := data[pos]) < 0x80:
        return (number >> 1) ^ -(number & 1), pos + 1
    if pos + 1 < end and (high := data[pos + 1]) < 0x80:
        number = number & 0x7F | high << 7
        return (number >> 1) ^ -(number & 1), pos + 2
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
        length, pos = read_varint(data, pos, end)
        if length < 0:
            return None, pos
    after = pos + length
    if after > end:
        raise ValueError("it is cut short")
    return data[pos:after], after


# --- its headers -----------------------------------------------------------------------------------------------------


def _too_much(number: int, size_bytes: int) -> Unread | None:
    if number < 0:
        raise ValueError(f"{number} headers")
    if number > MAX_HEADERS or size_bytes > MAX_HEADERS_BYTES:
        return Unread(
            f"it has {number} headers of {size_bytes} bytes, more than {MAX_HEADERS} headers or {MAX_HEADERS_BYTES} "
            "bytes: not read"
        )
    return None


def _compiled_headers(encoded: bytes) -> Headers | None:
    """The headers, with their number in front, as aiokafka reads them; None if it does not.

    It checks no bounds where a number begins: the last byte, a NUL, is the end of any number that does not end.
    """
    try:
        alone = DefaultRecordBatch(b"%b%b\0" % (_before_headers(len(encoded)), encoded))
        headers: Headers = next(iter(alone)).headers
    except Exception:  # noqa: BLE001 - whatever it raises, as MemoryError for a length of 62 bits: it is read again
        return None
    return headers


@lru_cache(_CACHED)
def _before_headers(size_bytes: int) -> bytes:
    """A batch of one message up to its headers, which with their number take `size_bytes`: 64 KiB and a few at most."""
    length = 2 * (len(_NOTHING_BUT_HEADERS) + size_bytes)  # zigzag, below in three bytes whether it needs them or not
    return _BATCH_OF_ONE + bytes((length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14)) + _NOTHING_BUT_HEADERS


def _all_headers(data: bytes, pos: int, end: int, number: int) -> Headers:
    headers = []
    for _ in range(number):
        header, pos = _header(data, pos, end)
        headers.append(header)
    if pos != end:
        raise ValueError(f"{end - pos} bytes after its last header")
    return headers


def _first_headers(data: bytes, pos: int, limit: int, number: int) -> tuple[Headers, int]:
    """As many as `number` that end within `limit`, and the bytes they take."""
    headers: Headers = []
    begin = pos
    try:
        for _ in range(number):
            header, pos = _header(data, pos, limit)
            headers.append(header)
    except ValueError:
        pass
    return headers, pos - begin


def _header(data: bytes, pos: int, end: int) -> tuple[tuple[str, bytes | None], int]:
    """The header at `pos`, and where it ends."""
    name, pos = _span(data, pos, end)
    if name is None:
        raise ValueError("a header without a name")
    value, pos = _span(data, pos, end)
    return (name.decode("utf-8", "surrogateescape"), value), pos
