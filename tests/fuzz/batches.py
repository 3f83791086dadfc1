"""Target `batches`: batches as Kafka keeps them, garbled where no checksum tells, and what the reader makes of them.

It raises the one error that says where the batch ends, or that there is none, and gives messages of rising offsets
within the batch, of bounded headers, until the end of what it can read; each of them the decoder takes or refuses as
any other. Nothing else is raised, nothing takes long, and what is sound is read whole.
"""

from __future__ import annotations

import struct
import time
from random import Random

from aiokafka.errors import CorruptRecordException
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from clusterinfo import wire
from clusterinfo.errors import RecordError
from clusterinfo.kafka.aiokafka_patches import codecs, reading
from clusterinfo.kafka.aiokafka_patches.message import Item, Message
from tests.fuzz.making import mutated
from tests.fuzz.messages import TEXTS, garbled
from tests.fuzz.outcome import Failure, Judged, Outcome, expect
from tests.support.batches import CODECS, batch, framed, record, sized, varint
from tests.support.records import Listing

MOST_S = 2.0
"""For one batch, on a machine that does much else; the largest take 30 ms."""
NUMBERS = -(2**63), -(2**31) - 1, -2, -1, 0, 1, 63, 64, 2**14, 2**31 - 1, 2**31, 2**62, 2**63 - 1
COUNTS = 0, 1, 2, 63, 64, 65, 1000, 20_000
_CRC_AT, _AFTER_CRC, _ATTRIBUTES = 17, 21, struct.Struct(">h")


def _message(random: Random, delta: int) -> bytes:
    """A message of format 2: sound; garbled; or one that says what it does not hold."""
    key, value, headers = garbled(random)
    if sum(len(name) + len(text or b"") for name, text in headers) > 10_000 and random.random() < 0.9:
        headers = headers[:3]
    pairs = [(name.encode("utf-8", "surrogateescape"), text) for name, text in headers if "\ud800" not in name]
    chance = random.random()
    if chance < 0.6:
        return record(delta, key, value, pairs)
    if chance < 0.75:
        return framed(mutated(random, record(delta, key, value, pairs)[2:]))
    if chance < 0.85:
        start = b"\0" + varint(0) + varint(random.choice((delta, delta, random.choice(NUMBERS))))
        return framed(start + _span(random, key) + _span(random, value) + varint(random.choice(NUMBERS)))
    if chance < 0.95:
        times, pair = random.choice(COUNTS), sized(b"ce_uid") + sized(random.choice((None, b"", b"u")))
        return framed(b"\0\0" + varint(delta) + sized(key) + sized(value) + varint(times) + pair * times)
    return random.choice((framed(b""), varint(random.choice(NUMBERS)) + b"x", b"\xff" * 12, b""))


def _page(random: Random, first: int) -> list[bytes]:
    """Items of a page, of which some are garbled in what they have of their own."""
    page, records = Listing("48987", resource="pods", kind="Pod"), []
    for delta in range(first, first + 6):
        key, value, headers = wire.encode(page.item(f"app-{delta}", str(delta), uid=f"{delta:036d}"))
        encoded: list[tuple[bytes, bytes | None]] = [(name.encode(), text) for name, text in headers]
        if random.random() < 0.4:
            at = random.randrange(len(encoded) // 2, len(encoded))
            encoded[at] = encoded[at][0], random.choice((None, *TEXTS))
        if random.random() < 0.2:
            key = mutated(random, key)
        records.append(record(delta, key, value, encoded))
    return records


def _span(random: Random, data: bytes | None) -> bytes:
    """Bytes with their length in front, or with another."""
    return sized(data) if random.random() < 0.7 else varint(random.choice(NUMBERS)) + (data or b"")


def made(random: Random) -> bytes:
    """A batch, as Kafka may have it, or none at all."""
    count = random.choice((1, 1, 2, 3, 8))
    records = [_message(random, delta) for delta in range(count)]
    if random.random() < 0.3:
        records += _page(random, count)
        count = len(records)
    number = random.choice((*NUMBERS[3:9], count)) if random.random() < 0.05 else count
    data = bytearray(batch(records, random.choice([*CODECS]), random.choice((0, 0, 7, 2**62)), number=number))
    if random.random() < 0.15:
        data[_HEADER_BYTES:] = mutated(random, bytes(data[_HEADER_BYTES:]))
        struct.pack_into(">i", data, 8, len(data) - 12)
    if random.random() < 0.05:
        _ATTRIBUTES.pack_into(data, _AFTER_CRC, random.choice((0, 1, 2, 3, 4, 5, 7, 16, 32, 255, -1)))
    struct.pack_into(">I", data, _CRC_AT, calc_crc32c(bytes(data[_AFTER_CRC:])))
    if random.random() < 0.05:
        data = bytearray(mutated(random, bytes(data)))
    return bytes(data)


_HEADER_BYTES = 61


def judge(data: bytes, start: int) -> tuple[int, str]:
    """How many messages were read, and why it ended. Raises Judged for what should not be."""
    began = time.process_time()
    read, last = 0, start - 1
    try:
        for message in _messages(data, start):
            assert isinstance(message, Message)
            expect(message.offset > last, "offsets do not rise")
            last, read = message.offset, read + 1
            headers = message.headers
            size_bytes = sum(len(name) + len(text or b"") for name, text in headers)
            expect(len(headers) <= wire.MAX_HEADERS and size_bytes <= 4 * wire.MAX_HEADERS_BYTES, "headers unbounded")
            try:
                wire.decode(message.key, message.value, headers, message.offset)
            except RecordError as error:
                expect(len(str(error)) < 400, "a reason that is no short line")
        end = "to the end"
    except reading.UnreadableError as error:
        expect(error.end >= 0, "it ends nowhere")
        end = "up to what cannot be read"
    except CorruptRecordException:
        end = "not at all: no batch, or another checksum"
    expect(time.process_time() - began < MOST_S, f"it took {time.process_time() - began:.1f} s")
    return read, end


def _messages(data: bytes, start: int) -> reading.Messages:
    return reading.Messages(TopicPartition("t", 0), reading.Batches(data), [], start, None, None, True, 0)


def judge_items(data: bytes) -> int:
    """How many messages a consumer reads as items of their page: as what decoding makes of them. Raises Judged."""
    plain = {message.offset: message for message in _messages(data, 0) if isinstance(message, Message)}
    with reading.at_most(1 << 40, 0, 1 << 20):
        items = [message for message in _messages(data, 0) if isinstance(message, Item)]
    for item in items:
        whole = plain[item.offset]
        expect(item.record == wire.decode(whole.key, whole.value, whole.headers, whole.offset), "an item is another")
    return len(items)


def run(random: Random, size: int, chunk: int) -> Outcome:
    """`size` batches."""
    codecs.install()
    outcome = Outcome()
    for _ in range(size):
        data = made(random)
        try:
            read, end = judge(data, random.choice((0, 0, 0, 1, 7)))
            items = judge_items(data) if end == "to the end" else 0
        except Exception as error:  # noqa: BLE001 - whatever escapes is what is looked for
            reason = str(error) if isinstance(error, Judged) else f"{type(error).__name__}: {error}"
            outcome.failures.append(Failure("batches", chunk, reason, data))
            continue
        outcome.counts[f"batches read {end}"] += 1
        outcome.counts["items of pages"] += items
        outcome.counts["messages of batches"] += read
    return outcome
