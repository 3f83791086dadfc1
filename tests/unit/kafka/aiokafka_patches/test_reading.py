"""The reader of batches: as aiokafka's own for what is sound, past what is not, and within its bounds."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from msgspec.structs import replace

from clusterinfo import wire
from clusterinfo.kafka.aiokafka_patches import codecs, reading
from clusterinfo.kafka.aiokafka_patches.message import PASSED_AT_ONCE, Alike, Item, TooLargeError
from clusterinfo.offload import THREAD
from tests.support.batches import CODECS, batch, framed, record, sized, varint
from tests.support.kafka import item, new_list

MIB = 1024 * 1024
LIST = new_list()
UID = "5180eaa4-7a47-4e30-81ab-2135c8f2a0e5"
[PartitionRecords] = reading.Messages.__bases__  # aiokafka's own


def good(delta: int, size_bytes: int = 10) -> bytes:
    sent = replace(item(delta, "pods", LIST, b"x" * size_bytes), uid=UID)
    key, value, headers = wire.encode(sent)
    return record(delta, key, value, [(name.encode(), text) for name, text in headers])


def read(data: bytes, reader: Any = None, start: int = 0) -> list[Any]:
    """What a consumer makes of an answer of Kafka's."""
    records = (reader or fetcher.MemoryRecords)(data)
    messages = PartitionRecords if reader else fetcher.PartitionRecords
    return list(messages(TopicPartition("topic", 0), records, [], start, None, None, True, 0))


def fields(messages: list[Any]) -> list[tuple[object, ...]]:
    return [(one.offset, one.key, one.value, [*one.headers]) for one in messages]


@pytest.fixture(autouse=True)
def nothing_held() -> Iterator[None]:
    yield
    THREAD.submit(int).result()  # the thread has released what it did before
    gc.collect()
    assert not reading._held


def test_an_answer_goes_with_whoever_read_it() -> None:
    """A collection may be long in coming: hardly anything that it counts is left of a message."""
    data = batch([good(0), good(1)])
    messages = fetcher.PartitionRecords(
        TopicPartition("topic", 0), fetcher.MemoryRecords(data), [], 0, None, None, True, 0
    )
    gone = weakref.ref(messages)
    gc.disable()
    try:
        assert next(messages).offset == 0
        del messages
        assert gone() is None
    finally:
        gc.enable()


def test_the_last_message_before_bytes_too_many_is_not_lost() -> None:
    data = batch([good(0), good(1) + b"x"])
    messages = fetcher.PartitionRecords(
        TopicPartition("topic", 0), fetcher.MemoryRecords(data), [], 0, None, None, True, 0
    )
    assert [next(messages).offset, next(messages).offset] == [0, 1]
    with pytest.raises(CorruptRecordException, match="bytes after its last message"):
        next(messages)


def test_what_holds_no_message_is_passed_although_what_follows_takes_a_while() -> None:
    """Else the same two would be fetched again for ever: a consumer's position stands before the first."""
    marker = batch([good(0)], attributes=0x20)
    data = marker + batch([good(0, 2 * reading.INLINE_BYTES)], "zstd", 1)
    messages = fetcher.PartitionRecords(
        TopicPartition("topic", 0), fetcher.MemoryRecords(data), [], 0, None, None, True, 0
    )
    with reading.at_most(64 * MIB, 0, 1):
        assert list(messages) == []
    assert messages.next_fetch_offset == 1
    with reading.at_most(64 * MIB, 1, 1), pytest.raises(reading.PausedError):
        list(messages)


def test_it_is_the_reader_in_use() -> None:
    assert fetcher.MemoryRecords is reading.Batches
    assert fetcher.PartitionRecords is reading.Messages
    assert DefaultRecordBatch is not _DefaultRecordBatchPy  # the compiled one still checks the sums


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_sound_is_read_as_aiokafka_reads_it(codec: str) -> None:
    odd = [(b"", b""), (b"n", None), ("ä😀".encode(), b"\xff"), (b"x" * 63, b"y" * 63), (b"x" * 64, b"y" * 64)]
    odd += [(b"x" * 9000, b"y" * 20_000), (b"x", b"y")]
    messages = [
        good(0),
        record(1, None, None),
        record(2, b"", b"", odd),
        good(3, 300_000),
        record(4, b"k" * 9000, b"v"),
    ]
    first, second = batch(messages, codec, 100), batch([good(0), good(1)], codec, 105)
    for data in (first + second, first + second[:40], first):
        for start in (0, 102, 104, 105):
            found = read(data, start=start)
            assert fields(found) == fields(read(data, MemoryRecords, start))
            assert all(one.checksum is None for one in found)


