"""What is tried of a body, and the less that is tried after a refusal."""

from __future__ import annotations

import pytest

from clusterinfo.model import Record
from clusterinfo.postgres.merge.bodies import (
    SANITISED,
    STUB,
    WHOLE,
    Body,
    body_of,
    fidelity_of,
    has_wild_number,
    is_suspect,
    plain,
    repaired_body_of,
    sanitise,
)
from tests.support.records import Listing

PLAIN, ESCAPE, WILD, NAN = b'{"a":1}', rb'{"a":"\u0000"}', b'{"a":1e131071}', b'{"a":NaN}'


def item(body: bytes, state: str = "") -> Record:
    return Listing("100").item("a", "1", body=body, state=state)


def first_of(record: Record) -> Body:
    """What is tried of it first."""
    return body_of(record, fidelity_of(record))


@pytest.mark.parametrize(
    ("body", "tried"),
    [
        (PLAIN, Body(WHOLE, PLAIN, None)),
        (ESCAPE, Body(SANITISED, rb'{"a":"\ufffd"}', ESCAPE)),
        (rb'{"a":"\\u0000"}', Body(WHOLE, rb'{"a":"\\u0000"}', None)),
        (WILD, Body(SANITISED, b'{"a":"1e131071"}', WILD)),
        (NAN, Body(WHOLE, NAN, None)),  # for PostgreSQL to refuse: no cheap search finds it
    ],
)
def test_a_body_is_tried_as_it_came_but_for_what_is_known_to_be_refused(body: bytes, tried: Body) -> None:
    assert first_of(item(body)) == tried


def test_after_a_refusal_it_is_repaired_with_the_bytes_as_they_came_beside_it() -> None:
    assert repaired_body_of(item(NAN)) == Body(SANITISED, b'{"a":"NaN"}', NAN)


def test_a_stub_stays_a_stub() -> None:
    assert first_of(item(PLAIN, "oversize")) == Body(STUB, PLAIN, None)
    assert first_of(item(ESCAPE, "oversize")) == Body(STUB, rb'{"a":"\ufffd"}', ESCAPE)
    assert repaired_body_of(item(NAN, "oversize")).fidelity == STUB


def test_a_deletion_has_no_body() -> None:
    assert first_of(Listing("100").deleted("a", "5")) == Body(WHOLE, None, None)


@pytest.mark.parametrize(("body", "fidelity"), [(PLAIN, WHOLE), (ESCAPE, SANITISED), (WILD, WHOLE)])
def test_what_a_cheap_search_shows_of_it(body: bytes, fidelity: int) -> None:
    assert fidelity_of(item(body)) == fidelity
    assert fidelity_of(item(body, "oversize")) == STUB


@pytest.mark.parametrize(
    ("body", "sanitised"),
    [
        (rb'"plain"', rb'"plain"'),
        (rb'"\u0000"', rb'"\ufffd"'),
        (rb'"\\u0000"', rb'"\\u0000"'),
        (rb'"\\\u0000"', rb'"\\\ufffd"'),
        (rb'"\ud83d\ude00"', rb'"\ud83d\ude00"'),
        (rb'"\ud83d"', rb'"\ufffd"'),
        (rb'"\ude00\ud83d"', rb'"\ufffd\ufffd"'),
        (rb'"\uD83Dx\u0041"', rb'"\ufffdx\u0041"'),
        (rb'"\n\t\"\u00e4"', rb'"\n\t\"\u00e4"'),
    ],
)
def test_what_jsonb_refuses_is_replaced_and_nothing_else(body: bytes, sanitised: bytes) -> None:
    assert sanitise(body) == sanitised
    assert is_suspect(body) or sanitised == body


@pytest.mark.parametrize("number", ["1e1000", "1E+131071", "-2.5e-0016383", "0e9999 "])
@pytest.mark.parametrize("around", ["[{}]", "[ {}\n]", '{{"a":{}}}', "[1,{},2]", "{}"])
def test_a_number_that_is_short_to_write_and_long_to_read_is_found(number: str, around: str) -> None:
    assert has_wild_number(around.format(number).encode())


def test_ordinary_numbers_and_texts_that_look_like_wild_ones_are_passed_by() -> None:
    uid = b'{"uid":"5180eaa4-7e47-4e30-81eb-2135c8f2e9999","port":8080,"n":1e999,"hash":"e1234"}'

    assert not has_wild_number(uid)


def test_text_loses_only_what_postgres_cannot_store() -> None:
    assert plain("a\0b\ud83d") == "a\ufffdb\ud83d"


@pytest.mark.parametrize("at", [*range(65_520, 65_546), 131_072, 200_000])
def test_what_a_large_body_holds_is_found_wherever_it_stands(at: int) -> None:
    large = b'{"a":[' + b"1," * (at // 2 - 3)
    assert is_suspect(large + rb'"\u0000"]}')
    for number in (b"1e131071", b"1E+" + b"0" * 70_000, b"1e1234" + b" " * 70_000):
        assert has_wild_number(large + number + b"]}")
        assert not has_wild_number(large + b'"' + number + b'"]}')


def test_what_would_take_long_to_search_is_searched_in_parts() -> None:
    """Measured: each part takes 4 ms; 8 MiB in one go took 560."""
    assert not has_wild_number(b'"' + b"e1111" * 400_000 + b'"')
    assert not is_suspect(b'"' + rb"\n" * 400_000 + b'"')
