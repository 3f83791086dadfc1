r"""Inputs: JSON by its grammar with faults sown in, and mutations of real bytes. All of it follows from a `Random`."""

from __future__ import annotations

import re
from random import Random

GOOD_STRINGS = (
    b'""', b'"plain"', b'"default"', '"ä😀\ufffd"'.encode(), rb'"\u00e4\ud83d\ude00"', rb'"\n\t\"\\\/\b"',
    rb'"\\u0000"',
    rb'"\\\\ud800"', b'"\x7f"', b'"a,b:{[}]"', b'"1e9999,"', b'"aHVudGVyMg=="', rb'"\u0001"', b'"\xef\xbf\xbf"',
)  # fmt: skip
BAD_STRINGS = (
    rb'"\u0000"', rb'"\ud800"', rb'"\udc00\ud800"', rb'"\ud83d\u0000"', rb'"\\\ud800"', rb'"\ud800\\udc00"', b'"\xff"',
    b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"a\nb"', b'"\0"', rb'"\x41"', rb'"\u12"', rb'"\u00g0"', b'"\\\n"', b'"\\\xff"',
    rb'"\ud83d\n"', rb'"\uD83D\uDE0"',
)  # fmt: skip
GOOD_NUMBERS = (
    b"0", b"-0", b"1", b"-1.5", b"1e5", b"1E+10", b"1e-7", b"123456789012345678901234567890", b"0.10", b"1e999",
    b"-1e-999", b"8080", b"1e0005", b"9" * 1000,
)  # fmt: skip
BAD_NUMBERS = (
    b"1e1000", b"1e131071", b"1E131072", b"-1e-16384", b"0e99999", b"0.0e-20000", b"1" * 1001, b"1" * 131_073, b"01",
    b".5", b"1.", b"+1", b"NaN", b"-Infinity", b"Infinity", b"0x10", b"1e", b"1e999999999999999999999",
)  # fmt: skip
GOOD_LITERALS = b"true", b"false", b"null", b"{}", b"[]"
BAD_LITERALS = b"nul", b"True", b"undefined", b"hunter2", b"--1", b"1 2", b"'a'", b"[1,]", b'{"a":1,}', b"{,}", b"[}"
NAMES = (
    b"a", b"b", b"name", b"value", b"spec", b"data", b"managedFields", b"annotations", b"labels",
    b"x.io/last-applied-y",
    b"kubectl.kubernetes.io/last-applied-configuration", b"password", b"", b"items", b"metadata", "ä".encode(),
    rb"\u00e4", rb"a\"b",
)  # fmt: skip
BAD_NAMES = rb"\u0000", rb"\ud800", b"\xff", b"a\nb", rb"\x"
PIECES = (
    b"\\", b"u", b"d800", b"dc00", b"\\ud83d", b"\\ude00", b"\\u0000", b"\\\\", b"0", b"a", b'\\"', b"\\u00e4", b"\xc3",
    b"\xa4", b"\\n", b"\\uD8", b" ", b"{", b"]",
)  # fmt: skip
SPACES = b"", b"", b"", b"", b" ", b"\n", b"\t ", b"\r\n"
TOKENS = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud800", b"null", b"1e9999", b"\xff", b"\0", b"NaN",
    b"\xef\xbb\xbf", b"[[[[[", b"}}", b'":"', b'","',
)  # fmt: skip
DEPTHS = 30, 198, 199, 200, 201, 202, 300, 450, 990, 1500, 3000

_VALUE = re.compile(rb'(?<=[:\[,])(?:"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null)(?=[,\]}])')


class Maker:
    """Makes JSON. `faults`: the share of scalars and names that are wrong; `spaced`: with white space between tokens.

    `pool`: so many values are made once, and `value` chooses among them: ten times as fast.
    """

    def __init__(self, random: Random, *, faults: float = 0.0, spaced: bool = False, pool: int = 0) -> None:
        self.random, self.faults, self.spaced = random, faults, spaced
        self._pool: list[bytes] = []
        self._pool = [self.value() for _ in range(pool)]

    def value(self, depth: int = 4) -> bytes:
        """Any value, at most `depth` deep."""
        if self._pool:
            return self.random.choice(self._pool)
        chance = self.random.random()
        if depth and chance < 0.2:
            return self.array(depth - 1)
        if depth and chance < 0.5:
            return self.object(depth - 1)
        return self.scalar()

    def scalar(self) -> bytes:
        """A string, a number, a literal."""
        random = self.random
        if random.random() < self.faults:
            return random.choice(random.choice((BAD_STRINGS, BAD_STRINGS, BAD_NUMBERS, BAD_NUMBERS, BAD_LITERALS)))
        if self.faults and random.random() < 0.03:
            return b'"' + b"".join(random.choices(PIECES, k=random.randint(1, 6))) + b'"'
        return random.choice(random.choice((GOOD_STRINGS, GOOD_STRINGS, GOOD_NUMBERS, GOOD_LITERALS)))

    def name(self) -> bytes:
        """A member's name."""
        wrong = self.random.random() < self.faults / 4
        return b'"' + self.random.choice(BAD_NAMES if wrong else NAMES) + b'"'

    def array(self, depth: int) -> bytes:
        """An array of up to three."""
        return self.joined(b"[", [self.value(depth) for _ in range(self.random.randint(0, 3))], b"]")

    def object(self, depth: int, *members: bytes) -> bytes:
        """An object of `members` and up to three more."""
        more = [self.name() + self.space() + b":" + self.value(depth) for _ in range(self.random.randint(0, 3))]
        return self.joined(b"{", [*members, *more], b"}")

    def joined(self, opening: bytes, elements: list[bytes], closing: bytes) -> bytes:
        """Elements between brackets."""
        if not self.spaced:
            return opening + b",".join(elements) + closing
        space = self.space
        return opening + b",".join(space() + element + space() for element in elements) + space() + closing

    def space(self) -> bytes:
        """White space, or none."""
        return self.random.choice(SPACES) if self.spaced else b""

    def member(self, name: bytes, value: bytes) -> bytes:
        """`"name":value`."""
        return self.space() + b'"' + name + b'"' + self.space() + b":" + self.space() + value


def nested(random: Random, inner: bytes) -> bytes:
    """`inner`, many levels down."""
    depth = random.choice(DEPTHS)
    if random.random() < 0.5:
        return b"[" * depth + inner + b"]" * depth
    return b'{"a":' * depth + inner + b"}" * depth


def with_another_value(random: Random, data: bytes, value: bytes) -> bytes:
    """`data` with one of its values replaced: structure stays."""
    found = _VALUE.search(data, random.randrange(len(data))) or _VALUE.search(data)
    return data[: found.start()] + value + data[found.end() :] if found else value


def mutated(random: Random, data: bytes) -> bytes:
    """`data` with a few bytes changed, taken out, put in, repeated, or cut off."""
    result = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        at = random.randrange(len(result) + 1)
        match random.randrange(6):
            case 0 if at < len(result):
                result[at] ^= 1 << random.randrange(8)
            case 1:
                del result[at : at + random.choice((1, 1, 2, 8))]
            case 2 | 3:
                result[at:at] = random.choice(TOKENS)
            case 4:
                result[at:at] = result[at : at + random.randint(1, 20)]
            case 5 if random.random() < 0.2:
                del result[at:]
    return bytes(result)
