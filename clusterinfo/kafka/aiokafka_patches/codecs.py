"""Bounded decompression for aiokafka's readers, which know no bound: 33 kB of zstd could become 1 GiB.

And compression by zstd at level 1, where the builders of batches look it up.

`install()` replaces the codec functions where the readers look them up: in the compiled and the plain modules of
`aiokafka.record`. A batch that would grow beyond the bound raises CorruptRecordException, as one with a bad CRC does.
A test proves that the readers which are in use honour it. No issue is known. It can go when aiokafka takes a bound and
a level: it compresses at level 3, which takes twice as long for batches of manifests and leaves 5 % more of them.
"""

from __future__ import annotations

import importlib
import struct
import zlib
from collections.abc import Callable
from functools import partial

import cramjam
from aiokafka.errors import CorruptRecordException

# A batch of our own holds 512 KiB, or one record that is at most 8 MiB (sink.py). Others may pack a little more.
LIMIT_BYTES = 12 * 1024 * 1024

_MODULES = (
    "aiokafka.record.default_records",
    "aiokafka.record.legacy_records",
    "aiokafka.record._crecords.default_records",
    "aiokafka.record._crecords.legacy_records",
)
Decompress = Callable[[bytes, int, bytearray | None], bytes]
"""(payload, limit in bytes, buffer of that size or None) -> what it unpacks to."""
_XERIAL = b"\x82SNAPPY\x00"  # the framing of snappy-java: a header of 16 bytes, then blocks with their length in front
_ZSTD_LEVEL = 1
_GZIP_WBITS = 31  # zlib.decompressobj: 16 + the largest window reads a gzip stream


def install() -> None:
    """Make every reader of aiokafka decompress with a bound. Calling it again changes nothing."""
    for name in _MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:  # built without the extension: the plain module is then the one in use
            continue
        for codec, decode in DECODERS.items():
            if hasattr(module, f"{codec}_decode"):
                setattr(module, f"{codec}_decode", decode)
        if hasattr(module, "zstd_encode"):
            module.zstd_encode = zstd_encode  # type: ignore[attr-defined]


def zstd_encode(payload: bytes | bytearray | memoryview) -> bytes:
    """`payload` as a producer's batch has it."""
    return bytes(cramjam.zstd.compress(payload, level=_ZSTD_LEVEL))


def decompress(
    codec: str, payload: bytes | memoryview, limit_bytes: int | None = None, buffer: bytearray | None = None
) -> bytes:
    """`payload` decompressed. Raises CorruptRecordException if it cannot be, or is larger than the limit.

    `buffer`: of `limit_bytes`, overwritten by lz4 and zstd. Without it one is allocated, whose page faults take as long
    again.
    """
    limit_bytes = limit_bytes or LIMIT_BYTES
    try:
        return _DECOMPRESS[codec](bytes(payload), limit_bytes, buffer)
    except (cramjam.DecompressionError, zlib.error, struct.error, ValueError, MemoryError) as error:
        reason = str(error)[:100]
    # Not from within: an error that knows the first one holds the buffers of its frames, 12 MiB each.
    raise CorruptRecordException(f"cannot decompress within {limit_bytes} bytes: {reason}")


def _gzip(payload: bytes, limit_bytes: int, _: bytearray | None) -> bytes:
    stream = zlib.decompressobj(_GZIP_WBITS)
    data = stream.decompress(payload, limit_bytes)
    if not stream.eof:
        raise ValueError("larger, or cut short")
    return data


def _snappy(payload: bytes, limit_bytes: int, _: bytearray | None) -> bytes:
    if not payload.startswith(_XERIAL):
        return _snappy_block(payload, limit_bytes)
    data = bytearray()
    cursor = 16
    while cursor < len(payload):
        (length,) = struct.unpack_from("!i", payload, cursor)
        if length <= 0:
            raise ValueError("a block without a length")
        cursor += 4
        data += _snappy_block(payload[cursor : cursor + length], limit_bytes - len(data))
        cursor += length
    return bytes(data)


def _snappy_block(block: bytes, limit_bytes: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(block) > limit_bytes:
        raise ValueError("larger")
    return bytes(cramjam.snappy.decompress_raw(block))


def _into(decompress_into: Callable[[bytes, bytearray], int]) -> Decompress:
    """Decompress into a buffer that grows fourfold up to the limit: no format promises to carry its size."""

    def decompress_within(payload: bytes, limit_bytes: int, buffer: bytearray | None) -> bytes:
        buffer = bytearray(min(max(len(payload) * 32, 4096), limit_bytes)) if buffer is None else buffer
        while True:
            try:
                return bytes(memoryview(buffer)[: decompress_into(payload, buffer)])
            except cramjam.DecompressionError:
                if len(buffer) == limit_bytes:
                    raise
                buffer = bytearray(min(len(buffer) * 4, limit_bytes))

    return decompress_within


_DECOMPRESS: dict[str, Decompress] = {
    "gzip": _gzip,
    "snappy": _snappy,
    "lz4": _into(cramjam.lz4.decompress_into),
    "zstd": _into(cramjam.zstd.decompress_into),
}

DECODERS: dict[str, Callable[[bytes | memoryview], bytes]] = {
    codec: partial(decompress, codec) for codec in _DECOMPRESS
}
