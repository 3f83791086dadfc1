"""Months of the history and the names of their partitions."""

from __future__ import annotations

import datetime as dt

from clusterinfo.postgres.admin.history import month_of, next_month, partition_month, partition_name


def test_months() -> None:
    assert next_month(dt.date(2026, 12, 1)) == dt.date(2027, 1, 1)
    assert month_of(dt.date(2026, 2, 28)) == dt.date(2026, 2, 1)


def test_a_partition_is_named_by_its_month() -> None:
    assert partition_month(partition_name(dt.date(2026, 11, 1))) == dt.date(2026, 11, 1)
    assert partition_month("resource_history_default") is None
