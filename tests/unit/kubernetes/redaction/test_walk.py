"""What a walk costs: bytes read and memory held are linear in the object, whatever it is made of."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Iterator

import pytest

from clusterinfo.kubernetes.normalize import normalize
from clusterinfo.kubernetes.redaction import walk
from clusterinfo.kubernetes.redaction.objects import Redaction
from clusterinfo.model import GroupVersionResource

CLOUDS = GroupVersionResource("shop.example.com", "v1", "clouds", "Cloud", namespaced=True)
SIZE = 400_000
"""Under tracemalloc; of an object as etcd takes it, which is three times as large, all is three times as much."""
REMEMBERED_BYTES = 500_000
"""Names and their verdicts, in caches that are bounded."""


def nested(depth: int, inner: bytes, filler: bytes) -> bytes:
    """An object of 1.4 MB with `inner` at its bottom, and filler on each level."""
    level = (filler * max(1, SIZE // depth // len(filler) - 1)).rstrip(b",")
    return b'{"metadata":{"name":"x"},"spec":%s%s%s}' % ((b'{"f":[%s],"a":' % level) * depth, inner, b"}" * depth)


def flat(member: bytes) -> bytes:
    count = SIZE // len(member % 0)
    return b'{"metadata":{"name":"x"},"spec":{%s}}' % b",".join(member % number for number in range(count))


SPEC = b'{"metadata":{"name":"x"},"spec":{"password":"hunter2","text":"%s"}}'
OBJECTS = {
    "deep, long texts": nested(195, b'{"password":"hunter2"}', b'"%s",' % (b"x" * 1000)),
    "deep, short texts": nested(195, b'{"password":"hunter2"}', b'"xyz",'),
    "deep, numbers": nested(195, b'{"password":"hunter2"}', b"1,"),
    "deep, objects": nested(195, b'{"password":"hunter2"}', b'{"a":{}},'),
    "Secrets in Secrets": b'{"metadata":{"name":"x"},"spec":%s{"password":"hunter2","a":"%s"}%s}'
    % (b'{"kind":"Secret","data":' * 90, b"y" * SIZE, b"}" * 90),
    "deep, Secrets": nested(150, b'{"password":"hunter2"}', b'{"data":{"a":1},"kind":"Secret"},'),
    "wide, a secret each": flat(b'"a%d":{"password":"hunter2hunter2","colour":"red red red red red red red"}'),
    "one long text": SPEC % (b"a-b=c: d\\n" * (SIZE // 11)),
    "one long name": SPEC % (b"a-" * (SIZE // 2) + b"=1"),
}


class Counting:
    """A pattern that counts the bytes it is given to read."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern
        self.read = 0

    def finditer(self, data: bytes) -> Iterator[re.Match[bytes]]:
        self.read += len(data)
        return self._pattern.finditer(data)


@pytest.mark.parametrize("raw", OBJECTS.values(), ids=OBJECTS)
def test_no_byte_is_read_for_each_level_above_it(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(walk._TOKEN)
    monkeypatch.setattr(walk, "_TOKEN", counting)

    body = normalize(raw, CLOUDS, Redaction()).body

    assert b"hunter2" not in body
    assert counting.read <= 3 * len(raw)


@pytest.mark.parametrize("raw", OBJECTS.values(), ids=OBJECTS)
def test_no_more_than_three_times_the_object_is_held(raw: bytes) -> None:
    redaction = Redaction()  # one a program, with what it remembers
    normalize(raw, CLOUDS, redaction)
    tracemalloc.start()
    try:
        body = normalize(raw, CLOUDS, redaction).body
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak <= 3 * max(len(raw), len(body)) + REMEMBERED_BYTES


def test_what_is_packed_in_itself_is_unpacked_thrice() -> None:
    text = json.dumps({"password": "hunter2"})
    for _ in range(8):
        text = json.dumps({"x": text})

    body = normalize(b'{"metadata":{"name":"x"},"spec":%s}' % text.encode(), CLOUDS, Redaction()).body

    assert b"hunter2" not in body
