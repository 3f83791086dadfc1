"""What the statements of the merge decide, looked at directly: the class of each object, and how a chain is read.

Tables, since most of it shows in what is stored only when several things meet. `tests/model/missed.py` names these
tests beside the guards that they miss.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Mapping
from typing import Any

import asyncpg
import pytest

from clusterinfo.postgres.merge.bodies import IDENTITY_ONLY, SANITISED, STUB, WHOLE
from clusterinfo.postgres.merge.chain import RECORD_COLUMNS
from clusterinfo.postgres.merge.rows import parameters_of
from clusterinfo.postgres.merge.staging import ObjectRow
from clusterinfo.postgres.sql import statements

pytestmark = pytest.mark.embedded_only

NOON = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
EARLIER, LATER = NOON - MINUTE, NOON + MINUTE

Changes = dict[str, Any]
"""Columns in which a row is another than `SHOWN`."""

SHOWN = ObjectRow(1, "ns", "", "uid", "5", 0, 100, False, WHOLE, 1, b"A", NOON, NOON, None)
STORED = {"created": True, "valid_from": NOON, "first_observed_at": NOON}
"""What a row has besides; it was last observed when it says."""


@pytest.fixture
async def kinds(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Kinds 1 and 2, gone until noon; in a transaction."""
    async with connection.transaction():
        cluster = await connection.fetchval(
            "insert into cluster (uid, name, label, first_seen, last_seen) values ('c', 'c', 'c', $1, $1) returning id",
            NOON,
        )
        await connection.execute(
            "insert into unit (id, cluster_id, api_group, resource, gone_before) overriding system value"
            " values (1, $1, '', 'pods', $2), (2, $1, '', 'sets', $2)", cluster, NOON,
        )  # fmt: skip
        yield


async def _store(connection: asyncpg.Connection, name: str, **changes: Any) -> None:
    row = SHOWN._replace(name=name)._asdict() | STORED | changes
    row["last_observed_at"] = row.pop("seen_at")
    del row["observed_at"], row["reach"]
    values = ", ".join(f"${number + 1}" for number in range(len(row)))
    await connection.execute(f"insert into resource ({', '.join(row)}) values ({values})", *row.values())


# --- objects that a batch shows once ---------------------------------------------------------------------------------

NEWER: Changes = {"live_at": 200}
OLDER: Changes = {"live_at": 50}
ANOTHER: Changes = {"resource_version": "6"}
OTHER_HASH: Changes = {"content_hash": b"B"}
DELETED: Changes = {"deleted": True}
BETTER: Changes = {"normalization": 2}
WORSE: Changes = {"normalization": 0}
LISTED: Changes = {"reach": ""}

