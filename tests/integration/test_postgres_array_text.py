"""Arrays as text are what they would be as arrays, whatever they hold."""

from __future__ import annotations

import random

import asyncpg

from clusterinfo.postgres.merge import array_text

PIECES = [
    "",
    "a",
    '"',
    "\\",
    "{",
    "}",
    ",",
    "NULL",
    " ",
    "\n",
    "\t",
    "\x01",
    "ä😀",
    "'",
    "\\x41",
    '","',
    "-1",
    "[1:2]={",
]


async def test_texts_are_read_as_they_are(connection: asyncpg.Connection) -> None:
    source = random.Random(23)
    cases = [[one] for one in PIECES] + [
        ["".join(source.choices(PIECES, k=source.randrange(4))) for _ in range(source.randrange(1, 6))]
        for _ in range(2000)
    ]
    query = "select $1::text::text[]"
    assert [await connection.fetchval(query, array_text.of_texts(case)) for case in cases] == cases


async def test_bytes_and_numbers_are_read_as_they_are(connection: asyncpg.Connection) -> None:
    hashes, numbers = [b"", b'\0\\"', bytes(range(256))], [1, 2_147_483_647, 0]
    assert await connection.fetchval("select $1::text::bytea[]", array_text.of_bytes(hashes)) == hashes
    assert await connection.fetchval("select $1::text::integer[]", array_text.of_numbers(numbers)) == numbers
