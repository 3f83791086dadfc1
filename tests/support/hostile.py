"""What a stranger may put into a topic to do harm: batches that Kafka takes, each with what it is.

Lengths up to 30 MiB, counts up to a million, all that is no text, every number's edges, bodies that PostgreSQL refuses,
and batches that say what they do not hold. As small as their maker could pack them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import orjson
from msgspec.structs import replace

from clusterinfo import wire
from clusterinfo.model import Record
from tests.fuzz.batches import made
from tests.support.batches import batch, framed, record, sized, varint
from tests.support.records import Listing

MIB = 1024 * 1024
GARBLED = 60
"""Batches as tests/fuzz makes them; thousands of them go past the reader there, some through a broker here."""
ATTRIBUTES = (
    "ce_specversion", "ce_type", "ce_source", "ce_id", "ce_time", "ce_subject", "ce_clustername", "ce_snapshot",
    "ce_list", "ce_reach", "ce_apiversion", "ce_kind", "ce_uid", "ce_resourceversion", "ce_listversion", "ce_ordering",
    "ce_contenthash", "ce_state", "ce_epoch", "ce_normalization", "content-type",
)  # fmt: skip
POWERS = 15, 31, 32, 62, 63, 64, 128
EDGES = (
    *(str(number).encode() for power in POWERS for number in (2**power - 1, 2**power, 2**power + 1, -(2**power))),
    b"", b"0", b"-0", b"-1", b"+1", b"1_0", b" 1", b"1\n", b"1.0", b"1e9", b"0x1", b"NaN", b"9" * 4301, b"0" * 4301,
    "\u0663".encode(), "\u00b2".encode(),
)  # fmt: skip
CONTROLS = tuple(chr(code).encode() for code in (*range(32), 127, 0x85, 0x2028, 0x202E, 0xFEFF))
NO_TEXT = b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\xe2\x82"

BODIES: dict[str, Callable[[], bytes]] = {
    "numbers, one of them wild": lambda: b"[" + b"1," * (4 * MIB) + b"1e9999]",
    "numbers that look wild": lambda: b'["' + b"e11111" * (8 * MIB // 6) + b'"]',
    "letters that look wild": lambda: b'["' + b"e" * (8 * MIB) + b'"]',
    "digits": lambda: b"9" * (8 * MIB),
    "escapes, one of them of NUL": lambda: b'["' + rb"\n" * (4 * MIB) + rb'\u0000"]',
    "escapes of NUL": lambda: b'["' + rb"\u0000" * (8 * MIB // 6) + b'"]',
    "a string that never ends": lambda: b'[1e9999,"' + rb"\"" * (4 * MIB),
    "control characters": lambda: b'["' + b"\1" * (8 * MIB) + b'"]',
    "no UTF-8": lambda: b'["' + b"\xff" * (8 * MIB) + b'"]',
    "arrays in arrays": lambda: b"[" * (4 * MIB) + b"]" * (4 * MIB),
    "objects in objects": lambda: b'{"a":' * (8 * MIB // 6) + b"1" + b"}" * (8 * MIB // 6),
    "no JSON": lambda: b"x" * (8 * MIB),
    "one string": lambda: b'"' + b"x" * (8 * MIB) + b'"',
}
"""Of an object: 8 MiB each."""


def message(of: Record, delta: int = 0, *more: tuple[bytes, bytes | None], without: str = "") -> bytes:
    """A record as Kafka carries it, with more headers, and without one."""
    key, value, headers = wire.encode(of)
    kept = [(name.encode(), text) for name, text in headers if name != without]
    return record(delta, key, value, [*kept, *more])


def repeated(name: bytes, value: bytes, times: int) -> bytes:
    """A message with one header so many times."""
    return framed(
        b"\0\0" + varint(0) + sized(b"k") + sized(b"v") + varint(times) + (sized(name) + sized(value)) * times
    )


def hostile() -> Iterator[tuple[str, bytes]]:
    """Name and batch, all in a row."""
    yield from _headers()
    yield from _attributes()
    yield from _bodies()
    yield from _statements()
    yield from _batches()
    random = Random(1)
    for _ in range(GARBLED):
        yield "a garbled batch", made(random)


def _headers() -> Iterator[tuple[str, bytes]]:
    ours = Listing("1", resource="headers").item("a", "1")
    for name in NO_TEXT:
        yield "a header name that is no UTF-8", batch([message(ours, 0, (name, b"1"))])
    for times in (65, 1000, 20_000, 1_000_000):
        yield f"a header {times} times", batch([repeated(b"ce_uid", b"u", times)], "zstd")
        yield f"other headers, {times}", batch([repeated(b"", b"", times)], "gzip")
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        for size in (11, 30):
            yield (
                f"a header of {size} MiB, {codec}",
                batch([record(0, b"k", b"v", [(b"h", b"\0" * size * MIB)])], codec),
            )
        yield f"a key of 11 MiB, {codec}", batch([record(0, b"\0" * 11 * MIB, b"v")], codec)
        yield f"a value of 11 MiB, {codec}", batch([record(0, b"k", b"\0" * 11 * MIB)], codec)
    for count in (-1, 2**31, 2**62):
        yield f"{count} headers", batch([framed(b"\0\0" + varint(0) + sized(b"k") + sized(b"v") + varint(count))])


def _attributes() -> Iterator[tuple[str, bytes]]:
    ours = Listing("1", resource="attributes").item("a", "1")
    for name in ATTRIBUTES:
        odd = [*EDGES, *CONTROLS, *NO_TEXT, b"x" * 1000]
        yield (
            f"{name}: edges",
            batch(
                [message(ours, delta, (name.encode(), text), without=name) for delta, text in enumerate(odd)], "zstd"
            ),
        )
        large = message(ours, 0, (name.encode(), b"9" * 10_000_000), without=name)
        yield f"{name}: 10 MB", batch([large], "zstd")
    for epoch in (1001, 2**31 - 1):
        yield f"epoch {epoch}", batch([message(replace(ours, epoch=epoch))])
    for version in (2**62 + 1, 2**63 - 1):
        yield f"version {version}", batch([message(replace(ours, list_version=str(version)))])


def _bodies() -> Iterator[tuple[str, bytes]]:
    listing = Listing("1", resource="bodies")
    for number, (name, make) in enumerate(BODIES.items()):
        yield f"a body of {name}", batch([message(listing.item(f"b{number}", "1", body=make()))], "zstd")


def _statements() -> Iterator[tuple[str, bytes]]:
    listing = Listing("1", resource="statements")
    kinds = [
        {"group": "", "resource": f"k{number}", "outcome": "failed", "count": 2**63 - 1} for number in range(100_000)
    ]
    for number in (3, 9_000, 100_000):
        body = orjson.dumps({"discovery_complete": False, "units": kinds[:number]})
        end = replace(listing.snapshot_completed({}), body=body, cluster="elsewhere")
        yield f"a snapshot of {number} kinds", batch([message(end)], "zstd")
    for count in ("-1", "1e400", "9" * 5000, "1" * 8_000_000, "null", "{}", "9223372036854775808"):
        body = b'{"count":%b,"digest":"0"}' % count.encode()
        yield f"a list of {count[:20]} objects", batch([message(replace(listing.completed(), body=body))], "zstd")
    failed = b'{"http_status":%b,"reason":"%b"}' % (b"9" * 5000, b"r" * 900_000)
    yield "a failure that says much", batch([message(replace(listing.failed(500, "x"), body=failed))], "zstd")


def _batches() -> Iterator[tuple[str, bytes]]:
    ours = message(Listing("1", resource="batches").item("a", "1"))
    yield "20,000 messages of nothing", batch([record(delta, None, None) for delta in range(20_000)], "zstd")
    yield "fewer messages than it says", batch([ours, ours], number=2)[:-1]
    for broken in (
        framed(b"\0\0" + varint(1) + varint((1 << 62) - 1) + b"k"),
        framed(b"\0" + b"\xff" * 12),
        framed(b""),
        varint(500) + b"x",
        varint(-3) + b"x",
    ):
        yield "a message that is none", batch([ours, broken], "zstd")
