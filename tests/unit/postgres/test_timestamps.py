"""Times as PostgreSQL sends and takes them."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterinfo.postgres import timestamps

LAST, FIRST = dt.datetime.max.replace(tzinfo=dt.UTC), dt.datetime.min.replace(tzinfo=dt.UTC)
ZONE = dt.timezone(dt.timedelta(hours=-9, minutes=-30))
KNOWN = {
    dt.datetime(2000, 1, 1, tzinfo=dt.UTC): "0000000000000000",
    dt.datetime(2000, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC): "0000000000000001",
    dt.datetime(1999, 12, 31, 14, 29, 59, 999999, tzinfo=ZONE): "ffffffffffffffff",
    LAST: "7fffffffffffffff",
    FIRST: "8000000000000000",
}


@pytest.mark.parametrize(("moment", "raw"), KNOWN.items())
def test_what_postgresql_sends(moment: dt.datetime, raw: str) -> None:
    assert timestamps.encode(moment).hex() == raw
    assert timestamps.decode(bytes.fromhex(raw)) == moment


@given(
    moment=st.datetimes(FIRST.replace(tzinfo=None, day=3), LAST.replace(tzinfo=None, day=29), timezones=st.just(ZONE))
)
def test_any_time_comes_back(moment: dt.datetime) -> None:
    found = timestamps.decode(timestamps.encode(moment))
    assert (found, found.tzinfo) == (moment, dt.UTC)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(TypeError):
        timestamps.encode(dt.datetime(2026, 11, 22))