CLASSES: Mapping[str, tuple[Changes | None, Changes, str]] = {
    "nothing is stored": (None, {}, "new"),
    "gone by then": (None, {"seen_at": EARLIER}, "older"),
    # Later, the same version.
    "seen again": ({}, NEWER, "seen"),
    "under a later epoch": ({}, NEWER | {"epoch": 1}, "replaced"),
    "seen in a worse shape": ({}, NEWER | OTHER_HASH | WORSE, "seen"),
    "seen by its stub": ({}, NEWER | OTHER_HASH | {"fidelity": STUB}, "seen"),
    "another body of one version": ({}, NEWER | OTHER_HASH, "chain"),
    "more of a stub": ({"fidelity": STUB}, NEWER, "chain"),
    "more of what was refused": ({"fidelity": SANITISED}, NEWER, "seen"),
    "more of a bare identity": ({"fidelity": IDENTITY_ONLY}, NEWER, "seen"),
    "in a better shape": ({}, NEWER | OTHER_HASH | BETTER, "replaced"),
    "the same hash in a better shape": ({}, NEWER | BETTER, "replaced"),
    "another uid in a better shape": ({}, NEWER | OTHER_HASH | BETTER | {"uid": "other"}, "chain"),
    "a deletion in a better shape": (DELETED, NEWER | DELETED | OTHER_HASH | BETTER, "chain"),
    "named by a list": ({}, NEWER | LISTED, "listed"),
    "named by a list of that moment": ({}, LISTED, "listed"),
    "named by an older list": ({}, OLDER | LISTED, "older"),
    "named in another body": ({}, NEWER | LISTED | OTHER_HASH, "chain"),
    "named in another version": ({}, NEWER | LISTED | ANOTHER, "replaced"),
    # Later, another version.
    "changed": ({}, NEWER | ANOTHER | OTHER_HASH, "changed"),
    "touched": ({}, NEWER | ANOTHER, "replaced"),
    "another object": ({}, NEWER | ANOTHER | {"uid": "other"}, "chain"),
    "deleted": ({}, NEWER | ANOTHER | DELETED, "deleted"),
    "deleted at the version that was seen": ({}, NEWER | DELETED, "deleted"),
    "deleted twice": (DELETED, NEWER | ANOTHER | DELETED, "chain"),
    "back again": (DELETED, NEWER | ANOTHER, "reborn"),
    # As of the same moment.
    "sent again": ({}, {}, "known"),
    "observed later": ({}, {"seen_at": LATER}, "seen"),
    "sent again with less of it": ({}, {"fidelity": STUB}, "known"),
    "another look": ({}, OTHER_HASH, "chain"),
    "another look in a better shape": ({}, BETTER, "chain"),
    "two versions": ({}, ANOTHER | OTHER_HASH, "older"),
    "two versions alike": ({}, ANOTHER, "older"),
    # Older.
    "older": ({}, OLDER, "older"),
    "an older version": ({}, OLDER | ANOTHER | OTHER_HASH | BETTER, "older"),
    "older and better": ({}, OLDER | OTHER_HASH | BETTER, "chain"),
    "older and worse": ({}, OLDER | OTHER_HASH | WORSE, "older"),
    "older and another": ({}, OLDER | OTHER_HASH, "older"),
    "older and more of a stub": ({"fidelity": STUB}, OLDER, "chain"),
    "older and more of what was refused": ({"fidelity": SANITISED}, OLDER, "older"),
    "an older deletion in a better shape": (DELETED, OLDER | DELETED | BETTER, "older"),
    "deleted before": ({}, OLDER | DELETED | BETTER, "older"),
    "shown before its deletion": (DELETED, OLDER | BETTER, "older"),
}  # fmt: skip
"""What is shown -> what is stored of it, what a record shows, and the class it falls to."""


async def _merge(connection: asyncpg.Connection, *rows: ObjectRow) -> dict[str, tuple[int, Any, Any]]:
    """Class -> (count, places, times)."""
    found = await connection.fetch(statements()["merge_rows"], *parameters_of(rows))
    return {row["class"]: tuple(row)[1:] for row in found}


@pytest.mark.usefixtures("kinds")
async def test_an_object_is_new_above_the_floors_that_cover_it(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "insert into unit_floor (unit_id, reach, live_at) values"
        " (1, '', 40), (1, 'ns', 50), (1, 'other', 100), (2, '', 200), (2, 'ns', 100)"
    )
    above, below, elsewhere = (SHOWN._replace(name=str(at), live_at=at) for at in (100, 50, 45))
    found = await _merge(connection, above, below, elsewhere._replace(namespace="third"))
    assert {name: {*places} for name, (_, places, _) in found.items()} == {"new": {1, 3}, "older": {2}}


MANY = 200
NAMED_ALIKE = f"""
insert into unit (id, cluster_id, api_group, resource) overriding system value
select 1000 + i, cluster_id, 'many', i::text from unit, generate_series(1, {MANY}) i where id = 1;
insert into unit_floor (unit_id, reach) select id, '' from unit;
insert into resource (
    unit_id, namespace, name, uid, resource_version, epoch, live_at, fidelity, normalization, content_hash, created,
    valid_from, first_observed_at, last_observed_at)
select 1, case when i <= {MANY} then i::text else '' end, case when i <= {MANY} then 'default' else i::text end,
    'uid', '5', 0, 100, {WHOLE}, 1, 'A', true, now(), now(), now()
from generate_series(1, {20 * MANY}) i;
analyze resource, unit, unit_floor;
set local plan_cache_mode = force_generic_plan"""
READ = """
select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint from pg_stat_xact_user_tables
where schemaname = 'clusterinfo' and relname in ('resource', 'unit', 'unit_floor')"""


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.usefixtures("kinds")
async def test_of_each_object_its_row_is_read_and_of_each_kind_its_floor(
    connection: asyncpg.Connection, *, stored: bool
) -> None:
    """Whatever the planner makes of names that most objects have alone, and some in every namespace."""
    await connection.execute(NAMED_ALIKE)
    rows = [SHOWN._replace(unit_id=1 if stored else 2, namespace=str(i + 1), name="default") for i in range(MANY)]
    before = await connection.fetchval(READ)
    assert {*await _merge(connection, *rows)} == {"known" if stored else "new"}
    assert await connection.fetchval(READ) - before < 10 * MANY