@pytest.mark.parametrize("codec", CODECS)
def test_a_header_name_that_is_no_utf8_stands_between_good_messages(codec: str) -> None:
    strange = record(1, b"k", b"v", [(b"a\xff", b"1"), (b"b", b"2")])
    data = batch([good(0), strange, good(2)], codec)
    with pytest.raises(UnicodeDecodeError):
        read(data, MemoryRecords)
    first, second, third = read(data)
    assert second.headers == [("a\udcff", b"1"), ("b", b"2")]
    for one in (first, third):
        assert wire.decode(one.key, one.value, one.headers).name == f"o-{one.offset}"


BROKEN = {
    "a number of headers that is none": framed(b"\0\0" + varint(1) + varint(-1) + varint(-1) + varint(-5)),
    "a header that is not there": framed(b"\0\0" + varint(1) + varint(-1) + varint(-1) + varint(1)),
    "a header without a name": framed(b"\0\0" + varint(1) + varint(-1) + varint(-1) + varint(1) + varint(-1) * 2),
    "a name beyond its end": framed(b"\0\0" + varint(1) + varint(-1) + varint(-1) + varint(1) + varint(40) + b"a"),
    "a value beyond its end": framed(b"\0\0" + varint(1) + varint(-1) + varint(-1) + varint(1) + b"\2a" + varint(4)),
    "a key beyond its end": framed(b"\0\0" + varint(1) + varint((1 << 62) - 1) + b"k"),
    "a key as long as can be": framed(b"\0\0" + varint(1) + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    "something behind it": framed(b"\0\0" + varint(1) + varint(-1) + varint(-1) + varint(0) + b"more"),
    "a number without an end": framed(b"\0" + b"\xff" * 12),
    "another's offset": framed(b"\0\0" + varint(0) + varint(-1) + varint(-1) + varint(0)),
    "an offset of no batch": framed(b"\0\0" + varint(7) + varint(-1) + varint(-1) + varint(0)),
    "nothing": framed(b""),
}


@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_message_stands_between_good_ones(broken: bytes, codec: str) -> None:
    first, second, third = read(batch([good(0), broken, good(2)], codec, 40))
    assert [one.offset for one in (first, second, third)] == [40, 41, 42]
    assert (second.key, second.value, second.headers) == (None, None, [])
    assert "no message of Kafka's format" in second.checksum.reason
    assert first.checksum is third.checksum is None


UNREADABLE = {
    "a length beyond the end": batch([good(0), varint(500) + b"x"]),
    "a length without an end": batch([good(0), b"\xff" * 20]),
    "a negative length": batch([good(0), varint(-3) + b"x"]),
    "more than its messages": batch([good(0), good(1) + b"x"]),
    "fewer messages than counted": batch([good(0), good(1)], number=3),
    "a compression of no name": batch([good(0), good(1)], attributes=7),
    "larger than may be": batch([record(0, b"k", b"\0" * 13 * MIB), good(1)], "zstd"),
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_where_nothing_more_can_be_read_the_batch_says_where_it_ends(data: bytes) -> None:
    with pytest.raises(reading.UnreadableError) as failure:
        read(data)
    assert failure.value.end == 2


def test_what_is_no_batch_is_corrupt() -> None:
    whole = batch([good(0)])
    for length in (-12, -1, 0, 30):
        with pytest.raises(CorruptRecordException):
            read(whole[:8] + length.to_bytes(4, "big", signed=True) + whole[12:])
    with pytest.raises(CorruptRecordException, match="CRC"):
        read(whole[:-1] + b"?")


@pytest.mark.parametrize("magic", [0, 1])
def test_what_is_no_batch_of_an_older_format_is_corrupt(magic: int) -> None:
    whole = bytearray(batch([good(0)]))
    whole[16] = magic
    whole[18:60] = b"\x86" * 42  # lengths below zero
    with pytest.raises(CorruptRecordException, match=f"format {magic}"):
        read(bytes(whole))


@pytest.mark.parametrize("magic", [0, 1])
def test_a_message_of_an_older_format_is_read_whole(magic: int) -> None:
    builder = LegacyRecordBatchBuilder(magic, 0, 1000)
    builder.append(0, 1, b"k", b"v")
    builder.append(1, 1, None, b"v")
    found = read(bytes(builder.build()))
    assert fields(found) == [(0, b"k", b"v", []), (1, None, b"v", [])]
    assert [(one.checksum, one.size_bytes) for one in found] == [(None, 2), (None, 1)]


def test_too_many_headers_are_left_unread() -> None:
    many = (sized(b"a") + sized(b"1") + sized(b"b") + sized(None)) * 500_000
    large = [(b"a", b"1"), (b"a", b"2"), (b"b", b"x" * 70_000), (b"c", b"3")]
    most = [(b"h%d" % number, b"v" * 1000) for number in range(64)]
    flooded = framed(b"\0\0" + varint(1) + sized(b"k") + sized(b"v") + varint(1_000_000) + many)
    data = batch([good(0), flooded, record(2, b"k", b"v", large), record(3, b"k", b"v", most)], "zstd")
    began = time.process_time()
    first, flood, third, fourth = read(data)
    assert time.process_time() - began < 0.5  # 10 ms, nearly all of it to decompress; aiokafka takes 2 s
    assert first.checksum is None
    assert flood.headers == [("a", b"1"), ("b", None)] * 32
    assert "1000000 headers" in flood.checksum.reason
    assert flood.checksum.omitted_bytes == 3_500_000 - 32 * 7
    assert third.headers == [("a", b"1"), ("a", b"2")]
    assert third.checksum.omitted_bytes > 70_000
    assert (flood.size_bytes, third.size_bytes) == (4 + 3 + 32 * 7, 4 + 1 + 2 * 4)
    assert len(fourth.headers) == 64
    assert fourth.checksum is None


def test_no_more_is_read_than_allowed() -> None:
    data = batch([good(number, 1000) for number in range(5)])
    with reading.at_most(4000, 0), pytest.raises(TooLargeError) as failure:
        read(data)
    assert 1000 < failure.value.size_bytes < 2000
    with reading.at_most(4000, 3):  # what is passed over costs nothing
        assert [one.offset for one in read(data)] == [3, 4]
    assert len(read(data)) == 5


def test_unpacked_batches_are_held_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "UNPACKED_BYTES", 3 * MIB)
    datas = [batch([good(0, MIB // 2), good(1, MIB // 2)], "zstd", number * 2) for number in range(20)]
    batches = [reading.Batch(memoryview(data)) for data in datas]
    for expected in (0, 1):
        for number, one in enumerate(batches):
            found: list[Any] = []
            assert one.read(found, 1, 0, None) == (expected == 1)
            assert [message.offset for message in found] == [number * 2 + expected]
            assert sum(len(other.unpacked or b"") for other in batches) < 3 * MIB


def in_steps(data: bytes, most: int) -> Iterator[list[Any]]:
    """What calls of a consumer that takes `most` messages at once give it."""
    state = SimpleNamespace(paused=False, position=0)
    state.consumed_to = lambda offset: setattr(state, "position", offset)
    records = fetcher.PartitionRecords(None, fetcher.MemoryRecords(data), [], 0, None, None, True, 0)
    assignment = SimpleNamespace(active=True, state_value=lambda _: state)
    result = fetcher.FetchResult(None, assignment=assignment, partition_records=records, backoff=0)
    alike = Alike()
    while result.has_more():
        with reading.at_most(64 * MIB, state.position, most, alike):
            yield result.getall(most)


@pytest.mark.parametrize("most", [1, 7, 64])
def test_items_of_a_page_are_the_records_that_decoding_makes_of_them(most: int) -> None:
    pages = [[good(delta, 10 + delta) for delta in range(20)] for _ in range(3)]
    strange = record(20, b"k", b"v", [(b"a\xff", b"1")])
    data = b"".join(batch([*page, strange], "zstd", 21 * number) for number, page in enumerate(pages))
    plain = read(data)
    found = [message for step in in_steps(data, most) for message in step]
    assert [one.offset for one in found] == [one.offset for one in plain] == list(range(63))
    items = [(one, whole) for one, whole in zip(found, plain, strict=True) if isinstance(one, Item)]
    assert len(items) == 3 * 20 - 2  # the first two are read before it is known what they have alike
    for item_, whole in items:
        assert item_.record == wire.decode(whole.key, whole.value, whole.headers, whole.offset)
        assert item_.size_bytes == whole.size_bytes


def test_an_item_whose_offset_is_none_of_its_batch_is_read_as_no_message() -> None:
    data = batch([good(delta) for delta in (0, 1, 2, 1, 9, 5)])
    found = [message for step in in_steps(data, 64) for message in step]
    assert [(one.offset, isinstance(one, Item)) for one in found[2:]] == [(2, True), (3, False), (4, False), (5, True)]
    assert all("offset is none of its batch" in one.checksum.reason for one in found[3:5])


def test_a_step_that_is_too_large_is_read_again_from_where_it_began() -> None:
    data = batch([good(number, 1000) for number in range(9)])
    messages = fetcher.PartitionRecords(None, fetcher.MemoryRecords(data), [], 0, None, None, True, 0)
    with reading.at_most(8000, 0, 64), pytest.raises(TooLargeError):
        list(messages)
    assert messages.next_fetch_offset > 0  # not where the consumer is: it fetches again


def one_by_one(data: bytes, most: int, start: int = 0) -> tuple[list[list[int]], int]:
    """The offsets that each call of at most `most` messages reads, until there are none; and pauses of it."""
    messages = fetcher.PartitionRecords(
        TopicPartition("topic", 0), fetcher.MemoryRecords(data), [], start, None, None, True, 0
    )
    calls: list[list[int]] = []
    pauses = 0
    while not calls or calls[-1]:
        try:
            with reading.at_most(64 * MIB, start):
                calls.append([one.offset for one in islice(messages, most)])
        except reading.PausedError as pause:
            asyncio.run(pause.end())
            pauses += 1
    return calls, pauses


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_what_is_large_is_unpacked_in_a_thread(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[tuple[str, object]] = []
    decompress = codecs.decompress

    def watched(*args: Any) -> bytes:
        threads.append((threading.current_thread().name, args[2]))
        return decompress(*args)

    monkeypatch.setattr(codecs, "decompress", watched)
    small, large = batch([good(0)], codec), batch([good(0, 3 * MIB), good(1)], codec, 1)
    calls, pauses = one_by_one(small + large, 1)
    assert (calls, pauses) == ([[0], [1], [2], []], 1)
    inline = ("MainThread", reading.INLINE_BYTES)
    assert threads == [inline, inline, ("offload_0", codecs.LIMIT_BYTES)]


def test_what_a_call_has_read_is_not_lost_to_what_is_large_behind_it() -> None:
    calls, pauses = one_by_one(batch([good(0)]) + batch([good(0, 3 * MIB)], "zstd", 1), 10)
    assert (calls, pauses) == ([[0], [1], []], 1)


def test_what_is_broken_is_found_in_the_thread() -> None:
    bomb = batch([record(0, b"k", b"\0" * 13 * MIB), good(1)], "gzip")
    with pytest.raises(reading.UnreadableError) as failure:
        one_by_one(bomb, 1)
    assert failure.value.end == 2


def test_a_million_messages_are_passed_over_with_pauses() -> None:
    empty = [record(delta, None, None) for delta in range(5001)]
    calls, pauses = one_by_one(batch(empty, "zstd"), 1, 5000)
    assert calls == [[5000], []]
    assert pauses == 5000 // PASSED_AT_ONCE
