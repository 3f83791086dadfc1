"""Decompression has a bound, which the readers that are in use keep to, and compression a level."""

from __future__ import annotations

import tracemalloc

import pytest
from aiokafka import codec
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from clusterinfo.kafka.aiokafka_patches import codecs

ENCODERS = {
    "gzip": (1, codec.gzip_encode),
    "snappy": (2, codec.snappy_encode),
    "lz4": (3, codec.lz4_encode),
    "zstd": (4, codec.zstd_encode),
}

HEADER_BYTES = 61
"""Of a batch of records, before what is compressed."""


def batch_of(value: bytes, compression: int) -> bytes:
    builder = DefaultRecordBatchBuilder(
        2, compression, is_transactional=False, producer_id=-1, producer_epoch=-1, base_sequence=0, batch_size=1 << 30
    )
    builder.append(0, timestamp=1, key=b"k", value=value, headers=[])
    return bytes(builder.build())


@pytest.mark.parametrize("name", ENCODERS)
def test_what_fits_comes_back(name: str) -> None:
    for data in (b"", b"x", b"ab" * 50_000, bytes(range(256)) * 300):
        assert codecs.DECODERS[name](ENCODERS[name][1](data)) == data


@pytest.mark.parametrize("name", ENCODERS)
def test_what_does_not_fit_or_is_no_such_format_is_corrupt(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "LIMIT_BYTES", 100_000)
    whole = ENCODERS[name][1](b"\0" * 100_000)
    assert len(codecs.DECODERS[name](whole)) == 100_000
    for wrong in (ENCODERS[name][1](b"\0" * 100_001), whole[:-3], b"", b"something else entirely"):
        with pytest.raises(CorruptRecordException):
            codecs.DECODERS[name](wrong)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_compiled_and_the_plain_reader_keep_to_the_bound(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiokafka.record.default_records import _DefaultRecordBatchPy

    monkeypatch.setattr(codecs, "LIMIT_BYTES", 1_000_000)
    small, bomb = (batch_of(b"\0" * size, ENCODERS[name][0]) for size in (900_000, 1_000_000))
    for reader in (DefaultRecordBatch, _DefaultRecordBatchPy):
        assert len(next(iter(reader(small))).value) == 900_000
        with pytest.raises(CorruptRecordException):
            next(iter(reader(bomb)))
    records = MemoryRecords(bomb)
    with pytest.raises(CorruptRecordException):
        list(records.next_batch())


@pytest.mark.parametrize("name", ENCODERS)
def test_what_failed_holds_nothing(name: str) -> None:
    bomb = ENCODERS[name][1](b"\0" * (codecs.LIMIT_BYTES + 1))
    tracemalloc.start()
    try:
        with pytest.raises(CorruptRecordException) as failure:
            codecs.DECODERS[name](bomb)
        assert failure.value
        assert tracemalloc.get_traced_memory()[0] < 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_batch_is_compressed_at_our_level() -> None:
    manifests = b"".join(b'{"name":"pod-%d","uid":"%x"}' % (n, n * n * 7919) for n in range(2000))
    records = batch_of(manifests, 0)[HEADER_BYTES:]

    assert batch_of(manifests, 4)[HEADER_BYTES:] == codecs.zstd_encode(records) != codec.zstd_encode(records)
