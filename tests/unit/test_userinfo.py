"""Hostile texts: the search for userinfo takes time in proportion to the text, whatever it is made of."""

from __future__ import annotations

import time
from itertools import product

import pytest

from clusterinfo.userinfo import JSON, TEXT, Notation, may_hold_userinfo, replace_userinfo

SMALL, LARGE = 16_000, 128_000
RATIO = LARGE / SMALL
MARGIN = 3.0
"""A square would make the ratio of the times eight times that of the sizes."""

STARTS = ["", "x://a:"]
UNITS = [
    "x", ":", "/", "//", "\\", "\\\\", "\\/", "\\\\n", "\\u0026", ":\\", "://", "://a:", "://a:p://", "://a:1/", "://a:,x",
    "://a:\\\\n", "://a\\u0026", "://a:@", "a://b:c@d,", "@", "@sha256:", "://@sha256:", "[0:", "://[0", "$(", "{{x}}",
    "://${x}", "://u:p/@h ",
]  # fmt: skip


def seconds(text: str, notation: Notation, times: int) -> float:
    """Processor time, the least of so many."""
    taken = []
    for _ in range(times):
        began = time.process_time()
        replace_userinfo(text, notation, lambda user, secret: "***@")
        taken.append(time.process_time() - began)
    return min(taken)


@pytest.mark.parametrize("notation", [JSON, TEXT], ids=["json", "text"])
@pytest.mark.parametrize("unit", UNITS)
def test_a_long_text_takes_no_longer_than_its_length_says(unit: str, notation: Notation) -> None:
    for start in STARTS:
        small, large = (f"{start}{unit * (size // len(unit))}@h" for size in (SMALL, LARGE))
        assert seconds(large, notation, 1) <= MARGIN * RATIO * max(seconds(small, notation, 3), 0.001), start


def test_what_is_not_scanned_has_nothing_to_hide() -> None:
    passed_over = 0
    for parts in product(UNITS, UNITS, UNITS):
        text = f'"{"".join(parts)}h"'
        if not may_hold_userinfo(text.encode()):
            passed_over += 1
            assert replace_userinfo(text, JSON, lambda user, secret: "***@") == text
    assert passed_over > 1000
