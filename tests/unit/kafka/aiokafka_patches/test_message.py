"""One message: its headers are read compiled where they are sound, and as in Python wherever they are not."""

from __future__ import annotations

import random
from typing import Any

import pytest

from clusterinfo.kafka.aiokafka_patches import message
from clusterinfo.wire import MAX_HEADERS, MAX_HEADERS_BYTES
from tests.support.batches import Headers, sized, varint

FOLLOWS = b"\x02a\x02b" * 100  # what stands behind the message: headers that would fit
MOST = [(b"h%02d" % number, b"v" * 1000) for number in range(MAX_HEADERS - 1)]
LEFT_BYTES = MAX_HEADERS_BYTES - sum(len(sized(name) + sized(value)) for name, value in MOST)


def encoded(headers: Headers) -> bytes:
    return varint(len(headers)) + b"".join(sized(name) + sized(value) for name, value in headers)


def read(headers: bytes, alike: message.Alike | None = None) -> message.Message:
    data = sized(b"k") + sized(b"v") + headers
    return message.read_message(data + FOLLOWS, 0, len(data), 0, None, alike=alike)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"", b""), (b"n", None), ("ä😀".encode(), b"\xff")],
        [(b"x" * size, b"y" * size) for size in (63, 64, 8191, 8192)],
        [*MOST, (b"h", b"v" * (LEFT_BYTES - 5))],
    ],
    ids=["none", "odd", "long", "as many bytes as may be"],
)
def test_sound_headers_are_read_compiled(headers: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(message, "_all_headers")
    found = read(encoded(headers))
    assert found.headers == [(name.decode(), value) for name, value in headers]
    assert found.checksum is None
    assert found.size_bytes == len(sized(b"k") + sized(b"v") + encoded(headers))


def longer(size: int) -> bytes:
    """A length, and fewer bytes than that."""
    return varint(size) + b"x"


CUT_SHORT = {
    **{f"a name of {size} bytes": varint(1) + longer(size) for size in (9, 1 << 32, 1 << 62, (1 << 63) - 9)},
    **{f"a value of {size} bytes": varint(1) + b"\2n" + longer(size) for size in (9, 1 << 32, 1 << 62, (1 << 63) - 9)},
    "a name's length without an end": varint(1) + b"\x81",
    "a value's length without an end": varint(1) + b"\2n\x81",
    "a header fewer than counted": varint(2) + b"\2n\2v",
}


@pytest.mark.parametrize("headers", CUT_SHORT.values(), ids=CUT_SHORT.keys())
def test_what_ends_behind_the_message_is_not_read(headers: bytes) -> None:
    found = read(headers)
    assert (found.key, found.value, found.headers) == (None, None, [])
    assert found.checksum is not None
    assert "cut short" in found.checksum.reason


def mangled(headers: bytes, random: random.Random) -> bytes:
    """With up to three places changed, grown or cut."""
    out = bytearray(headers)
    for _ in range(random.randrange(4)):
        at, size = random.randrange(len(out) + 1), random.randrange(1, 6)
        out[at : at + random.randrange(size)] = bytes(random.choice(b"\x00\x01\x02\x80\x81\xff") for _ in range(size))
    return bytes(out)


def drawn(random: random.Random) -> Headers:
    texts = [b"", b"n", "ä".encode(), b"\xff", b"x" * 63, b"x" * 64, b"x" * 300]
    weights = [5, 40, 10, 1, 5, 5, 5]
    names = random.choices(texts, weights, k=random.randrange(6))
    return [(name, random.choice([None, *texts])) for name in names]


def test_compiled_or_not_the_headers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whatever bytes: the compiled reader refuses, or finds what the other one does."""
    source = random.Random(20)
    cases = [mangled(encoded(drawn(source)), source) for _ in range(4000)]
    found = [read(case) for case in cases]
    compiled = sum(message._compiled_headers(case) is not None for case in cases)
    assert 500 < compiled < 3500
    monkeypatch.setattr(message, "_compiled_headers", lambda *_: None)
    assert found == [read(case) for case in cases]


def test_headers_that_come_again_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever follows them, behind those of another page too; and often they are not read again."""
    source = random.Random(21)
    alike, used, after_alike = message.Alike(), 0, message._after_alike
    pages = [[(b"h%d" % number, b"v" * page) for number in range(8)] for page in (1, 2)]

    def counted(*arguments: Any) -> Any:
        nonlocal used
        found = after_alike(*arguments)
        used += found is not None
        return found

    monkeypatch.setattr(message, "_after_alike", counted)
    for number in range(2000):
        page = pages[number // 100 % 2]
        headers = encoded([*page[: source.choice([8, 8, 8, 3])], *drawn(source)])
        headers = headers if source.random() < 0.7 else mangled(headers, source)
        assert read(headers, alike) == read(headers)
    assert 400 < used < 1800
