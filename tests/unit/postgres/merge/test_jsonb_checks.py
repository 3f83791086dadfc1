"""The cheap searches every body meets."""

from __future__ import annotations

import pytest

from clusterinfo.postgres.merge.jsonb_checks import has_wild_number, is_suspect, plain, sanitise


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
@pytest.mark.parametrize("around", ["[{}]", '{{"a":{}}}', "[1,{},2]"])
def test_a_number_that_is_short_to_write_and_long_to_read_is_found(number: str, around: str) -> None:
    assert has_wild_number(around.format(number).encode())


def test_ordinary_numbers_and_texts_that_look_like_wild_ones_are_passed_by() -> None:
    uid = b'{"uid":"5180eaa4-7e47-4e30-81eb-2135c8f2e9999","port":8080,"n":1e999,"hash":"e1234"}'

    assert not has_wild_number(uid)


def test_text_loses_only_what_postgres_cannot_store() -> None:
    assert plain("a\0b\ud83d") == "a\ufffdb\ud83d"