@pytest.mark.usefixtures("kinds")
async def test_each_object_falls_to_its_class(connection: asyncpg.Connection) -> None:
    found = {}
    for name, (stored, changes, _) in CLASSES.items():
        if stored is not None:
            await _store(connection, name, **stored)
        found[name] = [*await _merge(connection, SHOWN._replace(name=name, **changes))]
    assert found == {name: [expected] for name, (_, _, expected) in CLASSES.items()}


REPLACED: Mapping[str, Changes] = {
    "changed": NEWER | ANOTHER | OTHER_HASH,
    "replaced": NEWER | ANOTHER,
    "deleted": NEWER | ANOTHER | DELETED,
    "reborn": NEWER | ANOTHER,
}


@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize("at", [EARLIER, LATER], ids=["earlier", "later"])
async def test_what_replaces_a_row_is_told_its_times(connection: asyncpg.Connection, at: dt.datetime) -> None:
    """Created, valid_from, first and last observed; nobody is told of what is not written."""
    shown = [SHOWN._replace(name=name, observed_at=at, seen_at=at, **changes) for name, changes in REPLACED.items()]
    for name in REPLACED:
        await _store(connection, name, deleted=name == "reborn", created=False)
    await _store(connection, "seen")
    shown += [SHOWN._replace(name="new", observed_at=LATER), SHOWN._replace(name="seen", live_at=200)]
    first, last = min(at, NOON), max(at, NOON)
    assert await _merge(connection, *shown) == {
        "changed": (1, [1], [(False, last, first, last)]),
        "replaced": (1, [2], [(False, NOON, first, last)]),
        "deleted": (1, [3], [(True, last, at, last)]),
        "reborn": (1, [4], [(True, last, at, last)]),
        "new": (1, [5], None),
        "seen": (1, None, None),
    }
    past = await connection.fetch(
        "select name, created, deleted, valid_from, valid_to, first_observed_at from resource_history order by 1"
    )
    assert [tuple(row) for row in past] == [
        ("changed", False, False, NOON, last, first),
        ("deleted", False, True, NOON, last, NOON),
    ]


# --- the chain: which records count ----------------------------------------------------------------------------------

COUNT: Mapping[str, tuple[Changes | None, Changes, bool]] = {
    name: (stored, changes, expected != "older")
    for name, (stored, changes, expected) in CLASSES.items()
} | {
    "older, more of what was refused, in a better shape": ({"fidelity": SANITISED}, OLDER | BETTER, True),
    "older, more of what was refused, another": ({"fidelity": SANITISED}, OLDER | OTHER_HASH, True),
}  # fmt: skip
"""As in `CLASSES`, and whether a chain has a place for it: for all that is not older."""


async def _begin(connection: asyncpg.Connection, shown: list[ObjectRow]) -> None:
    await connection.execute(statements()["begin_chain"])
    rows = [(place, *row[:-1]) for place, row in enumerate(shown)]
    await connection.copy_records_to_table("staged_record", records=rows, columns=RECORD_COLUMNS)


@pytest.mark.usefixtures("kinds")
async def test_a_chain_is_of_what_is_stored_and_of_what_is_not_older(connection: asyncpg.Connection) -> None:
    shown = [SHOWN._replace(name=name, **changes) for name, (_, changes, _) in COUNT.items()]
    for name, (stored, _, _) in COUNT.items():
        if stored is not None:
            await _store(connection, name, **stored)
    await _store(connection, "seen again", unit_id=2)
    await _store(connection, "seen again", namespace="elsewhere")
    await _begin(connection, shown)
    await connection.execute(statements()["stage_elements"])
    found = await connection.fetch("select unit_id, namespace, name, ord from staged_element order by name, ord")
    expected = [
        (1, "ns", name, ord_)
        for place, (name, (stored, _, counts)) in enumerate(COUNT.items())
        for ord_ in ([] if stored is None or not counts else [-1]) + ([place] if counts else [])
    ]
    assert sorted(tuple(row) for row in found) == sorted(expected)


# --- the chain: what goes together -----------------------------------------------------------------------------------

