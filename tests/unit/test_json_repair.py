"""Repairing JSON, byte by byte. That PostgreSQL takes what comes of it is tried in tests/integration and tests/fuzz."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterinfo.json_repair import CUT, MAX_DEPTH, repair, repair_escapes


@pytest.mark.parametrize(
    ("body", "repaired"),
    [
        (rb'{"a":"\u0000 \ud800"}', rb'{"a":"\ufffd \ufffd"}'),
        (rb'"\x \u00g0 \\x"', rb'"\ufffd \ufffd00g0 \\x"'),
        (b'"\xff"', b'"\xef\xbf\xbd"'),
        (b'"\xed\xa0\x80"', b'"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"'),
        (b'"a\x00b\nc\x1f"', rb'"a\ufffdb\u000ac\u001f"'),
        (b'\xef\xbb\xbf{"a":1}', b'{"a":1}'),
        (b"[1e1000,1E-1000,1e999,-1e+999]", b'["1e1000","1E-1000",1e999,-1e+999]'),
        (b'{"a":0.0e-20000}', b'{"a":"0.0e-20000"}'),
        (b"[%s]" % (b"9" * 1001), b'["%s"]' % (b"9" * 1001)),
        (b"[%s]" % (b"9" * 1000), b"[%s]" % (b"9" * 1000)),
        (b"[1e%s]" % (b"9" * 5000), b'["1e%s"]' % (b"9" * 5000)),
        (b"[NaN,Infinity,-Infinity,+1,01,.5,1.,0x1F]", b'["NaN","Infinity","-Infinity","+1","01",".5","1.","0x1F"]'),
        (b'{"1e9999":"1e9999, NaN [","b":[true,false,null,-0.5e-7]}', None),
        (b"not json", None),
        (b'{"a":hunter2}', None),
        (b'"without end', None),
        (b"", None),
    ],
)
def test_each_fault_is_replaced_and_nothing_else(body: bytes, repaired: bytes | None) -> None:
    assert repair(body) == (body if repaired is None else repaired)


def test_what_is_nested_too_deep_is_cut_and_what_stands_beside_it_is_kept() -> None:
    deep = b'{"a":' * MAX_DEPTH + b'[1,{"x":NaN}],"b":NaN' + b"}" * MAX_DEPTH

    assert repair(deep) == b'{"a":' * MAX_DEPTH + CUT + b',"b":"NaN"' + b"}" * MAX_DEPTH


def test_any_depth_is_walked_without_a_stack() -> None:
    assert repair(b"[" * 100_000 + b"]" * 100_000) == b"[" * MAX_DEPTH + CUT + b"]" * MAX_DEPTH
    assert repair(b"[" * 100_000) == b"[" * 100_000, "what never ends is no JSON"


TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(TREES, st.booleans(), st.sampled_from([None, 2]))
def test_what_is_in_order_stays_as_it_is(tree: object, ascii_only: bool, indent: int | None) -> None:
    body = json.dumps(tree, ensure_ascii=ascii_only, indent=indent).encode()

    assert repair(body) == body


@given(st.binary())
def test_repairing_twice_changes_nothing_more(body: bytes) -> None:
    assert repair(repair(body)) == repair(body)


PADDING = (b"", b"x" * 1000, b"ab" * 40_000, rb"\n" * 5000, rb"\ud83d\ude00" * 3000)


@pytest.mark.parametrize("padding", PADDING, ids=lambda padding: f"{len(padding)} bytes of {padding[:12]!r}")
def test_what_is_repaired_may_stand_anywhere(padding: bytes) -> None:
    for shift in range(12):
        before = padding + b"y" * shift
        wrong = b'["%b\\ud800%b\1", 1e9999, "%b\\ud83d\\ude00"]' % (before, padding, before)
        right = b'["%b\\ufffd%b\\u0001", "1e9999", "%b\\ud83d\\ude00"]' % (before, padding, before)
        assert repair(wrong) == right
        assert repair_escapes(wrong) == wrong.replace(b"\\ud800", b"\\ufffd")


@pytest.mark.parametrize(
    "body", [b'["' + b'\\"' * 200_000, b'["' + b"a" * 200_000 + b"\\", b"[1e9999," + b'"' * 200_001]
)
def test_a_string_that_never_ends_costs_no_more_than_one_that_does(body: bytes) -> None:
    began = time.process_time()
    repair(body)
    assert time.process_time() - began < 1.0, "measured: 50 ms; 60 s when the rest was searched from each quote on"


def test_nothing_that_is_searched_at_once_takes_long() -> None:
    """In processor time: another thread runs meanwhile, and what is written in C does not keep it waiting."""
    size = 1024 * 1024
    bodies = [
        b'["' + filling * (size // len(filling)) + b'", 1e9999]' for filling in (rb"\n", rb"\u0000", b"\1", b"\xff")
    ]
    bodies += [b"[" + b"1," * (size // 2) + b"1e9999]", b"[" * size, b"9" * size]
    with ThreadPoolExecutor(1) as pool:
        for body in bodies:  # measured: 15 ms; 60 to 300 ms when all was searched at once
            assert any(longest_turn_s(pool, body) < 0.1 for _ in range(5)), body[:20]


def longest_turn_s(pool: ThreadPoolExecutor, body: bytes) -> float:
    """How long this thread waits at most while another repairs it. A busy machine makes it longer, never shorter."""
    working, last, longest_s = pool.submit(repair, body), time.process_time(), 0.0
    while not working.done():
        now = time.process_time()
        last, longest_s = now, max(longest_s, now - last)
    return longest_s
