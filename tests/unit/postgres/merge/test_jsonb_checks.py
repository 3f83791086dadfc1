"""The cheap searches every body meets."""

from __future__ import annotations

import pytest

from clusterinfo.postgres.merge.jsonb_checks import has_wild_number


@pytest.mark.parametrize("number", ["1e1000", "1E+131071", "-2.5e-0016383", "0e9999 "])
@pytest.mark.parametrize("around", ["[{}]", '{{"a":{}}}', "[1,{},2]"])
def test_a_number_that_is_short_to_write_and_long_to_read_is_found(number: str, around: str) -> None:
    assert has_wild_number(around.format(number).encode())


def test_numbers_of_every_day_and_texts_that_look_like_wild_ones_cost_no_walk() -> None:
    uid = b'{"uid":"5180eaa4-7e47-4e30-81eb-2135c8f2e9999","port":8080,"n":1e999,"hash":"e1234"}'

    assert not has_wild_number(uid)