Links = list[tuple[Changes, tuple[int, int, int, int]]]

LINKS: Mapping[str, Links] = {
    "one element": [({}, (1, 1, 1, 1))],
    "seen again": [({}, (1, 1, 1, 1)), ({}, (1, 1, 1, 1))],
    "touched": [({}, (1, 1, 1, 1)), (ANOTHER, (2, 1, 1, 2))],
    "changed": [({}, (1, 1, 1, 1)), (ANOTHER | OTHER_HASH, (2, 2, 1, 2))],
    "another epoch": [({}, (1, 1, 1, 1)), ({"epoch": 1}, (2, 1, 1, 2))],
    "deleted at its version": [({}, (1, 1, 1, 1)), (DELETED, (2, 2, 2, 2))],
    "deleted, and back": [(DELETED, (1, 1, 1, 1)), ({}, (2, 2, 2, 2))],
    "deleted, and sent again": [(DELETED, (1, 1, 1, 1)), (DELETED, (1, 1, 1, 1))],
    "deleted twice": [(DELETED, (1, 1, 1, 1)), (DELETED | ANOTHER, (2, 1, 2, 2))],
    "deleted twice under two uids": [(DELETED, (1, 1, 1, 1)), (DELETED | ANOTHER | {"uid": "other"}, (2, 1, 2, 2))],
    "another object alike": [({}, (1, 1, 1, 1)), (ANOTHER | {"uid": "other"}, (2, 2, 2, 2))],
    "another uid of one version": [({}, (1, 1, 1, 1)), ({"uid": "other"}, (1, 1, 2, 1))],
    "another body": [({}, (1, 1, 1, 1)), (OTHER_HASH, (1, 1, 1, 2))],
    "a better shape": [({}, (1, 1, 1, 1)), (BETTER, (1, 1, 1, 2))],
    "less of it": [({}, (1, 1, 1, 1)), ({"fidelity": STUB}, (1, 1, 1, 1))],
    "more of a stub": [({"fidelity": STUB}, (1, 1, 1, 1)), ({}, (1, 1, 1, 2))],
    "more of what was refused": [({"fidelity": SANITISED}, (1, 1, 1, 1)), ({}, (1, 1, 1, 1))],
}  # fmt: skip
"""What is shown, one after the other -> (version_no, run_no, life_no, body_no) of each."""


async def _stage(connection: asyncpg.Connection, chains: Mapping[str, list[Changes]]) -> None:
    """Elements of chains, each seen a minute after the one before it."""
    await connection.execute(statements()["begin_chain"])
    elements = [
        SHOWN._replace(name=name, live_at=100 + place, observed_at=NOON + place * MINUTE)._replace(**changes)
        for name, chain in chains.items()
        for place, changes in enumerate(chain)
    ]
    rows = [(place, *row[:-1], False, row.observed_at, row.observed_at) for place, row in enumerate(elements)]
    await connection.copy_records_to_table("staged_element", records=rows)


async def test_elements_of_a_chain_are_linked(connection: asyncpg.Connection) -> None:
    async with connection.transaction():
        await _stage(connection, {name: [changes for changes, _ in links] for name, links in LINKS.items()})
        await connection.execute(statements()["link_elements"])
        rows = await connection.fetch("select * from staged_link order by ord")
    found: dict[str, list[tuple[int, ...]]] = {}
    for row in rows:
        found.setdefault(row["name"], []).append(tuple(row)[-4:])
    assert found == {name: [numbers for _, numbers in links] for name, links in LINKS.items()}


async def test_a_run_is_dated_by_the_first_that_shows_it(connection: asyncpg.Connection) -> None:
    """A deletion has no body."""
    chains: dict[str, list[Changes]] = {
        f"{n}": [{}, {}, {}, ANOTHER, ANOTHER, DELETED | ANOTHER, DELETED | ANOTHER] for n in range(6)
    }
    async with connection.transaction():
        await _stage(connection, chains)
        await connection.execute(statements()["link_elements"])
        await connection.execute(statements()["describe_runs"])
        found = await connection.fetch(
            "select deleted, body_ord, live_at, first_epoch, first_live_at from staged_run order by name, run_no"
        )
    for number, (run, tombstone) in enumerate(zip(found[::2], found[1::2], strict=True)):
        assert tuple(run) == (False, 7 * number + 3, 104, 0, 100)
        assert tuple(tombstone) == (True, -2, 106, 0, 105)
