"""What is tried of a body, and the less that is tried after a refusal."""

from __future__ import annotations

import pytest

from clusterinfo.model import Record
from clusterinfo.postgres.merge.bodies import SANITISED, STUB, WHOLE, Body, body_of, fidelity_of, repaired_body_of
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
