"""How a dead letter's headers are kept: for a person to read, and to the byte."""

from __future__ import annotations

import orjson

from clusterinfo.postgres.merge.dead_letters import decode_headers, encode_headers


def test_headers_are_kept_as_a_person_reads_them() -> None:
    headers = [("ce_type", b"x"), ("twice", b"1"), ("bytes", b"\xff"), ("twice", b"2"), ("none", None)]
    assert orjson.loads(encode_headers(headers)) == {
        "ce_type": "x",
        "twice": ["1", "2"],
        "bytes": {"base64": "/w=="},
        "none": None,
    }


def test_headers_come_back_to_the_byte() -> None:
    headers = [("a", b"x"), ("b", b"\xff\0"), ("c", b"a\0b"), ("d", None), ("e", b"1"), ("e", b"2"), ("f", b"")]
    assert decode_headers(encode_headers(headers)) == headers
