"""The pure parts of storing: bodies, statements, months."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import orjson
import pytest

from clusterinfo.model import Batch, RecordType
from clusterinfo.postgres import pool
from clusterinfo.postgres.admin import history
from clusterinfo.postgres.merge.jsonb_checks import is_suspect, sanitise
from clusterinfo.postgres.merge.staging import CLOCK, VERSION, UnitRow, news_of, stage
from clusterinfo.postgres.migrations import migrations
from clusterinfo.postgres.sql import statements
from tests.support.records import LANE, Listing


@pytest.mark.parametrize(
    ("body", "mended"),
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
def test_what_jsonb_refuses_is_mended_and_nothing_else(body: bytes, mended: bytes) -> None:
    assert sanitise(body) == mended
    assert is_suspect(body) or mended == body


def test_every_statement_is_used_and_every_use_is_a_statement() -> None:
    package = Path(pool.__file__).parent
    used = {
        name for file in package.rglob("*.py") for name in re.findall(r'statements\(\)\["(\w+)"\]', file.read_text())
    }
    assert used == set(statements())


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))


def test_months() -> None:
    assert history.next_month(dt.date(2026, 12, 1)) == dt.date(2027, 1, 1)
    assert history.month_of(dt.date(2026, 2, 28)) == dt.date(2026, 2, 1)
    assert history.partition_month(history.partition_name(dt.date(2026, 11, 1))) == dt.date(2026, 11, 1)
    assert history.partition_month("resource_history_default") is None


def _row(source: str = VERSION) -> UnitRow:
    return UnitRow(1, 1, "ConfigMap", "v1", True, source)


def _batch(*records: object) -> Batch:
    return Batch(lane=LANE, start=0, end=len(records), records=list(records))  # type: ignore[arg-type]


def test_a_unit_once_ordered_by_time_stays_so() -> None:
    news = news_of([Listing("100").item("a", "1")])
    (said,) = news.values()
    assert said.live_at_source == VERSION
    assert not said.changes(_row(CLOCK))
    assert said.live_at_source == CLOCK


def test_a_failed_list_says_nothing_about_versions() -> None:
    (said,) = news_of([Listing("100").failed(500, "x")]).values()
    assert said.live_at_source is None


@pytest.mark.parametrize(
    "body", [b"[]", b"not json", b"{}", b'{"count":"1","digest":"0"}', b'{"count":1,"digest":"x"}']
)
def test_a_completion_that_says_nothing_is_set_aside(body: bytes) -> None:
    listing = Listing("100")
    completion = listing.record(RecordType.LIST_COMPLETED, body)
    staged = stage(_batch(completion), {completion.unit: _row()})
    assert len(staged.dead_letters) == 1
    assert "list.completed" in staged.dead_letters[0].reason
    assert staged.dead_letters[0].value == body


def test_a_tally_adds_up() -> None:
    listing = Listing("100")
    records = [listing.item(name, "1") for name in "abc"]
    completion = listing.completed()
    staged = stage(_batch(*records, completion), {completion.unit: _row()})
    (tally,) = staged.tallies.values()
    said = orjson.loads(completion.body)
    assert (tally.count, tally.expected_count) == (3, 3)
    assert f"{tally.digest % 2**128:032x}" == said["digest"]
